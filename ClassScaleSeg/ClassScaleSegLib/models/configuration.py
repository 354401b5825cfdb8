"""The entries of one configuration in ``plans.json``: read, and checked as far as other checks need them."""

from __future__ import annotations

import itertools
import math
from typing import Any

from ..errors import ModelError
from .json_checks import numbers, short, whole

MAX_PATCH_VOXELS = 1 << 28
MIN_SPACING, MAX_SPACING = 1e-6, 1e6  # mm


def whole_plans(plans: dict) -> dict:
    """Return the plans with whole floats, such as 32.0, as the integers that nnU-Net needs."""
    plans = {key: whole(value) if key.startswith("transpose_") else value for key, value in plans.items()}
    configurations = plans.get("configurations")
    if isinstance(configurations, dict):
        plans["configurations"] = {name: _whole_entries(entries) for name, entries in configurations.items()}
    return plans


def _whole_entries(entries: Any) -> Any:
    """Return a configuration, its architecture or its options with whole floats as integers."""
    if not isinstance(entries, dict):
        return whole(entries)
    floats = ("spacing", "nonlin_kwargs", "norm_op_kwargs", "dropout_op_kwargs", "separate_z_anisotropy_threshold")
    return {key: value if key in floats else _whole_entries(value) for key, value in entries.items()}


def configuration_entries(plans: dict, name: str) -> dict:
    """Return the entries of a configuration, including inherited ones, after checking patch, spacing and axes.

    :param plans: as of :func:`whole_plans`.
    :raises ModelError: if there is no such configuration, or it cannot be used; the message names the entry.
    """
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict) or not all(isinstance(c, dict) for c in configurations.values()):
        raise ModelError("It has no object 'configurations': these are not plans of nnU-Net v2.")
    entries: dict = {}
    heirs: list[str] = []
    while name is not None:
        if not isinstance(name, str) or name not in configurations:
            raise ModelError(f"It has no configuration {name!r}, only {', '.join(configurations)[:200]}.")
        if name in heirs:
            raise ModelError(f"configuration {name} inherits from itself.")
        heirs.append(name)
        entries = {**configurations[name], **entries}
        name = configurations[name].get("inherits_from")
    _check_geometry(plans, entries)
    return entries


def _check_geometry(plans: dict, entries: dict) -> None:
    """Check patch, spacing and order of the axes."""
    patch: Any = entries.get("patch_size")
    patch_fits = _integers(patch) and len(patch) in (2, 3) and min(patch) > 0
    if not patch_fits or math.prod(patch) > MAX_PATCH_VOXELS:
        raise ModelError(
            f"patch_size {short(patch)} must be two or three whole numbers, at most {MAX_PATCH_VOXELS} voxels."
        )
    spacing = entries.get("spacing")
    if not numbers(spacing, len(patch)) or not MIN_SPACING <= min(spacing) <= max(spacing) <= MAX_SPACING:
        raise ModelError(f"spacing {short(spacing)} must be {len(patch)} positive numbers (mm).")
    forward: Any = plans.get("transpose_forward")
    backward: Any = plans.get("transpose_backward")
    if not _integers(forward) or forward not in [list(axes) for axes in itertools.permutations(range(3))]:
        raise ModelError(f"transpose_forward {short(forward)} is not a permutation of the axes 0, 1, 2.")
    if not _integers(backward) or backward != [forward.index(axis) for axis in range(3)]:
        raise ModelError(f"transpose_backward {short(backward)} is not the inverse of transpose_forward {forward}.")


def _integers(value: Any) -> bool:
    """Tell whether a value is a list of integers; true and false are none, although they equal 1 and 0."""
    return isinstance(value, list) and all(type(entry) is int for entry in value)
