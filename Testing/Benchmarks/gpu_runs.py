"""Do all runs that need a GPU, one after the other; the same command continues. See ``gpu.md``.

    python Testing/Benchmarks/gpu_runs.py [--minutes 12] [--folder .benchmarks/gpu] [--keep FOLDER] [--wheels FOLDER]
    python Testing/Benchmarks/gpu_runs.py --quick --folder /tmp/gpu     # everything in small, on a CPU

The script needs torch, triton and this repository. The engine and two rows of the steps also need the packages of
nnU-Net, which it installs from ``--wheels`` into its folder without a network, if they are missing. Finished runs are
not repeated, measurements keep the rows that they have, and a training continues from its last checkpoint, so the same
command can be run whenever a GPU is available for a few minutes. The log of each run is ``<name>.log`` in the folder.
At the end, ``--keep`` copies logs, curves, models and results to another folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LOOP = ("-m", "classscale_training.loop")
SMALL = tuple(
    "--classes 5 --size 16 --features 4 8 --convolutions 1 1 --decoder-convolutions 1 --steps 4 --log-every 2 "
    "--evaluate-every 2 --device cpu".split()
)
NEEDED = ("nnunetv2", "SimpleITK", "psutil", "safetensors")  # by the engine


@dataclass(frozen=True)
class Run:
    """One run.

    :ivar name: name of the run and its log.
    :ivar arguments: arguments of Python.
    :ivar done: file that exists once the run is finished.
    :ivar stoppable: whether the run has an option ``--minutes`` and can be continued.
    :ivar most: minutes that one call gives it, so that the other runs have a turn.
    """

    name: str
    arguments: tuple[str, ...]
    done: Path
    stoppable: bool = False
    most: float = 60.0


def runs(folder: Path, quick: bool = False) -> list[Run]:
    """Return the runs, most important first; the trainings on heads only if their label maps are there.

    :param quick: in small and on the CPU, to show that everything is ready.
    """
    trainings = ["toy-1000"]
    if not quick and (ROOT / ".benchmarks" / "brain" / "label_maps.npz").exists():
        trainings = ["head-mr-312-further", *trainings, "head-mr-312-1mm"]
    measured = [_measurement("gpu_kernels", folder, quick, 3.0)]
    measured += [_measurement("gpu_step", folder, quick, 2.5, stoppable=True)]
    measured += [_measurement("gpu_engine", folder, quick, 6.0, "--work", str(folder / "engine"), stoppable=True)]
    return [*measured, *(_training(name, folder / name, quick) for name in trainings)]


def _measurement(name: str, folder: Path, quick: bool, most: float, *more: str, stoppable: bool = False) -> Run:
    small = ("--quick", "--device", "cpu") if quick else ()
    arguments = (str(HERE / f"{name}.py"), "--folder", str(folder), *small, *more)
    return Run(name, arguments, folder / f"{name}.json", stoppable, most)


def _training(preset: str, folder: Path, quick: bool) -> Run:
    arguments = (*LOOP, "--preset", preset, "--folder", str(folder), *(SMALL if quick else ()))
    return Run(preset, arguments, folder / "fold_0" / "checkpoint_final.pth", stoppable=True)


def execute(run: Run, folder: Path, minutes: float) -> bool:
    """Execute a run, write its output to its log, and return whether it is finished."""
    command, minutes = [sys.executable, *run.arguments], min(minutes, run.most)
    if run.stoppable:
        command += ["--minutes", f"{max(minutes - 0.5, 0.1):.2f}"]  # half a minute for start and evaluation
    folders = ROOT / "training", ROOT / "ClassScaleSeg", folder / "packages"
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    with open(folder / f"{run.name}.log", "a", encoding="utf-8") as log:
        try:
            subprocess.run(command, env=variables, cwd=ROOT, stdout=log, stderr=log, timeout=60 * minutes + 60)
        except subprocess.TimeoutExpired:
            return False
    return run.done.exists()


def install(wheels: Path, folder: Path) -> None:
    """Install all wheels of a folder into ``folder / "packages"``, without a network, unless that is done already.

    :raises SystemExit: if pip fails.
    """
    target = folder / "packages"
    if target.exists() or all(importlib.util.find_spec(name) for name in NEEDED):
        return
    temporary = folder / "packages.part"
    shutil.rmtree(temporary, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(temporary)]
    if subprocess.run([*command, *map(str, sorted(wheels.glob("*.whl")))]).returncode:
        raise SystemExit(f"The wheels in {wheels} cannot be installed; gpu.md says how to prepare them.")
    temporary.rename(target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12.0, help="time for all runs together (default: 12)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".benchmarks" / "gpu", help="working folder")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install if packages are missing")
    parser.add_argument("--quick", action="store_true", help="everything in small on the CPU, to show that it works")
    parser.add_argument("--keep", type=Path, help="folder to which the results are copied")
    options = parser.parse_args()
    folder, end = options.folder.resolve(), time.monotonic() + 60 * options.minutes
    folder.mkdir(parents=True, exist_ok=True)
    if options.wheels:
        install(options.wheels, folder)
    finished = True
    for run in runs(folder, options.quick):
        left = (end - time.monotonic()) / 60
        if run.done.exists():
            state = "done before"
        elif left < 1:
            state, finished = "no time left", False
        else:
            complete = execute(run, folder, left)
            finished, state = (
                finished and complete,
                "done" if complete else "not finished: see its log, then run this command again",
            )
        print(f"{run.name:>16}  {state}", flush=True)
    if options.keep:
        needless = shutil.ignore_patterns("engine", "packages*", "checkpoint_previous.pth")
        shutil.copytree(folder, options.keep / "runs", dirs_exist_ok=True, ignore=needless)
    return 0 if finished else 1


if __name__ == "__main__":
    sys.exit(main())
