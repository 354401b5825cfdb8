"""The whole job: an image and a model in, a :class:`Segmentation` on the image's own grid out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ClassScaleError
from ..images.reading import ImageSource, read_image
from ..images.segmentation import Segmentation
from .progress import CancelToken, Monitor, Progress

if TYPE_CHECKING:
    from ..models.model import Model

_TILE_ELEMENTS = {"cpu": 1 << 20}
_TILE_ELEMENTS_ACCELERATOR = 1 << 25


@dataclass(frozen=True)
class Options:
    """How to segment.

    :ivar device: "auto", "cpu", "cuda", "cuda:1", "mps".
    :ivar step: distance of windows, in patches.
    :ivar mirroring: average over mirrored patches where the model was trained with mirroring.
    :ivar classes: names or label values to keep; every other class becomes background. ``None`` keeps all.
    :ivar confidence: also compute the probability of each voxel's class.
    :ivar memory_limit: bytes of GPU memory (of main memory on a CPU) that may be used; ``None``: what is free.
    :ivar threads: CPU threads; ``None``: OMP_NUM_THREADS, else all cores but one if there are more than two.
    """

    device: str = "auto"
    step: float = 0.5
    mirroring: bool = True
    classes: Iterable[str | int] | None = None
    confidence: bool = False
    memory_limit: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1:
            raise ClassScaleError(f"The step is {self.step}; it must be above 0 and at most 1 (a patch).")


def segment(
    image: ImageSource,
    model: Model,
    *,
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelToken | None = None,
    **options: Any,
) -> Segmentation:
    """Segment one image.

        result = segment("ct.nii.gz", open_model("Dataset297_X/nnUNetTrainer__nnUNetPlans__3d_fullres"))
        result.write("ct.seg.nrrd")

    :param image: path, list of paths (one a channel), DICOM folder, or SimpleITK image.
    :param progress: called with a :class:`Progress` now and then.
    :param cancel: anything with ``is_set()``.
    :param options: the fields of :class:`Options`.
    :raises ImageError, LabelTableError, OutOfMemoryError, Cancelled: each a sentence on what to do.
    """
    import torch

    from .backbone import Backbone
    from .decode import RowDecoder
    from .devices import choose_device
    from .estimate import estimate
    from .memory import plan_memory
    from .preprocess import prepare
    from .windows import predict_rows

    chosen, monitor = Options(**options), Monitor(progress, cancel)
    table = model.table if chosen.classes is None else model.table.select(chosen.classes)
    monitor.report("read")
    source = read_image(image, model.channels, model.orientation, flat=len(model.patch) == 2)
    need = estimate(model, source.voxels.shape[1:], source.spacing, chosen.step, chosen.confidence)
    device = choose_device(chosen.device)
    plan = plan_memory(need.placements(device), device, chosen.memory_limit, monitor.tell)
    with _threads(chosen.threads), torch.inference_mode():
        monitor.report("preprocess")
        prepared = prepare(source, model)
        source = source.without_voxels()
        labels, label_rows = prepared.empty(np.uint16)
        confidence, confidence_rows = prepared.empty(np.float32) if chosen.confidence else (None, None)
        if confidence is not None:
            confidence.fill(1)  # outside of the non-zero crop there is background for certain
        decoder = RowDecoder(
            model.projection.to(plan.compute),
            prepared.axes,
            None if chosen.classes is None else frozenset(label.value for label in table),
            chosen.confidence,
            _TILE_ELEMENTS.get(plan.compute, _TILE_ELEMENTS_ACCELERATOR),
        )
        backbone = Backbone(model.backbones, model.mirror_axes if chosen.mirroring else (), model.average_folds)
        for basis in predict_rows(torch.from_numpy(prepared.image), backbone, model.patch, chosen.step, plan, monitor):
            plan.retry(lambda basis=basis: decoder.to(plan.compute).push(basis))
            while row := plan.retry(lambda: decoder.to(plan.compute).pop()):
                monitor.check()
                if need.windows == 1:  # else the windows tell how far it is
                    monitor.report("decode", row.index + 1, len(label_rows))
                label_rows[row.index] = row.labels.cpu().numpy()
                if confidence_rows is not None:
                    confidence_rows[row.index] = row.confidence.cpu().numpy()
    restored = None if confidence is None else source.restore(confidence)
    return Segmentation(source.restore(labels), table, source.geometry, restored)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    import torch

    before, cores = torch.get_num_threads(), os.cpu_count() or 1
    usual = before if "OMP_NUM_THREADS" in os.environ else cores - 1 if cores > 2 else cores
    torch.set_num_threads(count or usual)
    try:
        yield
    finally:
        torch.set_num_threads(before)
