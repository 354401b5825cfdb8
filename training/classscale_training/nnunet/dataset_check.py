"""Check every case of a raw dataset, before hours are spent on planning and preprocessing it."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from ClassScaleSegLib.errors import LabelTableError, OutOfMemoryError, named

from ..data.dataset_json import check_for_model, check_labels, read_dataset_json
from ..data.findings import Finding, report
from ..data.merged_labels import Merged
from ..data.parallel import ProcessKilledError, map_cases
from ..data.raw_cases import RawCase, find_cases, find_ending
from .case_check import CaseCheck, check_case
from .splits import SPLITS, read_splits

_MAX_NAMES = 5
_TIMES = 30  # between the spacings of cases; CT slices of 0.4 and 10 mm occur


@dataclass(frozen=True)
class RawDataset:
    """A dataset without faults.

    :ivar content: of ``dataset.json``, with whole numbers, ``file_ending`` and ``numTraining``.
    :ivar orientations: anatomical orientation of each case, such as "LPS"; ``None`` where the format has none.
    """

    content: dict
    cases: list[RawCase]
    orientations: list[str | None]


def check_dataset(folder: Path, workers: int = 0, progress: bool = False) -> RawDataset:
    """Check ``dataset.json``, and all images and label maps of the training cases. Print warnings.

    :param folder: ``nnUNet_raw/DatasetXXX_Name``.
    :param workers: number of processes that read files.
    :param progress: show a progress bar, if standard error is a terminal.
    :raises LabelTableError: if ``dataset.json`` cannot be used, or label maps are missing or do not fit.
    :raises ImageError: if images are missing or cannot be used.
    :raises ClassScaleError: if there are faults of both kinds. All faults are in the message, one sentence each.
    """
    from tqdm import tqdm

    file = folder / "dataset.json"
    dataset = read_dataset_json(file)
    with named(file):
        highest = check_labels(dataset["labels"])
        channels, merged = check_for_model(dataset), Merged.of(dataset)
        dataset["file_ending"] = find_ending(folder, dataset.get("file_ending"))
    cases, findings = find_cases(folder, dataset)
    announced = dataset.setdefault("numTraining", len(cases))
    if cases and announced != len(cases):
        sentence = (
            f"{file} gives numTraining as {announced}, but {len(cases)} training cases were found. Correct numTraining "
            "or the cases."
        )
        findings.append(Finding(sentence, LabelTableError))
    if not cases:
        sentence = (
            f"{folder} has no training cases: put images into imagesTr and label maps into labelsTr, with names that "
            f"end with {dataset['file_ending']}."
        )
        report(folder.name, [*findings, Finding(sentence, LabelTableError)])
    with named(file):
        reader = _find_reader(dataset, cases[0].images[0])
    check = functools.partial(check_case, reader, channels, highest)
    checks: list[CaseCheck] = []
    with tqdm(desc="Checking cases", total=len(cases), disable=None if progress else True) as bar:
        try:
            for done in map_cases(check, cases, min(workers, len(cases))):
                checks.append(done)
                bar.update()
        except ProcessKilledError as error:
            raise OutOfMemoryError(
                f"A process that read the case {cases[len(checks)].name} of {folder.name} or one near it was killed, "
                "most likely because memory ran out. Use fewer processes."
            ) from error
    findings += [finding for done in checks for finding in done.findings]
    present = [done.labels for done in checks if done.labels is not None]
    if len(present) == len(cases):
        if merged is None or not np.any(present, axis=0)[1:].any():
            findings += _missing_classes(folder, dataset["labels"], np.any(present, axis=0))
        else:
            with named(file):
                findings += _labels_of_datasets(merged, cases, present)
    findings += _odd_spacings(cases, checks)
    findings += _same_images(folder, cases, checks)
    report(folder.name, findings)
    return RawDataset(dataset, cases, [done.orientation for done in checks])


def _odd_spacings(cases: Sequence[RawCase], checks: Sequence[CaseCheck]) -> list[Finding]:
    """Find cases that are so much coarser or finer than the others that their headers may have another unit."""
    known = [(case, check.spacing) for case, check in zip(cases, checks, strict=True) if check.spacing is not None]
    if not known:
        return []
    usual = np.median([sorted(spacing) for _, spacing in known], axis=0)
    findings = []
    for case, spacing in known:
        times = np.array(sorted(spacing)) / usual
        factor = max(times.max(), 1 / times.min())
        if factor > _TIMES:
            numbers, median = ("x".join(f"{mm:g}" for mm in each) for each in (spacing, usual))
            findings.append(
                Finding(
                    f"{case.images[0]} of the case {case.name} has voxels of {numbers} mm, the median is {median} mm "
                    f"(smallest first). nnU-Net would resample it by a factor of {factor:.0f}. "
                    "Check whether its header is in another unit."
                )
            )
    return findings


def _same_images(folder: Path, cases: Sequence[RawCase], checks: Sequence[CaseCheck]) -> list[Finding]:
    """Find cases with the same image that folds separate, or may separate."""
    files = [root / folder.name / SPLITS for root in (Path(os.environ.get("nnUNet_preprocessed", "")), folder.parent)]
    file = next((file for file in files if file.is_file()), None)
    folds = None if file is None else read_splits(file)
    first: dict[bytes, str] = {}
    separated = []
    for case, check in zip(cases, checks, strict=True):
        other = case.name if check.image is None else first.setdefault(check.image, case.name)
        apart = folds is None or any((case.name in fold["val"]) != (other in fold["val"]) for fold in folds)
        if other != case.name and apart:
            separated.append(f"{case.name} and {other}")
    if not separated:
        return []
    who = "nnU-Net's folds may separate" if file is None else f"{file} separates"
    return [
        Finding(
            f"Of {folder.name}, the cases {_listed(separated)} have the same image. {who} them into training and "
            "validation, which then looks better than it is. Remove one of both, or keep them together in "
            f"{SPLITS}."
        )
    ]


def _find_reader(dataset: dict, image: Path) -> type:
    """Return the class that nnU-Net will read the files with: by default the first that can read the first image."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    with redirect_stderr(StringIO()):  # it prints a traceback for each class that cannot
        for example in (str(image), None):
            with suppress(RuntimeError):
                return determine_reader_writer_from_dataset_json(dataset, example, verbose=False)
    raise LabelTableError(
        f"It has file_ending {dataset['file_ending']}, which no reader of nnU-Net knows. Convert the files, for "
        "example to .nii.gz."
    )


def _missing_classes(folder: Path, labels: dict, present: np.ndarray) -> list[Finding]:
    """Find classes that occur in no label map.

    :param present: bool, for each label from 0 on.
    """
    values = [value for value in range(1, len(present)) if value != labels.get("ignore")]
    if values and not present[values].any():
        sentence = f"No label map in {folder / 'labelsTr'} has foreground: all hold 0 alone. Export them again."
        return [Finding(sentence, LabelTableError)]
    names = {value: name for name, entry in reversed(labels.items()) for value in np.atleast_1d(entry).tolist()}
    missing = [f"{names[value]} ({value})" for value in values if not present[value]]
    if not missing:
        return []
    sentence = f"No label map of {folder.name} contains {_listed(missing)}: it cannot be learned."
    return [Finding(f"{sentence} Check the values in the label maps.")]


def _labels_of_datasets(merged: Merged, cases: Sequence[RawCase], present: Sequence[np.ndarray]) -> list[Finding]:
    """Find labels that the dataset of a case does not have, and those of a dataset that occur in none of its cases.

    :param present: of each case, bool for each label from 0 on.
    :raises LabelTableError: if a case belongs to none of the datasets.
    """
    findings = []
    names = dict(enumerate((*merged.names, *merged.sets)))
    occurs: dict[int, np.ndarray] = {}
    for case, labels in zip(cases, present, strict=True):
        index = merged.dataset_of(case.name)
        source = merged.datasets[index]
        occurs[index] = occurs.get(index, False) | labels
        values = set(np.flatnonzero(labels).tolist()) - {merged.ignore}
        others = [f"{names[value]} ({value})" for value in sorted(values - set(source.labels))]
        if others:
            sentence = (
                f"{case.label} holds {_listed(others)}, which {source.name} does not have. Merge the datasets again."
            )
            findings.append(Finding(sentence, LabelTableError))
    for index, labels in occurs.items():
        source = merged.datasets[index]
        missing = [f"{names[value]} ({value})" for value in source.labels if value and not labels[value]]
        if missing:
            sentence = f"No label map of {source.name} contains {_listed(missing)}: its cases do not teach it."
            findings.append(Finding(f"{sentence} Check the values in the label maps."))
    return findings


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{', '.join(names[:_MAX_NAMES])}{more}"
