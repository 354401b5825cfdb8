#!/bin/sh
# Train on two machines by torchrun, kill the process of one, continue, and compare with one process, as root:
#
#     Testing/Cluster/run_two_trainers.sh
#
# The machines are network namespaces of this one, 10.77.0.2 and 10.77.0.3, which share its files. They train on the CPU, connected by
# gloo. The exit code is 0 if both ended within a minute after one was killed, and in the end weights and validation are those of one
# process; 77 if network namespaces are not allowed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/hosts.sh"
python=${PYTHON:-$here/../../.venv/bin/python}
folder=$(mktemp -d)
for part in raw preprocessed results; do
    mkdir "$folder/$part"
    export "nnUNet_$part=$folder/$part"
done
mkdir "$folder/shim"
export nnUNet_extTrainer="$folder/shim" nnUNet_n_proc_DA=1 nnUNet_def_n_proc=1 nnUNet_compile=f OMP_NUM_THREADS=1
export GLOO_SOCKET_IFNAME=eth0

stop() {
    trap - EXIT
    disconnect
    wait
    rm -rf "$folder"
}

begin() { # host, its number, options of train
    host=$1
    number=$2
    shift 2
    on "$host" "$python" -m torch.distributed.run --nnodes 2 --node_rank "$number" --nproc_per_node 1 --master_addr 10.77.0.2 \
        --master_port 29500 -m classscale_training.commands train 703 3d_fullres 0 -tr ClassScaleTrainer_test -device cpu "$@" \
        >"$folder/machine-$number.log" 2>&1 &
}

train() { # options of train
    begin a 0 "$@"
    first=$!
    begin b 1 "$@"
    second=$!
    code=0
    wait $first || code=$?
    wait $second || code=$?
}

tell() { # pattern of lines
    for number in 0 1; do
        echo "machine $number:"
        grep -hE "$1" "$folder/machine-$number.log" | sed 's/^ */    /' || true
    done
}

trap stop EXIT
trap 'exit 130' INT TERM
connect
"$python" "$here/two_trainers.py" prepare "$folder"

export KILL_IN_EPOCH=1
train
seconds=$(($(date +%s) - $(stat -c %Y "$folder/killed")))
echo "The process of machine 1 was killed; $seconds s later, both machines had ended, with exit code $code."
tell "has lost another|exitcode +:"
[ "$code" != 0 ] && [ "$seconds" -le 60 ] || fail "They should have ended with an error within a minute."

unset KILL_IN_EPOCH
train --c
echo "Continued with --c, they ended with exit code $code."
tell "Epoch 1|Mean Validation Dice"
[ "$code" = 0 ] || fail "$(tail -n 20 "$folder"/machine-?.log)"
"$python" "$here/two_trainers.py" check "$folder" >"$folder/check.log" 2>&1 || { cat "$folder/check.log"; exit 1; }
grep -E "^(weights|files|validation)" "$folder/check.log"
