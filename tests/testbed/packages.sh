# shellcheck shell=bash disable=SC2154
# What Debian has; names of packages, and of a program of each that tells whether it is there.

wanted=(
    slurmctld:slurmctld slurmd:slurmd slurm-client:sbatch munge:munged iproute2:ip util-linux:nsenter
    slurmdbd:slurmdbd mariadb-server-core:mariadbd mariadb-client-core:my_print_defaults
    mmdebstrap:mmdebstrap squashfs-tools:mksquashfs squashfuse:squashfuse fuse2fs:fuse2fs
    fuse-overlayfs:fuse-overlayfs uidmap:newuidmap fakeroot:fakeroot patchelf:patchelf shellcheck:shellcheck
)

# By which Debian starts no services: they are ours to start. What was there is kept beside it meanwhile.
policy=/usr/sbin/policy-rc.d no_services=$'#!/bin/sh\n# demos-testbed\nexit 101'

forbid_services() {
    [ ! -e "$policy" ] || mv "$policy" "$policy.before"
    echo "$no_services" > "$policy" && chmod +x "$policy"
}

allow_services() { # as before, also where a run was killed after it forbade them
    [ "$(cat "$policy" 2> /dev/null)" != "$no_services" ] || rm "$policy"
    [ ! -e "$policy.before" ] || mv "$policy.before" "$policy"
}

install_packages() {
    local missing=() pair status=0
    allow_services
    for pair in "${wanted[@]}"; do
        type "${pair#*:}" > /dev/null 2>&1 || missing+=("${pair%:*}")
    done
    /usr/bin/python3 -c 'import ensurepip' 2> /dev/null || missing+=(python3-venv)
    /usr/bin/python3 -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2> /dev/null \
        || missing+=(python3-dev)
    [ ${#missing[@]} = 0 ] && return
    apt-get -qq update
    forbid_services
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" > "$place/apt.log" 2>&1 \
        || status=$?
    allow_services
    [ "$status" = 0 ] || fail "apt-get install ${missing[*]} failed: $place/apt.log"
}

# Users that submit jobs, one for each kind of test.
make_users() {
    local user
    for user in "${users[@]}"; do
        id "$user" > /dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
    done
}
