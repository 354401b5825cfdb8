"""Time the rotation and scaling of a label map with many labels, beside batchgeneratorsv2, which nnU-Net uses.

    python Testing/Benchmarks/label_augmentation.py [--quick]

One patch on one thread, rotated and scaled as nnU-Net's trainer does it with a third of the patches. The labels are
cubes. Both results must be equal in every voxel. The results are ``results/label_augmentation.json``.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from classscale_training.nnunet.label_augmentation import LabelSpatialTransform
from measure import Bar, parse, report


def measure(size: int, cubes: int) -> dict[str, Any]:
    """Return the seconds of both for a patch with ``cubes`` labels along each axis."""
    transform = SpatialTransform(
        (size,) * 3, 0, False, p_rotation=1, rotation=(-np.pi / 6, np.pi / 6), p_scaling=1, scaling=(0.7, 1.4),
        p_synchronize_scaling_across_axes=1, bg_style_seg_sampling=False, border_mode_seg="constant",
        padding_value_seg=-1,
    )  # fmt: skip
    large = size + size // 4
    place = torch.arange(large) * cubes // large
    labels = (place[:, None, None] * cubes + place[:, None]) * cubes + place
    labels = labels[None].short()
    np.random.seed(0)
    torch.manual_seed(0)
    parameters = transform.get_parameters(image=torch.zeros(labels.shape), segmentation=labels)
    found, seconds = [], []
    for each in (transform, LabelSpatialTransform.of(transform)):
        begin = time.perf_counter()
        found.append(each._apply_to_segmentation(labels.clone(), **parameters))
        seconds.append(time.perf_counter() - begin)
    return {
        "patch": (size,) * 3,
        "labels": cubes**3,
        "stock, s": seconds[0],
        "ours, s": seconds[1],
        "times as fast": seconds[0] / seconds[1],
        "voxels that differ": int((found[0] != found[1]).sum()),
    }


def main() -> int:
    options = parse(__doc__, "label_augmentation")
    torch.set_num_threads(1)
    size, counts = (32, (3, 5)) if options.quick else (128, (3, 5, 7, 10))
    rows = []
    for cubes in counts:
        rows.append(measure(size, cubes))
        print(rows[-1], flush=True)
    ours = [row["ours, s"] for row in rows]
    bars = [
        Bar("voxels that differ", sum(row["voxels that differ"] for row in rows), 0),
        Bar("the slowest of ours, beside the fastest", max(ours) / min(ours), 2),
    ]
    return report(options, "label_augmentation", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
