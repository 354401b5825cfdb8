"""Compare two segmentations class by class: Dice and volumes, whatever grids and label values they have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..labels.label import MAX_VALUE, Label
from ..labels.table import LabelTable, name_words
from .counts import VOXELS_AT_ONCE, LabelVolume
from .geometry import Geometry
from .layers import renumbered
from .tables import write_table

if TYPE_CHECKING:
    from .segmentation import Segmentation

COLUMNS = ("Name", "LabelValue", "OtherLabelValue", "Dice", "Volume_mL", "OtherVolume_mL", "Difference_mL")
# codes that Slicer and DICOM writers give to anything: tissue, anatomical structure, organ
_GENERAL = {("SCT", "85756007"), ("SCT", "91723000"), ("SCT", "113343008"), ("SRT", "T-D0050")}
DIGITS = 6  # of numbers in CSV
_SIDES = {"l": "left", "lt": "left", "r": "right", "rt": "right"}
_SAME_PLACE = 1e-4  # voxels
_TIE = 1e-6  # voxels: halfway between two, rounding must not decide voxel by voxel


class ClassComparison(NamedTuple):
    """How one class differs between two segmentations.

    :ivar name: of the class, in the first segmentation that has it.
    :ivar value: its label value in the first segmentation; ``None`` if that has no voxels of it.
    :ivar other_value: the same in the second one; ``None`` if that does not name it.
    :ivar dice: 0 to 1; ``None`` if one of these is ``None``.
    :ivar volume_ml: in the first segmentation, on its own grid; ``None`` if that has no voxels of it.
    :ivar other_volume_ml: the same in the second one; ``None`` if that does not name it.
    """

    name: str
    value: int | None
    other_value: int | None
    dice: float | None
    volume_ml: float | None
    other_volume_ml: float | None

    @property
    def difference_ml(self) -> float | None:
        """How much larger the second one is, mL; ``None`` if one of the volumes is."""
        if self.volume_ml is None or self.other_volume_ml is None:
            return None
        return self.other_volume_ml - self.volume_ml


class Comparison(NamedTuple):
    """How two segmentations differ.

    :ivar rows: the classes with voxels in either, in the order of the first table, then those of the second one alone.
    :ivar resampled: whether the second one was on another grid.
    :ivar keys: by which a class is the same: of the classes with voxels in the first one, and of all in the second one,
        to their label values.
    :ivar shared: keys that several classes with voxels in the second one have, so that none is certain to be meant.
    """

    rows: list[ClassComparison]
    resampled: bool
    keys: tuple[Mapping[object, int], Mapping[object, int]] = ({}, {})
    shared: frozenset[object] = frozenset()


def compare(
    first: Segmentation,
    second: Segmentation,
    volumes: tuple[Sequence[LabelVolume], Sequence[LabelVolume]] | None = None,
) -> Comparison:
    """Compare two segmentations, of which the first is the reference.

    Classes are the same if they have the same codes, else if they have the same words in their names; names of known
    structures count as their codes, and an L or R at an end of a name is a side. A code or a name that several classes
    share decides nothing.

    What the first one names and has no voxels of is not in it: it may not have been drawn, and some formats name it and
    others do not. What the second one names and has no voxels of was not found.

    If the grids differ, the second one is brought onto the first one's, by the nearest voxel, to see what they have in
    common. Dice is twice that, divided by the sum of both volumes, each on its own grid, and at most 1.

    :param volumes: the statistics of both, if their voxels have been counted already.

    >>> grid = Geometry((4, 1, 1), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    >>> from .segmentation import Segmentation
    >>> drawn = np.array([1, 1, 1, 2], np.uint16).reshape(1, 1, 4)
    >>> found = np.array([7, 7, 0, 0], np.uint16).reshape(1, 1, 4)
    >>> drawn = Segmentation(drawn, LabelTable.from_names({1: "liver", 2: "cyst"}), grid)
    >>> found = Segmentation(found, LabelTable.from_names({7: "Liver"}), grid)
    >>> for row in compare(drawn, found).rows:
    ...     print(row.name, row.dice, row.difference_ml and round(row.difference_ml, 3))
    liver 0.8 -1.0
    cyst None None
    """
    sizes = [
        {row.value: row for row in (rows if rows is not None else segmentation.statistics())}
        for segmentation, rows in zip((first, second), volumes or (None, None), strict=True)
    ]
    drawn = [label for label in first.table.foreground if sizes[0][label.value].voxels]
    pairs = paired_labels(drawn, second.table.foreground)
    place = onto_grid(second.geometry, first.geometry)
    common = np.zeros(MAX_VALUE + 1, np.int64)
    to_first = {other: value for value, other in pairs.items()}
    for layer in second.layers:
        matched = renumbered(layer, to_first)
        matched = matched if place is None else place(matched)
        for reference in first.layers:
            common += _common(reference, matched)
    millilitres, rows = first.geometry.voxel_volume / 1000, []
    for label in drawn:
        other = pairs.get(label.value)
        own, theirs = sizes[0][label.value], None if other is None else sizes[1][other]
        dice = None
        if theirs is not None and place is None:
            dice = 2 * int(common[label.value]) / (own.voxels + theirs.voxels)
        elif theirs is not None:
            shared = float(common[label.value]) * millilitres
            dice = min(1.0, 2 * shared / (own.volume_ml + theirs.volume_ml))
        volume = None if theirs is None else theirs.volume_ml
        rows.append(ClassComparison(label.name, label.value, other, dice, own.volume_ml, volume))
    for row in sizes[1].values():
        if row.voxels and row.value not in to_first:
            rows.append(ClassComparison(row.name, None, row.value, None, None, row.volume_ml))
    keys = class_keys(drawn), class_keys(second.table.foreground)
    there = [label for label in second.table.foreground if sizes[1][label.value].voxels]
    return Comparison(rows, place is not None, keys, _shared(there))


def write_comparison(path: str | Path, rows: Iterable[ClassComparison], overwrite: bool = False) -> None:
    """Write a comparison as ``.csv`` or ``.xlsx``; cells of a class that only one segmentation knows stay empty.

    :raises OutputExistsError: if the file exists and ``overwrite`` is false.
    :raises OutputError: if it cannot be written.
    """
    write_table(path, COLUMNS, map(cells, rows), overwrite, DIGITS)


def cells(row: ClassComparison) -> list[str | int | float | None]:
    """Return what a table has of a class, in the order of :data:`COLUMNS`; ``None`` for what is not known."""
    values = (row.name, row.value, row.other_value)
    return [*values, row.dice, row.volume_ml, row.other_volume_ml, row.difference_ml]


def class_keys(labels: Sequence[Label]) -> dict[object, int]:
    """Return by what classes are recognised, their codes and the words of their names, and the label value of each.

    >>> table = LabelTable.from_names({1: "spleen", 2: "Spleen", 3: "my cyst"})
    >>> class_keys(table.foreground)
    {('cyst', 'my'): 3}
    """
    return _unique(labels, _words) | _unique(labels, _codes)


def paired_labels(first: Sequence[Label], second: Sequence[Label]) -> dict[int, int]:
    """Return for values of some labels those of the same class among others, as :func:`compare` recognises them."""
    pairs: dict[int, int] = {}
    for key in (_codes, _words):
        of_first, of_second = (
            _unique([label for label in labels if label.value not in taken], key)
            for labels, taken in ((first, pairs.keys()), (second, set(pairs.values())))
        )
        pairs |= {value: of_second[found] for found, value in of_first.items() if found in of_second}
    return pairs


def _unique(labels: Sequence[Label], key: Callable[[Sequence[Label]], list[object]]) -> dict[object, int]:
    """Return the value of each label by its key, without those that have none or share it."""
    keys = key(labels)
    times = Counter(keys)
    return {found: label.value for found, label in zip(keys, labels, strict=True) if found and times[found] == 1}


def _shared(labels: Sequence[Label]) -> frozenset[object]:
    """Return the keys that several labels have."""
    return frozenset(
        found for key in (_words, _codes) for found, times in Counter(key(labels)).items() if found and times > 1
    )


def _codes(labels: Sequence[Label]) -> list[object]:
    """Return the codes of each label, or those known for its name; ``None`` if they say nothing."""
    known = LabelTable.from_names({label.value: " ".join(_words_of(label)) for label in labels})
    found: list[object] = []
    for label in labels:
        own = label if _says_something(label) else known[label.value]
        codes = [
            (code.scheme, code.value) if code else None for field, code in own.codes.items() if field != "category"
        ]
        found.append(tuple(codes) if _says_something(own) else None)
    return found


def _says_something(label: Label) -> bool:
    kind = label.type
    return label.region is not None or (kind is not None and (kind.scheme, kind.value) not in _GENERAL)


def _words(labels: Sequence[Label]) -> list[object]:
    return [tuple(sorted(_words_of(label))) for label in labels]


def _words_of(label: Label) -> list[str]:
    """Return the words of a name, with the side written out, which names in radiotherapy shorten (TG-263)."""
    words = name_words(label.name)
    if len(words) > 1:
        words[0], words[-1] = (_SIDES.get(word, word) for word in (words[0], words[-1]))
    return words


def _common(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how many voxels of each value two layers have in common, ``(65536,)`` int64."""
    counts, (a, b) = np.zeros(MAX_VALUE + 1, np.int64), (reference.reshape(-1), other.reshape(-1))
    for start in range(0, a.size, VOXELS_AT_ONCE):
        one, two = a[start : start + VOXELS_AT_ONCE], b[start : start + VOXELS_AT_ONCE]
        counts += np.bincount(one[(one == two) & (one > 0)], minlength=len(counts))
    return counts


def onto_grid(source: Geometry, target: Geometry) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return a function that brings labels of one grid onto another, by the nearest voxel; ``None`` if both are one."""
    to_source = np.linalg.inv(source.axes)
    steps, start = to_source @ target.axes, to_source @ np.subtract(target.origin, source.origin)
    reach = np.abs(steps - np.eye(3)) @ np.array(target.size) + np.abs(start)
    if source.size == target.size and reach.max() < _SAME_PLACE:
        return None
    return lambda labels: nearest(labels, steps, start, target.size[::-1])


def nearest(labels: np.ndarray, steps: np.ndarray, start: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return labels, uint16 ``(z, y, x)``, at other places; 0 outside.

    :param steps: ``(3, 3)``, by which the index x, y, z in ``labels`` grows from one new voxel to the next.
    :param start: the index of the first new voxel.
    :param shape: of the result, ``(z, y, x)``.
    """
    axes = np.abs(steps).argmax(1)
    along = np.zeros((3, 3), bool)
    along[range(3), axes] = True
    drift = np.abs(np.where(along, 0, steps)) @ np.array(shape[::-1])
    if sorted(axes.tolist()) == [0, 1, 2] and drift.max() < 0.01:
        # along the axes of the new grid: the index of each new plane, and which of them are inside
        turned, result = labels.transpose([2 - int(np.flatnonzero(axes == axis)[0]) for axis in (2, 1, 0)]), None
        indices, inside = [], []
        for axis in (2, 1, 0):
            own = int(np.flatnonzero(axes == axis)[0])
            index = np.floor(steps[own, axis] * np.arange(shape[2 - axis]) + start[own] + 0.5 + _TIE)
            within = (index >= 0) & (index < labels.shape[2 - own])
            inside.append(np.flatnonzero(within))
            indices.append(index[within].astype(int))
        result = np.zeros(shape, np.uint16)
        result[np.ix_(*inside)] = turned[np.ix_(*indices)]
        return result
    from scipy.ndimage import affine_transform

    matrix = np.ascontiguousarray(steps[::-1, ::-1])
    options = {"order": 0, "mode": "grid-constant", "cval": 0, "prefilter": False, "output": np.uint16}
    return affine_transform(labels, matrix, start[::-1] + _TIE, shape, **options)
