# shellcheck shell=bash disable=SC2154
# What Debian has; names of packages, and of a program of each that tells whether it is there.

wanted=(
    slurmctld:slurmctld slurmd:slurmd slurm-client:sbatch munge:munged iproute2:ip util-linux:nsenter
    slurmdbd:slurmdbd mariadb-server-core:mariadbd mariadb-client-core:my_print_defaults
    mmdebstrap:mmdebstrap squashfs-tools:mksquashfs squashfuse:squashfuse fuse2fs:fuse2fs
    fuse-overlayfs:fuse-overlayfs uidmap:newuidmap fakeroot:fakeroot patchelf:patchelf shellcheck:shellcheck
)

install_packages() {
    local missing=() pair
    for pair in "${wanted[@]}"; do
        type "${pair#*:}" > /dev/null 2>&1 || missing+=("${pair%:*}")
    done
    /usr/bin/python3 -c 'import ensurepip' 2> /dev/null || missing+=(python3-venv)
    [ ${#missing[@]} = 0 ] && return
    apt-get -qq update
    # Their services are ours to start.
    local policy=/usr/sbin/policy-rc.d before="" ours=$'#!/bin/sh\n# demos-testbed\nexit 101'
    [ ! -e "$policy" ] || before=$(cat "$policy")
    [ "$before" != "$ours" ] || before="" # of a run that was interrupted
    echo "$ours" > "$policy" && chmod +x "$policy"
    local status=0
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" > "$place/apt.log" 2>&1 \
        || status=$?
    if [ -n "$before" ]; then echo "$before" > "$policy"; else rm -f "$policy"; fi
    [ "$status" = 0 ] || fail "apt-get install ${missing[*]} failed: $place/apt.log"
}

# Users that submit jobs, one for each kind of test.
make_users() {
    local user
    for user in "${users[@]}"; do
        id "$user" > /dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
    done
}
