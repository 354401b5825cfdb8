"""Compare the new model with the one that it began with, on the cases that the training has not seen."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.files import unwritable

from ...evaluation.models_command import FACTS
from ...files import read_json
from ..splits import SPLITS, read_splits
from .begin import Begin
from .work import Work, killed

BEFORE, NOW = "before", "now"  # how the models are called that are compared
_TABLE = "comparison.csv"


def compare(options: argparse.Namespace, work: Work, begin: Begin, output: Path, state: str, trained: Path) -> None:
    """Compare the new model with the one that it began with, on the cases that the training has not seen.

    There is a new model, whatever happens here.
    """
    results = work.root / "compared" / f"{state}-{options.fold}"
    facts = results / FACTS
    cases = ["-i", str(work.raw / "imagesTr"), "-s", str(work.raw / "labelsTr")]
    models = ["-m", begin.named, "-m", str(output), "--labels", str(work.raw / "labels.csv")]
    kept = ["--names", BEFORE, NOW, "--results", str(results), "-o", str(results / _TABLE), "--overwrite"]
    try:
        cases += ["--cases", *read_splits(_splits_of(work, trained, options.fold))[int(options.fold)]["val"]]
        with suppress(FileNotFoundError):
            facts.unlink()
        ended = work.ended("compare-models", [*cases, *models, *kept, "-device", options.device])
        if facts.is_file():
            found = read_json(facts, {"cases": list, "structures": list, "mean_dice": list}, "Run the command again.")
            work.report.compared(found, results / _TABLE)
            return
        why = (ended.error or killed(ended)).strip()
    except OSError as error:
        why = str(unwritable(facts, error))
    except ClassScaleError as error:
        why = str(error)
    except KeyboardInterrupt:
        work.report.line(f"{output} is written, but was not compared. To do so: {_again(cases, models)}")
        raise
    again = _again(cases, models)
    work.report.line(f"The new model is written, but could not be compared: {why} To try again: {again}")


def _again(cases: Sequence[str], models: Sequence[str]) -> str:
    """Return the command that compares models, as a user types it."""
    return shlex.join(["classscaleseg-train", "compare-models", *cases, *models])


def _splits_of(work: Work, trained: Path, fold: str) -> Path:
    """Return the file with the folds by which a fold was trained.

    It is kept with the training: the preprocessed cases may have been others since, and back again.
    """
    kept = trained / f"fold_{fold}" / SPLITS
    return kept if kept.is_file() else work.plans.with_name(SPLITS)
