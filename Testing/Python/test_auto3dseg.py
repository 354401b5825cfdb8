"""Models of MONAI's Auto3DSeg: the labels are those of MONAI's own transforms, network and inferer."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("monai")
from ClassScaleSegLib import open_model, segment  # noqa: E402
from monai_pipeline import configuration, monai_labels, network_of, write_package  # noqa: E402

KINDS = {
    "ct": {},
    "mri": {"normalize_mode": "meanstd", "intensity_bounds": None, "modality": "mri"},
    "tanh": {"normalize_mode": "meanstdtanh"},
    "pet": {"normalize_mode": "pet"},
    "raw": {"normalize_mode": "none", "orientation_ras": False},
    "as stored": {"orientation_ras": False},
    "whole": {"crop_foreground": False},
    "two channels": {"channels": 2, "extra_modalities": {"adc": "meanstd"}, "normalize_mode": "meanstd"},
    "regions": {"classes": 3, "channels": 4, "sigmoid": True, "normalize_mode": "meanstd"},
    "anisotropic": {"network": {"resolution": [1.0, 1.0, 3.0]}, "resample_resolution": [1.1, 1.1, 2.6]},
    "other blocks": {"network": {"blocks_down": [1, 2], "blocks_up": [2], "norm": ["GROUP", {"num_groups": 4}]}},
    "batch norm": {"network": {"norm": "BATCH", "act": "prelu", "dsdepth": 1}},
}


def images(folder, channels=1, spacing=(1.1, 0.9, 2.3), direction=None, size=(40, 44, 21), seed=0):
    """Write images with smooth intensities and a dark margin; return their files."""
    from scipy.ndimage import gaussian_filter

    random, files = np.random.default_rng(seed), []
    for channel in range(channels):
        voxels = gaussian_filter(random.normal(size=size[::-1]), 2) * 1500
        voxels[:, :, :14] = -900 if channel == 0 else 0  # not above zero: outside of the crop, except for its margin
        image = sitk.GetImageFromArray(voxels.astype(np.int16))
        image.SetSpacing(spacing)
        image.SetOrigin((10, -20, 30))
        if direction is not None:
            image.SetDirection(direction)
        files.append(folder / f"image {channel}.nii.gz")
        sitk.WriteImage(image, str(files[-1]))
    return files


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_labels_are_those_of_monais_pipeline(tmp_path, kind, interpolation):
    config = configuration(**KINDS[kind])
    network = network_of(config)
    values = (1, 2, 3) if config["sigmoid"] else None
    model = open_model(write_package(tmp_path / "mini-v1.0.0", config, network, values))
    flipped = (-1, 0, 0, 0, 0, 1, 0, 1, 0) if kind == "raw" else (0, 1, 0, -1, 0, 0, 0, 0, 1)
    files = images(tmp_path, model.channels, direction=None if kind == "as stored" else flipped)
    ours = segment(files, model, device="cpu", interpolation=interpolation).labels
    theirs = monai_labels(config, network, files, interpolation).transpose(2, 1, 0)
    assert len(np.unique(theirs)) > 2
    assert ours.shape == theirs.shape and np.count_nonzero(ours != theirs) <= 2
