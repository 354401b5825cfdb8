"""Where the voxels of a synthesised head come from: fields, poses, the skull around the atlas, images in a patch."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from dataclasses import replace

import numpy as np
import pytest
import torch
from brain_fixtures import PATCH, TABLES, cases, file, maps  # noqa: F401  (fixtures)
from classscale_training.data.brain import IGNORE_INDEX, BrainCases, BrainOptions
from classscale_training.data.brain.synthesis import field, nearest, random_pose
from classscale_training.data.random_fields import normal, rotation, uniform


def seeded(seed=3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(12, 20, 16), (1, 9, 2), (7, 1, 1)])
def test_a_field_is_linear_between_its_knots(shape):
    found = field(seeded(), shape, 2.0, 6.0, 1.5, 2, "cpu")
    knots = [max(2, int(np.ceil(n * 2.0 / 6.0)) + 1) for n in shape]
    values = 1.5 * normal(seeded(), 1, 2, *knots)
    expected = torch.nn.functional.interpolate(values, shape, mode="trilinear", align_corners=True)[0]
    assert found.shape == (2, *shape) and torch.allclose(found, expected, atol=1e-5)


def test_a_pose_turns_and_scales_the_grid_and_then_bends_it():
    shape, offset = (6, 9, 7), torch.tensor([3.0, -5.0, 11.0])
    points = random_pose(seeded(), shape, 2.0, offset, "cpu").points
    generator = seeded()
    matrix = rotation(uniform(generator, -0.2, 0.2, 3)) * uniform(generator, 0.88, 1.16, 3)
    bend = sum(
        field(generator, shape, 2.0, knots, float(uniform(generator, low, high, 1)), 3, "cpu")
        for knots, low, high in ((28.0, 0.5, 3.0), (12.0, 0.0, 0.8))
    )
    axes = [(torch.arange(n) - (n - 1) / 2) * 2.0 + o for n, o in zip(shape, offset, strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    expected = (grid @ matrix.T).permute(3, 0, 1, 2) + bend
    assert torch.allclose(points, expected, atol=1e-4)


def test_the_skull_around_the_atlas_is_where_the_affine_map_puts_it(maps):
    turned = np.concatenate([rotation(torch.tensor([0.3, -0.2, 0.5])).numpy() * 1.1, [[2.0], [-3.0], [1.0]]], 1)
    moved = replace(maps, from_atlas=np.stack([np.eye(4)[:3], turned, np.eye(4)[:3]]))
    source = BrainCases(moved, TABLES, BrainOptions(PATCH, 4.0), 1)
    points = 30 * torch.randn(3, 4, 5, 6, generator=seeded())
    found = source._around(points, 1)
    assert len(found.unique()) > 2
    for place in np.ndindex(4, 5, 6):
        voxel = points[(slice(None), *place)].double().numpy() / maps.spacing + maps.centres[0]
        there = turned[:, :3] @ voxel + turned[:, 3]
        label = nearest(torch.from_numpy(maps.subjects[1]), torch.from_numpy(there)[:, None])
        assert found[place] == TABLES.around_of_coarse[label.long()]


def test_a_small_image_lies_in_the_middle_of_zeros_that_are_ignored(maps):
    source, found = cases(maps, patch=(32, 48, 40)), 0
    for index in range(40):
        image, labels, dataset = source[index]
        inside = (labels != IGNORE_INDEX).nonzero()
        box = [slice(int(low), int(high) + 1) for low, high in zip(*inside.aminmax(dim=0), strict=True)]
        if dataset or all(side.stop - side.start == n for side, n in zip(box, labels.shape, strict=True)):
            continue  # some labels of individuals are ignored anyway
        found += 1
        assert all(side.start == n - side.stop for side, n in zip(box, labels.shape, strict=True))
        assert all(side.stop - side.start >= 0.6 * n for side, n in zip(box, labels.shape, strict=True))
        image, outside = image[0], torch.ones_like(labels, dtype=torch.bool)
        outside[tuple(box)] = False
        assert (image[outside] == 0).all() and (labels[outside] == IGNORE_INDEX).all()
        content = image[tuple(box)]
        assert (labels[tuple(box)] != IGNORE_INDEX).all() and content.min() < 0 < content.max()
        # with as much air, of one negative value, as belongs to an image, mean and deviation are 0 and 1
        air = content.min()
        share = content.mean() / -air  # so much air brings the mean to 0
        assert -1e-5 <= share <= 1.5
        deviation = ((content.square().mean() + share * air.square()) / (1 + share)).sqrt()
        assert float(deviation) == pytest.approx(1, abs=0.02)
    assert found >= 6


def test_a_mirrored_case_is_the_mirror_image_with_left_and_right_exchanged(maps):
    plain, mirrored = (cases(maps, mirrored=share) for share in (0.0, 1.0))
    names, exchanged = TABLES.names, {0: set(), 1: set()}
    for index in range(20):
        (image, labels, dataset), (other, other_labels, _) = plain[index], mirrored[index]
        assert torch.equal(other, image.flip(3))
        named = names if dataset == 0 else dict(enumerate(TABLES.set_names))
        pairs = torch.stack([labels.flip(2).flatten(), other_labels.flatten()]).unique(dim=1).T.tolist()
        for before, after in pairs:
            if before == IGNORE_INDEX:
                assert after == IGNORE_INDEX
                continue
            swapped = {"left": "right", "right": "left"}
            assert named[after] == " ".join(swapped.get(word, word) for word in named[before].split())
            exchanged[dataset].add(before)
    assert all(len(found) > 4 for found in exchanged.values())
    assert sum(torch.equal(cases(maps, mirrored=0.5)[n][0], plain[n][0]) for n in range(20)) in range(4, 17)


def test_every_structure_and_every_set_has_its_other_side():
    other, of_set = TABLES.other_side_of_class, TABLES.other_side_of_set
    assert torch.equal(other[other], torch.arange(len(other)))
    assert torch.equal(TABLES.set_of_class[other], of_set[TABLES.set_of_class])  # sets change sides with their classes
    alone = [name for number, name in TABLES.names.items() if other[number] == number]
    assert not [name for name in alone if "left" in name or "right" in name] and "third ventricle" in alone


def test_a_larger_deformation_moves_the_parts_further():
    def bend(deformation: float) -> torch.Tensor:
        still = random_pose(seeded(), (20, 24, 22), 4.0, torch.zeros(3), "cpu", 0.5).points
        return (random_pose(seeded(), (20, 24, 22), 4.0, torch.zeros(3), "cpu", deformation).points - still).std()

    assert float(bend(5.5) / bend(3.0)) == pytest.approx(2, rel=0.01)  # both are drawn from 0.5 mm upwards
