"""The toy volumes: pure functions of seed and index, nested classes, and classes that can be told apart."""

import hashlib

import pytest
import torch
from classscale_training.data.toy.atlas import atlas_case, cell_centres, nearest_by_blocks, nearest_of_all
from classscale_training.data.toy.cases import ToyCases, toy_case
from classscale_training.data.toy.objects import grey_levels, object_recipe, objects_case
from classscale_training.data.toy.options import ToyOptions
from ClassScaleSegLib.errors import ClassScaleError


@pytest.mark.parametrize("case", [atlas_case, objects_case])
def test_a_case_is_a_pure_function_of_seed_and_index(case):
    first, again, other, seed = case(5, 40, 32), case(5, 40, 32), case(6, 40, 32), case(5, 40, 32, seed=1)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1]) and not torch.equal(first[1], seed[1])
    assert first[0].dtype == torch.float32 and first[1].dtype == torch.int64 and first[0].min() > 0


@pytest.mark.parametrize(
    "index, classes, size, digest",  # cases without a voxel so near a boundary that rounding could move it
    [(2, 12, 24, "98e650ff1879e377"), (25, 40, 32, "3f3d1ce9beb089e0"), (10, 120, 48, "5da18bef19b42517")],
)
def test_the_labels_the_shipped_model_was_trained_on_stay_what_they_were(index, classes, size, digest):
    labels = atlas_case(index, classes, size)[1].numpy().astype("<u2")
    assert hashlib.sha256(labels.tobytes()).hexdigest()[:16] == digest


def test_every_class_is_in_every_atlas_volume():
    for index in range(3):
        assert torch.equal(atlas_case(index, 120, 64)[1].unique(), torch.arange(121))


def test_class_tables_nest():
    assert torch.equal(cell_centres(1000)[:100], cell_centres(100))
    names = ToyOptions(1000, "objects").names
    assert {value: names[value] for value in range(101)} == ToyOptions(100, "objects").names


def test_the_atlas_does_not_depend_on_the_resolution():
    coarse, fine = atlas_case(2, 60, 32)[1], atlas_case(2, 60, 96)[1]
    assert (fine[1::3, 1::3, 1::3] == coarse).float().mean() > 0.97


def test_searching_blocks_finds_the_same_nearest_centres_as_comparing_all():
    torch.manual_seed(0)
    axis = torch.linspace(-1, 1, 30)
    points = torch.stack(torch.meshgrid(axis, axis[:27], axis[:21], indexing="ij"), -1)  # no multiples of the block
    points = points + 0.05 * torch.sin(4 * points.roll(1, 3))
    centres = torch.rand(900, 3) * 2 - 1
    expected = nearest_of_all(points, centres)
    found = nearest_by_blocks(points, centres, torch.ones(points.shape[:3], dtype=torch.bool))
    different = found != expected
    assert different.sum() <= 2  # of 17,010, and only where rounding decides
    gap = (points - centres[found]).norm(dim=3) - (points - centres[expected]).norm(dim=3)
    assert gap.abs().max() < 1e-5


def test_every_object_class_has_a_recipe_of_its_own():
    recipes = [object_recipe(value) for value in range(1, 4001)]
    assert len(set(recipes)) == 4000
    # a small dataset already needs all four features
    assert all(len({recipe[feature] for recipe in recipes[:64]}) == 8 for feature in range(4))


def test_an_objects_volume_holds_a_random_subset_of_the_classes():
    first, second = (set(objects_case(index, 1000, 96)[1].unique().tolist()) - {0} for index in (0, 1))
    assert len(first) == len(second) == int(0.8 * 4**3)
    assert len(first & second) < 15 and max(first | second) <= 1000


def test_mean_grey_of_core_and_rim_tells_two_of_the_features_of_nearly_every_object():
    image, labels = objects_case(3, 1000, 128)
    layers, inside = [], labels
    for _ in range(4):  # peel voxels off all objects: the first layer is rim, what remains after three is core
        smaller = inside.clone()
        for axis in range(3):
            for shift in (1, -1):
                smaller[inside.roll(shift, axis) != inside] = 0
        layers.append(torch.where(smaller == 0, inside, 0))
        inside = smaller
    objects = labels.unique()[1:]
    recipes = torch.tensor([object_recipe(value) for value in objects.tolist()])
    for part, feature, share in ((layers[0], 2, 0.99), (inside + layers[3], 1, 0.95)):
        mean = torch.bincount(part.flatten(), image.flatten(), 1001) / torch.bincount(part.flatten(), minlength=1001)
        level = (mean[objects, None] - grey_levels()).abs().argmin(1)
        assert (level == recipes[:, feature]).float().mean() >= share


def test_cases_on_the_fly_are_normalised_and_typed_for_training():
    options = ToyOptions(30, "objects", 32, seed=4)
    image, labels = ToyCases(options, 3)[2]
    assert image.shape == (1, 32, 32, 32) and labels.dtype == torch.int16
    assert abs(float(image.mean())) < 1e-4 and abs(float(image.std()) - 1) < 1e-4
    assert torch.equal(labels.long(), toy_case(2, options)[1])
    batch = next(iter(torch.utils.data.DataLoader(ToyCases(options, 3), batch_size=3)))
    assert batch[0].shape == (3, 1, 32, 32, 32)


@pytest.mark.parametrize("wrong", [{"classes": 4001}, {"classes": 0}, {"classes": 5, "mode": "cells"}])
def test_options_out_of_range_are_refused_in_a_sentence(wrong):
    with pytest.raises(ClassScaleError, match="4000 classes, not|mode 'cells' is unknown"):
        ToyOptions(**wrong)
