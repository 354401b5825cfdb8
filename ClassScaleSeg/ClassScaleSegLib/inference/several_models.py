"""Segment one image with several models, each of which has some of the classes, into one segmentation.

TotalSegmentator's classes, for example, are spread over five networks. Only one model is in memory at a time. Where two
models claim a voxel, the later one gets it; or both keep it, in layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import LabelTableError, ModelError, named
from ..images.cleanup import check_cleanup
from ..images.geometry import Box, Geometry
from ..images.reading import ImageSource
from ..images.segmentation import Segmentation
from ..labels.common_classes import common_classes
from ..labels.label import MAX_VALUE
from ..labels.table import LabelTable
from ..models.model import open_model
from ..models.summary import ModelSummary, summarize  # reads no weights, so a part without a wanted class costs nothing
from ..options import Options
from .locating import NOWHERE, locate, open_locating, refuse_other_channels
from .progress import CancelToken, Monitor, PartsProgress, Progress
from .segmenter import cleaned, segment_with


@dataclass(frozen=True)
class Source:
    """One of several models.

    :ivar path: in any form that `open_model` takes.
    :ivar model: name of the model that it is a part of. Classes of the same name in two models are told apart by it.
    :ivar configuration: chooses among several models in the path, if ``Options.configuration`` does not.
    :ivar looks: options with the path of a coarse model that locates its classes, unless one locates those of all.
    """

    path: str | Path
    model: str = ""
    configuration: str | None = None
    looks: Options | None = None


def segment_parts(
    image: ImageSource,
    sources: Sequence[str | Path | Source],
    options: Options = Options(),
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelToken | None = None,
    accept: Callable[[Geometry], object] = lambda geometry: None,
) -> Segmentation:
    """Segment one image with each of the models in turn; with a single model this is `segment`.

    A voxel gets the class and the confidence of the last part that has foreground there. Where no part has foreground,
    the confidence is the lowest that any part has in its background. With the option ``overlap="keep"`` what overlaps
    the classes of earlier parts goes into a further layer instead. Names and label values are those of
    :func:`common_classes`.

    :param image: as for `segment`.
    :param sources: models. Those given as paths are parts of one, whose classes of the same name are one class.
    :param options: for every model. ``classes`` holds names or values of the common table; a part that has none of them
        is not run, so it takes no voxel from the others. The common result is cleaned up, not that of each part.
        ``locate_with`` is the path of a model, which locates the classes of all parts once.
    :param progress: called with reports that say which part is at work; ``done``, ``total`` and ``remaining`` are those
        of the whole job.
    :param cancel: as for `segment`.
    :param accept: as for :func:`~.segmenter.segment_with`.
    :raises ModelError: if a model cannot be opened.
    :raises ImageError: if the image cannot be read or does not fit a model.
    :raises LabelTableError: if there is no such class, or there are more than 65535.
    :raises OutOfMemoryError: if even the smallest memory plan does not fit.
    :raises Cancelled: if the token is set.

    >>> import SimpleITK as sitk
    >>> from ClassScaleSegLib.resources import resource
    >>> toy = resource("Models", "toy-120.zip")
    >>> corner = sitk.ReadImage(str(resource("SampleData", "toy-120.nrrd")))[30:50, 30:50, 30:50]
    >>> titles = []
    >>> result = segment_parts(corner, [toy, toy], Options(device="cpu"), lambda report: titles.append(report.title))
    >>> result.labels.shape, len(result.table), titles[0], titles[-1]
    ((20, 20, 20), 121, 'part 1 of 2: load', 'part 2 of 2: decode')
    """
    given = [source if isinstance(source, Source) else Source(source) for source in sources]
    given = [replace(source, configuration=options.configuration or source.configuration) for source in given]
    if len(given) == 1:
        model = open_model(given[0].path, options.folds, options.checkpoint, given[0].configuration)
        coarse = None if options.locate_with is None else open_locating(options.locate_with)
        return segment_with(image, model, options, progress, cancel, accept, coarse)
    tables = [summarize(source.path, source.configuration).table for source in given]
    common = common_classes(tables, [source.model for source in given])
    with named(names_of(given)):
        table = common.table if options.classes is None else common.table.select(options.classes)
        check_cleanup(table, options.remove_islands is not None, options.clean_classes)
    if options.locate_with is not None:
        given = [replace(source, looks=options) for source in given]
    parts = _parts(given, tables, common.values, table)
    searches = list(dict.fromkeys(part.source.looks for part in parts if part.source.looks is not None))
    report = PartsProgress(progress, len(searches) + len(parts))
    boxes: dict[Options | None, Box | None] = {None: None}
    for report.part, looks in enumerate(searches, start=1):
        looking = [part for part in parts if part.source.looks == looks]
        boxes[looks] = _box(image, looks, looking, report, cancel, accept)
    alone = replace(options, smooth=None, remove_islands=None, clean_classes=None)
    merging = None
    for report.part, part in enumerate(parts, start=1 + len(searches)):
        box = boxes[part.source.looks]
        if box == NOWHERE and part is not parts[0]:
            continue
        Monitor(cancel=cancel).check()
        report(Progress("load", 0, 1))
        own = alone if options.classes is None else replace(alone, classes=tuple(part.values))
        model = open_model(part.source.path, options.folds, options.checkpoint, part.source.configuration)
        result = segment_with(image, model, own, report, cancel, accept, box=box)
        merging = merging or _Merging(result, options.overlap == "keep")
        merging.add(result, part.values)
        del result, model  # before the next part needs the memory
    assert merging is not None  # there is at least one part
    return cleaned(merging.result(table), options, Monitor(report, cancel))


def names_of(sources: Iterable[Source]) -> str:
    """Return the names of models, for messages on all of them; parts of one model are named once.

    >>> names_of([Source("a/291.zip", "body"), Source("a/292.zip", "body"), Source("lung.zip")])
    'body, lung.zip'
    """
    return ", ".join(dict.fromkeys(source.model or Path(source.path).name for source in sources))


def common_channels(sources: Sequence[str | Path], summaries: Sequence[ModelSummary] = ()) -> int:
    """Return the number of input channels, which must be the same for all models.

    :param summaries: of the models, if they have been made.
    :raises ModelError: if the number of a model differs from that of the first.

    >>> from ClassScaleSegLib.resources import resource
    >>> common_channels([resource("Models", "toy-120.zip"), resource("Models", "toy-1000.zip")])
    1
    """
    counts = [summary.channels for summary in summaries or map(summarize, sources)]
    for source, channels in zip(sources, counts, strict=True):
        if channels != counts[0]:
            raise ModelError(
                f"{source} needs {channels} channel(s), but {sources[0]} needs {counts[0]}. Models that segment the "
                "same image must have the same channels; leave one of them out."
            )
    return counts[0]


@dataclass(frozen=True)
class _Part:
    """A model that has wanted classes.

    :ivar values: the common value of each of its wanted values.
    :ivar wanted: these classes as the model calls them.
    """

    source: Source
    values: dict[int, int]
    wanted: LabelTable


def _parts(
    sources: Sequence[Source], tables: Sequence[LabelTable], values: Sequence[dict[int, int]], wanted: LabelTable
) -> list[_Part]:
    parts = []
    for source, table, all_values in zip(sources, tables, values, strict=True):
        own = {value: common for value, common in all_values.items() if common in wanted}
        if own:
            parts.append(_Part(source, own, table.select(own)))
    if not parts:
        raise LabelTableError(
            "No class was named that one of the models could find. Name a class of the models, or leave the classes "
            "out to keep all."
        )
    return parts


def _box(
    image: ImageSource,
    looks: Options,
    parts: Sequence[_Part],
    report: PartsProgress,
    cancel: CancelToken | None,
    accept: Callable[[Geometry], object],
) -> Box:
    """Return the box that holds the classes of some models, as a coarse model finds it."""
    Monitor(cancel=cancel).check()
    report.locating(Progress("load", 0, 1))
    coarse = open_locating(looks.locate_with or "")
    for part in parts:
        refuse_other_channels(coarse, summarize(part.source.path, part.source.configuration).channels)
    wanted = {label.name: label for part in parts for label in part.wanted.foreground}
    renumbered = (replace(label, value=value) for value, label in enumerate(wanted.values(), start=1))
    return locate(image, coarse, LabelTable(tuple(renumbered)), looks, Monitor(report.locating, cancel), accept)


class _Merging:
    """The common result, to which the parts are added one after the other.

    :param like: a result on the same grid, with a confidence if one is wanted.
    :param keep: overlapping classes are kept, in layers.
    """

    def __init__(self, like: Segmentation, keep: bool) -> None:
        self._geometry, self._keep, self._notices = like.geometry, keep, like.notices
        self._layers = [np.zeros_like(like.labels)]
        self._confidence = None if like.confidence is None else np.ones_like(like.confidence)
        self._homes: dict[int, int] = {}  # layer of each value

    def add(self, part: Segmentation, values: dict[int, int]) -> None:
        """Put the foreground of a part over what is there, or into a layer where it overlaps nothing.

        :param values: the common value of each value of the part.
        """
        if self._keep:
            known = {value: common for value, common in values.items() if common in self._homes}
            for layer in sorted({self._homes[common] for common in known.values()}):
                self._put(layer, part, {own: value for own, value in known.items() if self._homes[value] == layer})
            values = {own: value for own, value in values.items() if own not in known}
        layer = self._free_layer(part, values) if self._keep else 0
        self._homes.update(dict.fromkeys(values.values(), layer))
        self._put(layer, part, values)

    def result(self, table: LabelTable) -> Segmentation:
        """Return what was added, whose classes are in ``table``."""
        labels, *more = self._layers
        found = (labels, table, self._geometry, self._confidence)
        return Segmentation(*found, more_layers=tuple(more), notices=self._notices)

    def _free_layer(self, part: Segmentation, values: dict[int, int]) -> int:
        has = np.zeros(MAX_VALUE + 1, bool)
        has[list(values)] = True
        for number, layer in enumerate(self._layers):
            if not any((has[found] & (there > 0)).any() for found, there in zip(part.labels, layer, strict=True)):
                return number
        self._layers.append(np.zeros_like(self._layers[0]))
        return len(self._layers) - 1

    def _put(self, layer: int, part: Segmentation, values: dict[int, int]) -> None:
        """Put classes into a layer, plane by plane, so that no further volume is held."""
        renumber = np.zeros(MAX_VALUE + 1, np.uint16)
        renumber[list(values)] = list(values.values())
        for plane, labels in enumerate(self._layers[layer]):
            found = renumber[part.labels[plane]]
            won = found > 0
            labels[won] = found[won]
            if self._confidence is not None and part.confidence is not None:
                before, here = self._confidence[plane], part.confidence[plane]
                before[won] = here[won]
                np.minimum(before, here, out=before, where=labels == 0)
