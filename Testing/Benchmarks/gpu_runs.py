"""Do all runs that need a GPU, one after the other; the same command continues. See ``gpu.md``.

    python Testing/Benchmarks/gpu_runs.py [--minutes 25] [--folder .benchmarks/gpu] [--keep FOLDER]

The script needs torch, triton and this repository. Finished runs are not repeated, and a training continues from its
last checkpoint, so the same command can be run whenever a GPU is available for a few minutes. The log of each run is
``<name>.log`` in the folder. At the end, ``--keep`` copies logs, curves, models and results to another folder.
"""

from __future__ import annotations

import argparse
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


@dataclass(frozen=True)
class Run:
    """One run.

    :ivar name: name of the run and its log.
    :ivar arguments: arguments of Python.
    :ivar done: file that exists once the run is finished.
    :ivar stoppable: whether the run has an option ``--minutes`` and can be continued.
    """

    name: str
    arguments: tuple[str, ...]
    done: Path
    stoppable: bool = False


def runs(folder: Path) -> list[Run]:
    """Return the runs, most important first; the training on heads only if their label maps are there."""
    trainings = ["toy-1000"]
    if (ROOT / ".benchmarks" / "brain" / "label_maps.npz").exists():
        trainings += ["head-mr-312-1mm"]
    kernels = Run("gpu_kernels", (str(HERE / "gpu_kernels.py"), "--folder", str(folder)), folder / "gpu_kernels.json")
    return [kernels, *(_training(name, folder / name) for name in trainings)]


def _training(preset: str, folder: Path) -> Run:
    arguments = (*LOOP, "--preset", preset, "--folder", str(folder))
    return Run(preset, arguments, folder / "fold_0" / "checkpoint_final.pth", stoppable=True)


def execute(run: Run, folder: Path, minutes: float) -> bool:
    """Execute a run, write its output to its log, and return whether it is finished."""
    command = [sys.executable, *run.arguments]
    if run.stoppable:
        command += ["--minutes", f"{max(minutes - 0.5, 0.1):.2f}"]  # half a minute for start and evaluation
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "training"), str(ROOT / "ClassScaleSeg")])}
    with open(folder / f"{run.name}.log", "a", encoding="utf-8") as log:
        try:
            subprocess.run(command, env=variables, cwd=ROOT, stdout=log, stderr=log, timeout=60 * minutes + 60)
        except subprocess.TimeoutExpired:
            return False
    return run.done.exists()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25.0, help="time for all runs together (default: 25)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".benchmarks" / "gpu", help="working folder")
    parser.add_argument("--keep", type=Path, help="folder to which the results are copied")
    options = parser.parse_args()
    folder, end = options.folder.resolve(), time.monotonic() + 60 * options.minutes
    folder.mkdir(parents=True, exist_ok=True)
    finished = True
    for run in runs(folder):
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
        shutil.copytree(folder, options.keep / "runs", dirs_exist_ok=True)
    return 0 if finished else 1


if __name__ == "__main__":
    sys.exit(main())
