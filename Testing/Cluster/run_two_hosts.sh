#!/bin/sh
# Segment cases on two hosts, one of which is cut off in the middle of a case and joined again later, as root:
#
#     Testing/Cluster/run_two_hosts.sh [SECONDS [LENGTH]]
#
# The hosts are network namespaces of this machine with addresses of their own, which nothing outside can reach: 10.77.0.1 has the
# scheduler and the command, 10.77.0.2 and 10.77.0.3 a worker each. SECONDS is Dask's setting comm.timeouts.tcp, 30 by default, and
# LENGTH that of the images, as of cohort.py. The exit code is 0 if no case was lost or done twice, 77 if network namespaces are not
# allowed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/hosts.sh"
python=${PYTHON:-$here/../../.venv/bin/python}
cases=4
length=${2:-48}
export DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP="${1:-30}s"

stop() {
    trap - EXIT
    for pid in $loops; do kill "$pid" 2>/dev/null || true; done
    disconnect
    wait
    rm -rf "$folder"
}

work() { # host, address: a worker, and a new one whenever it ends
    while :; do
        on "$1" "$python" -m distributed.cli.dask_worker tcp://10.77.0.1:8786 --name "$1" --host "$2" --nthreads 1 \
            --resources case=1 --no-dashboard || true
        sleep 1
    done >"$folder/worker-$1.log" 2>&1
}

say() { echo "$(($(date +%s) - begin)) s: $1"; }

until_ledger() { # event, pattern of the rest of its line
    until grep -q "\"event\": \"$1\".*$2" "$ledger" 2>/dev/null; do
        kill -0 "$command" 2>/dev/null || fail "The command ended too early."
        sleep 0.2
    done
}

folder=$(mktemp -d)
ledger=$folder/cohort/results/.classscaleseg/cohort.jsonl
loops=
trap stop EXIT
trap 'exit 130' INT TERM
connect
on head "$python" -m distributed.cli.dask_scheduler --host 10.77.0.1 --port 8786 --no-dashboard >"$folder/scheduler.log" 2>&1 &
work a 10.77.0.2 &
loops=$!
work b 10.77.0.3 &
loops="$loops $!"
until [ "$(grep -c "Register worker" "$folder/scheduler.log")" = 2 ]; do sleep 0.2; done

on head "$python" "$here/cohort.py" "$folder/cohort" --cluster tcp://10.77.0.1:8786 --cases $cases --length "$length" &
command=$!
begin=$(date +%s)
until_ledger running host-b
sleep 3
ip -n $name-head link set to-b down
begin=$(date +%s)
say "host-b is cut off"
until grep -q "Remove worker .* name: b" "$folder/scheduler.log"; do sleep 0.2; done
say "the scheduler counts its worker as dead"
until_ledger died host-b
say "its case is begun on host-a"
sleep 10
ip -n $name-head link set to-b up
say "host-b is joined again"
code=0
wait "$command" || code=$?
echo "The scheduler:"
grep -oE "[0-9:]{8},.*(Register|Remove) worker addr: [^(]*" "$folder/scheduler.log" || true
echo "The worker of host-b:"
grep -oE "[0-9:]{8},.*(Registered to|Connection to|Reason:|still alive|was killed).*" "$folder/worker-b.log" | cut -c1-150
exit $code
