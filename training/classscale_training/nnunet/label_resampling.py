"""Resample label maps to another grid in one pass, whatever the number of labels.

With order 1, nnU-Net interpolates an indicator volume for each label and keeps the label with the largest value. At an
output voxel, the interpolated indicator of a label is the sum of the weights of those of its eight corners that have
the label. So the eight corners vote, with these weights, and only where they do not all agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ClassScaleSegLib.inference.interpolation import AxisSampling

_TIE = 1e-9  # weights are products of float64, so sums that should be equal differ by rounding


def resample_labels(labels: np.ndarray, new_shape: Sequence[int], separate_axis: int | None = None) -> np.ndarray:
    """Resample a label map as nnU-Net does with order 1.

    :param labels: ``(X, Y, Z)``.
    :param new_shape: shape of the result.
    :param separate_axis: axis along which to take the nearest voxel instead of interpolating, as nnU-Net does for
        anisotropic images (``order_z`` 0); None if there is none.
    :returns: label map of the same dtype, with the label whose linearly interpolated indicator is largest in each
        voxel. Of several such labels it has the nearest voxel's or, if that is not among them, the smallest, as in
        batchgenerators 0.25.5 (``resize_segmentation``).

    >>> import numpy as np
    >>> resample_labels(np.array([[[7, 9]]]), (1, 1, 6)).tolist()
    [[[7, 7, 7, 9, 9, 9]]]
    """
    if tuple(new_shape) == labels.shape:
        return labels
    linear = [AxisSampling.linear(old, new) for old, new in zip(labels.shape, new_shape, strict=True)]
    nearest = [AxisSampling.nearest(old, new).lower for old, new in zip(labels.shape, new_shape, strict=True)]
    if separate_axis is not None:
        linear[separate_axis] = AxisSampling.nearest(labels.shape[separate_axis], new_shape[separate_axis])
    x_axis, y_axis, z_axis = linear
    result = np.empty(tuple(new_shape), labels.dtype)
    for row in range(len(x_axis)):
        layers = labels[x_axis.lower[row]], labels[x_axis.upper[row]]
        closest = labels[nearest[0][row]][nearest[1][:, None], nearest[2]]
        corners = [layer[y[:, None], z] for layer in layers for y in _ends(y_axis) for z in _ends(z_axis)]
        y, z = np.nonzero(np.any([corner != corners[0] for corner in corners[1:]], 0))
        result[row] = corners[0]
        if len(y):
            weights = [
                a * b * c
                for a in (1 - x_axis.weight[row], x_axis.weight[row])
                for b in (1 - y_axis.weight[y], y_axis.weight[y])
                for c in (1 - z_axis.weight[z], z_axis.weight[z])
            ]
            votes = np.stack([corner[y, z] for corner in corners])
            result[row, y, z] = _elect(votes, np.stack(weights), closest[y, z])
    return result


def _ends(axis: AxisSampling) -> tuple[np.ndarray, np.ndarray]:
    return axis.lower, axis.upper


def _elect(votes: np.ndarray, weights: np.ndarray, closest: np.ndarray) -> np.ndarray:
    """Return the winner ``(n,)`` of the labels ``(8, n)`` with weights ``(8, n)``; ``closest`` decides ties."""
    score = np.stack([((votes == vote) * weights).sum(0) for vote in votes])
    leading = score >= score.max(0) - _TIE
    smallest = np.where(leading, votes, np.iinfo(votes.dtype).max if votes.dtype.kind in "iu" else np.inf).min(0)
    return np.where((leading & (votes == closest)).any(0), closest, smallest)
