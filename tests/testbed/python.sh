# shellcheck shell=bash disable=SC2154
# This checkout, installed where every user of the testbed can run it; and where servers of several users are found.

# Installed anew when compiled parts or what is required have changed. Python's files are copied each time.
install_python() {
    local venv=$place/venv checkout sum
    checkout=$(cd "$here/../.." && pwd)
    sum=$(find "$checkout/csrc" "$checkout/pyproject.toml" "$checkout/meson.build" -type f -exec sha256sum {} + | sort | sha256sum)
    if [ ! -x "$venv/bin/demos-hpc" ] || [ "$(cat "$venv/sum" 2> /dev/null)" != "$sum" ]; then
        [ -x "$venv/bin/pip" ] || /usr/bin/python3 -m venv "$venv" || fail "/usr/bin/python3 makes no venv"
        "$venv/bin/pip" install -q "$checkout[check,mpich]" > "$place/pip.log" 2>&1 || fail "pip install failed: $place/pip.log"
        echo "$sum" > "$venv/sum"
    fi
    cp -r "$checkout/demos_hpc/." "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/demos_hpc/"
    chmod -R go+rX "$venv"
    mkdir -p "$place/registry" && chmod 1777 "$place/registry"
}
