"""A raw dataset that is to be merged: its labels with their codes, its channels and its cases."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ClassScaleSegLib.errors import LabelTableError, named
from ClassScaleSegLib.labels.table import LabelTable, name_words

from ..dataset_json import check_for_model, check_labels, read_dataset_json
from ..findings import Finding, report
from ..merged_labels import ENTRY
from ..raw_cases import RawCase, find_cases, find_ending


@dataclass(frozen=True)
class Source:
    """A raw dataset without faults in ``dataset.json`` and in the names of its files.

    :ivar number: of the dataset.
    :ivar folder: ``nnUNet_raw/DatasetXXX_Name``.
    :ivar table: the background and all labels, with the codes that are known; without "ignore".
    :ivar ignore: the label of voxels that do not count; ``None`` if there is none.
    :ivar channels: names of the channels.
    :ivar ending: of the files of images and label maps.
    :ivar reader: nnU-Net's class that reads them, if ``dataset.json`` names it.
    :ivar cases: the training cases, each with a label map.
    """

    number: int
    folder: Path
    table: LabelTable
    ignore: int | None = None
    channels: tuple[str, ...] = ("MR",)
    ending: str = ".nii.gz"
    reader: str | None = None
    cases: tuple[RawCase, ...] = ()

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def prefix(self) -> str:
        """With which the names of its cases begin in the merged dataset."""
        return f"d{self.number:03d}_"


def source_called(sources: Iterable[Source], name: str) -> Source | None:
    """Return the dataset with a number, or the name of a folder, as a taxonomy gives it; ``None`` if there is none."""
    for source in sources:
        if name == source.name or (name.isdecimal() and int(name) == source.number):
            return source
    return None


def read_source(folder: Path) -> Source:
    """Read a raw dataset. Print warnings about the names of its files.

    :param folder: ``nnUNet_raw/DatasetXXX_Name``.
    :raises LabelTableError: if ``dataset.json`` or ``labels.csv`` cannot be used, or there are no cases.
    :raises ClassScaleError: if images or label maps are missing.
    """
    file = folder / "dataset.json"
    dataset = read_dataset_json(file)
    with named(file):
        if ENTRY in dataset:
            raise LabelTableError("It is a merged dataset itself. Merge the datasets that it was made of.")
        regions = [name for name, value in dataset["labels"].items() if isinstance(value, list)]
        if regions:
            raise LabelTableError(
                f"the label {regions[0]} is a list of labels, a region; datasets with overlapping regions cannot be "
                "merged. Give every voxel one label."
            )
        check_labels(dataset["labels"])
        channels = check_for_model(dataset)
        ending = find_ending(folder, dataset.get("file_ending"))
        dataset["file_ending"] = ending
    cases, findings = find_cases(folder, dataset)
    if not cases:
        sentence = f"{folder} has no training cases: put images into imagesTr and label maps into labelsTr."
        findings.append(Finding(sentence, LabelTableError))
    for case in cases:
        if "/" in case.name or "\\" in case.name:
            findings.append(Finding(f"The case {case.name} has a slash in its name. Rename it.", LabelTableError))
    report(folder.name, findings)
    reader = dataset.get("overwrite_image_reader_writer")
    number = int(folder.name.removeprefix("Dataset").partition("_")[0])
    ignore = dataset["labels"].get("ignore")
    with named(file):
        table = _table(folder, dataset["labels"])
    return Source(number, folder, table, ignore, channels, ending, reader, tuple(cases))


def _table(folder: Path, labels: dict[str, int]) -> LabelTable:
    codes = folder / "labels.csv"
    names = {value: name for name, value in sorted(labels.items(), key=lambda item: item[1]) if name != "ignore"}
    if len(names) + ("ignore" in labels) < len(labels):
        raise LabelTableError("two labels have the same value. Give each a value of its own.")
    given = LabelTable.from_csv(codes) if codes.is_file() else LabelTable(())
    table = LabelTable.from_names(names, given)
    _warn_of_unused(codes, given, names)
    twice = [name for name, times in Counter(table.names.values()).items() if times > 1]
    if twice:
        raise LabelTableError(f"two labels are called {twice[0]}. Rename one of them.")
    return table


def _warn_of_unused(file: Path, given: LabelTable, names: Mapping[int, str]) -> None:
    """Say of which labels the codes in ``labels.csv`` are not used, because their names are others."""
    known = {tuple(sorted(name_words(name))) for name in names.values()}
    unused = [
        label
        for label in given.foreground
        if label.category is not None and label.value in names and tuple(sorted(name_words(label.name))) not in known
    ]
    if unused:
        more = f", nor those of {len(unused) - 1} more" if len(unused) > 1 else ""
        print(
            f"Warning: the codes of {unused[0].name} ({unused[0].value}) in {file} are not used{more}, because "
            f"dataset.json calls this label {names[unused[0].value]}. Give it the same name.",
            file=sys.stderr,
        )
