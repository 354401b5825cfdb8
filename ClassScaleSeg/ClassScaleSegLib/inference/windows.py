"""Sliding windows with a rolling basis: finished rows leave before later windows are computed.

Window positions and weights are nnU-Net's (``nnunetv2/inference/sliding_window_prediction.py``). The accumulator is a
ring of one patch depth along the first axis, so memory depends neither on the number of classes nor on the length of
the scan. One window that covers everything needs no ring at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch

from ..errors import ClassScaleError
from .memory import MemoryPlan
from .progress import Monitor
from .ring import Ring


def predict_rows(
    image: torch.Tensor,
    backbone: Callable[[torch.Tensor], torch.Tensor],
    patch: Sequence[int],
    step: float = 0.5,
    plan: MemoryPlan | None = None,
    monitor: Monitor | None = None,
) -> Iterator[torch.Tensor]:
    """Gaussian-weighted mean of the windows' bases, row by row.

    When memory runs out, the plan steps down and the window at hand is computed again; finished ones are kept.

    :param image: ``(channels, X, Y, Z)`` float32 on the model grid; padded here, centrally, if smaller than the patch.
    :param backbone: ``(1, channels, *patch)`` -> ``(R, *patch)`` on the same device. A patch of two numbers is a 2D
        model, applied to each slice of the first axis.
    :param step: distance of windows, in patches.
    :returns: yields ``(R, Y, Z)`` float32 for each row of the unpadded image, on the device of the ring.
    :raises OutOfMemoryError: if the plan's last placement is too large as well.
    """
    from acvl_utils.cropping_and_padding.padding import pad_nd_image
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

    plan, monitor = plan or MemoryPlan.simple("cpu"), monitor or Monitor()
    flat = len(patch) == 2
    full_patch = (1, *patch) if flat else tuple(patch)
    image, inside = pad_nd_image(image, full_patch, "constant", {"value": 0}, True)
    _, inside_rows, inside_y, inside_z = inside
    padded = image.shape[1:]
    starts = compute_steps_for_sliding_window(padded[1:] if flat else padded, tuple(patch), step)
    if flat:
        starts = [list(range(padded[0])), *starts]
    total, done = len(starts[0]) * len(starts[1]) * len(starts[2]), 0
    ring: Ring | None = None

    def window(x: int, y: int, z: int) -> torch.Tensor:
        part = image[:, x : x + full_patch[0], y : y + full_patch[1], z : z + full_patch[2]]
        basis = backbone((part[:, 0] if flat else part)[None].to(plan.compute))
        return basis[:, None] if flat else basis

    if total == 1:
        monitor.report("segment", 0, 1)
        basis = plan.retry(lambda: window(0, 0, 0))
        monitor.report("segment", 1, 1)
        for row in range(inside_rows.start, inside_rows.stop):
            yield _finite(basis[:, row, inside_y, inside_z])
        return

    gaussian = compute_gaussian(
        tuple(patch), sigma_scale=1.0 / 8, value_scaling_factor=10, dtype=torch.float32, device=torch.device("cpu")
    ).view(full_patch)

    def add(x: int, y: int, z: int) -> None:
        nonlocal ring
        basis = window(x, y, z)
        if ring is None:
            ring = Ring(full_patch[0], len(basis), padded[1:], plan.ring)
            plan.watch(lambda placement: ring.move(placement.ring))
        ring.add(x, y, z, basis.mul_(gaussian.to(basis.device)), gaussian)

    for x, next_x in itertools.zip_longest(starts[0], starts[0][1:], fillvalue=padded[0]):
        for y, z in itertools.product(starts[1], starts[2]):
            monitor.report("segment", done, total)
            plan.retry(lambda y=y, z=z, x=x: add(x, y, z))
            done += 1
        for row in range(x, next_x):  # no later window reaches these
            mean = ring.take(row)
            if inside_rows.start <= row < inside_rows.stop:
                yield _finite(mean[:, inside_y, inside_z])
    monitor.report("segment", total, total)


def _finite(row: torch.Tensor) -> torch.Tensor:
    """nnU-Net stops at infinite logits too: half precision overflowed, or the image is far from what was trained on."""
    if not torch.isfinite(row).all():
        raise ClassScaleError(
            "The network's output is not finite: half precision overflowed, or the image's values are far from those "
            "that the model was trained on. Check the image's intensities, or use the CPU, which has single precision."
        )
    return row
