"""Several models, one segmentation: each has classes of its own, and where two claim a voxel the later one has it.

TotalSegmentator's classes, for example, are spread over five networks. Only one model is in memory at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LabelTableError, ModelError
from ..images.reading import ImageSource
from ..images.segmentation import Segmentation
from ..labels.label import MAX_VALUE, Label, segment_color, segment_id
from ..labels.table import LabelTable
from ..resources import resource
from .progress import CancelToken, Monitor, Progress
from .segmenter import segment

_UNITS = 1000  # of progress in a part


@dataclass(frozen=True)
class _Part:
    """:ivar values: for each wanted label value of the model, its value in the common table."""

    source: str | Path
    values: dict[int, int]


def segment_parts(
    image: ImageSource,
    sources: Sequence[str | Path],
    *,
    folds: tuple[int | str, ...] | None = None,
    checkpoint: str = "final",
    configuration: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelToken | None = None,
    **options: Any,
) -> Segmentation:
    """Segment one image with each of the models in turn; with one model it is `segment`.

    A voxel belongs to the last part that has foreground there, and its confidence is that part's; where no part has
    any, it is the lowest confidence that a part has in its background. Classes of the same name are one class. Their
    values are those of :func:`common_table`.

    :param sources: models, as `open_model` takes them, with ``folds``, ``checkpoint`` and ``configuration`` for all.
    :param progress: stages are called "part 2 of 5: segment"; ``done`` and ``total`` are of the whole job.
    :param options: the fields of :class:`~ClassScaleSegLib.inference.segmenter.Options`. ``classes`` are names or
        common values; a part that has none of them is not run, and so takes no voxel from the others.
    :raises ModelError, ImageError, LabelTableError, OutOfMemoryError, Cancelled: each a sentence on what to do.
    """
    from ..models.model import open_model

    which = (folds, checkpoint, configuration)
    if len(sources) == 1:
        return segment(image, open_model(sources[0], *which), progress=progress, cancel=cancel, **options)
    classes = options.pop("classes", None)
    tables = [_table(source, configuration) for source in sources]
    table = common_table(tables)
    table = table if classes is None else table.select(classes)
    parts = _parts(sources, tables, table)
    monitor, tell = Monitor(cancel=cancel), _Progress(progress, len(parts))
    merged = None
    for index, part in enumerate(parts):
        monitor.check()
        report = tell.of_part(index)
        report(Progress("load", 0, 1))
        chosen = None if classes is None else tuple(part.values)
        result = segment(
            image, open_model(part.source, *which), progress=report, cancel=cancel, classes=chosen, **options
        )
        merged = merged or _nothing(result, table)
        _merge(merged, result, part.values)
        del result  # before the next part needs the memory
    return merged


def common_channels(sources: Sequence[str | Path], configuration: str | None = None) -> int:
    """Input channels of all models.

    :raises ModelError: if one wants another number than the first.
    """
    from ..models.summary import summarize

    counts = [summarize(source, configuration).channels for source in sources]
    for source, channels in zip(sources, counts, strict=True):
        if channels != counts[0]:
            raise ModelError(
                f"{source} wants {channels} channel(s) and {sources[0]} {counts[0]}: models that segment the same "
                "image must have the same channels."
            )
    return counts[0]


def common_table(tables: Sequence[LabelTable]) -> LabelTable:
    """One row for each class name of any part, and one for the background.

    If TotalSegmentator knows all names, values, colours and codes are those of its task ``total``, so that its five
    part models number as its single network does. Otherwise classes are numbered from 1, part by part.

    :raises LabelTableError: if there are more than 65535.
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
    """With the id of its new value, and its colour unless the model chose one of its own."""
    color = segment_color(value) if label.color == segment_color(label.value) else label.color
    return replace(label, value=value, id=segment_id(value), color=color)


def _table(source: str | Path, configuration: str | None) -> LabelTable:
    from ..models.summary import summarize  # reads no weights: a part without a wanted class costs nothing

    return summarize(source, configuration).table


def _parts(sources: Iterable[str | Path], tables: Iterable[LabelTable], wanted: LabelTable) -> list[_Part]:
    """The parts that have a wanted class."""
    values = {label.name: label.value for label in wanted.foreground}
    parts = []
    for source, table in zip(sources, tables, strict=True):
        own = {label.value: values[label.name] for label in table.foreground if label.name in values}
        if own:
            parts.append(_Part(source, own))
    if not parts:
        raise LabelTableError("No class was named that one of the models could find: name one, or none to keep all.")
    return parts


def _nothing(like: Segmentation, table: LabelTable) -> Segmentation:
    """Background for certain, on the same grid."""
    confidence = None if like.confidence is None else np.ones_like(like.confidence)
    return Segmentation(np.zeros_like(like.labels), table, like.geometry, confidence)


def _merge(merged: Segmentation, part: Segmentation, values: dict[int, int]) -> None:
    """Put the foreground of ``part`` into ``merged``, in place, plane by plane: no third volume is held."""
    renumber = np.zeros(MAX_VALUE + 1, np.uint16)
    renumber[list(values)] = list(values.values())
    for plane, labels in enumerate(merged.labels):
        found = renumber[part.labels[plane]]
        won = found > 0
        labels[won] = found[won]
        if merged.confidence is not None:
            before, here = merged.confidence[plane], part.confidence[plane]
            before[won] = here[won]
            np.minimum(before, here, out=before, where=labels == 0)


class _Progress:
    """Reports of single parts as reports of the whole job; parts count alike."""

    def __init__(self, progress: Callable[[Progress], None] | None, count: int):
        self._progress, self._count, self._done, self._begin = progress, count, 0, time.monotonic()

    def of_part(self, index: int) -> Callable[[Progress], None]:
        def report(own: Progress) -> None:
            if self._progress is None:
                return
            share = own.done / own.total if own.stage in ("segment", "decode") else 0
            self._done = max(self._done, round(_UNITS * (index + share)))  # rows are decoded after the only window
            total = _UNITS * self._count
            seconds = time.monotonic() - self._begin
            remaining = seconds / self._done * (total - self._done) if self._done else None
            stage = f"part {index + 1} of {self._count}: {own.stage}"
            self._progress(replace(own, stage=stage, done=self._done, total=total, remaining=remaining))

        return report
