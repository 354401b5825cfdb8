"""A small atlas subject and two small individuals, and cases and options of the loop made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from classscale_training.data.brain import BrainCases, BrainOptions, BrainTables, LabelMaps
from classscale_training.loop.options import LoopOptions

PATCH = (16, 32, 16)
TABLES = BrainTables.read()


def number(name: str) -> int:
    return next(row.label for row in TABLES.structures if row.name == name)


def coarse(value: int) -> int:
    return [row.value for row in TABLES.coarse].index(value)


def ball(shape, centre, radius) -> np.ndarray:
    return sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre, strict=True)) < radius**2


@pytest.fixture(scope="module")
def maps() -> LabelMaps:
    """An atlas of two thalamic nuclei, putamina and a muscle; individuals with skin, bone, fluid, thalami, putamina."""
    shape = (40, 48, 44)
    atlas, person = np.zeros(shape, np.int16), np.zeros(shape, np.uint8)
    for value, radius in ((511, 22), (515, 18), (24, 15)):
        person[ball(shape, (20, 24, 22), radius)] = coarse(value)
    for x, side, fine, wide, lump in ((30, "left", 10, 12, 1), (14, "right", 49, 51, -1)):
        person[ball(shape, (20, 26, x), 5)] = coarse(fine)
        person[ball(shape, (20, 15, x), 4)] = coarse(wide)
        atlas[ball(shape, (20, 26, x), 5)] = number(f"{side} pulvinar")
        atlas[ball(shape, (20, 24, x + lump), 2)] = number(f"{side} dorsomedial thalamic nucleus")
        atlas[ball(shape, (20, 15, x), 4)] = number(f"{side} putamen")
    atlas[ball(shape, (4, 40, 22), 3)] = number("left masseter")
    identity = np.eye(4)[:3]
    centres = np.array([[20.0, 24.0, 22.0]] * 3)
    return LabelMaps(2.0, (atlas, person, person), centres, np.stack([identity] * 3))


@pytest.fixture(scope="module")
def file(maps, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("heads") / "maps.npz"
    maps.write(path, TABLES)
    return path


def cases(maps, **options) -> BrainCases:
    return BrainCases(maps, TABLES, BrainOptions(**{"patch": PATCH, "spacing": 4.0, **options}), 1000)


def loop_options(folder: Path, file: Path, **more) -> LoopOptions:
    size = {"features": (8, 12, 16), "convolutions": (1, 1, 1), "decoder_convolutions": (1, 1), "steps": 4}
    data = {"data": f"brain:{file}", "patch": PATCH, "spacing": 4.0, "present_only": True, "half_precision": True}
    log = {"log_every": 1, "evaluate_every": 2, "evaluation_cases": 1, "device": "cpu"}
    return LoopOptions(folder=folder, **{**size, **data, **log, **more})
