"""The segmentation of a case, on the grid of its image: what is drawn, and below it what was found there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ClassScaleSegLib.errors import LabelTableError
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.labels.label import Label
from ClassScaleSegLib.labels.table import LabelTable

from .cases import Case, listed
from .on_image import OnImage, bring_onto_image, counts_of
from .structures import Structures

_CRUMBS = 0.2  # of a structure


def segmentation_of(case: Case, image: Geometry, names: LabelTable | None = None) -> OnImage:
    """Read the segmentation of a case, bring it onto the grid of its image, and fill in what it lacks.

    :param names: of the values of a label image that has no names of its own; they are also the only structures that
        can get labels.
    :raises ImageError: if it cannot be read, or lies outside of the image for the most part.
    :raises LabelTableError: if labels have no names.
    """
    drawn = bring_onto_image(case.segmentation, case.images[0], image, names)
    if case.under is None:
        return drawn
    under = bring_onto_image(case.under, case.images[0], image, names)
    return filled(drawn, under, (case.segmentation, case.under), names)


def filled(drawn: OnImage, under: OnImage, files: tuple[Path, Path], wanted: LabelTable | None = None) -> OnImage:
    """Add the structures that a segmentation lacks from another one; where they overlap, the drawn ones stay.

    - A structure that the first one lists as empty is not lacking.
    - The same names, or codes, are one structure, as in :class:`.Structures`. What names of the other one do not tell
      apart is left out, and said.
    - What is drawn, but not wanted, covers nothing: it gets no label, and the background is not what was found there.
    - Of a structure that the drawn ones cover nearly all of, the crumbs are left out: somebody may have drawn it under
      another name.

    :param under: on the same grid.
    :param files: from which both were read, for sentences.
    :param wanted: the structures that may get labels; ``None``: all.
    """
    structures = Structures()
    structures.close()  # what is wrong with names is said when the labels get numbers
    mine = structures.match(drawn.labels)
    structures.alike.clear()  # so is this
    theirs = structures.match(under.labels)
    known = {number for value, number in mine.items() if value in drawn.drawn}
    kept = [label for label in drawn.labels if label.value in drawn.drawn or label.value not in mine]
    added = [label for label in under.labels if label.value in theirs and theirs[label.value] not in known]
    taken = {label.value for label in drawn.labels}
    free = (value for value in range(1, 1 << 16) if value not in taken)
    values = {label.value: value for label, value in zip(added, free, strict=False)}
    covers = np.arange(1 << 16) > 0
    covers[_unwanted(drawn.labels, wanted)] = False
    covered = np.any([covers[layer] for layer in drawn.layers], axis=0)
    below = [np.where(covered, np.uint16(0), layer) for layer in under.layers]
    before, after = counts_of(under.layers), counts_of(below)
    crumbs = [label for label in added if after[label.value] < _CRUMBS * before[label.value]]
    unclear = [label for label in under.labels if label.value in under.drawn and label.value not in theirs]
    lookup = np.zeros(1 << 16, np.uint16)
    lookup[list(values)] = list(values.values())
    lookup[[label.value for label in crumbs]] = 0
    names = {label.name for label in drawn.labels if label.value in drawn.drawn}
    alike = [f"{own} for {other}" for other, own in structures.alike if own in names]
    return OnImage(
        (*drawn.layers, *(lookup[layer] for layer in below)),
        (*kept, *(replace(label, value=values[label.value]) for label in added)),
        drawn.drawn | {values[value] for value in under.drawn if value in values},
        (*drawn.notices, *under.notices, *_told(files, alike, crumbs, unclear)),
        frozenset(values.values()),
    )


def _told(
    files: tuple[Path, Path], alike: Sequence[str], crumbs: Sequence[Label], unclear: Sequence[Label]
) -> list[str]:
    """Return sentences on what was not filled in, though it has no name among what is drawn."""
    told = []
    if alike:
        told.append(
            f"{files[0]} has drawn, by its codes, what was found under other names, which is not filled in: "
            f"{listed(alike)}. If they are different structures, give the drawn one another terminology."
        )
    if crumbs:
        names = listed([label.name for label in crumbs])
        told.append(f"{files[0]} covers nearly all of {names} in {files[1]}: the rest is left out.")
    if unclear:
        names = listed([label.name for label in unclear])
        told.append(
            f"{files[0]} gets nothing of {names}: these names in {files[1]} do not tell structures apart, or mean the "
            "background."
        )
    return told


def _unwanted(labels: Sequence[Label], wanted: LabelTable | None) -> list[int]:
    """Return the values of labels that are not among the wanted structures."""
    if wanted is None:
        return []
    structures = Structures()
    try:
        allowed = set(structures.match(wanted.foreground).values())
        structures.close()
        found = structures.match(labels)
    except LabelTableError:  # which is said when the labels get numbers
        return []
    return [label.value for label in labels if found.get(label.value) not in allowed]
