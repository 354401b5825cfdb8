"""Segment one image with one model; the result is on the grid of the image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..images.cleanup import check_cleanup, sentences
from ..images.reading import ImageSource, read_image
from ..images.segmentation import Segmentation
from ..options import Options
from .progress import CancelToken, Monitor, Progress

if TYPE_CHECKING:
    from ..images.geometry import Geometry
    from ..models.model import Model
    from ..models.projection import Projection
    from .backbone import Backbone
    from .decode import LabelRow
    from .memory_plan import MemoryPlan
    from .preprocess import Prepared


def segment(
    image: ImageSource,
    model: Model,
    *,
    device: str = Options.device,
    step: float = Options.step,
    mirroring: bool = Options.mirroring,
    classes: Iterable[str | int] | None = None,
    confidence: bool = Options.confidence,
    memory_limit_gib: float | None = None,
    threads: int | None = None,
    smooth: float | None = None,
    remove_islands: float | None = None,
    clean_classes: Iterable[str | int] | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelToken | None = None,
) -> Segmentation:
    """Segment one image.

    :param image: a path, a list of paths (one for each channel), a DICOM folder, or a SimpleITK image.
    :param model: as :func:`~ClassScaleSegLib.models.model.open_model` returns it.
    :param device: this and the next ones are fields of :class:`Options`, which says what they mean.
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
    options = Options(
        device=device,
        step=step,
        mirroring=mirroring,
        classes=classes,
        confidence=confidence,
        memory_limit_gib=memory_limit_gib,
        threads=threads,
        smooth=smooth,
        remove_islands=remove_islands,
        clean_classes=clean_classes,
    )
    return segment_with(image, model, options, progress, cancel)


def segment_with(
    image: ImageSource,
    model: Model,
    options: Options,
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelToken | None = None,
    accept: Callable[[Geometry], object] = lambda geometry: None,
) -> Segmentation:
    """Segment one image as :func:`segment` does, with the choices in ``options``.

    :param accept: called with the grid of the image when it has been read; an exception that it raises ends the job
        before the long computation, such as that of :func:`~ClassScaleSegLib.images.formats.writable_geometry`.
    """
    import torch

    from .backbone import Backbone
    from .devices import choose_device
    from .memory_estimate import estimate
    from .memory_plan import plan_memory
    from .preprocess import prepare

    monitor = Monitor(progress, cancel)
    table = model.table if options.classes is None else model.table.select(options.classes)
    check_cleanup(table, options.remove_islands is not None, options.clean_classes)
    monitor.report("read")
    flat, nibabel = len(model.patch) == 2, model.reads_with_nibabel
    source = monitor.wait_for(lambda: read_image(image, model.channels, model.orientation, flat=flat, nibabel=nibabel))
    accept(source.geometry)
    for notice in source.notices:
        monitor.tell(notice)
    assert source.voxels is not None  # an image that was just read has its voxels
    shape, size = source.voxels.shape[1:], source.voxels.itemsize
    mirror_axes = model.mirror_axes if options.mirroring else ()
    need = estimate(model, shape, source.spacing, options.step, options.confidence, size, bool(mirror_axes))
    device = choose_device(options.device)
    limit = None if options.memory_limit_gib is None else int(options.memory_limit_gib * 2**30)
    plan = plan_memory(need.placements(device), device, limit, monitor.tell)
    with _threads(options.threads), torch.inference_mode():
        monitor.report("preprocess")

        def arithmetic() -> str:
            return plan.compute.replace("mps", "cpu")  # MPS has no float64

        prepared = plan.retry(partial(prepare, source, model, arithmetic, monitor))
        plan.watch(lambda placement: prepared.image.restart())
        source = source.without_voxels()  # the rows hold the voxels until the last one is made
        if not need.rolls(plan.compute):
            plan.retry(prepared.image.whole)
        labels, rows = prepared.empty(np.uint16)
        confidence, confidence_rows = prepared.empty(np.float32) if options.confidence else (None, None)
        if confidence is not None:
            confidence.fill(1)  # outside of the non-zero crop, background is certain
        backbone = Backbone(model.backbones, mirror_axes, model.average_folds, monitor.check)
        wanted = None if options.classes is None else frozenset(label.value for label in table)
        choices = (options.step, monitor, wanted, options.confidence)
        for row in decoded_rows(prepared, backbone, model.patch, model.projection, plan, *choices):
            monitor.check()
            if need.windows == 1:  # with several, the windows are the progress
                monitor.report("decode", row.index + 1, len(rows))
            rows[row.index] = row.labels.cpu().numpy()
            if confidence_rows is not None and row.confidence is not None:
                confidence_rows[row.index] = row.confidence.cpu().numpy()
    restored = None if confidence is None else source.restore(confidence)
    return cleaned(Segmentation(source.restore(labels), table, source.geometry, restored), options, monitor)


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


def decoded_rows(
    prepared: Prepared,
    backbone: Backbone,
    patch: Sequence[int],
    projection: Projection,
    plan: MemoryPlan,
    step: float = Options.step,
    monitor: Monitor | None = None,
    wanted: frozenset[int] | None = None,
    confidence: bool = False,
) -> Iterator[LabelRow]:
    """Yield the rows of a prepared image's label map, each as soon as the windows that it needs are computed.

    When memory runs out, the plan moves on, and only the window or the row in work is computed again.

    :param patch: this, ``backbone``, ``step`` and ``monitor`` are those of :func:`~.windows.predict_rows`.
    :param projection: on any device; this, ``wanted`` and ``confidence`` are those of :class:`~.decode.RowDecoder`.
    :param plan: where to compute.
    :raises OutOfMemoryError: as ``predict_rows``, which also raises :class:`ClassScaleError` and :class:`Cancelled`.
    """
    from .decode import RowDecoder
    from .windows import predict_rows

    decoder = RowDecoder(projection.to(plan.compute), prepared.axes, wanted, confidence)
    plan.watch(lambda placement: decoder.to(placement.compute))
    for basis in predict_rows(prepared.image, backbone, patch, step, plan, monitor):
        plan.retry(partial(decoder.push, basis))
        while row := plan.retry(decoder.pop):
            yield row


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Set the number of torch's CPU threads for the block, as `Options.threads` says."""
    import torch

    before, cores = torch.get_num_threads(), os.cpu_count() or 1
    usual = before if "OMP_NUM_THREADS" in os.environ else cores - 1 if cores > 2 else cores
    torch.set_num_threads(count or usual)
    try:
        yield
    finally:
        torch.set_num_threads(before)
