"""Find with a coarse model where classes are, so that a fine one needs to see only this box of the image.

The fine model gets the box, a margin, and as much around it as makes a patch. The intensities that it sees are those
that it would see in the whole image, because the whole image is what is normalised. Its windows lie elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LabelTableError, ModelError, named
from ..images.counts import voxel_counts
from ..labels.table import LabelTable
from ..models.model import Model, open_model
from ..options import Options
from .label_map import label_map

if TYPE_CHECKING:
    from ..images.geometry import Box, Geometry
    from ..images.reading import ImageSource
    from ..models.summary import ModelFacts
    from .label_map import LabelMap
    from .prepared import Prepared
    from .progress import Monitor

NOWHERE: Box = (slice(0, 0), slice(0, 0), slice(0, 0))
_NAMES = 5  # that a sentence lists


def locate(
    image: ImageSource,
    coarse: Model,
    table: LabelTable,
    options: Options,
    monitor: Monitor,
    accept: Callable[[Geometry], object] = lambda geometry: None,
) -> Box:
    """Return the box that holds what a coarse model has found of some classes, and a margin.

    :param image: as for :func:`~.segmenter.segment`.
    :param coarse: a model that finds the classes quickly; it is run without mirroring.
    :param table: the classes of the fine model. The coarse one must have classes of the same names, unless ``options``
        name those of it that tell where to look.
    :param options: those of the fine model, with ``locate_classes`` and ``locate_margin``.
    :param monitor: is told where they are, and which were not found.
    :param accept: as for :func:`~.segmenter.segment_with`.
    :returns: voxels of the image along z, y, x; an empty box if nothing was found.
    :raises LabelTableError: if the coarse model has no class of such a name.
    :raises ClassScaleError: as :func:`~.segmenter.segment`.
    """
    wanted = _wanted(coarse, table, options)
    values = frozenset(label.value for label in wanted.foreground)
    quick = replace(options, mirroring=False, confidence=False)
    place: dict[str, Any] = {}

    def on_model_grid(prepared: Prepared) -> Prepared:
        place.update(box=prepared.box, shape=prepared.shape, backward=prepared.backward)
        return prepared.on_model_grid()

    try:
        found = label_map(image, coarse, quick, monitor, values, accept, arrange=on_model_grid)
    finally:
        for network in coarse.backbones:  # it leaves the GPU to the fine one
            network.to("cpu")
    counts = voxel_counts(found.labels)
    missing = [label.name for label in wanted.foreground if not counts[label.value]]
    if len(missing) == len(wanted.foreground):
        monitor.tell(f"{coarse.name} has found none of {_listed(missing)}, so the result is empty.")
        return NOWHERE
    if missing:
        monitor.tell(f"{coarse.name} has not found {_listed(missing)}; the box is that of the others.")
    box = _box_of(found, coarse, options.locate_margin, **place)
    size = [part.stop - part.start for part in box]
    share = math.prod(size) / math.prod(found.source.geometry.size)
    millimetres = " x ".join(f"{n * mm:.0f}" for n, mm in zip(size[::-1], found.source.geometry.spacing, strict=True))
    monitor.tell(f"Located by {coarse.name}: a box of {millimetres} mm, {share:.0%} of the image.")
    return box


def open_locating(source: str | Path) -> Model:
    """Open a model that locates classes, with all its folds.

    :raises ModelError: if it cannot be used, or is a folder of several.
    """
    try:
        return open_model(source)
    except ModelError as error:
        raise ModelError(f"{error} To locate classes, name the folder or file of a single model.") from error


def refuse_other_channels(coarse: ModelFacts, channels: int) -> None:
    """Refuse a model that cannot locate classes in the images of another, which has so many channels.

    :raises ModelError: if it needs another number of channels.
    """
    if coarse.channels != channels:
        raise ModelError(
            f"{coarse.name} needs {coarse.channels} channel(s), and the model that segments {channels}. A model that "
            "locates must take the same images."
        )


def _wanted(coarse: Model, table: LabelTable, options: Options) -> LabelTable:
    """Return the classes of the coarse model that tell where to look."""
    if options.locate_classes is not None:
        with named(coarse.name):
            wanted = coarse.table.select(options.locate_classes)
        if not wanted.foreground:
            raise LabelTableError("The background cannot be located. Name other classes (--locate-classes).")
        return wanted
    try:
        return LabelTable(tuple({coarse.table.by_name(label.name): None for label in table.foreground}))
    except LabelTableError as error:
        raise LabelTableError(
            f"{coarse.name} cannot tell where to look. {error} With locate_classes (--locate-classes) name the classes "
            f"of {coarse.name} that enclose what you look for."
        ) from error


def _box_of(
    found: LabelMap, coarse: Model, margin: float, box: Sequence[slice], shape: Sequence[int], backward: Sequence[int]
) -> Box:
    """Return the box of all labels on the grid of the image, with a margin in mm around it.

    :param box: crop of the image that the model grid covers, in the model's axis order; ``shape`` and ``backward`` are
        those of :class:`~.prepared.Prepared`.
    """
    spacing = found.source.spacing
    occupied = found.labels.transpose(np.argsort(backward)) > 0
    parts = []
    for axis, crop in enumerate(box):
        line = np.flatnonzero(occupied.any(tuple(other for other in range(3) if other != axis)))
        voxels = (crop.stop - crop.start) / occupied.shape[axis]  # of the image in one of the model grid
        around = margin / spacing[coarse.plans_manager.transpose_forward[axis]]
        low = crop.start + math.floor(line[0] * voxels - around)
        high = crop.start + math.ceil((line[-1] + 1) * voxels + around)
        parts.append(slice(max(low, 0), min(high, shape[axis])))
    z, y, x = (parts[axis] for axis in backward)
    return found.source.restored_box((z, y, x))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more
