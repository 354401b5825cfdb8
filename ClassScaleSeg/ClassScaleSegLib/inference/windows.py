"""Sliding windows with a rolling basis: finished rows are yielded before later windows are computed.

Window positions and weights are those of a :class:`.tiling.Tiling`. The windows are summed in a ring that holds the
rows of one patch along the first axis, so memory depends neither on the number of classes nor on the length of the
scan. If one window covers the whole image, there is no ring.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from ..errors import ClassScaleError
from .image_rows import ImageRows
from .memory_plan import MemoryPlan, Placement
from .progress import Monitor
from .rolling_accumulator import Ring
from .tiling import Tiling


def predict_rows(
    image: torch.Tensor | ImageRows,
    backbone: Callable[[torch.Tensor], torch.Tensor],
    patch: Sequence[int],
    step: float = 0.5,
    plan: MemoryPlan | None = None,
    monitor: Monitor | None = None,
    even: bool = True,
) -> Iterator[torch.Tensor]:
    """Yield the Gaussian-weighted mean of the windows' bases, row by row.

    When memory runs out, the plan moves on to its next placement, and only the current window is computed again.

    :param image: ``(channels, X, Y, Z)`` float32 on the model grid, or its rows, read as the windows need them. It
        is padded symmetrically if smaller than a patch.
    :param backbone: maps ``(1, channels, *patch)`` to ``(R, *patch)`` on the same device; see :mod:`.backbone`.
    :param patch: shape of a patch in voxels. With two numbers the model is 2D, and every slice along the first axis is
        segmented.
    :param step: distance between windows, as a fraction of the patch.
    :param plan: where to compute; by default everything on the CPU.
    :param monitor: receives reports of the stage "segment", and may cancel.
    :param even: this, ``patch`` and ``step`` are those of :class:`.tiling.Tiling`.
    :returns: ``(R, Y, Z)`` float32 for each row of the unpadded image, on the device of the ring.
    :raises OutOfMemoryError: if memory runs out with the last placement of the plan.
    :raises ClassScaleError: if the basis is not finite.
    :raises Cancelled: if the monitor's token is set.

    >>> rows = predict_rows(torch.ones(1, 5, 4, 4), lambda patch: 2 * patch[0], (4, 4, 4))
    >>> [row.mean().item() for row in rows]
    [2.0, 2.0, 2.0, 2.0, 2.0]
    """
    plan, monitor = plan or MemoryPlan([Placement("cpu", "cpu")]), monitor or Monitor()
    flat = len(patch) == 2
    full_patch = (1, *patch) if flat else tuple(patch)
    rows = image if isinstance(image, ImageRows) else ImageRows.of(image)
    padded, inside = _padding(rows.shape[1:], full_patch)
    inside_rows, inside_y, inside_z = inside
    tiling = Tiling(tuple(patch), step, even)
    starts = tiling.starts(padded[1:] if flat else padded)
    if flat:
        starts = [list(range(padded[0])), *starts]
    total, done = len(starts[0]) * len(starts[1]) * len(starts[2]), 0
    ring: Ring | None = None

    def window(x: int, y: int, z: int) -> torch.Tensor:
        part = _box(rows, inside, (x, y, z), full_patch)
        basis = backbone((part[:, 0] if flat else part)[None].to(plan.compute))
        return basis[:, None] if flat else basis

    # before the first report of windows, so that no stage is reported twice
    plan.retry(lambda: rows.read(0, min(full_patch[0] - inside_rows.start, rows.shape[1])))
    if total == 1:
        monitor.report("segment", 0, 1)
        basis = plan.retry(lambda: window(0, 0, 0))
        monitor.report("segment", 1, 1)
        for row in range(inside_rows.start, inside_rows.stop):
            yield _finite(basis[:, row, inside_y, inside_z].float())
        return

    gaussian = tiling.weights().view(full_patch)

    def add(x: int, y: int, z: int) -> None:
        nonlocal ring
        basis = window(x, y, z)
        if ring is None:
            ring = Ring(full_patch[0], len(basis), (padded[1], padded[2]), plan.ring, basis.stride(0) == 1)
            plan.watch(lambda placement: ring.move(placement.ring))
        ring.add(x, y, z, basis.mul_(gaussian.to(basis.device)), gaussian)

    for x, next_x in itertools.zip_longest(starts[0], starts[0][1:], fillvalue=padded[0]):
        for y, z in itertools.product(starts[1], starts[2]):
            monitor.report("segment", done, total)
            plan.retry(partial(add, x, y, z))
            done += 1
        assert ring is not None  # made by the first window
        for row in range(x, next_x):  # no later window touches these rows
            mean = ring.take(row)
            if inside_rows.start <= row < inside_rows.stop:
                yield _finite(mean[:, inside_y, inside_z])
    monitor.report("segment", total, total)


def count_windows(shape: Sequence[int], patch: Sequence[int], step: float, even: bool = True) -> int:
    """Return how many windows :func:`predict_rows` computes for an image ``(X, Y, Z)``.

    >>> count_windows((5, 4, 4), (4, 4, 4), 0.5), count_windows((5, 4, 4), (4, 4), 0.5)
    (2, 5)
    """
    full = (1,) * (3 - len(patch)) + tuple(patch)
    padded, _inside = _padding(shape, full)
    counts = Tiling(tuple(patch), step, even).counts(padded[-len(patch) :])
    return math.prod(counts) * (padded[0] if len(patch) == 2 else 1)


def _padding(shape: Sequence[int], patch: Sequence[int]) -> tuple[list[int], list[slice]]:
    """Return the shape of the padded image, and where the image is in it: in the middle, as nnU-Net pads."""
    padded = [max(n, p) for n, p in zip(shape, patch, strict=True)]
    before = [(p - n) // 2 for n, p in zip(shape, padded, strict=True)]
    return padded, [slice(b, b + n) for b, n in zip(before, shape, strict=True)]


def _box(rows: ImageRows, inside: Sequence[slice], start: Sequence[int], patch: Sequence[int]) -> torch.Tensor:
    """Return the window ``(channels, *patch)`` that starts at this voxel of the padded image, with zeros outside."""
    lows = [max(s, part.start) for s, part in zip(start, inside, strict=True)]
    highs = [min(s + p, part.stop) for s, p, part in zip(start, patch, inside, strict=True)]
    x, y, z = (slice(low - part.start, high - part.start) for low, high, part in zip(lows, highs, inside, strict=True))
    box = rows.read(x.start, x.stop)[:, :, y, z]
    pad = [n for i in (2, 1, 0) for n in (lows[i] - start[i], start[i] + patch[i] - highs[i])]
    return torch.nn.functional.pad(box, pad) if any(pad) else box


def _finite(row: torch.Tensor) -> torch.Tensor:
    """Return ``row``; like nnU-Net, refuse one that is not finite."""
    if not torch.isfinite(row).all():
        raise ClassScaleError(
            "The network's output is not finite. Either half precision overflowed, or the image's intensities are far "
            "from those that the model was trained on. Check the intensities, or use the CPU, which computes in single "
            "precision."
        )
    return row
