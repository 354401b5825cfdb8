"""Segment one image with one model; the result is on the grid of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from ..errors import ClassScaleError, named
from ..images.cleanup import check_cleanup, sentences
from ..images.reading import ImageSource
from ..images.segmentation import Segmentation
from ..models.model import Model
from ..options import Options
from .label_map import label_map
from .locating import locate, refuse_other_channels
from .progress import CancelToken, Monitor, PartsProgress, Progress

if TYPE_CHECKING:
    from ..images.geometry import Box, Geometry


def segment(
    image: ImageSource,
    model: Model,
    *,
    device: str = Options.device,
    step: float | None = Options.step,
    mirroring: bool = Options.mirroring,
    interpolation: str = Options.interpolation,
    bfloat16: bool = Options.bfloat16,
    classes: Iterable[str | int] | None = None,
    confidence: bool = Options.confidence,
    memory_limit_gib: float | None = None,
    threads: int | None = None,
    smooth: float | None = None,
    remove_islands: float | None = None,
    clean_classes: Iterable[str | int] | None = None,
    locate_with: Model | None = None,
    locate_classes: Iterable[str | int] | None = None,
    locate_margin: float = Options.locate_margin,
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelToken | None = None,
) -> Segmentation:
    """Segment one image.

    :param image: a path, a list of paths (one for each channel), a DICOM folder, or a SimpleITK image.
    :param model: as :func:`~ClassScaleSegLib.models.model.open_model` returns it.
    :param device: this and the next ones are fields of :class:`Options`, which says what they mean.
    :param locate_with: an opened model, which finds quickly where the classes are; see :mod:`.locating`.
    :param progress: called with a :class:`Progress` at every step of a stage.
    :param cancel: a token whose ``is_set()`` is checked at every step; when it is true, the job stops.
    :returns: the segmentation on the grid of the image, with the confidence if wanted.
    :raises ImageError: if the image cannot be read or does not fit the model.
    :raises LabelTableError: if the model has no class of a name or label value in ``classes``, or there is none of
        ``clean_classes`` among those.
    :raises OutOfMemoryError: if even the smallest memory plan does not fit.
    :raises ClassScaleError: if the device does not exist, or the network's output is not finite.
    :raises Cancelled: if the token is set.

    >>> from ClassScaleSegLib import open_model
    >>> from ClassScaleSegLib.resources import resource
    >>> toy = open_model(resource("Models", "toy-120.zip"))
    >>> result = segment(resource("SampleData", "toy-120.nrrd"), toy, device="cpu", classes=["cell 1", "cell 7"])
    >>> [(row.name, round(row.volume_ml)) for row in result.statistics()]
    [('cell 1', 10), ('cell 7', 5)]

    ``result.write("toy.seg.nrrd")`` saves it.
    """
    if locate_with is not None and not isinstance(locate_with, Model):
        raise ClassScaleError(f"locate_with is {locate_with!r}; it must be a model, as open_model returns it.")
    options = Options(
        device=device,
        step=step,
        mirroring=mirroring,
        interpolation=interpolation,
        bfloat16=bfloat16,
        classes=classes,
        confidence=confidence,
        memory_limit_gib=memory_limit_gib,
        threads=threads,
        smooth=smooth,
        remove_islands=remove_islands,
        clean_classes=clean_classes,
        locate_with=None if locate_with is None else locate_with.name,
        locate_classes=locate_classes,
        locate_margin=locate_margin,
    )
    return segment_with(image, model, options, progress, cancel, coarse=locate_with)


def segment_with(
    image: ImageSource,
    model: Model,
    options: Options,
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelToken | None = None,
    accept: Callable[[Geometry], object] = lambda geometry: None,
    coarse: Model | None = None,
    box: Box | None = None,
) -> Segmentation:
    """Segment one image as :func:`segment` does, with the choices in ``options``.

    :param accept: called with the grid of the image when it has been read; an exception that it raises ends the job
        before the long computation, such as that of :func:`~ClassScaleSegLib.images.formats.writable_geometry`.
    :param coarse: the model that ``locate_with`` names, opened.
    :param box: of voxels along z, y, x of the image, to which the result is limited; the rest is background. ``None``:
        the whole image, or what the coarse model locates.
    """
    with named(model.name):
        table = model.table if options.classes is None else model.table.select(options.classes)
        check_cleanup(table, options.remove_islands is not None, options.clean_classes)
    wanted = None if options.classes is None else frozenset(label.value for label in table)
    if coarse is not None and box is None:
        refuse_other_channels(coarse, model.channels)
        progress = parts = PartsProgress(progress, 2)
        box = locate(image, coarse, table, options, Monitor(parts.locating, cancel), accept)
        parts.part = 2
    monitor = Monitor(progress, cancel)
    found = label_map(image, model, options, monitor, wanted, accept, box)
    source = found.source
    confidence = None if found.confidence is None else source.restore(found.confidence)
    labels = source.restore(found.labels)
    result = Segmentation(labels, table, source.geometry, confidence, notices=source.notices)
    return cleaned(result, options, monitor)


def cleaned(result: Segmentation, options: Options, monitor: Monitor) -> Segmentation:
    """Smooth a result and remove its islands, if the options say so, and tell the user what that changed.

    :raises Cancelled: if the monitor's token is set.
    """
    if not options.cleans:
        return result
    monitor.report("clean")
    step = partial(monitor.report, "clean")
    result = result.cleaned(options.smooth, options.remove_islands, options.clean_classes, step)
    for sentence in sentences(result.changes or ()):
        monitor.tell(sentence)
    return result
