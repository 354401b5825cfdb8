#!/bin/sh
# Build the CPU image of the Containerfile with Podman, and check it:
#
#     Testing/Cluster/run_container.sh install            install Debian's podman, runc and mmdebstrap, as root
#     Testing/Cluster/run_container.sh check FOLDER       build and check with all files in FOLDER, a new one; then delete it
#
# check needs 6 GB in FOLDER, a network for the build, and root, because folders are mounted for other users. It exits with 77 if
# Podman is not installed. Environment variables:
#
#     BASE            image to build on; without it, one with Python 3.11 is made of Debian's packages
#     TORCH_INDEX     index that has torch and torchvision; without it, that of PyTorch, or pip's own if PyTorch's is out of reach
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
IMAGE=localhost/classscaleseg:check
NOBODY=12345:23456 # a user and a group whom the image does not know

fail() {
    echo "run_container.sh: $1" >&2
    exit "${2:-1}"
}

ok() {
    echo "ok: $1"
}

# Podman with a configuration of its own, which works as root in a container too, without systemd and the right to raise limits
configure() {
    [ -e /sys/fs/cgroup/cgroup.controllers ] && runtime=crun || runtime=runc
    [ -d /run/systemd/system ] && manager=systemd || manager=cgroupfs
    cat >"$folder/containers.conf" <<END
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "$manager"
runtime = "$runtime"
END
    cat >"$folder/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$folder/storage"
runroot = "$folder/run"
END
    export CONTAINERS_CONF="$folder/containers.conf" CONTAINERS_STORAGE_CONF="$folder/storage.conf" TMPDIR="$folder"
}

clean() {
    podman stop --all --time 1 >/dev/null 2>&1 || true
    podman rmi --all --force >/dev/null 2>&1 || true
    rm -rf "$folder"
}

# How pip is configured here, as a secret; the files and folders that it names are mounted for the build alone
pip_configuration() {
    python3 - "$folder/pip.conf" <<'END'
import pathlib, re, subprocess, sys

kept = ("cert", "extra-index-url", "find-links", "index-url", "proxy", "timeout", "trusted-host")
listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
found = dict(re.findall(r"^(?::env:|global)\.([\w-]+)='(.*)'$", listed.stdout, re.MULTILINE))
lines = [f"{name} = {found[name]}" for name in kept if name in found]
pathlib.Path(sys.argv[1]).write_text("\n".join(["[global]", *lines, ""]))
for word in " ".join(lines).split():
    path = pathlib.Path(word.removeprefix("file://"))
    path = path.parent if path.name == "simple" else path  # beside the pages of an index are its files
    if path.is_absolute() and path.exists():
        print(f"--volume={path}:{path}:ro")
END
}

torch_index() {
    python3 - <<'END'
import urllib.request
from pip._internal.models.index import PyPI

try:
    urllib.request.urlopen("https://download.pytorch.org/whl/cpu/torch/", timeout=10)
except OSError:
    print(PyPI.simple_url)
END
}

build() {
    git -C "$ROOT" ls-files -z --cached --others --exclude-standard | (cd "$ROOT" && xargs -0 cp --parents -t "$folder/context")
    mkdir -p "$folder/context/bundles"
    cp "$ROOT/Resources/Models/toy-120.zip" "$folder/context/bundles/baked.zip"
    if [ -z "${BASE:-}" ]; then
        mmdebstrap --quiet --variant=minbase --include=python3-pip,python3-venv bookworm "$folder/base.tar"
        BASE=localhost/base
        podman import --quiet "$folder/base.tar" "$BASE" >/dev/null
        rm "$folder/base.tar"
    fi
    volumes=$(pip_configuration)
    # shellcheck disable=SC2086 # several words
    podman build --network=host --secret id=pip,src="$folder/pip.conf" $volumes --build-arg BASE="$BASE" \
        --build-arg TORCH_INDEX="${TORCH_INDEX-$(torch_index)}" --build-arg REVISION="$(git -C "$ROOT" rev-parse HEAD)" \
        --file "$folder/context/Containerfile" --tag "$IMAGE" "$folder/context" >"$folder/log" 2>&1 ||
        { tail -n 20 "$folder/log" >&2; fail "The image cannot be built."; }
}

# Options of the image's containers: no network, nothing writable but a new /tmp and the mounted folders, a user without a name
run() {
    podman run --rm --network=none --read-only --passwd=false --user "$NOBODY" --env OMP_NUM_THREADS=1 "$@"
}

shell() {
    run --entrypoint sh "$IMAGE" -euc "$1"
}

check_contents() {
    podman images --format '{{.Size}}, in layers:' "$IMAGE"
    podman history --format '{{.Size}}  {{.CreatedBy}}' "$IMAGE" | grep -v '^0 B' | cut -c 1-110
    shell 'cd /opt/classscaleseg
        python -c "import torch; assert torch.version.cuda is None, torch.version.cuda"
        found=$(find lib \( -name tests -type d -o -iname "nvidia*" -o -name pip -o -name "*.whl" \) -print)
        [ -z "$found" ] || { echo "$found"; exit 1; }
        for program in gcc cc make git; do ! command -v "$program" || exit 1; done
        [ ! -e /run/secrets/pip ] && [ ! -e /etc/pip.conf ] && [ ! -e /source ]'
    ok "no CUDA, tests, pip, compilers, or configuration of the build"
    run --entrypoint python "$IMAGE" -c '
import importlib, pathlib, pkgutil
import ClassScaleSegLib
for module in pkgutil.walk_packages(ClassScaleSegLib.__path__, "ClassScaleSegLib."):
    if not module.name.startswith(("ClassScaleSegLib.scene", "ClassScaleSegLib.__main__")):
        importlib.import_module(module.name)
for name in ("bokeh.plotting", "dask_jobqueue", "highdicom", "matplotlib.pyplot", "pandas", "skimage.measure", "sklearn", "sympy"):
    importlib.import_module(name)
for name in ("LICENSE", "README.md"):
    assert pathlib.Path("/licenses/classscaleseg", name).is_file(), name'
    ok "every module of the library can be imported, and the licence is there"
}

check_runs() {
    run --workdir /tmp "$IMAGE" demo
    ok "the demo: read-only, without a network, as a user without a name"

    run "$IMAGE" models list | grep -q '^own-baked .* yours'
    run --volume "$folder/data:/data" "$IMAGE" segment cases -m own-baked -o results --report report --format .nii.gz
    [ "$(stat -c %u:%g "$folder/data/results/a.nii.gz")" = "$NOBODY" ] && [ -s "$folder/data/report/index.html" ]
    ok "a folder of cases, with a model of the image; the results belong to the user"

    run --volume "$folder/data:/data" --volume "$folder/models:/models:ro" "$IMAGE" \
        segment cases/a.nrrd -m /models/mounted.zip -o mounted.seg.nrrd
    ok "a mounted model"

    # as Apptainer does: the caller's own home, /tmp and current folder, with the caller's variables
    run --volume "$folder/home:$folder/home" --env HOME="$folder/home" --volume "$folder/data:$folder/data" \
        --volume "$folder/tmp:/tmp" --workdir "$folder/data" "$IMAGE" segment cases/a.nrrd -m toy-120 -o home.seg.nrrd
    ok "in folders of the caller, as with Apptainer"
}

check_cluster() {
    run --entrypoint dask "$IMAGE" scheduler --version
    data="--volume $folder/data:/data"
    # shellcheck disable=SC2086
    {
        run $data "$IMAGE" segment cases -m toy-120 -o local --cluster local:2
        run --detach --name check-scheduler --entrypoint dask "$IMAGE" scheduler --host 127.0.0.1 --port 8786
        podman_network=container:check-scheduler
        for worker in 1 2; do
            podman run --rm --detach --name "check-worker-$worker" --network="$podman_network" --read-only --passwd=false \
                --user "$NOBODY" $data --entrypoint dask "$IMAGE" \
                worker tcp://127.0.0.1:8786 --nthreads 1 --resources case=1
        done
        podman run --rm --network="$podman_network" --read-only --passwd=false --user "$NOBODY" $data "$IMAGE" \
            segment cases -m toy-120 -o remote --cluster tcp://127.0.0.1:8786
    }
    [ "$(find "$folder/data/local" "$folder/data/remote" -name '*.seg.nrrd' | wc -l)" = 12 ]
    ok "six cases on workers of one container, and on workers in containers of their own"
}

case "${1:-} ${2:+FOLDER}" in
"install ")
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mmdebstrap podman runc
    ;;
"check FOLDER")
    command -v podman >/dev/null || fail "Podman is not installed. Run Testing/Cluster/run_container.sh install as root." 77
    [ "$(id -u)" = 0 ] || fail "Run this as root."
    mkdir "$2"
    folder=$(cd "$2" && pwd)
    trap clean EXIT
    trap 'exit 130' INT TERM
    mkdir "$folder/context" "$folder/home" "$folder/models" "$folder/tmp" "$folder/data" "$folder/data/cases"
    for case in a b c d e f; do cp "$ROOT/Resources/SampleData/toy-120.nrrd" "$folder/data/cases/$case.nrrd"; done
    cp "$ROOT/Resources/Models/toy-120.zip" "$folder/models/mounted.zip"
    chown -R "$NOBODY" "$folder/home" "$folder/tmp" "$folder/data"
    configure
    build
    check_contents
    check_runs
    check_cluster
    ;;
*)
    sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
