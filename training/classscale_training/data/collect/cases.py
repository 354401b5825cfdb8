"""Pair each image with its segmentation: as ``segment`` finds cases, and ``compare`` finds segmentations."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ClassScaleSegLib.cohort.records import models_of_unchanged
from ClassScaleSegLib.commands.cases import find_cases
from ClassScaleSegLib.errors import ClassScaleError, ImageError
from ClassScaleSegLib.images.case_notes import read_notes
from ClassScaleSegLib.images.paired_cases import find_segmentations

from ..findings import Finding

IMAGES, SEGMENTATIONS = "images", "segmentations"  # the folders in a training folder
ANOTHER_MODEL = "choose a model that takes as many"  # if the channels are those of a model
_MOST_NAMES = 5


@dataclass(frozen=True)
class Case:
    """An image and its segmentation.

    :ivar name: of the files, without suffix and channel number.
    :ivar images: a file for each channel, or the folder of a DICOM series.
    :ivar segmentation: a file in any format that ``classscaleseg compare`` reads.
    :ivar under: another one, which has what this one lacks; ``None``: nothing has.
    """

    name: str
    images: tuple[Path, ...]
    segmentation: Path
    under: Path | None = None


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name the folders of the cases, in one way or the other."""
    add = parser.add_argument
    text = f"training folder, with the folders {IMAGES} and {SEGMENTATIONS}"
    add("folder", nargs="?", type=Path, metavar="FOLDER", help=text)
    add("-i", "--images", type=Path, metavar="DIR", help="folder of the images, instead of FOLDER")
    add("-s", "--segmentations", type=Path, metavar="DIR", help="folder of segmentations with the names of the images")


def named_folders(options: argparse.Namespace) -> tuple[Path, Path]:
    """Return the folders of the images and of the segmentations.

    :param options: parsed from the arguments of :func:`add_folders`.
    :raises ClassScaleError: if they are not named in one of both ways, or a training folder lacks one.
    """
    pair = (options.images, options.segmentations)
    if (options.folder is None) == (None in pair) or (options.folder is not None and any(pair)):
        raise ClassScaleError("Give a training folder, or both -i IMAGES and -s SEGMENTATIONS.")
    return pair if options.folder is None else folders_in(options.folder)


def folders_in(folder: Path) -> tuple[Path, Path]:
    """Return the folders of the images and of the segmentations in a training folder.

    :raises ClassScaleError: if it lacks one.
    """
    for name in (IMAGES, SEGMENTATIONS):
        if not (folder / name).is_dir():
            raise ClassScaleError(
                f"{folder} is not a training folder: it has no folder {name}. Name the two folders by themselves, with "
                "-i IMAGES -s SEGMENTATIONS."
            )
    return folder / IMAGES, folder / SEGMENTATIONS


def pair_cases(
    images: Path, segmentations: Path, channels: int, with_more: str = "name them all with --channels"
) -> tuple[list[Case], list[Finding]]:
    """Find the images in a folder that have a segmentation in another one.

    :param channels: of each image.
    :param with_more: what to do if images have more channels, as the end of a sentence.
    :returns: the cases in the order of their names; images without a segmentation as a warning, segmentations without
        an image as faults.
    :raises ImageError: if a folder has no images or no segmentations, or files do not match the channels.
    """
    for folder in (images, segmentations):
        if not folder.is_dir():
            raise ImageError(f"{folder} is no folder. Name the folder of the images, and that of the segmentations.")
    found = {case.name: case.files for case in find_cases([images], channels, f"{images}{os.sep}", "").cases}
    drawn = find_segmentations(segmentations)
    if channels == 1:  # the only one of nnU-Net's names, beside images of other names
        for name in drawn.keys() - found.keys():
            if f"{name}_0000" in found.keys() - drawn.keys() and f"{name}_0001" not in found:
                found[name] = found.pop(f"{name}_0000")
    findings = []
    if alone := sorted(found.keys() - drawn.keys()):
        several = len(alone) > 1
        findings.append(
            Finding(
                f"{len(alone)} images have no segmentation in {segmentations}, and are left out: {listed(alone)}."
                if several
                else f"The image {alone[0]} has no segmentation in {segmentations}, and is left out."
            )
        )
    for name in sorted(drawn.keys() - found.keys()):
        advice = f"Give the image the name {name}, or remove the segmentation."
        if f"{name}_0000" in found:
            advice = f"If {name}_0000, {name}_0001 ... are its channels, {with_more}."
        findings.append(Finding(f"{drawn[name]} has no image in {images}. {advice}", ImageError))
    cases = [Case(name, found[name], drawn[name]) for name in sorted(found.keys() & drawn.keys())]
    return cases, findings


def with_under(cases: Sequence[Case], folder: Path) -> tuple[list[Case], list[Finding]]:
    """Find the segmentations from which cases get what their own ones lack.

    :param folder: of segmentations with the names of the cases, or of their images.
    :returns: the cases with them, and a fault for each that has none.
    :raises ImageError: if there is no such folder, it has no segmentations, or those of the cases themselves.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder. Name a folder of segmentations with the names of the cases.")
    if any(case.segmentation.parent.samefile(folder) for case in cases[:1]):
        raise ImageError(f"{folder} has the segmentations themselves. Name a folder of others (--under).")
    there = find_segmentations(folder)
    found = [replace(case, under=there.get(case.name, there.get(f"{case.name}_0000"))) for case in cases]
    lacking = [case.name for case in found if case.under is None]
    if not lacking:
        return found, []
    sentence = f"{folder} has no segmentation of {listed(lacking)}. Segment the image too, or choose another folder."
    return found, [Finding(sentence, ImageError)]


def without_unchanged(cases: Sequence[Case], leave_out: bool) -> tuple[list[Case], list[Finding]]:
    """Find segmentations that a model has made, by ``segment`` or in Slicer, and nobody has changed or checked since.

    That a structure was checked is known of cases that were saved in Slicer alone.

    :param leave_out: return the other cases alone.
    :returns: the cases, and a warning.
    """
    made = {case.name: _made_by(case) for case in cases}
    unchanged = {name: models for name, models in made.items() if models is not None}
    if not unchanged:
        return list(cases), []
    models = sorted({model for found in unchanged.values() for model in found})
    sentence = (
        f"{len(unchanged)} of {len(cases)} segmentations are as {listed(models)} made them, and nobody has changed "
        f"them: {listed(list(unchanged))}. "
    )
    if leave_out:
        kept = [case for case in cases if case.name not in unchanged]
        return kept, [Finding(f"{sentence}They are left out.")]
    return list(cases), [Finding(f"{sentence}If nobody has checked them either, leave them out with --corrected.")]


def _made_by(case: Case) -> tuple[str, ...] | None:
    """Return the names of the models that made a segmentation which nobody has changed or checked, as far as known."""
    models = models_of_unchanged(case.name, case.segmentation)
    if models is None and case.segmentation.is_file():
        try:
            models = read_notes(case.segmentation).unchecked or None
        except OSError:  # it is told when the segmentation is read
            return None
    return models


def listed(names: Sequence[str], most: int = _MOST_NAMES) -> str:
    """Return some names, and how many more there are.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
