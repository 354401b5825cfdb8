"""Segment one image with several models, each of which has some of the classes, into one segmentation.

TotalSegmentator's classes, for example, are spread over five networks. Only one model is in memory at a time. Where two
models claim a voxel, the later one gets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import LabelTableError, ModelError
from ..images.cleanup import check_cleanup
from ..images.geometry import Geometry
from ..images.reading import ImageSource
from ..images.segmentation import Segmentation
from ..labels.label import MAX_VALUE, Label, segment_color, segment_id
from ..labels.table import LabelTable
from ..models.model import open_model
from ..models.summary import summarize  # reads no weights, so a part without a wanted class costs nothing
from ..options import Options
from ..resources import resource
from .locating import NOWHERE, locate, open_locating, refuse_other_channels
from .progress import CancelToken, Monitor, PartsProgress, Progress
from .segmenter import cleaned, segment_with


def segment_parts(
    image: ImageSource,
    sources: Sequence[str | Path],
    options: Options = Options(),
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelToken | None = None,
    accept: Callable[[Geometry], object] = lambda geometry: None,
) -> Segmentation:
    """Segment one image with each of the models in turn; with a single model this is `segment`.

    A voxel gets the class and the confidence of the last part that has foreground there. Where no part has foreground,
    the confidence is the lowest that any part has in its background. Classes of the same name are one class. The label
    values are those of :func:`common_table`.

    :param image: as for `segment`.
    :param sources: models, in any form that `open_model` takes.
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
    >>> toy = resource("Models", "toy-120.zip")
    >>> corner = sitk.ReadImage(str(resource("SampleData", "toy-120.nrrd")))[30:50, 30:50, 30:50]
    >>> titles = []
    >>> result = segment_parts(corner, [toy, toy], Options(device="cpu"), lambda report: titles.append(report.title))
    >>> result.labels.shape, len(result.table), titles[0], titles[-1]
    ((20, 20, 20), 121, 'part 1 of 2: load', 'part 2 of 2: decode')
    """
    which = (options.folds, options.checkpoint, options.configuration)
    if len(sources) == 1:
        coarse = None if options.locate_with is None else open_locating(options.locate_with)
        return segment_with(image, open_model(sources[0], *which), options, progress, cancel, accept, coarse)
    tables = [summarize(source, options.configuration).table for source in sources]
    table = common_table(tables)
    table = table if options.classes is None else table.select(options.classes)
    check_cleanup(table, options.remove_islands is not None, options.clean_classes)
    parts = _parts(sources, tables, table)
    alone = replace(options, smooth=None, remove_islands=None, clean_classes=None)
    locating = int(options.locate_with is not None)
    monitor, report = Monitor(cancel=cancel), PartsProgress(progress, locating + len(parts))
    merged = box = None
    if options.locate_with is not None:
        report.locating(Progress("load", 0, 1))
        coarse = open_locating(options.locate_with)
        refuse_other_channels(coarse, common_channels(sources, options.configuration))
        box = locate(image, coarse, table, options, Monitor(report.locating, cancel), accept)
        parts = parts[:1] if box == NOWHERE else parts
        del coarse
    for report.part, (source, values) in enumerate(parts, start=1 + locating):
        monitor.check()
        report(Progress("load", 0, 1))
        chosen = None if options.classes is None else tuple(values)
        own = replace(alone, classes=chosen)
        result = segment_with(image, open_model(source, *which), own, report, cancel, accept, box=box)
        merged = merged or _nothing(result, table)
        _merge(merged, result, values)
        del result  # before the next part needs the memory
    assert merged is not None  # there is at least one part
    return cleaned(merged, options, Monitor(report, cancel))


def common_channels(sources: Sequence[str | Path], configuration: str | None = None) -> int:
    """Return the number of input channels, which must be the same for all models.

    :param configuration: chooses among several models in a source.
    :raises ModelError: if the number of a model differs from that of the first.

    >>> common_channels([resource("Models", "toy-120.zip"), resource("Models", "toy-1000.zip")])
    1
    """
    counts = [summarize(source, configuration).channels for source in sources]
    for source, channels in zip(sources, counts, strict=True):
        if channels != counts[0]:
            raise ModelError(
                f"{source} needs {channels} channel(s), but {sources[0]} needs {counts[0]}. Models that segment the "
                "same image must have the same channels; leave one of them out."
            )
    return counts[0]


def common_table(tables: Sequence[LabelTable]) -> LabelTable:
    """Return a table with one row for each class name that occurs in any part, and one for the background.

    If all names are classes of TotalSegmentator's task ``total``, values, colours and codes are taken from there, so
    that its five part models give the same label values as its single network. Otherwise classes are numbered from 1,
    part by part.

    :param tables: one table for each part.
    :raises LabelTableError: if there are more than 65535 classes.

    >>> first = LabelTable.from_names({0: "background", 1: "liver", 2: "mouse"})
    >>> second = LabelTable.from_names({0: "background", 1: "tail", 2: "liver"})
    >>> [(label.value, label.name) for label in common_table([first, second]).foreground]
    [(1, 'liver'), (2, 'mouse'), (3, 'tail')]
    """
    labels: dict[str, Label] = {}
    for table in tables:
        for label in table.foreground:
            labels.setdefault(label.name, label)
    known = LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv"))
    standard = {label.name: label for label in known.foreground}
    if labels.keys() <= standard.keys():
        rows = [standard[name] for name in labels]
    else:
        rows = [_renumbered(label, value) for value, label in enumerate(labels.values(), start=1)]
    return LabelTable((known[0], *rows))


def _renumbered(label: Label, value: int) -> Label:
    """Give a label another value and the matching id, and also the matching colour unless the model set its own."""
    color = segment_color(value) if label.color == segment_color(label.value) else label.color
    return replace(label, value=value, id=segment_id(value), color=color)


def _parts(
    sources: Iterable[str | Path], tables: Iterable[LabelTable], wanted: LabelTable
) -> list[tuple[str | Path, dict[int, int]]]:
    """Return the models that have wanted classes, each with the common value of each of its wanted values."""
    values = {label.name: label.value for label in wanted.foreground}
    parts = []
    for source, table in zip(sources, tables, strict=True):
        own = {label.value: values[label.name] for label in table.foreground if label.name in values}
        if own:
            parts.append((source, own))
    if not parts:
        raise LabelTableError(
            "No class was named that one of the models could find. Name a class of the models, or leave the classes "
            "out to keep all."
        )
    return parts


def _nothing(like: Segmentation, table: LabelTable) -> Segmentation:
    """Return a segmentation that is certain background everywhere, on the same grid."""
    confidence = None if like.confidence is None else np.ones_like(like.confidence)
    return Segmentation(np.zeros_like(like.labels), table, like.geometry, confidence)


def _merge(merged: Segmentation, part: Segmentation, values: dict[int, int]) -> None:
    """Put the foreground of ``part`` into ``merged``, in place; plane by plane, so that no third volume is held."""
    renumber = np.zeros(MAX_VALUE + 1, np.uint16)
    renumber[list(values)] = list(values.values())
    for plane, labels in enumerate(merged.labels):
        found = renumber[part.labels[plane]]
        won = found > 0
        labels[won] = found[won]
        if merged.confidence is not None and part.confidence is not None:
            before, here = merged.confidence[plane], part.confidence[plane]
            before[won] = here[won]
            np.minimum(before, here, out=before, where=labels == 0)
