"""Sliding windows with a rolling basis: finished rows leave before later windows are computed.

Window positions and weights are nnU-Net's (``nnunetv2/inference/sliding_window_prediction.py``). The accumulator is a
ring of one patch depth along the first axis, so memory depends neither on the number of classes nor on the length of
the scan.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch


def predict_rows(
    image: torch.Tensor,
    backbone: Callable[[torch.Tensor], torch.Tensor],
    patch: Sequence[int],
    step: float = 0.5,
    mirror_axes: Sequence[int] = (),
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[torch.Tensor]:
    """Gaussian-weighted mean of the windows' bases, row by row.

    :param image: ``(channels, X, Y, Z)`` float32 on the model grid; padded here, centrally, if smaller than the patch.
    :param backbone: ``(1, channels, *patch)`` -> ``(1, R, *patch)``. A patch of two numbers is a 2D model, applied to
        each slice of the first axis.
    :param mirror_axes: spatial axes of the patch to average over, in all combinations.
    :param progress: called with (windows done, windows in all).
    :returns: yields ``(R, Y, Z)`` float32 for each row of the unpadded image.
    """
    from acvl_utils.cropping_and_padding.padding import pad_nd_image
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

    flat = len(patch) == 2
    full_patch = (1, *patch) if flat else tuple(patch)
    image, inside = pad_nd_image(image, full_patch, "constant", {"value": 0}, True)
    _, inside_rows, inside_y, inside_z = inside
    padded = image.shape[1:]
    starts = compute_steps_for_sliding_window(padded[1:] if flat else padded, tuple(patch), step)
    if flat:
        starts = [list(range(padded[0])), *starts]
    gaussian = compute_gaussian(
        tuple(patch), sigma_scale=1.0 / 8, value_scaling_factor=10, dtype=torch.float32, device=torch.device("cpu")
    ).view(full_patch)
    flips = [f for n in range(len(mirror_axes) + 1) for f in itertools.combinations([a + 2 for a in mirror_axes], n)]

    def window(x: int, y: int, z: int) -> torch.Tensor:
        part = image[:, x : x + full_patch[0], y : y + full_patch[1], z : z + full_patch[2]]
        part = (part[:, 0] if flat else part)[None].to(device)
        result = None
        for flip in flips:
            basis = backbone(part.flip(flip)).flip(flip) if flip else backbone(part)
            result = basis if result is None else result.add_(basis)
        result = (result / len(flips))[0].float().cpu()
        return (result[:, None] if flat else result) * gaussian

    depth = full_patch[0]
    ring = weights = None
    total, done, emitted = len(starts[0]) * len(starts[1]) * len(starts[2]), 0, 0
    for x, next_x in itertools.zip_longest(starts[0], starts[0][1:], fillvalue=None):
        for y, z in itertools.product(starts[1], starts[2]):
            basis = window(x, y, z)
            if ring is None:
                ring = basis.new_zeros(depth, len(basis), *padded[1:])
                weights = basis.new_zeros(depth, *padded[1:])
            for row in range(depth):  # row-major ring: a window wraps around row by row
                slot = (x + row) % depth
                ring[slot, :, y : y + full_patch[1], z : z + full_patch[2]] += basis[:, row]
                weights[slot, y : y + full_patch[1], z : z + full_patch[2]] += gaussian[row]
            done += 1
            if progress:
                progress(done, total)
        for row in range(emitted, padded[0] if next_x is None else next_x):
            slot = row % depth
            if inside_rows.start <= row < inside_rows.stop:
                finished = ring[slot] / weights[slot]
                yield finished[:, inside_y, inside_z].contiguous()
            ring[slot].zero_()
            weights[slot].zero_()
            emitted = row + 1
