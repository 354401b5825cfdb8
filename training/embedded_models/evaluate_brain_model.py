"""Evaluate a brain model: each structure on unseen synthesised heads, coarse sets of structures on unseen individuals.

    python training/embedded_models/evaluate_brain_model.py Resources/Models/head-mr-312.zip
    python training/embedded_models/evaluate_brain_model.py .benchmarks/brain/run --checkpoint latest  # while training

The heads of the atlas subject are new deformations with new grey values, surrounded by an individual that training
never sees. Individuals 11 to 14 are new anatomies, labelled with the sets of structures that they annotate. All images
are whole heads at the model's spacing. Our engine segments them like any other image, window by window. The results are
written as JSON, whether they are good or bad.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classscale_training.data.brain import IGNORE_INDEX, BrainCases, BrainOptions, BrainTables
from classscale_training.evaluation.dice import case_dice, foreground_mean, mean_of_known, mean_over_cases, pooled_dice
from classscale_training.files import write_json
from ClassScaleSegLib import Model, open_model, segment
from ClassScaleSegLib.images.counts import overlap_counts
from embedded_models import BRAIN, CHECKPOINT, LABEL_MAPS, option, picture, run

FIELD_OF_VIEW = (224.0, 256.0, 192.0)  # mm, z y x, around the middle of the brain
LEAST_VOXELS = 125  # smallest structure that counts in the mean Dice
# Groups of coarse sets by the name under which their Dice is reported. The inner lists are united to one structure
# (ventricles); the outer list is averaged (left and right).
BARS = {
    "thalamus": [["left thalamus"], ["right thalamus"]],
    "caudate": [["left caudate"], ["right caudate"]],
    "putamen": [["left putamen"], ["right putamen"]],
    "ventricles": [
        [f"{side} {part}lateral ventricle" for side in ("left", "right") for part in ("", "inferior ")]
        + ["third ventricle", "fourth ventricle"]
    ],
    "brain stem": [["brain stem"]],
    "cerebellum": [[f"{side} cerebellar {part}" for side in ("left", "right") for part in ("cortex", "white matter")]],
    "cerebral white matter": [["cerebral white matter"]],
}
OPTIONS = {
    "model": {"type": Path, "help": "a bundle, or the folder of a training"},
    "--checkpoint": CHECKPOINT,
    "--label-maps": LABEL_MAPS,
    "--heads": option("number of heads of the atlas subject", 8),
    "--each": option("number of images of each individual", 2),
    "--seed": option("seed of the training; the cases are those of seed + 1", 0),
    "--output": option("JSON file to write", BRAIN / "evaluation.json"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 after an error."""
    return run(__doc__, OPTIONS, _evaluate, arguments)


def _evaluate(options: argparse.Namespace) -> str:
    model = open_model(options.model, checkpoint=options.checkpoint)
    spacing = float(model.configuration.spacing[0])
    cases = BrainCases.read(options.label_maps, BrainOptions(spacing=spacing, seed=options.seed), 0)
    result = evaluate(model, cases, options.heads, options.each)
    result |= {"model": options.model.name, "checkpoint": options.checkpoint, "machine": machine()}
    write_json(options.output, result)
    summary = {key: result["atlas"][key] for key in ("dice", "pooled_dice", "non_empty")}
    return json.dumps(summary | {name: row["dice"] for name, row in result["individuals"]["bars"].items()})


def evaluate(model: Model, cases: BrainCases, heads: int, each: int) -> dict[str, Any]:
    """Return the figures of ``heads`` images of the atlas subject and ``each`` images of each unseen individual."""
    tables, held_out = cases.tables, cases.maps.validation
    begin = time.monotonic()
    atlas = [overlap_counts(*both_maps(model, cases, index, 0), len(tables.names)) for index in range(heads)]
    individuals = [
        confusion(*both_maps(model, cases, 1000 + index, subject), tables)
        for subject in held_out
        for index in range(each)
    ]
    return {
        "spacing_mm": cases.options.spacing,
        "atlas": {"cases": heads, **structure_figures(np.stack(atlas), structure_voxels(cases), tables)},
        "individuals": {"cases": len(individuals), "of": list(held_out), **set_figures(np.stack(individuals), tables)},
        "seconds": round(time.monotonic() - begin),
    }


def both_maps(model: Model, cases: BrainCases, index: int, subject: int) -> tuple[np.ndarray, np.ndarray]:
    """Return reference and prediction ``(N,)`` at the voxels that count. The reference of an individual holds sets."""
    shape = tuple(round(side / cases.options.spacing / 16) * 16 for side in FIELD_OF_VIEW)
    image, labels = cases.unseen(index, subject, shape)
    reference, predicted = labels.numpy(), segment(picture(image.numpy(), cases.options.spacing), model).labels
    counted = reference != IGNORE_INDEX
    return reference[counted].astype(np.int64), predicted[counted].astype(np.int64)


def confusion(reference: np.ndarray, predicted: np.ndarray, tables: BrainTables) -> np.ndarray:
    """Count the voxels by set in the reference and set of the predicted class, ``(S, S)``."""
    sets = len(tables.set_names)
    pairs = reference * sets + tables.set_of_class.numpy()[predicted]
    return np.bincount(pairs, minlength=sets**2).reshape(sets, sets)


def structure_voxels(cases: BrainCases) -> np.ndarray:
    """Return the number of voxels ``(C,)`` of each class in the undeformed atlas at the model's spacing."""
    counts = np.bincount(cases.maps.subjects[0].ravel(), minlength=len(cases.tables.names))
    return counts * (cases.maps.spacing / cases.options.spacing) ** 3


def structure_figures(counts: np.ndarray, voxels: np.ndarray, tables: BrainTables) -> dict[str, Any]:
    """Return the figures of all structures.

    :param counts: ``(cases, 3, C)``, see :func:`~ClassScaleSegLib.images.counts.overlap_counts`.
    :param voxels: ``(C,)``, see :func:`structure_voxels`.
    """
    dice, pooled = mean_over_cases(case_dice(counts)), pooled_dice(counts)
    large = voxels >= LEAST_VOXELS
    rows = [
        {
            "label": row.label,
            "name": row.name,
            "group": row.group,
            "voxels": round(float(voxels[row.label]), 1),
            "dice": _number(dice[row.label]),
            "pooled_dice": _number(pooled[row.label]),
        }
        for row in tables.structures
    ]
    return {
        "least_voxels": LEAST_VOXELS,
        "structures_as_large": int(large[1:].sum()),
        "dice": _number(foreground_mean(np.where(large, dice, np.nan))),
        "pooled_dice": _number(foreground_mean(np.where(large, pooled, np.nan))),
        "dice_of_all": _number(foreground_mean(dice)),
        "non_empty": [int(count) for count in (counts[:, 1, 1:] > 0).sum(1)],
        "structures": rows,
    }


def set_figures(matrices: np.ndarray, tables: BrainTables) -> dict[str, Any]:
    """Return the figures of the sets from the matrices ``(cases, S, S)`` of :func:`confusion`."""
    sets = {name: _dice_of_unions(matrices, [[name]], tables) for name in tables.set_names[1:]}
    return {
        "bars": {name: _dice_of_unions(matrices, unions, tables) for name, unions in BARS.items()},
        "sets": [{"name": name, **figures} for name, figures in sets.items()],
    }


def _dice_of_unions(matrices: np.ndarray, unions: list[list[str]], tables: BrainTables) -> dict[str, float | None]:
    """Return the mean Dice of unions of sets, by both rules."""
    counts = []
    for union in unions:
        rows = [tables.set_names.index(name) for name in union]
        reference, predicted = matrices[:, rows], matrices[:, :, rows]
        counts.append([reference[:, :, rows].sum((1, 2)), predicted.sum((1, 2)), reference.sum((1, 2))])
    both = np.moveaxis(np.array(counts), (0, 2), (2, 0))  # (cases, 3, unions)
    rules = {"dice": mean_over_cases(case_dice(both)), "pooled_dice": pooled_dice(both)}
    return {name: _number(mean_of_known(values)) for name, values in rules.items()}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def machine() -> dict[str, Any]:
    """Return system, threads, versions of the packages, and date."""
    names = ("torch", "nnunetv2", "SimpleITK", "numpy")
    versions = {"python": platform.python_version(), **{name: version(name) for name in names}}
    threads = torch.get_num_threads()
    return {"system": platform.platform(), "threads": threads, "versions": versions, "date": date.today().isoformat()}


if __name__ == "__main__":
    sys.exit(main())
