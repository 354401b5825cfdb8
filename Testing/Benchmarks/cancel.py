"""Measure, at each stage, the seconds from cancelling a segmentation until its processes and its folder are gone.

    python Testing/Benchmarks/cancel.py

The embedded model segments the embedded sample. Python is started by a launcher, because `PythonSlicer` is one.
"""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import psutil
from ClassScaleSegLib import Options
from ClassScaleSegLib.process import Job, SegmentationProcess
from ClassScaleSegLib.process.process_tree import descendants, is_alive
from ClassScaleSegLib.resources import resource
from measure import Bar, parse, report

STAGES = ("start", "begin", "read", "preprocess", "segment", "decode", "write")


def cancelled(stage: str, launcher: Path) -> dict:
    image, model = resource("SampleData", "toy-120.nrrd"), resource("Models", "toy-120.zip")
    row: dict = {}

    def cancel(event) -> None:
        if stage not in (event.stage, event.kind) or row:
            return
        tree = [psutil.Process(process.pid), *descendants(process.pid)]
        begin = time.perf_counter()
        process.cancel()
        row.update(stage=stage, processes=len(tree), seconds=time.perf_counter() - begin)
        row["left"] = sum(map(is_alive, tree)) + process.work_folder.exists()

    with SegmentationProcess(python=str(launcher)) as process:
        options = Options(device="cpu", threads=1)
        process.job = Job((image,), model, process.work_folder / "out.seg.nrrd", options=options)
        process.start()
        process.wait(cancel)
    return row


def main() -> int:
    options = parse(__doc__, "cancel")
    launcher = options.root / "launcher"
    launcher.write_text(f'#!/bin/sh\n{shlex.quote(sys.executable)} "$@"\nexit $?\n')
    launcher.chmod(0o755)
    rows = [cancelled(stage, launcher) for stage in (STAGES[::3] if options.quick else STAGES)]
    bars = [
        Bar("seconds from cancelling to nothing left, at the slowest stage", max(row["seconds"] for row in rows), 2.0),
        Bar("processes and folders left", sum(row["left"] for row in rows), 0),
    ]
    return report(options, "cancel", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
