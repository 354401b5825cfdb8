"""nnU-Net's rotation and scaling of label maps, in a time that does not grow with the number of labels.

batchgeneratorsv2 (0.3.6) interpolates an indicator volume for each label in the patch, and keeps the label with the
largest value. At an output voxel, the interpolated indicator of a label is the sum of the weights of those corners that
have the label. So the corners, eight in three dimensions, vote with their weights, and only where they do not agree.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

_FEW = 16  # labels up to which batchgeneratorsv2 is as fast
_CHUNK = 1 << 18  # output voxels at a time
_SCALE = 1000  # batchgeneratorsv2 compares indicators times 1000 as float16, so that near ties are ties


class LabelSpatialTransform(SpatialTransform):
    """A SpatialTransform of batchgeneratorsv2 whose label maps are resampled in one pass."""

    @classmethod
    def of(cls, stock: SpatialTransform) -> SpatialTransform:
        """Return the same transform in one pass; ``stock`` itself if its settings are others than nnU-Net's."""
        settings = vars(stock)
        known = settings.get("mode_seg") == "bilinear" and settings.get("border_mode_seg") in ("zeros", "constant")
        if type(stock) is not SpatialTransform or not known or "seg_tiebreak" not in settings:
            return stock
        made = cls.__new__(cls)
        made.__dict__.update(settings)
        return made

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        grid = params["grid"]
        if grid is None:
            return super()._apply_to_segmentation(segmentation, **params)
        outside = int(self.padding_value_seg) if self.border_mode_seg == "constant" else 0
        channels = [
            vote(channel, grid, outside, self.align_corners, self.seg_tiebreak)
            if len(torch.unique(channel)) > _FEW
            else super(LabelSpatialTransform, self)._apply_to_segmentation(channel[None], **params)[0]
            for channel in segmentation
        ]
        return torch.stack(channels).contiguous()


def in_one_pass(transform: Any) -> Any:
    """Return a :class:`LabelSpatialTransform` for a SpatialTransform, and other transforms as they are."""
    return LabelSpatialTransform.of(transform) if isinstance(transform, SpatialTransform) else transform


def vote(labels: torch.Tensor, grid: torch.Tensor, outside: int, align_corners: bool, tiebreak: str) -> torch.Tensor:
    """Resample a label map as batchgeneratorsv2 does.

    :param labels: integers ``(*shape)`` with D dimensions.
    :param grid: ``(*size, D)`` float32, as for :func:`torch.nn.functional.grid_sample`.
    :param outside: label beyond the borders.
    :param tiebreak: which of several labels with the largest weight wins: "nearest" for that of the nearest voxel, or
        if it is not among them the lowest; "lowest" or "highest".
    :returns: the labels at the points of the grid ``(*size)``.

    >>> labels = torch.tensor([[1, 1, 7, 7]])
    >>> x = torch.tensor([-0.75, -0.4, 0.1, 0.75])
    >>> vote(labels, torch.stack([x, torch.zeros(4)], -1)[None], 0, False, "nearest").tolist()
    [[1, 1, 7, 7]]
    """
    size, dimensions = grid.shape[:-1], labels.ndim
    points = grid.reshape(-1, dimensions).flip(-1).T  # axes in the order of the label map
    result, flat = labels.new_empty(points.shape[1]), labels.reshape(-1)
    corners = list(itertools.product((0, 1), repeat=dimensions))
    for start in range(0, points.shape[1], _CHUNK):
        part = points[:, start : start + _CHUNK]
        lower, above, index, inside = [], [], [], []
        for axis, length in enumerate(labels.shape):
            place = (part[axis] + 1) / 2 * (length - 1) if align_corners else ((part[axis] + 1) * length - 1) / 2
            lower.append(place.floor())
            above.append(place - lower[-1])  # weight of the upper corner
            both = [lower[-1].long() + step for step in (0, 1)]
            stride = math.prod(labels.shape[axis + 1 :])
            index.append([ends.clamp(0, length - 1) * stride for ends in both])
            inside.append([(ends >= 0) & (ends < length) for ends in both])
        votes = part.new_empty(len(corners), part.shape[1], dtype=labels.dtype)
        for number, corner in enumerate(corners):
            found = flat[_folded(torch.add, index, corner)]
            votes[number] = torch.where(_folded(torch.logical_and, inside, corner), found, outside)
        chosen = votes[0].clone()
        split = torch.nonzero((votes[1:] != votes[0]).any(0)).flatten()
        if len(split):
            beside = [[1 - weight[split], weight[split]] for weight in above]
            weights = torch.stack([_folded(torch.mul, beside, corner) for corner in corners])
            own = torch.zeros_like(split)
            for base, (_, weight) in zip(lower, beside, strict=True):
                nearest = (weight > 0.5) | (
                    (weight == 0.5) & (base[split] % 2 == 1)
                )  # half to even, as grid_sample does
                own = 2 * own + nearest
            chosen[split] = _elect(votes[:, split], weights, own, tiebreak)
        result[start : start + _CHUNK] = chosen
    return result.reshape(size)


def _folded(fold: Callable[..., torch.Tensor], ends: list[list[torch.Tensor]], corner: tuple[int, ...]) -> torch.Tensor:
    """Combine what each axis has for its lower (0) or upper (1) end at a corner."""
    return functools.reduce(fold, (pair[end] for pair, end in zip(ends, corner, strict=True)))


def _elect(votes: torch.Tensor, weights: torch.Tensor, own: torch.Tensor, tiebreak: str) -> torch.Tensor:
    """Return the winners ``(n,)`` of the labels and weights ``(2^D, n)``; ``own`` is the nearest corner of each."""
    score = torch.stack([((votes == label) * weights).sum(0) for label in votes])
    score = (score * _SCALE).to(torch.float16)
    leading = score == score.amax(0)
    limit = torch.iinfo(votes.dtype)
    if tiebreak == "highest":
        return torch.where(leading, votes, limit.min).amax(0)
    lowest = torch.where(leading, votes, limit.max).amin(0)
    if tiebreak == "lowest":
        return lowest
    return torch.where(leading.gather(0, own[None])[0], votes.gather(0, own[None])[0], lowest)
