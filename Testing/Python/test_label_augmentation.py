"""Label maps are rotated and scaled as batchgeneratorsv2 does it, voxel by voxel, whatever the number of labels."""

from __future__ import annotations

import pytest

pytest.importorskip("batchgeneratorsv2")
import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from classscale_training.nnunet.label_augmentation import LabelSpatialTransform, in_one_pass, vote
from classscale_training.nnunet.trainer import ClassScaleTrainer

SIZE = 20


def spatial(dimensions: int, **more) -> SpatialTransform:
    settings = {
        "p_rotation": 1, "rotation": (-0.5, 0.5), "p_scaling": 1, "scaling": (0.7, 1.4),
        "p_synchronize_scaling_across_axes": 1, "border_mode_seg": "constant", "padding_value_seg": -1,
    }  # fmt: skip
    return SpatialTransform((SIZE,) * dimensions, 0, False, **{**settings, **more})


def both(stock: SpatialTransform, labels: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    np.random.seed(seed)
    torch.manual_seed(seed)
    parameters = stock.get_parameters(image=torch.zeros(labels.shape), segmentation=labels)
    ours = LabelSpatialTransform.of(stock)
    assert type(ours) is LabelSpatialTransform
    return tuple(each._apply_to_segmentation(labels.clone(), **parameters) for each in (stock, ours))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("tiebreak", ["nearest", "lowest", "highest"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_every_voxel_is_that_of_batchgenerators(dimensions, tiebreak, align_corners):
    generator = torch.Generator().manual_seed(dimensions)
    stock = spatial(dimensions, seg_tiebreak=tiebreak, align_corners=align_corners)
    noise = torch.randint(60, (1, *(SIZE + 4,) * dimensions), generator=generator).short()
    blocks = torch.randint(60, (1, *(6,) * dimensions), generator=generator).short()
    for axis in range(1, dimensions + 1):
        blocks = blocks.repeat_interleave(4, axis)
    for seed, labels in enumerate((noise, blocks)):
        expected, found = both(stock, labels, seed)
        assert found.dtype == expected.dtype == torch.int16 and len(torch.unique(found)) > 20
        assert torch.equal(found, expected)
    assert dimensions == 2 or -1 in found  # beyond the borders


def test_points_halfway_between_voxels_are_ties_that_the_nearest_voxel_settles():
    labels = torch.arange(24).reshape(1, 24).repeat(3, 1)
    x = (2 * torch.arange(24) + 2) / 24 - 1  # in the middle between columns
    grid = torch.stack([x, torch.zeros(24)], -1)[None]
    stock = spatial(2, border_mode_seg="zeros")
    stock.patch_size = (1, 24)
    expected = stock._apply_to_segmentation(labels[None], grid=grid)[0]
    assert torch.equal(vote(labels, grid, 0, False, "nearest"), expected)
    assert expected[0, :6].tolist() == [0, 2, 2, 4, 4, 6]  # half to even


def test_few_labels_and_other_settings_are_left_to_batchgenerators(monkeypatch):
    labels = torch.randint(3, (1, 24, 24)).short()
    monkeypatch.setattr("classscale_training.nnunet.label_augmentation.vote", None)
    expected, found = both(spatial(2), labels, 0)
    assert torch.equal(found, expected)
    for stock in (spatial(2, mode_seg="nearest"), spatial(2, border_mode_seg="border")):
        assert in_one_pass(stock) is stock
    other = MultiplicativeBrightnessTransform((1, 2), True, 0)
    assert in_one_pass(other) is other


def test_the_trainer_uses_it():
    rotation, size = (-0.5, 0.5), (16, 16, 16)
    transforms = ClassScaleTrainer.get_training_transforms(size, rotation, [[1, 1, 1]], (0, 1, 2), False)
    kinds = [type(transform) for transform in transforms.transforms]
    assert LabelSpatialTransform in kinds and SpatialTransform not in kinds
