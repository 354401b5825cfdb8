"""Find the cases of a raw dataset as nnU-Net does, and what is wrong with the names of their files."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ImageError, LabelTableError

from .findings import Finding
from .volumes import FILE_ENDINGS

_ENDINGS = (*FILE_ENDINGS, ".gipl", ".png", ".bmp", ".tiff", ".tif")


@dataclass(frozen=True)
class RawCase:
    """The files of a training case.

    :ivar images: one file for each channel, or one that holds all.
    :ivar label: the label map; ``None`` if it is missing.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None


def find_ending(folder: Path, given: Any) -> str:
    """Return the ending of the files of a dataset.

    :param folder: ``nnUNet_raw/DatasetXXX_Name``.
    :param given: ``file_ending`` of its ``dataset.json``; ``None`` if it has none.
    :raises LabelTableError: if none is given and the names of the images do not tell, or it is not text.
    """
    if isinstance(given, str) and given:
        return given if given.startswith(".") else f".{given}"
    if given is not None:
        raise LabelTableError(f"file_ending is {given!r}; a text such as '.nii.gz' was expected. Correct it.")
    names = [name for name in _names(folder / "imagesTr") if not name.startswith(".")]
    found = Counter(ending for name in names for ending in _ENDINGS if _is_image(name, ending))
    if len(found) != 1:
        several = f"the images have the endings {', '.join(found)}" if found else "there are no images in imagesTr"
        raise LabelTableError(f"It has no file_ending, and {several}. Add file_ending, such as '.nii.gz'.")
    return next(iter(found))


def find_cases(folder: Path, dataset: dict) -> tuple[list[RawCase], list[Finding]]:
    """Find the training cases.

    :param folder: ``nnUNet_raw/DatasetXXX_Name``.
    :param dataset: content of its ``dataset.json``, with ``file_ending``.
    :returns: the cases that have an image, by name, and what is wrong with the names of their files.
    """
    return _listed(folder, dataset["dataset"]) if "dataset" in dataset else _found(folder, dataset["file_ending"])


def _listed(folder: Path, entries: Any) -> tuple[list[RawCase], list[Finding]]:
    """Return the cases that ``dataset.json`` lists itself."""
    cases, findings = [], []
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        try:
            images = tuple(_path(folder, image) for image in entry["images"])
            label = _path(folder, entry["label"])
        except (KeyError, TypeError) as error:
            sentence = f"dataset.json lists the case {name} without images or label ({error!r}). Complete the entry."
            findings.append(Finding(sentence, LabelTableError))
            continue
        missing = [file for file in (*images, label) if not file.is_file()]
        for file in missing:
            kind = LabelTableError if file == label else ImageError
            findings.append(Finding(f"{file} of the case {name} does not exist. Add it, or remove the case.", kind))
        present = tuple(image for image in images if image not in missing)
        if present == images:
            cases.append(RawCase(name, images, None if label in missing else label))
    return cases, findings


def _path(folder: Path, text: str) -> Path:
    return Path(os.path.abspath(folder / os.path.expandvars(text)))


def _found(folder: Path, ending: str) -> tuple[list[RawCase], list[Finding]]:
    """Return the cases in ``imagesTr`` and ``labelsTr``."""
    images, labels = folder / "imagesTr", folder / "labelsTr"
    findings, channels = [], dict[str, dict[int, Path]]()
    for name in _names(images):
        file, match = images / name, re.fullmatch(r"(.+)_(\d{4})", name.removesuffix(ending))
        if not name.endswith(ending):
            if not name.startswith(".") and name.lower().endswith(_ENDINGS):
                sentence = f"{file} is not used, because file_ending is {ending}. Convert it, or remove it."
                findings.append(Finding(sentence))
        elif name.startswith("."):
            sentence = f"{file} is a hidden file, which nnU-Net would take for the image of a case. Delete it."
            findings.append(Finding(sentence, ImageError))
        elif match is None:
            sentence = (
                f"{file} has no channel number in its name. Rename it to {name.removesuffix(ending)}_0000{ending}."
            )
            findings.append(Finding(sentence, ImageError))
        else:
            channels.setdefault(match[1], {})[int(match[2])] = file
    cases, stored = [], _names(labels)
    for name, files in channels.items():
        for number in sorted(set(range(max(files))) - set(files)):
            sentence = f"{images / f'{name}_{number:04d}{ending}'} does not exist, but channel {max(files):04d} does."
            findings.append(Finding(f"{sentence} Add the file, or remove the case.", ImageError))
        present = f"{name}{ending}" in stored
        if not present:
            near = [other for other in (f"{name}{e}" for e in (f"_0000{ending}", *_ENDINGS)) if other in stored]
            advice = f"Is it {near[0]}? Then rename or convert it" if near else "Add it, or remove the case"
            sentence = f"The case {name} has no label map: {labels / f'{name}{ending}'} does not exist. {advice}."
            findings.append(Finding(sentence, LabelTableError))
        ordered = tuple(files[number] for number in sorted(files))
        if len(ordered) == max(files) + 1:
            cases.append(RawCase(name, ordered, labels / f"{name}{ending}" if present else None))
    for name in stored:
        stem = name.removesuffix(ending)
        if name.endswith(ending) and not name.startswith(".") and stem not in channels:
            sentence = f"{labels / name} is not used: there is no image {images / f'{stem}_0000{ending}'}."
            findings.append(Finding(f"{sentence} Add it, or remove the label map."))
    return cases, findings


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []


def _is_image(name: str, ending: str) -> bool:
    return re.search(rf"_\d{{4}}{re.escape(ending)}$", name) is not None
