"""What the tests of Auto3DSeg's models share: images, and packages with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("monai")
from monai_pipeline import configuration, network_of, write_package  # noqa: E402


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


@pytest.fixture
def package(tmp_path):
    """Write a package with these changes of its configuration; returns its folder."""

    def write(name="mini-v1.0.0", classes=None, **changes):
        config = configuration(classes or 12, **changes)
        try:
            network = network_of(config)
        except Exception:  # a configuration that is refused: the weights do not matter
            network = network_of(configuration())
        return write_package(tmp_path / name, config, network, range(1, classes or 12))

    return write
