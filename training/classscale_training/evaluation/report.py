"""The result of an evaluation, and its files: tables per class and per case, a summary and a plot."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from ClassScaleSegLib.files import replacing
from ClassScaleSegLib.labels.csv import guarded

from ..files import write_json
from .dice import case_dice, foreground_mean, mean_over_cases, pooled_dice, reference_dice


@dataclass(frozen=True)
class Evaluation:
    """Counts of all cases, and the values computed from them. Arrays over classes are indexed by label value.

    :ivar cases: names of the cases.
    :ivar names: name of each label value.
    :ivar voxels: ``(cases, 3, C)``, see :mod:`~classscale_training.evaluation.dice`.
    :ivar surface: ``(cases, 2, C)``, see :mod:`~classscale_training.evaluation.surface_dice`, or ``None``.
    :ivar tolerance: of the surface Dice, in mm; ``None`` without surface Dice.
    :ivar missing: cases without a prediction, which count as if nothing had been predicted.
    :ivar extra: predictions without a reference.
    :ivar regions: the label values of each region, if classes are regions: the first one is class 1.
    """

    cases: tuple[str, ...]
    names: dict[int, str]
    voxels: np.ndarray
    surface: np.ndarray | None = None
    tolerance: float | None = None
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    regions: tuple[int | tuple[int, ...], ...] = ()

    @cached_property
    def dice(self) -> np.ndarray:
        """Dice ``(C,)`` by TotalSegmentator's rule."""
        return reference_dice(self.voxels)

    @cached_property
    def pooled_dice(self) -> np.ndarray:
        """Dice ``(C,)`` over the voxels of all cases together; every false positive counts."""
        return pooled_dice(self.voxels)

    @cached_property
    def case_surface_dice(self) -> np.ndarray | None:
        """Surface Dice ``(cases, C)``, NaN where the class is not in the reference; ``None`` if not computed."""
        if self.surface is None:
            return None
        near, total = np.moveaxis(self.surface, 1, 0)
        return np.where(self.voxels[:, 2] > 0, near / np.maximum(total, 1), np.nan)

    @cached_property
    def surface_dice(self) -> np.ndarray | None:
        """Surface Dice ``(C,)``: mean over the cases whose reference has the class; ``None`` if not computed."""
        return None if self.case_surface_dice is None else mean_over_cases(self.case_surface_dice)

    @property
    def mean_dice(self) -> float:
        """Mean of :attr:`dice` over the foreground classes."""
        return foreground_mean(self.dice)

    @property
    def mean_pooled_dice(self) -> float:
        """Mean of :attr:`pooled_dice` over the foreground classes."""
        return foreground_mean(self.pooled_dice)

    @property
    def mean_surface_dice(self) -> float | None:
        """Mean of :attr:`surface_dice` over the foreground classes; ``None`` if not computed."""
        return None if self.surface_dice is None else foreground_mean(self.surface_dice)

    def sentence(self) -> str:
        """Return the most important figures in one line."""
        cases, classes = len(self.cases), int((self.voxels[:, 2, 1:].sum(0) > 0).sum())
        one, several = ("region", "regions") if self.regions else ("class", "classes")
        text = (
            f"{cases} {'case' if cases == 1 else 'cases'}, {classes} {one if classes == 1 else several} in the "
            "references: "
        )
        if classes:
            text += f"mean Dice {self.mean_dice:.4f} (TotalSegmentator's rule), {self.mean_pooled_dice:.4f} (pooled)"
        else:
            text += "no Dice, because all their voxels are background"
        if classes and self.mean_surface_dice is not None:
            text += f", surface Dice {self.mean_surface_dice:.4f} at {self.tolerance:g} mm"
        for what, cases_of in (("missing predictions", self.missing), ("predictions without a reference", self.extra)):
            text += f"; {what}: {len(cases_of)}" if cases_of else ""
        return f"{text}."

    def summary(self) -> dict:
        """Return the content of ``summary.json``; ``None`` where a rule does not define a value for a class."""
        return {
            "cases": len(self.cases),
            "classes_in_references": int((self.voxels[:, 2, 1:].sum(0) > 0).sum()),
            "dice": _number(self.mean_dice),
            "pooled_dice": _number(self.mean_pooled_dice),
            "surface_dice": _number(self.mean_surface_dice),
            "tolerance_mm": self.tolerance,
            "rules": {
                "dice": "per class, mean over the cases whose reference has it (missed: 0); then mean over classes",
                "pooled_dice": "per class, 2 sum(I) / (sum(P) + sum(G)) over all cases; then mean over classes",
                "surface_dice": "border voxels within the tolerance of the other border; means as for dice",
            },
            "missing_predictions": list(self.missing),
            "predictions_without_reference": list(self.extra),
            "per_class": {row["label"]: row for row in self.class_rows()},
        }

    def class_rows(self) -> list[dict]:
        """Return one row for each named class except the background."""
        cases, reference, predicted = (
            array.tolist() for array in ((self.voxels[:, 2] > 0).sum(0), *self.voxels.sum(0)[[2, 1]])
        )
        return [
            {
                "label": self._label(value),
                "name": name,
                "cases": cases[value],
                "reference_voxels": reference[value],
                "predicted_voxels": predicted[value],
                "dice": _number(self.dice[value]),
                "pooled_dice": _number(self.pooled_dice[value]),
                "surface_dice": None if self.surface_dice is None else _number(self.surface_dice[value]),
            }
            for value, name in sorted(self.names.items())
            if value
        ]

    def _label(self, value: int) -> int | str:
        """Return the label value of a class, or the values of a region as nnU-Net's ``summary.json`` writes them."""
        region = self.regions[value - 1] if self.regions else value
        return region if isinstance(region, int) else str(region)

    def case_rows(self) -> Iterable[dict]:
        """Yield one row for each case and each class that is in its reference or its prediction."""
        dice = case_dice(self.voxels)
        for number, case in enumerate(self.cases):
            _, predicted, reference = self.voxels[number]
            for value in (np.flatnonzero(predicted[1:] + reference[1:]) + 1).tolist():
                surface = None if self.case_surface_dice is None else _number(self.case_surface_dice[number, value])
                yield {
                    "case": case,
                    "label": self._label(value),
                    "name": self.names[value],
                    "reference_voxels": int(reference[value]),
                    "predicted_voxels": int(predicted[value]),
                    "dice": _number(dice[number, value]),
                    "surface_dice": surface,
                }

    def write(self, folder: Path) -> None:
        """Write ``per_class.csv``, ``per_case.csv``, ``summary.json`` and ``dice.png`` into ``folder``.

        :raises OutputError: if a file cannot be written.
        """
        _write_csv(folder / "per_class.csv", self.class_rows())
        _write_csv(folder / "per_case.csv", list(self.case_rows()))
        write_json(folder / "summary.json", self.summary())
        with replacing(folder / "dice.png", overwrite=True) as temporary:
            self.plot(temporary)

    def plot(self, file: Path) -> None:
        """Plot the values of all classes as a PNG. Each curve is sorted separately, best class first."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        curves = {
            "Dice (TotalSegmentator's rule)": self.dice,
            "pooled Dice": self.pooled_dice,
            f"surface Dice at {self.tolerance} mm": self.surface_dice,
        }
        for name, values in curves.items():
            if values is not None:
                known = np.sort(values[1:][~np.isnan(values[1:])])[::-1]
                axes.plot(np.arange(1, len(known) + 1), known, label=f"{name}, mean {foreground_mean(values):.3f}")
        axes.set(xlabel="classes, best first", ylabel="Dice", ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left")
        figure.savefig(file, dpi=120)


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), 6)


def _write_csv(file: Path, rows: Sequence[dict]) -> None:
    with replacing(file, overwrite=True) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else [])
        writer.writeheader()
        for row in rows:  # a name is of somebody else's file, and must be no formula
            writer.writerow({name: guarded(cell) if isinstance(cell, str) else cell for name, cell in row.items()})
