"""The fifteen heads of MICCAI 2012, segmented in two ways: what differs, and the Dice to structures drawn by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from classscale_training.evaluation.dice import case_dice, mean_over_cases
from ClassScaleSegLib.images.counts import overlap_counts
from measure import DATA
from miccai2012 import EMBEDDED, shared_structures
from raw_datasets import labels_of, people


def two_ways(ways: Mapping[str, Callable[[Path], np.ndarray]], most: int | None = None) -> list[dict[str, Any]]:
    """Compare two ways to segment a head with the classes of head-mr-312.

    :param ways: by name, a function from an image file to labels of these classes, on the grid of the image.
    :param most: number of heads; all fifteen if not given.
    :returns: a row for deep structures and one for the cortex: ``differ``, the share of voxels with another label,
        ``dice of NAME``, the mean over structures and heads, and the largest change of the mean of one structure.
    """
    folder = DATA / "miccai2012"
    names, _cases = people(folder, 1)
    table, theirs, ours = shared_structures({name: value for value, name in names.items()}, EMBEDDED)
    theirs = np.pad(theirs, (0, 1000))  # labels that are not scored belong to no structure
    counts: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    differ = []
    for file in sorted(folder.glob("*_t1.nii.gz"))[:most]:
        reference = theirs[labels_of(file.with_name(file.name.replace("_t1", "_labels")))[0]]
        found = {name: segmented(file) for name, segmented in ways.items()}
        one, other = found.values()
        differ.append((one != other).mean())
        for name, labels in found.items():
            counts[name].append(overlap_counts(reference, ours[labels], len(table) + 1)[:, 1:])
    dice = {name: mean_over_cases(case_dice(np.array(counted))) for name, counted in counts.items()}
    kinds = np.array([row["kind"] for row in table])
    one, other = dice.values()
    return [
        {
            "what": f"{len(differ)} real heads, {(kinds == kind).sum()} {kind} structures",
            "differ": float(np.mean(differ)),
            **{f"dice of {name}": round(float(values[kinds == kind].mean()), 4) for name, values in dice.items()},
            "largest change of a structure": round(float(abs(other - one)[kinds == kind].max()), 4),
        }
        for kind in ("deep", "cortex")
    ]
