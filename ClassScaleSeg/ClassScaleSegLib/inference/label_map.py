"""What a model finds in one image, or in a box of it: from the image to rows of labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import named
from ..images.reading import InputImage, read_image
from ..models.preprocessing import Conform
from ..options import Options
from .progress import Monitor

if TYPE_CHECKING:
    from ..images.geometry import Box, Geometry
    from ..images.reading import ImageSource
    from ..models.model import Model
    from ..models.projection import Projection
    from .backbone import Backbone
    from .decode import LabelRow
    from .memory_plan import MemoryPlan
    from .preprocess import Prepared


class LabelMap(NamedTuple):
    """What a model has found in an image.

    :ivar source: the image, without voxels.
    :ivar labels: uint16 ``(z, y, x)``, in the model's orientation.
    :ivar confidence: float32 ``(z, y, x)``; ``None`` if it is not wanted.
    """

    source: InputImage
    labels: np.ndarray
    confidence: np.ndarray | None


def label_map(
    image: ImageSource,
    model: Model,
    options: Options,
    monitor: Monitor,
    wanted: frozenset[int] | None = None,
    accept: Callable[[Geometry], object] = lambda geometry: None,
    box: Box | None = None,
    arrange: Callable[[Prepared], Prepared] = lambda prepared: prepared,
) -> LabelMap:
    """Return what a model finds in an image.

    :param image: this, ``model``, ``accept`` and ``box`` are those of :func:`~.segmenter.segment_with`, and so are the
        exceptions.
    :param options: ``classes``, and what cleans up a result or locates a box, are not looked at.
    :param wanted: label values to keep; ``None`` keeps all.
    :param arrange: is given the prepared image, and returns where its labels go instead.
    """
    import torch

    from .backbone import Backbone
    from .devices import choose_device
    from .memory_estimate import estimate
    from .memory_plan import plan_memory
    from .windows import count_windows

    monitor.report("read")
    flat, nibabel = len(model.patch) == 2, model.reads_with_nibabel
    source = monitor.wait_for(lambda: read_image(image, model.channels, model.orientation, flat=flat, nibabel=nibabel))
    accept(source.geometry)
    for notice in source.notices:
        monitor.tell(notice)
    assert source.voxels is not None  # an image that was just read has its voxels
    shape, size = source.voxels.shape[1:], source.voxels.itemsize
    inside = None if box is None else source.turned_box(box)
    part = None if inside is None else [side.stop - side.start for side in inside]
    if part is not None and not all(part):
        ones = np.ones(shape, np.float32) if options.confidence else None
        return LabelMap(source.without_voxels(), np.zeros(shape, np.uint16), ones)
    mirror_axes, sides = (model.mirror_axes, model.side_swap) if options.mirroring else ((), None)
    mirrored = bool(mirror_axes) or sides is not None
    step = model.usual_step if options.step is None else options.step
    need = estimate(model, shape, source.spacing, step, options.confidence, size, mirrored, part)
    device = choose_device(options.device)
    limit = None if options.memory_limit_gib is None else int(options.memory_limit_gib * 2**30)
    with named(source.name):
        plan = plan_memory(need.placements(device), device, limit, monitor.tell)
    with named(source.name), _threads(options.threads), torch.inference_mode():
        monitor.report("preprocess")

        def arithmetic() -> str:
            return plan.compute.replace("mps", "cpu")  # MPS has no float64

        prepared = arrange(plan.retry(partial(preparation(model), source, model, arithmetic, monitor)))
        if options.interpolation == "nearest":
            prepared = prepared.with_nearest()
        if inside is not None:
            prepared = prepared.within([inside[axis] for axis in model.plans_manager.transpose_forward], model.patch)
        plan.watch(lambda placement: prepared.image.restart())
        source = source.without_voxels()  # the rows hold the voxels until the last one is made
        labels, rows = prepared.empty(np.uint16)
        confidence, confidence_rows = prepared.empty(np.float32) if options.confidence else (None, None)
        if confidence is not None:
            confidence.fill(1)  # outside of the box and of the non-zero crop, background is certain
        if not rows.size:  # the box and the crop have nothing in common
            return LabelMap(source, labels, confidence)
        if not need.rolls(plan.compute):
            plan.retry(prepared.image.whole)
        patch = prepared.window(model.patch)
        windows = count_windows(prepared.image.shape[1:], patch, step, model.even_windows)
        reduced = options.bfloat16 and _bfloat16_helps(plan, monitor)
        backbone = Backbone(model.backbones, mirror_axes, model.average_folds, monitor.check, sides, reduced)
        projection = model.projection
        if sides is not None and not model.average_folds:
            projection = projection.with_exchanged(sides.rows)
        choices = (step, monitor, wanted, options.confidence, model.even_windows)
        for row in decoded_rows(prepared, backbone, patch, projection, plan, *choices):
            monitor.check()
            if windows == 1:  # with several, the windows are the progress
                monitor.report("decode", row.index + 1, len(rows))
            rows[row.index] = row.labels.cpu().numpy()
            if confidence_rows is not None and row.confidence is not None:
                confidence_rows[row.index] = row.confidence.cpu().numpy()
    return LabelMap(source, labels, confidence)


def _bfloat16_helps(plan: MemoryPlan, monitor: Monitor) -> bool:
    """Return whether the CPU computes bfloat16 fast, and tell users if it would be used and does not."""
    from .devices import has_bfloat16

    helps = has_bfloat16()
    if plan.compute == "cpu" and not helps:
        monitor.tell("This processor has no instructions for bfloat16 (AMX or AVX512-BF16), so float32 is used.")
    return helps


def preparation(model: Model) -> Callable[..., Prepared]:
    """Return the function that prepares images for a model, with the parameters of :func:`.preprocess.prepare`."""
    if model.preprocessing is None:
        from .preprocess import prepare
    elif isinstance(model.preprocessing, Conform):
        from .conform import prepare
    else:
        from .auto3dseg import prepare
    return prepare


def decoded_rows(
    prepared: Prepared,
    backbone: Backbone,
    patch: Sequence[int],
    projection: Projection,
    plan: MemoryPlan,
    step: float = 0.5,
    monitor: Monitor | None = None,
    wanted: frozenset[int] | None = None,
    confidence: bool = False,
    even: bool = True,
) -> Iterator[LabelRow]:
    """Yield the rows of a prepared image's label map, each as soon as the windows that it needs are computed.

    When memory runs out, the plan moves on, and only the window or the row in work is computed again.

    :param patch: this, ``backbone``, ``step``, ``monitor`` and ``even`` are those of :func:`~.windows.predict_rows`.
    :param projection: on any device; this, ``wanted`` and ``confidence`` are those of :class:`~.decode.RowDecoder`.
    :param plan: where to compute.
    :raises OutOfMemoryError: as ``predict_rows``, which also raises :class:`ClassScaleError` and :class:`Cancelled`.
    """
    from .decode import RowDecoder
    from .windows import predict_rows

    decoder = RowDecoder(projection.to(plan.compute), prepared.axes, wanted, confidence)
    plan.watch(lambda placement: decoder.to(placement.compute))
    x, y, z = prepared.needed
    for index, basis in enumerate(predict_rows(prepared.image, backbone, patch, step, plan, monitor, even)):
        if index not in range(x.start, x.stop):  # it is there for the windows alone
            continue
        plan.retry(partial(decoder.push, basis[:, y, z]))
        while row := plan.retry(decoder.pop):
            yield row


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Set the number of torch's CPU threads for the block, as `Options.threads` says."""
    import torch

    before, cores = torch.get_num_threads(), os.cpu_count() or 1
    usual = before if "OMP_NUM_THREADS" in os.environ else cores - 1 if cores > 2 else cores
    torch.set_num_threads(min(count or usual, max(cores, before)))  # far more than there are cores crash it
    try:
        yield
    finally:
        torch.set_num_threads(before)
