"""Everything that waits for a GPU, one after the other, resumable: see ``gpu.md``.

    python Testing/Benchmarks/gpu_runs.py [--minutes 25] [--folder .benchmarks/gpu] [--keep FOLDER]

Needs torch, triton and this repository. Runs that are finished are not run again, and a training goes on from its last
checkpoint, so the same command can be called as often as there is a GPU for a few minutes. Each run's own log is
``<name>.log`` in the folder. ``--keep`` copies logs, curves, models and results there at the end.
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
    """:ivar done: a file that exists once it is finished, in the folder or, if absolute, anywhere.

    :ivar stoppable: whether it takes ``--minutes`` and goes on from there.
    """

    name: str
    arguments: tuple[str, ...]
    done: Path
    stoppable: bool = False


def runs(folder: Path) -> list[Run]:
    """The list, most wanted first; heads if their label maps were prepared and came along."""
    trainings = ["toy-1000"]
    if (ROOT / ".benchmarks" / "brain" / "label_maps.npz").exists():
        trainings += ["head-mr-312-1mm"]
    kernels = Run("gpu_kernels", (str(HERE / "gpu_kernels.py"), "--folder", str(folder)), folder / "gpu_kernels.json")
    return [kernels, *(_training(name, folder / name) for name in trainings)]


def _training(preset: str, folder: Path) -> Run:
    arguments = (*LOOP, "--preset", preset, "--folder", str(folder))
    return Run(preset, arguments, folder / "fold_0" / "checkpoint_final.pth", stoppable=True)


def execute(run: Run, folder: Path, minutes: float) -> bool:
    """Whether it is finished now; what it prints goes to its log."""
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
    parser.add_argument("--minutes", type=float, default=25.0, help="time there is, for all together")
    parser.add_argument("--folder", type=Path, default=ROOT / ".benchmarks" / "gpu")
    parser.add_argument("--keep", type=Path, help="folder to copy what was made to")
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
            finished, state = finished and complete, "done" if complete else "not finished: see its log, call again"
        print(f"{run.name:>16}  {state}", flush=True)
    if options.keep:
        shutil.copytree(folder, options.keep / "runs", dirs_exist_ok=True)
    return 0 if finished else 1


if __name__ == "__main__":
    sys.exit(main())
