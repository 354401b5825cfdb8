"""Plan and preprocess the collected cases, unless that was done for the same cases and the same model."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from ClassScaleSegLib.files import unwritable
from ClassScaleSegLib.models.identity import model_sha256

from ...data.collect.record import RECORD
from ...files import read_json, write_json
from ..splits import SPLITS
from .begin import Begin
from .work import ID, Work

STATE_LETTERS = 8  # of a name
_NOTE = "preprocessed.json"  # in the work folder: of which cases and model the preprocessed ones are


def prepare(work: Work, begin: Begin, workers: int) -> str:
    """Plan and preprocess the collected cases, if that is not done.

    :returns: a name for these cases and the model to begin with, the same only for the same.
    """
    state = _state(work, begin.path)
    if not _is_noted(work, state):
        _forget(work)
        work.step("plan", ["-d", str(ID), "--like", begin.named, "-npfp", str(workers)])
        work.step("preprocess", ["-d", str(ID), "-c", begin.configuration, "-np", str(workers)])
        write_json(work.root / _NOTE, {"state": state})
    return state


def _state(work: Work, model: Path) -> str:
    """Return a name for the collected cases and the model to begin with, the same only for the same."""
    digest = hashlib.sha256(model_sha256(model).encode())
    for file in (RECORD, "dataset.json"):
        digest.update((work.raw / file).read_bytes())
    return name_of(digest.hexdigest())


def _is_noted(work: Work, state: str) -> bool:
    """Return whether the cases have been planned and preprocessed in this state."""
    file = work.root / _NOTE
    return file.is_file() and work.plans.is_file() and read_json(file, {}, f"Delete {file}.").get("state") == state


def _forget(work: Work) -> None:
    """Forget what was preprocessed before, and its folds, in which other cases would not be.

    Cases can return to an earlier state after the preprocessing of another one was interrupted.

    :raises OutputError: if a file cannot be deleted.
    """
    for file in (work.root / _NOTE, work.plans.with_name(SPLITS)):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(file, error) from error


def results_name(state: str, options: argparse.Namespace) -> str:
    """Return the name of the folder of results: with another optimiser or learning rate, it is another training."""
    chosen = (options.optimizer, None if options.learning_rate is None else f"{options.learning_rate:g}")
    return "-".join([state, *filter(None, chosen)])


def name_of(checksum: str) -> str:
    """Return the name of a folder for a checksum: short, as it is in paths that Windows limits."""
    return checksum[:STATE_LETTERS]
