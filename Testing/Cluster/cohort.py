"""Segment many cases by ``classscaleseg segment --cluster``, and check that none was lost, and none done twice in vain.

    python Testing/Cluster/cohort.py FOLDER --cluster WHERE --cases 40

makes generated images in FOLDER/cases, segments them into FOLDER/results, and prints what happened, from the ledger.
The exit code is 0 if every case has its result, the same as without a cluster, and each was done once, unless its
worker died.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

SAMPLE = Path(__file__).parents[2] / "Resources/SampleData/toy-1000.nrrd"
MODEL = "toy-1000"


def make_cases(folder: Path, count: int, length: int) -> None:
    """Write images that differ: the sample, so many times one behind another, each from another slice."""
    folder.mkdir(parents=True, exist_ok=True)
    sample = sitk.ReadImage(str(SAMPLE))
    voxels = np.concatenate([sitk.GetArrayFromImage(sample)] * length)
    for index in range(count):
        image = sitk.GetImageFromArray(np.roll(voxels, index, axis=0))
        image.SetSpacing(sample.GetSpacing())
        sitk.WriteImage(image, str(folder / f"case_{index:02d}.nii.gz"), useCompression=True)


def segment(images: Path, output: Path, *options: str) -> int:
    """Run the command on the CPU, and return its exit code."""
    command = [sys.executable, "-m", "ClassScaleSegLib", "segment", str(images), "-m", MODEL, "-o", str(output)]
    return subprocess.run([*command, "--device", "cpu", *options]).returncode


def read_events(results: Path) -> list[dict[str, Any]]:
    """Return the lines of the ledger."""
    return [json.loads(line) for line in (results / ".classscaleseg/cohort.jsonl").read_text("utf-8").splitlines()]


def tell(events: Sequence[dict[str, Any]]) -> None:
    """Print the deaths of workers, and where each case was done, with seconds since the beginning."""
    begin = datetime.fromisoformat(events[0]["at"])
    for event in events:
        if event["event"] in ("died", "failed"):
            seconds = (datetime.fromisoformat(event["at"]) - begin).total_seconds()
            print(f"{seconds:7.1f} s  {event['case']} {event['event']} on {event['host']}: {event['error']}")
    count = Counter(event["event"] for event in events)
    workers = Counter(event["worker"] for event in events if event["event"] == "running")
    hosts = Counter(event["host"] for event in events if event["event"] == "done")
    print(", ".join(f"{number} {name}" for name, number in count.items()))
    print(f"workers: {len(workers)}; cases done on: {', '.join(f'{host} {n}' for host, n in sorted(hosts.items()))}")
    seconds = sorted(event["seconds"] for event in events if event["event"] == "done")
    print(f"seconds of a case: {seconds[0]:.1f} to {seconds[-1]:.1f}, median {seconds[len(seconds) // 2]:.1f}")


def faults(folder: Path, count: int) -> list[str]:
    """Return what is wrong with the results, in sentences."""
    results = folder / "results"
    names = [f"case_{index:02d}" for index in range(count)]
    number = {kind: Counter[str]() for kind in ("running", "died", "done", "failed")}
    for event in read_events(results):
        if event["event"] in number:
            number[event["event"]][event["case"]] += 1
    found = [f"{name} has no result." for name in names if not (results / f"{name}.seg.nrrd").exists()]
    for name in names:
        begun, died, done = (number[kind][name] for kind in ("running", "died", "done"))
        if done != 1 or begun != died + 1:
            found.append(f"{name} was begun {begun} times and done {done} times, and {died} of its workers died.")
    known = {f"{name}.seg.nrrd" for name in names} | {".classscaleseg"}
    found += [f"{file} was left behind." for file in results.iterdir() if file.name not in known]
    if found:
        return found
    died = sorted(number["died"]) or names
    for name in dict.fromkeys([names[0], died[0], died[-1]]):
        file = f"{name}.seg.nrrd"
        segment(folder / "cases" / f"{name}.nii.gz", folder / "alone" / file, "--overwrite")
        if not np.array_equal(voxels_of(folder / "alone" / file), voxels_of(results / file)):
            found.append(f"{name} differs from what one machine alone makes of it.")
    return found


def voxels_of(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--length", type=int, default=3, help="of the images, as multiple of 64 slices")
    options, more = parser.parse_known_args()
    make_cases(options.folder / "cases", options.cases, options.length)
    code = segment(options.folder / "cases", options.folder / "results", "--cluster", options.cluster, *more)
    print(f"The command ended with {code}.", flush=True)
    tell(read_events(options.folder / "results"))
    found = faults(options.folder, options.cases)
    print(*(found or [f"All {options.cases} cases have their results, and each was done once."]), sep="\n")
    return 1 if code or found else 0


if __name__ == "__main__":
    sys.exit(main())
