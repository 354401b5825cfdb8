"""Mirror images whose left and right classes differ: the classes of the mirrored image are exchanged.

A network trained without mirroring may still segment a mirror image: what it calls left is then right. The logits of
both images are averaged, those of the second one with the rows of left and right classes exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import LabelTableError, ModelError
from ..labels.sides import other_sides
from ..labels.table import LabelTable


@dataclass(frozen=True)
class SideSwap:
    """What is mirrored, and what is exchanged.

    :ivar axis: spatial axis of the patch from the patient's left to the right, or back.
    :ivar rows: for each row of the last layer, the row of the other side; its own if it has none.
    """

    axis: int
    rows: tuple[int, ...]


def side_swap(
    table: LabelTable,
    values: Sequence[int],
    orientation: str | None,
    transpose_forward: Sequence[int],
    patch: Sequence[int],
    mirror_axes: Sequence[int],
) -> SideSwap:
    """Return how a model exchanges the sides.

    :param table: names and codes of the label values; they say what is left and right.
    :param values: label value of each row of the last layer.
    :param orientation: to which images are turned, such as ``RAS``.
    :param transpose_forward: for each axis of the network, the axis (z, y, x) of the image.
    :param patch: voxels, three axes.
    :param mirror_axes: axes of the patch that are mirrored without exchanging classes.
    :raises ModelError: if this model cannot exchange the sides; it says why.

    >>> names = {0: "background", 1: "left kidney", 2: "right kidney", 3: "liver"}
    >>> side_swap(LabelTable.from_names(names), (0, 1, 2, 3), "RAS", (1, 0, 2), (64, 64, 64), ())
    SideSwap(axis=2, rows=(0, 2, 1, 3))
    """
    if orientation is None or len(patch) != 3:
        raise ModelError("left and right can be exchanged only in 3D images that are turned to a known orientation.")
    along = next(axis for axis, letter in enumerate(reversed(orientation)) if letter in "LR")  # z, y, x
    axis = list(transpose_forward).index(along)
    if axis in mirror_axes:
        raise ModelError("left and right cannot be exchanged: the network was trained with images mirrored that way.")
    try:
        others = other_sides(table.foreground)
    except LabelTableError as error:
        raise ModelError(f"left and right cannot be exchanged: {error}") from error
    if not others:
        raise ModelError("left and right cannot be exchanged: the label table has no left and right structures.")
    row_of = {value: row for row, value in enumerate(values)}
    return SideSwap(axis, tuple(row_of[others.get(value, value)] for value in values))
