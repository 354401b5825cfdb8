"""Clean up a label map: smooth borders, remove islands, and say for each class exactly what changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ClassScaleError
from ..labels.label import MAX_VALUE
from ..labels.table import LabelTable
from .counts import VOXELS_AT_ONCE, voxel_counts
from .geometry import Geometry
from .smoothing import smooth

_LINES = 20  # a sentence for each class, if no more have changed
_ROUNDING = 1e-9  # relative: an island of exactly the size that is asked for is kept


@dataclass(frozen=True)
class ClassChange:
    """What was changed of one class.

    :ivar value: label value.
    :ivar name: name of the class.
    :ivar before: number of voxels before.
    :ivar after: number of voxels after.
    :ivar lost: how many of the voxels before are not among those after.
    :ivar gained: how many of the voxels after were not among those before.
    :ivar islands: number of islands removed.

    >>> print(ClassChange(5, "liver", before=2000, after=1970, lost=50, gained=20, islands=2))
    liver: from 2000 to 1970 voxels (50 lost, 20 gained), 2 islands removed
    """

    value: int
    name: str
    before: int
    after: int
    lost: int
    gained: int
    islands: int

    def __str__(self) -> str:
        text = f"{self.name}: from {self.before} to {self.after} voxels ({self.lost} lost, {self.gained} gained)"
        return f"{text}, {self.islands} island{'s' * (self.islands != 1)} removed" if self.islands else text


def clean(
    labels: np.ndarray,
    table: LabelTable,
    geometry: Geometry,
    smooth_mm: float | None = None,
    islands_mm3: float | None = None,
    classes: Iterable[str | int] | None = None,
    step: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[np.ndarray, tuple[ClassChange, ...]]:
    """Smooth all classes together, then remove the islands of each, as `Segmentation.cleaned` describes.

    :param labels: uint16 ``(z, y, x)``; it is not changed.
    :param table: has a label for every value but 0 that occurs.
    :param step: as of :func:`~.smoothing.smooth`.
    :returns: the new labels, uint16 ``(z, y, x)``, and what changed of each class that changed, in table order.
    :raises ClassScaleError: as `Segmentation.cleaned`.
    """
    for what, size in (("smoothing", smooth_mm), ("smallest island", islands_mm3)):
        if size is not None and not (math.isfinite(size) and size > 0):
            raise ClassScaleError(f"The {what} is {size}; it must be a number above 0.")
    chosen = None
    if classes is not None:
        chosen = np.zeros(MAX_VALUE + 1, bool)
        chosen[[label.value for label in table.select(classes)]] = True
    x, y, z = geometry.spacing
    if smooth_mm is None:
        result = labels.copy()
    else:
        result = smooth(labels, (smooth_mm / z, smooth_mm / y, smooth_mm / x), chosen, step)
    islands = np.zeros(MAX_VALUE + 1, np.int64)
    if islands_mm3 is not None:
        islands = _remove_islands(result, islands_mm3 / geometry.voxel_volume * (1 - _ROUNDING), chosen)
    return result, tuple(_changes(labels, result, islands, table))


def check_cleanup(table: LabelTable, islands: bool, classes: Iterable[str | int] | None) -> None:
    """Refuse a clean-up that :func:`clean` would refuse at the end of a long computation.

    :raises LabelTableError: if the table has no class of a name or label value in ``classes``.
    :raises ClassScaleError: if the package that finds islands is missing.
    """
    if classes is not None:
        table.select(classes)
    if islands:
        _connected_components()


def sentences(changes: Sequence[ClassChange]) -> Iterator[str]:
    """Yield what a user is told of the changes: a sentence for each class, or one for all if many have changed.

    >>> list(sentences(()))
    ['Cleaning up changed nothing.']
    """
    if 0 < len(changes) <= _LINES:
        yield from (f"Cleaned up {change}." for change in changes)
    elif not changes:
        yield "Cleaning up changed nothing."
    else:
        lost, gained, islands = (sum(getattr(c, name) for c in changes) for name in ("lost", "gained", "islands"))
        text = f"Cleaning up changed {len(changes)} classes, which lost {lost} voxels and gained {gained}"
        yield f"{text}; islands removed: {islands}." if islands else f"{text}."


def _connected_components() -> Callable[..., Any]:
    try:
        from cc3d import connected_components
    except ImportError as error:
        raise ClassScaleError(
            "To remove islands, the Python package connected-components-3d is needed, which nnunetv2 usually brings. "
            "Install it with: python -m pip install connected-components-3d"
        ) from error
    return connected_components


def _remove_islands(labels: np.ndarray, smallest: float, chosen: np.ndarray | None) -> np.ndarray:
    """Set components of fewer than ``smallest`` voxels to 0, in place; their voxels have common faces.

    :param labels: uint16 ``(z, y, x)``, contiguous.
    :returns: ``(65536,)`` int64, the number of components of each label value that were removed.
    """
    candidates = labels if chosen is None else np.where(chosen[labels], labels, np.uint16(0))
    components, count = _connected_components()(candidates, connectivity=6, return_N=True)
    components, flat = components.reshape(-1), labels.reshape(-1)
    at_once = max(VOXELS_AT_ONCE, int(count))  # so that the arrays of all components are passed over rarely
    parts = [slice(start, start + at_once) for start in range(0, flat.size, at_once)]
    sizes, values = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.uint16)
    for part in parts:
        sizes += np.bincount(components[part], minlength=count + 1)
        values[components[part]] = flat[part]
    small = sizes < smallest
    small[0] = False
    if small.any():
        for part in parts:
            flat[part][small[components[part]]] = 0
    return np.bincount(values[small], minlength=MAX_VALUE + 1)


def _changes(before: np.ndarray, after: np.ndarray, islands: np.ndarray, table: LabelTable) -> Iterator[ClassChange]:
    lost, gained = np.zeros(MAX_VALUE + 1, np.int64), np.zeros(MAX_VALUE + 1, np.int64)
    for old, new in zip(before, after, strict=True):
        changed = old != new
        if changed.any():
            lost += np.bincount(old[changed], minlength=len(lost))
            gained += np.bincount(new[changed], minlength=len(gained))
    counts = voxel_counts(before)
    for label in table.foreground:
        value = label.value
        numbers = (
            counts[value],
            counts[value] - lost[value] + gained[value],
            lost[value],
            gained[value],
            islands[value],
        )
        if any(numbers[2:]):
            yield ClassChange(value, label.name, *(int(number) for number in numbers))
