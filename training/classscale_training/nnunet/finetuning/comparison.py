"""Compare the new model with the one that it began with, on the cases that the training has not seen."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.files import unwritable
from ClassScaleSegLib.images.segmentation import Segmentation
from ClassScaleSegLib.labels.table import LabelTable

from ...data.collect.record import read_record
from ...evaluation.models_command import FACTS
from ...files import read_json
from ..splits import SPLITS, read_splits
from .begin import Begin
from .work import Work, killed

BEFORE, NOW = "before", "now"  # how the models are called that are compared
_TABLE, _DRAWN = "comparison.csv", "drawn"


def compare(options: argparse.Namespace, work: Work, begin: Begin, output: Path, state: str, trained: Path) -> None:
    """Compare the new model with the one that it began with, on the cases that the training has not seen.

    What the first model has filled in there does not count: it would be compared with itself. There is a new model,
    whatever happens here.
    """
    results = work.root / "compared" / f"{state}-{options.fold}"
    facts = results / FACTS
    words = ["-i", str(work.raw / "imagesTr"), "-m", begin.named, "-m", str(output)]
    drawn = _references(work)
    kept = ["--names", BEFORE, NOW, "--results", str(results), "-o", str(results / _TABLE), "--overwrite"]
    try:
        cases = read_splits(_splits_of(work, trained, options.fold))[int(options.fold)]["val"]
        words += ["--cases", *cases]
        without_filled = _write_without_filled(work, cases, results / _DRAWN)
        drawn = ["-s", str(results / _DRAWN)] if without_filled else drawn
        for earlier in (facts, results / _TABLE):  # of other models: nobody may take them for these
            with suppress(FileNotFoundError):
                earlier.unlink()
        ended = work.ended("compare-models", [*words, *drawn, *kept, "-device", options.device])
        if facts.is_file():
            found = read_json(facts, {"cases": list, "structures": list, "mean_dice": list}, "Run the command again.")
            work.report.compared(found, results / _TABLE)
            if without_filled:
                found_by = [str(results / f"{number}-{name}") for number, name in enumerate((BEFORE, NOW), 1)]
                departs = shlex.join(["classscaleseg", "compare", *found_by])
                work.report.line(f"What the model has filled in was left out. How far both differ there: {departs}")
            return
        why = (ended.error or killed(ended)).strip()
    except OSError as error:
        why = str(unwritable(Path(error.filename or facts), error))
    except ClassScaleError as error:
        why = str(error)
    except KeyboardInterrupt:
        work.report.line(f"{output} is written, but was not compared. To do so: {_again(words, drawn, kept)}")
        raise
    again = _again(words, drawn, kept)
    work.report.line(f"The new model is written, but could not be compared: {why} To try again: {again}")


def _references(work: Work) -> list[str]:
    return ["-s", str(work.raw / "labelsTr"), "--labels", str(work.raw / "labels.csv")]


def _write_without_filled(work: Work, cases: Sequence[str], folder: Path) -> bool:
    """Write the segmentations of cases without what a model has filled in.

    :param cases: names of cases in the dataset.
    :returns: whether something was filled in; else nothing is written.
    :raises ClassScaleError: if something cannot be read or written.
    """
    filled = read_record(work.raw).filled()
    if not any(case in filled for case in cases):
        return False
    table = LabelTable.from_csv(work.raw / "labels.csv")
    for case in cases:
        whole = Segmentation.from_image(work.raw / "labelsTr" / f"{case}.nii.gz", table)
        others = filled.get(case, frozenset[int]())
        labels = np.where(np.isin(whole.labels, list(others)), 0, whole.labels)
        drawn = LabelTable(tuple(label for label in table if label.value not in others))
        file = folder / f"{case}.seg.nrrd"
        Segmentation(labels, drawn, whole.geometry).write(file, overwrite=True, keep_empty=True)
    return True


def _again(*words: Sequence[str]) -> str:
    """Return the command that compares models, as a user types it. It goes on with what they have found already."""
    return shlex.join(["classscaleseg-train", "compare-models", *chain(*words)])


def _splits_of(work: Work, trained: Path, fold: str) -> Path:
    """Return the file with the folds by which a fold was trained.

    It is kept with the training: the preprocessed cases may have been others since, and back again.
    """
    kept = trained / f"fold_{fold}" / SPLITS
    return kept if kept.is_file() else work.plans.with_name(SPLITS)
