"""Whether the preprocessed cases in a folder are all there, and made as plans and ``dataset.json`` say now.

Preprocessing notes both in a file beside the folder. nnU-Net would train on the cases that a killed preprocessing has
left, and divide them into folds for good. Folders without the file are those of nnU-Net's own command.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import Busy, ModelError
from ClassScaleSegLib.locking import is_locked

from ..data.merged_labels import ENTRY
from ..files import alone, write_json
from .label_files import LABEL_FILES, changed_label_files

_OF_IMAGES = (  # entries of configuration, plans and dataset.json, in this order, that decide what images become
    *("preprocessor_name", "spacing", "normalization_schemes", "use_mask_for_norm", "resampling_fn_data"),
    *("resampling_fn_data_kwargs", "foreground_intensity_properties_per_channel", "transpose_forward"),
    *("image_reader_writer", "channel_names"),
)
_INTENSITIES = "foreground_intensity_properties_per_channel"
_BY_IMAGE = {
    "ZScoreNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
}  # of nnU-Net's
_OF_LABELS = ("labels", "regions_class_order")  # of dataset.json
_AGAIN = "Run `classscaleseg-train preprocess` again."


def decided_for_images(configuration: Mapping, plans: Mapping, dataset: Mapping) -> dict[str, Any]:
    """Return what decides how images are preprocessed, as JSON gives it back.

    :param configuration: entries of the configuration, those that it inherits included.
    :param plans: content of the plans file.
    :param dataset: content of ``dataset.json``.
    """
    sources = configuration, plans, dataset
    return _plain({key: source.get(key) for source in sources for key in _OF_IMAGES if key in source})


def decided_for_labels(dataset: Mapping) -> dict[str, Any]:
    """Return what decides what the values in label maps mean, as JSON gives it back.

    :param dataset: content of ``dataset.json``.
    """
    found = {key: dataset.get(key) for key in _OF_LABELS}
    if any(isinstance(value, list) for value in dataset["labels"].values()):
        found["labels"] = list(dataset["labels"].items())  # the order of regions decides who wins
    if ENTRY in dataset:  # without it, what a case has not drawn would be its background
        found[ENTRY] = True
    return _plain(found)


def note_of(folder: Path) -> Path:
    """Return the file with the note on a folder of preprocessed cases; inside, nnU-Net would take it for a case."""
    return folder.with_name(f"{folder.name}_made.json")


@contextmanager
def being_preprocessed(folders: Mapping[Path, Mapping[str, Any]]) -> Iterator[None]:
    """Note that folders are being made while the block runs, and that they are finished after it.

    If it is interrupted, they stay unfinished. Nobody else may make one of them meanwhile.

    :param folders: with what decides the content of each, for images and for labels, and further entries of its note.
    :raises Busy: if another process makes one of them.
    :raises OutputError: if a note cannot be written.
    """
    with ExitStack() as stack:
        for folder, made in folders.items():
            stack.enter_context(alone(_lock(folder), f"{folder} is being preprocessed"))
            write_json(note_of(folder), {"finished": False, **made})
        yield
        for folder, made in folders.items():
            write_json(note_of(folder), {"finished": True, **made})


def refuse_trained_on(dataset: str, plans: str, configuration: str) -> None:
    """Refuse to replace cases on which a training runs. Those of nnU-Net's own command are not noticed.

    :param dataset: name of its folder.
    :param plans: their name.
    :raises Busy: naming the fold.
    """
    results = os.environ.get("nnUNet_results")
    for lock in Path(results, dataset).glob(f"*__{plans}__{configuration}/fold_*/.lock") if results else ():
        if is_locked(lock):
            raise Busy(f"{lock.parent} is being trained on the cases of {configuration}. Wait until it has ended.")


def check_preprocessed(folder: Path, images: Mapping[str, Any], labels: Mapping[str, Any] | None = None) -> None:
    """Check that a folder is finished, and that its cases were made as plans and ``dataset.json`` say now.

    :param images: what they say, by :func:`decided_for_images`.
    :param labels: by :func:`decided_for_labels`; ``None`` if labels are not used, or are checked elsewhere.
    :raises ModelError: if it is missing, is not finished, or was made otherwise.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} does not exist: run `classscaleseg-train preprocess` first.")
    note = note_of(folder)
    try:
        made = json.loads(note.read_text(encoding="utf-8"))
        finished, then = made["finished"], {**made["images"], **(made["labels"] if labels is not None else {})}
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{note}, which says how the cases were preprocessed, cannot be read. {_AGAIN}") from error
    if finished is not True:
        if is_locked(_lock(folder)):
            raise ModelError(f"The cases in {folder} are being preprocessed. Wait until that has ended.")
        raise ModelError(
            f"The cases in {folder} are not complete: their preprocessing was interrupted or has failed. {_AGAIN}"
        )
    differs = first_difference({**images, **(labels or {})}, then)
    if differs is not None:
        raise ModelError(
            f"The cases in {folder} were preprocessed with another {differs} than plans and dataset.json have now. "
            f"{_AGAIN}"
        )


def changed_since(folder: Path, labels: Path) -> list[str]:
    """Return the names of label maps that have changed since a folder was made of them.

    :param folder: of preprocessed cases.
    :param labels: of the label maps of the raw dataset, which need not be there.
    """
    try:
        return changed_label_files(labels, json.loads(note_of(folder).read_text(encoding="utf-8"))[LABEL_FILES])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # made by nnU-Net's own command, or before such a note was taken


def first_difference(now: Mapping[str, Any], then: Mapping[str, Any]) -> str | None:
    """Return the first entry that decides something and differs; ``None`` if there is none.

    :param now: by :func:`decided_for_images` and :func:`decided_for_labels`.
    :param then: the same of earlier plans.
    """
    unused = _unused(now)
    return next((key for key in (*now, *then) if key not in unused and now.get(key) != then.get(key)), None)


def used_for_images(configuration: Mapping, plans: Mapping, dataset: Mapping) -> dict[str, Any]:
    """Return what :func:`decided_for_images` returns, without what the normalisation does not use."""
    found = decided_for_images(configuration, plans, dataset)
    return {key: value for key, value in found.items() if key not in _unused(found)}


def _unused(images: Mapping[str, Any]) -> set[str]:
    return {_INTENSITIES} if {*(images.get("normalization_schemes") or ())} <= _BY_IMAGE else set()


def check_cases(folder: Path, cases: Iterable[str]) -> None:
    """Check that cases are in a folder of preprocessed ones.

    :raises ModelError: naming the first that is not there.
    """
    missing = next((case for case in cases if not (folder / f"{case}.pkl").is_file()), None)
    if missing is not None:
        raise ModelError(
            f"The case {missing} of splits_final.json is not in {folder}. Run `classscaleseg-train preprocess` again, "
            "or correct splits_final.json there."
        )


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(content))
