# shellcheck shell=bash disable=SC2154
# This checkout, installed where every user of the testbed can run it; and where servers of several users are found.

# Installed anew when anything has changed: some of Python's files are compiled.
install_python() {
    local venv=$place/venv checkout sum
    checkout=$(cd "$here/../.." && pwd)
    sum=$(cd "$checkout" && find csrc demos_hpc pyproject.toml meson.build meson.options -type f ! -name '*.pyc' -exec sha256sum {} + \
        | sort | sha256sum)
    if [ ! -x "$venv/bin/demos-hpc" ] || [ "$(cat "$venv/sum" 2> /dev/null)" != "$sum" ]; then
        [ -x "$venv/bin/pip" ] || /usr/bin/python3 -m venv "$venv" || fail "/usr/bin/python3 makes no venv"
        "$venv/bin/pip" uninstall -q -y demos-hpc > "$place/pip.log" 2>&1 # of an older checkout, maybe
        "$venv/bin/pip" install -q "${checkout}[check,mpich]" >> "$place/pip.log" 2>&1 || fail "pip install failed: $place/pip.log"
        echo "$sum" > "$venv/sum"
    fi
    chmod -R go+rX "$venv"
    mkdir -p "$place/registry" && chmod 1777 "$place/registry"
    write_site
}

# What an operator would write, and who may call whose models.
write_site() {
    cat > "$place/site.sh" << END
# shellcheck shell=bash
export PATH=$place/venv/bin:\$PATH
export DEMOS_REGISTRY=$place/registry
export DEMOS_ACCESS_FILE=$place/access.toml
# The nodes have one kernel, and are told to behave as if they had not.
export UCX_TLS=tcp,self UCX_NET_DEVICES=eth0
SITE_LAUNCHER=mpich # Slurm 22.05's pmi2 loses words of MPICH 5 every now and then
END
    cat > "$place/access.toml" << END
[[rule]]
users = ["${users[0]}", "${users[1]}"]
allow = ["read"]

[[rule]]
users = ["${users[0]}"]
allow = ["write", "operate"]
END
}
