# shellcheck shell=bash disable=SC2154
# MUNGE, the network of the nodes, and Slurm's daemons (`accounting.sh` has those of its accounting).

is_running() { # FILE PROGRAM: whether the process whose number it has lives, and none that has got its number since
    local stat
    [ -s "$1" ] && stat=$(cat "/proc/$(cat "$1")/stat" 2> /dev/null) && [[ $stat == *"($2) "[!Z]* ]]
}

stop() { # FILE PROGRAM: ends that process
    if is_running "$1" "$2"; then
        local number
        number=$(cat "$1")
        kill "$number" 2> /dev/null || true
        timeout 20 tail --pid="$number" -f /dev/null || kill -9 "$number" 2> /dev/null || true
    fi
    rm -f "$1"
}

start_munge() {
    is_running "$place/munged.pid" munged && return
    if munge -n > /dev/null 2>&1; then # the machine has one of its own
        return
    fi
    mkdir -p /run/munge /etc/munge /var/log/munge /var/lib/munge
    [ -s /etc/munge/munge.key ] || dd if=/dev/urandom bs=1 count=1024 of=/etc/munge/munge.key 2> /dev/null
    chown -R munge: /run/munge /etc/munge /var/log/munge /var/lib/munge
    chmod 755 /run/munge
    chmod 400 /etc/munge/munge.key
    alone runuser -u munge -- munged --force
    cp /run/munge/munged.pid "$place/munged.pid"
    munge -n | unmunge > /dev/null || fail "munged does not answer: /var/log/munge/munged.log"
}

stop_munge() {
    stop "$place/munged.pid" munged
}

make_network() {
    ip link show "$bridge" > /dev/null 2>&1 || ip link add "$bridge" type bridge || fail "no bridge can be made here"
    # Not by a pipe into grep -q, which breaks it before all is said.
    [[ $(ip address show dev "$bridge") == *"$network.1/24"* ]] || ip address add "$network.1/24" dev "$bridge"
    ip link set "$bridge" up
    local number=10 node
    for node in "${nodes[@]}"; do
        number=$((number + 1))
        if [[ $(ip -n "$node" address show dev eth0 2> /dev/null) != *"$network.$number/24"* ]]; then
            stop "$place/slurm/$node.pid" slurmd # in a namespace that nobody reaches any more
            ip netns delete "$node" 2> /dev/null || true
            ip link delete "to$node" 2> /dev/null || true
            ip netns add "$node" || fail "no network namespaces can be made here; all other tests run without"
            ip link add "to$node" type veth peer name eth0 netns "$node" || fail "no pair of network devices can be made here"
            ip -n "$node" address add "$network.$number/24" dev eth0
        fi
        # A test that was interrupted may have cut it off.
        ip link set "to$node" master "$bridge" up
        ip -n "$node" link set lo up
        ip -n "$node" link set eth0 up
        ip -n "$node" route replace default via "$network.1"
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
    local others
    others=$(grep -v "# demos-testbed" /etc/hosts) || true
    echo "$others" > /etc/hosts # which may be mounted, and cannot be replaced
}

format_slurm_conf() {
    cat << END
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
GresTypes=gpu
Licenses=geant4:2
END
    local number=10 node gpus
    for node in "${nodes[@]}"; do
        number=$((number + 1))
        # The last one has a GPU that is only counted: asked for, and given, it is as a real one. What needs none goes there
        # last: the parts of a heterogeneous job would else be given one node, and wait for one another.
        gpus=$([ "$node" = "${nodes[2]}" ] && echo 1 || echo 0)
        echo "NodeName=$node NodeAddr=$network.$number CPUs=8 RealMemory=8000 Gres=gpu:$gpus Weight=$((gpus + 1)) State=UNKNOWN"
    done
    echo "PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP"
    echo "PartitionName=gpu Nodes=${nodes[2]} MaxTime=60 State=UP"
    echo "PartitionName=short Nodes=${nodes[0]} MaxTime=2 State=UP"
}

start_slurm() {
    export SLURM_CONF=$place/slurm/slurm.conf
    mkdir -p "$place/slurm/state" "$place/slurm/log"
    format_slurm_conf > "$SLURM_CONF.new"
    if ! cmp --silent "$SLURM_CONF.new" "$SLURM_CONF"; then # there is none, or that of an older checkout
        stop_slurm
        mv "$SLURM_CONF.new" "$SLURM_CONF"
    fi
    echo "NodeName=${nodes[2]} Name=gpu File=/dev/null" > "$place/slurm/gres.conf"
    start_accounting
    if ! is_running "$place/slurm/slurmctld.pid" slurmctld; then
        slurmctld -f "$SLURM_CONF"
        cancel_jobs # that waited or ran when all of it ended
    fi
    local node
    for node in "${nodes[@]}"; do
        is_running "$place/slurm/$node.pid" slurmd && continue
        mkdir -p "$place/slurm/spool-$node"
        # Not by `ip netns exec`, which mounts /sys anew and hides the control groups.
        nsenter --net="/run/netns/$node" unshare --uts sh -c "hostname $node; exec slurmd -f '$SLURM_CONF' -N $node"
    done
    local tries
    for tries in $(seq 240); do
        for node in "${nodes[@]}"; do # one that was found wrong stays out until somebody says so
            [[ $(sinfo -h -n "$node" -t drain -o %n 2> /dev/null) == "" ]] || scontrol update NodeName="$node" State=RESUME
        done
        [ "$(sinfo -h -r -p main -t idle,alloc,mix -o %D 2> /dev/null | awk '{ n += $1 } END { print n }')" = "${#nodes[@]}" ] && return
        sleep 0.5
    done
    fail "after $tries looks not all nodes are idle: sinfo -Nl, $place/slurm/log"
}

cancel_jobs() {
    local state
    for state in PENDING RUNNING SUSPENDED; do
        scancel --quiet --state="$state" || true
    done
}

stop_slurm() {
    export SLURM_CONF=$place/slurm/slurm.conf
    if [ -s "$SLURM_CONF" ] && is_running "$place/slurm/slurmctld.pid" slurmctld; then
        cancel_jobs
        local tries
        for tries in $(seq 60); do # those of a node that is cut off stay
            [ -n "$(squeue --noheader 2> /dev/null)" ] || break
            [ "$tries" = 60 ] || sleep 0.5
        done
    fi
    local node
    for node in "${nodes[@]}"; do
        stop "$place/slurm/$node.pid" slurmd
    done
    stop "$place/slurm/slurmctld.pid" slurmctld
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
