"""Refuse a folder in which files of a training would get longer paths than Windows allows, before hours of work.

nnU-Net nests folders whose names say everything: dataset, trainer, plans, configuration, fold.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from ClassScaleSegLib.cohort.records import FOLDER
from ClassScaleSegLib.errors import OutputError

LONGEST = 259 if os.name == "nt" else None  # letters of a path, unless a system and all programs are set up for more
_LOG = "training_log_2026_12_31_23_59_59.txt"
_RECORDS = PurePath(FOLDER, "cases")  # of how each result was made
_UNFINISHED = f".{'0' * 12}.nii.gz"  # a file that is being written


def training_files(dataset: str, state: str, trained: str, fold: str, cases: Iterable[str]) -> Iterator[PurePath]:
    """Yield the files with the longest paths of a training, relative to the folder of nnU-Net's three folders.

    :param dataset: name of the dataset, with its number.
    :param state: name of the folder of results.
    :param trained: trainer, plans and configuration, as nnU-Net joins them.
    :param cases: their names.
    """
    _trainer, plans, configuration = trained.rsplit("__", 2)
    raw, preprocessed = PurePath("raw", dataset), PurePath("preprocessed", dataset)
    folder = PurePath("results", state, dataset, trained, f"fold_{fold}")
    compared = PurePath("compared", f"{state}-{fold}", "1-before")  # of the cases of the fold
    yield folder / _LOG
    for case in cases:
        yield raw / "imagesTr" / f"{case}_0000.nii.gz"
        yield preprocessed / f"{plans}_{configuration}" / f"{case}_seg.b2nd"
        if fold != "all":
            yield compared / f"{case}.seg.nrrd"
            yield compared / _RECORDS / f"{case}.json"
    yield raw / "imagesTr" / _UNFINISHED
    if fold != "all":
        yield compared / _UNFINISHED
        yield compared / _RECORDS / f".{'0' * 12}.json"


def refuse_long_paths(root: Path, files: Iterable[PurePath]) -> None:
    """Refuse a folder in which a file would get a longer path than this system allows.

    :param files: relative to the folder.
    :raises OutputError: naming both lengths.
    """
    longest = max(len(str(root / file)) for file in files)
    if LONGEST is not None and longest > LONGEST:
        raise OutputError(
            f"In {root}, files would have paths of {longest} letters; Windows allows {LONGEST}. Choose a folder with a "
            "shorter path (-o or --work), or give the cases shorter names."
        )
