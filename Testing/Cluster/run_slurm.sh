#!/bin/sh
# Run the queue SLURM on this machine for tests, with this machine as its one node:
#
#     Testing/Cluster/run_slurm.sh install            install Debian's slurm-wlm and munge, as root
#     Testing/Cluster/run_slurm.sh run COMMAND...     start SLURM, run the command with it, and stop it, as root
#     Testing/Cluster/run_slurm.sh cases [LENGTH]     segment 40 cases in jobs that SLURM kills in the middle of cases, then 40 in
#                                                     jobs that know their walltime; LENGTH of images as of cohort.py
#
# It has two partitions: jobs in "short" end after a minute, those in "long" after an hour. sinfo, sbatch and squeue find it by
# SLURM_CONF, which the command gets. Its ports are free ones of this machine, its files are in a temporary folder, and it is no
# service of the system. run and cases exit with 77 if SLURM is not installed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}

fail() {
    echo "run_slurm.sh: $1" >&2
    exit "${2:-1}"
}

free_ports() { # two free ports of this machine
    python3 - <<'END'
import socket
sockets = [socket.socket() for _ in range(2)]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in sockets))
END
}

start() { # all of SLURM's files are in $folder
    mkdir "$folder/state" "$folder/spool"
    mungekey --create --keyfile "$folder/munge.key"
    # munged, slurmctld and slurmd stay in the foreground, as children of this shell, so that it can end them; in sessions of their
    # own, so that Ctrl-C does not end them before their jobs
    setsid munged --foreground --force --key-file "$folder/munge.key" --socket "$folder/munge.socket" \
        --pid-file "$folder/munge.pid" --seed-file "$folder/munge.seed" --log-file "$folder/munge.log" >/dev/null 2>&1 &
    daemons=$!
    set -- $(free_ports)
    cat >"$folder/slurm.conf" <<END
ClusterName=classscaleseg
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$1
SlurmdPort=$2
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
# without systemd, cgroups and limits of users
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
PropagateResourceLimits=NONE
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# a job that reaches its time gets SIGTERM, and SIGKILL five seconds later
KillWait=5
MinJobAge=3600
ReturnToService=2
SchedulerParameters=sched_interval=5,bf_interval=5
NodeName=node NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$(free -m | awk '/^Mem:/ {print $2 - 1024}')
PartitionName=short Nodes=node MaxTime=1 Default=YES
PartitionName=long Nodes=node MaxTime=60
END
    setsid slurmctld -D >/dev/null 2>&1 &
    daemons="$daemons $!"
    setsid slurmd -D -N node >/dev/null 2>&1 &
    daemons="$daemons $!"
    for wait in $(seq 300); do
        if [ "$(sinfo --noheader --partition=short --format=%t 2>/dev/null)" = idle ]; then return; fi
        for pid in $daemons; do kill -0 "$pid" 2>/dev/null || break 2; done
        sleep 0.1
    done
    tail -n 20 "$folder"/*.log >&2
    fail "SLURM did not start. The ends of its logs are above."
}

stop() {
    trap - EXIT
    scancel --user=root --full --quiet 2>/dev/null || true
    for wait in $(seq 150); do
        [ -n "$(squeue --noheader 2>/dev/null)" ] || break
        sleep 0.1
    done
    for pid in $daemons; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$folder"
}

run() { # a command
    for program in munged slurmctld slurmd sbatch; do
        command -v "$program" >/dev/null ||
            fail "SLURM is not installed. Run Testing/Cluster/run_slurm.sh install as root." 77
    done
    [ "$(id -u)" = 0 ] || fail "SLURM starts jobs as other users. Run this as root."
    folder=$(mktemp -d)
    export SLURM_CONF="$folder/slurm.conf" # first of all, so that never another SLURM is meant
    daemons=
    trap stop EXIT
    trap 'exit 130' INT TERM
    start
    "$@"
}

cases() { # twice, by jobs that get SIGTERM after 60 to 90 seconds
    write_queue 'job_directives_skip: ["-t "]' # so the partition's limit, which nobody but SLURM knows
    count 40 killed "$1" || failed=1
    write_queue 'walltime: "00:01:00"'
    count 40 leaving "$1" || failed=1
    return "${failed:-0}"
}

write_queue() {
    cat >"$folder/slurm.yaml" <<END
queue: slurm
jobs: {minimum: 0, maximum: 2}
options:
  queue: short
  cores: 1
  memory: 4 GB
  $1
  scheduler_options: {host: 127.0.0.1}
END
    cat "$folder/slurm.yaml"
}

count() { # cases, name of their folder, length
    code=0
    "$python" "$here/cohort.py" "$folder/$2" --cluster "$folder/slurm.yaml" --cases "$1" --length "$3" || code=$?
    squeue --states=all --sort=i --format="%4i %10T %6M %r"
    scontrol show config | grep -E "^(KillWait|SLURM_VERSION)"
    return "$code"
}

case "${1:-} ${2:+MORE}" in
"install ")
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge
    # Debian starts services, which these tests do not use
    if [ -d /run/systemd/system ]; then systemctl disable --now munge slurmctld slurmd; fi
    ;;
"run MORE")
    shift
    run "$@"
    ;;
"cases " | "cases MORE")
    run cases "${2:-3}"
    ;;
*)
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
