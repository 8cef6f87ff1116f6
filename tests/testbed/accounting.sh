# shellcheck shell=bash disable=SC2154
# Slurm's accounting, so that sacct knows what jobs took: slurmdbd, and a MariaDB that nothing else uses.

write_slurmdbd_conf() {
    cat > "$place/slurm/slurmdbd.conf" << EOF
AuthType=auth/munge
DbdHost=$(hostname -s)
DbdAddr=$network.1
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
PidFile=$place/slurm/slurmdbd.pid
LogFile=$place/slurm/log/slurmdbd.log
EOF
    chmod 600 "$place/slurm/slurmdbd.conf" # slurmdbd wants that
}

# Reached by a socket in the testbed's folder, where root needs no password; no port, no settings of the machine's own.
start_database() {
    local folder=$place/accounting
    is_running "$folder/pid" mariadbd && return
    if [ ! -e "$folder/made" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        mariadb-install-db --no-defaults --user=root --datadir="$folder/data" --skip-test-db \
            --auth-root-authentication-method=socket > "$folder/log" 2>&1 || fail "no database could be made: $folder/log"
        touch "$folder/made"
    fi
    alone setsid mariadbd --no-defaults --user=root --datadir="$folder/data" --socket="$folder/socket" --pid-file="$folder/pid" \
        --skip-networking --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 \
        --log-error="$folder/log" > /dev/null 2>&1 < /dev/null &
    wait_for "mariadbd does not answer: $folder/log" [ -S "$folder/socket" ]
}

start_accounting() {
    export SLURM_CONF=$place/slurm/slurm.conf
    start_database
    if ! is_running "$place/slurm/slurmdbd.pid" slurmdbd; then
        write_slurmdbd_conf
        MYSQL_UNIX_PORT=$place/accounting/socket alone slurmdbd
        wait_for "slurmdbd does not answer: $place/slurm/log/slurmdbd.log" sacctmgr --noheader show cluster
    fi
    have cluster demos
    have account physics Description=testbed Organization=testbed
    local user
    for user in "${users[@]}"; do
        have user "$user" DefaultAccount=physics
    done
}

have() { # KIND NAME...: so that sacctmgr has it
    [ -n "$(sacctmgr --noheader --parsable2 show "$1" "$2")" ] \
        || sacctmgr --immediate --quiet add "$@" >> "$place/accounting/made"
}

stop_accounting() {
    stop "$place/slurm/slurmdbd.pid" slurmdbd
    stop "$place/accounting/pid" mariadbd
}

alone() { # COMMAND...: without files that happen to be open here, such as a lock of whoever has started this
    (
        for file in /proc/self/fd/*; do
            [ "${file##*/}" -le 2 ] || eval "exec ${file##*/}>&-"
        done
        exec "$@"
    )
}

wait_for() { # WHY COMMAND...: until the command succeeds
    local why=$1 tries
    shift
    for tries in $(seq 600); do
        "$@" > /dev/null 2>&1 && return
        sleep 0.1
    done
    fail "after $tries looks: $why"
}
