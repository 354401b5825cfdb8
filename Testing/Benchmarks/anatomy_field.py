"""Make an anatomy-like basis and projection with any number of classes from the labels of a real head atlas.

On anatomy, the outputs of a network are large regions with smooth transitions, not noise, and the cost of exact
decoding depends on that. The benchmarks therefore use the SPL/NAC head atlas (312 structures). They divide or merge its
structures until the number of classes is right, give each class a random code of R numbers, and smooth the codes over
space.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

ATLAS = Path(__file__).resolve().parents[3] / "shared" / "data" / "spl_brain" / "hncma-atlas.nrrd"


def atlas_labels(classes: int, size: int) -> np.ndarray:
    """Return labels ``(size,)*3`` int64 in ``0..classes-1``; every value occurs if the grid is fine enough.

    With fewer classes than structures, the smallest structures become background. With more classes, the largest part
    is divided in two across its longest axis until there are enough parts.
    """
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(sitk.ReadImage(str(ATLAS)))
    index = ((np.arange(size) + 0.5) * array.shape[0] / size).astype(int)
    array = array[np.ix_(index, index, index)].astype(np.int64)
    values, labels = np.unique(array, return_inverse=True)
    labels = labels.reshape(array.shape)
    counts = np.bincount(labels.ravel())
    order = np.argsort(-counts[1:], kind="stable") + 1  # background stays 0
    table = np.zeros(len(values), np.int64)
    table[order[: classes - 1]] = np.arange(1, min(classes, len(values)))
    labels = table[labels]
    coordinates = {c: np.argwhere(labels == c) for c in range(1, labels.max() + 1)}
    while len(coordinates) < classes - 1:
        largest = max(coordinates, key=lambda c: len(coordinates[c]))
        points = coordinates[largest]
        axis = np.ptp(points, axis=0).argmax()
        upper = points[:, axis] > np.median(points[:, axis])
        if not upper.any():  # more than half of the part is in its last layer
            upper = points[:, axis] == points[:, axis].max()
        coordinates[largest], coordinates[len(coordinates) + 1] = points[~upper], points[upper]
        labels[tuple(points[upper].T)] = len(coordinates)
    return labels


def anatomy_field(classes: int, size: int, rank: int = 32, seed: int = 0):
    """Return basis ``(R, size, size, size)`` float32, weight ``(C, R)`` and bias ``(C,)`` of an anatomy-like output."""
    import torch
    from scipy.ndimage import gaussian_filter

    labels = atlas_labels(classes, size)
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(classes, rank, generator=generator)
    basis = codes[torch.from_numpy(labels)].movedim(-1, 0).contiguous()
    for channel in basis.numpy():
        gaussian_filter(channel, 0.7, output=channel)
    basis += 0.05 * torch.randn(basis.shape, generator=generator)
    scale = 10 / rank**0.5
    return basis, codes * scale, -0.5 * scale * codes.square().sum(1)
