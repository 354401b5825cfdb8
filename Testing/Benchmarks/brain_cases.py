"""Measure what making a case of the brain model costs on one CPU thread, part by part, and how it travels.

    python Testing/Benchmarks/brain_cases.py

On a GPU, the step of the brain model waited for its cases (47 % of the GPU were used): `--workers` processes make them.
The label maps here are two nested sets of balls of the size of a head; time does not depend on what they show. The
patches are those of the presets ``head-mr-312`` (2 mm) and ``head-mr-312-1mm``. The results are
``results/brain_cases.json``.

Batches come from these processes through shared memory, without pickling the voxels, and on a GPU they are pinned by a
thread and copied without waiting. What a process spends is therefore what is measured here.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from classscale_training.data.brain import BrainCases, BrainOptions, BrainTables, LabelMaps, synthesis
from classscale_training.data.brain import cases as cases_module
from classscale_training.loop.options import PRESETS
from measure import Bar, parse, report

# Before November 2026: milliseconds of the same parts, by this script on commit 7b0510d.
BEFORE = {
    "head-mr-312": (267.6, 28.0, 69.3, 44.6, 34.1, 67.0, 2.0, 22.7),
    "head-mr-312-1mm": (1905.5, 106.6, 461.5, 306.8, 167.6, 734.1, 10.0, 119.0),
}
PARTS = {
    "pose": (cases_module, "random_pose"),
    "labels": (synthesis.Pose, "labels"),
    "surroundings": (BrainCases, "_around"),
    "grey values": (cases_module, "paint"),
    "scanner": (cases_module, "degrade"),
    "normalising": (cases_module, "_normalized"),
}


def label_maps(tables: BrainTables, size: int) -> LabelMaps:
    """Return an atlas and two individuals, each a cube of ``size`` mm at 1 mm, filled by shells around its middle."""
    axes = np.ogrid[tuple(slice(-size // 2, size - size // 2) for _ in range(3))]
    radius = np.sqrt(sum(axis.astype(np.float32) ** 2 for axis in axes))
    classes, coarse = len(tables.names), len(tables.coarse)
    atlas = np.where(radius < 0.4 * size, radius * 3 % classes, 0).astype(np.int16)
    person = np.where(radius < 0.5 * size, radius * 3 % coarse, 0).astype(np.uint8)
    return LabelMaps(1.0, (atlas, person, person), np.full((3, 3), size / 2), np.stack([np.eye(4)[:3]] * 3))


@contextlib.contextmanager
def clocked(seconds: dict[str, float]) -> Iterator[None]:
    """Add the time that each of :data:`PARTS` takes to ``seconds``."""

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*arguments: Any, **options: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                seconds[part] += time.thread_time() - begin

        return wrapper

    with contextlib.ExitStack() as stack:
        for part, (owner, name) in PARTS.items():
            stack.enter_context(patch.object(owner, name, timed(part, getattr(owner, name))))
        yield


def milliseconds(cases: BrainCases, count: int) -> dict[str, float]:
    """Return the mean time of a case: the whole, its parts, and the rest."""
    cases[0]
    seconds: dict[str, float] = defaultdict(float)
    begin = time.thread_time()
    with clocked(seconds):
        for index in range(1, count + 1):
            cases[index]
    whole = time.thread_time() - begin
    row = {"case": whole, **{part: seconds[part] for part in PARTS}}
    row["rest"] = whole - sum(seconds.values())
    return {part: round(1000 * value / count, 1) for part, value in row.items()}


def main() -> int:
    options = parse(__doc__, "brain_cases")
    torch.set_num_threads(1)
    tables, rows = BrainTables.read(), []
    maps = label_maps(tables, 60 if options.quick else 180)
    for name, before in BEFORE.items():
        preset = PRESETS[name]
        size, spacing = ((16, 24, 16), 4.0) if options.quick else (preset["patch"], preset.get("spacing", 2.0))
        now = milliseconds(BrainCases(maps, tables, BrainOptions(size, spacing), 1000), 3 if options.quick else 12)
        told = {"preset": name, "patch": list(preset["patch"])}
        rows += [{**told, "when": "before", **dict(zip(now, before, strict=True))}, {**told, "when": "now", **now}]
    pairs = [(rows[index]["case"], rows[index + 1]["case"]) for index in range(0, len(rows), 2)]
    bars = [Bar("time of a case as a share of that before", max(now / before for before, now in pairs), 0.75)]
    return report(options, "brain_cases", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
