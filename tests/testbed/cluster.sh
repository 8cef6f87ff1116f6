# shellcheck shell=bash disable=SC2154
# MUNGE, the network of the nodes, and Slurm's daemons (`accounting.sh` has those of its accounting).

is_running() { # FILE: whether the process whose number it has lives
    [ -s "$1" ] && kill -0 "$(cat "$1")" 2> /dev/null
}

stop() { # FILE: ends that process
    if is_running "$1"; then
        local number
        number=$(cat "$1")
        kill "$number" 2> /dev/null || true
        timeout 20 tail --pid="$number" -f /dev/null || kill -9 "$number" 2> /dev/null || true
    fi
    rm -f "$1"
}

start_munge() {
    is_running "$place/munged.pid" && return
    if munge -n > /dev/null 2>&1; then # the machine has one of its own
        return
    fi
    mkdir -p /run/munge /etc/munge /var/log/munge /var/lib/munge
    [ -s /etc/munge/munge.key ] || dd if=/dev/urandom bs=1 count=1024 of=/etc/munge/munge.key 2> /dev/null
    chown -R munge: /run/munge /etc/munge /var/log/munge /var/lib/munge
    chmod 755 /run/munge
    chmod 400 /etc/munge/munge.key
    runuser -u munge -- munged --force
    cp /run/munge/munged.pid "$place/munged.pid"
    munge -n | unmunge > /dev/null || fail "munged does not answer: /var/log/munge/munged.log"
}

stop_munge() {
    stop "$place/munged.pid"
}

make_network() {
    ip link show "$bridge" > /dev/null 2>&1 || ip link add "$bridge" type bridge
    # Not by a pipe into grep -q, which breaks it before all is said.
    [[ $(ip address show dev "$bridge") == *"$network.1/24"* ]] || ip address add "$network.1/24" dev "$bridge"
    ip link set "$bridge" up
    local number=10 node
    for node in "${nodes[@]}"; do
        number=$((number + 1))
        [ -e "/run/netns/$node" ] && continue
        ip netns add "$node"
        ip link add "to$node" type veth peer name eth0 netns "$node"
        ip link set "to$node" master "$bridge" up
        ip -n "$node" address add "$network.$number/24" dev eth0
        ip -n "$node" link set lo up
        ip -n "$node" link set eth0 up
        ip -n "$node" route add default via "$network.1"
    done
    local line
    line="$network.1 $(hostname)"
    grep -qF "$line" /etc/hosts || echo "$line # demos-testbed" >> /etc/hosts
    number=10
    for node in "${nodes[@]}"; do
        number=$((number + 1))
        grep -q "$network.$number " /etc/hosts || echo "$network.$number $node # demos-testbed" >> /etc/hosts
    done
}

remove_network() {
    local node
    for node in "${nodes[@]}"; do
        [ ! -e "/run/netns/$node" ] || ip netns delete "$node"
    done
    ! ip link show "$bridge" > /dev/null 2>&1 || ip link delete "$bridge"
    grep -v "# demos-testbed" /etc/hosts > "$place/hosts" 2> /dev/null && cat "$place/hosts" > /etc/hosts || true
}

write_slurm_conf() {
    mkdir -p "$place/slurm/state" "$place/slurm/log"
    cat > "$place/slurm/slurm.conf" << END
ClusterName=demos
SlurmctldHost=$(hostname)($network.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=10
StateSaveLocation=$place/slurm/state
SlurmctldPidFile=$place/slurm/slurmctld.pid
SlurmctldLogFile=$place/slurm/log/slurmctld.log
SlurmdPidFile=$place/slurm/%n.pid
SlurmdLogFile=$place/slurm/log/%n.log
SlurmdSpoolDir=$place/slurm/spool-%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=pmi2
ReturnToService=2
SlurmdTimeout=30
KillWait=5
MinJobAge=600
SchedulerParameters=sched_interval=2,bf_interval=2
JobRequeue=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$network.1
AccountingStorageEnforce=associations
JobAcctGatherType=jobacct_gather/linux
DefMemPerCPU=500
END
    local number=10 node
    for node in "${nodes[@]}"; do
        number=$((number + 1))
        echo "NodeName=$node NodeAddr=$network.$number CPUs=8 RealMemory=8000 State=UNKNOWN" >> "$place/slurm/slurm.conf"
    done
    echo "PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP" >> "$place/slurm/slurm.conf"
    echo "PartitionName=short Nodes=${nodes[0]} MaxTime=2 State=UP" >> "$place/slurm/slurm.conf"
}

start_slurm() {
    export SLURM_CONF=$place/slurm/slurm.conf
    [ -s "$SLURM_CONF" ] || write_slurm_conf
    start_accounting
    is_running "$place/slurm/slurmctld.pid" || slurmctld -f "$SLURM_CONF"
    local node
    for node in "${nodes[@]}"; do
        is_running "$place/slurm/$node.pid" && continue
        mkdir -p "$place/slurm/spool-$node"
        # Not by `ip netns exec`, which mounts /sys anew and hides the control groups.
        nsenter --net="/run/netns/$node" unshare --uts sh -c "hostname $node; exec slurmd -f '$SLURM_CONF' -N $node"
    done
    local tries
    for tries in $(seq 60); do
        [ "$(sinfo -h -p main -t idle,alloc,mix -o %D 2> /dev/null | paste -sd+ | bc 2> /dev/null || sinfo -h -p main -t idle -o %D)" = "${#nodes[@]}" ] && return
        sleep 0.5
    done
    fail "after $tries looks not all nodes are idle: sinfo -Nl, $place/slurm/log"
}

stop_slurm() {
    export SLURM_CONF=$place/slurm/slurm.conf
    if [ -s "$SLURM_CONF" ] && is_running "$place/slurm/slurmctld.pid"; then
        scancel --state=RUNNING,PENDING --quiet 2> /dev/null || true
    fi
    local node
    for node in "${nodes[@]}"; do
        stop "$place/slurm/$node.pid"
    done
    stop "$place/slurm/slurmctld.pid"
    stop_accounting
}

status() {
    export SLURM_CONF=$place/slurm/slurm.conf
    [ -s "$SLURM_CONF" ] || fail "it is not up: tests/testbed/testbed up"
    sinfo -Nl
}

write_environment() {
    cat > "$place/environment" << END
export SLURM_CONF=$place/slurm/slurm.conf
export DEMOS_TESTBED=$place
export DEMOS_SITE=$place/site.sh
export UCX_POSIX_USE_PROC_LINK=n
END
}
