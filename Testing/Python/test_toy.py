"""The toy anatomy: deterministic, every class in every volume, resolution independent."""

import torch
from classscale_training.toy import atlas_case, cell_centres


def test_a_case_is_a_pure_function_of_seed_and_index():
    first, again, other = atlas_case(5, 40, 32), atlas_case(5, 40, 32), atlas_case(6, 40, 32)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_every_class_is_in_every_volume():
    for index in range(3):
        image, labels = atlas_case(index, 120, 64)
        assert torch.equal(labels.unique(), torch.arange(121))
        assert image.min() > 0


def test_class_tables_nest():
    assert torch.equal(cell_centres(1000)[:100], cell_centres(100))


def test_the_anatomy_does_not_depend_on_the_resolution():
    coarse, fine = atlas_case(2, 60, 32)[1], atlas_case(2, 60, 96)[1]
    assert (fine[1::3, 1::3, 1::3] == coarse).float().mean() > 0.97
