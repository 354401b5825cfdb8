"""The gyri of the atlas on the cortex of individuals: registration, votes, and cases that are labelled with them."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from dataclasses import replace

import numpy as np
import pytest
import torch
from brain_fixtures import TABLES, ball, cases, coarse, file, loop_options, maps, number  # noqa: F401  (fixtures)
from classscale_training.data.brain import IGNORE_INDEX, LabelMaps
from classscale_training.data.brain.gyri import gyri_of, gyri_on
from classscale_training.data.brain.registration import Level, register
from classscale_training.loop.train import train
from ClassScaleSegLib.errors import ClassScaleError

SHAPE = (36, 44, 40)
FEW = [Level(1.5, 15, 0.4)]  # steps, for tests
GYRI = {side: (number(f"{side} superior frontal gyrus"), number(f"{side} precuneus")) for side in ("left", "right")}


def hemispheres(border: float, centre=(18, 22, 20), radius=15) -> np.ndarray:
    """A ball of classes: two gyri, in front and behind, on the white matter of each side; x grows to the left."""
    classes = np.zeros(SHAPE, np.int16)
    y, x = np.indices(SHAPE)[1:]
    inside = ball(SHAPE, centre, radius - 5)
    for side, here in (("left", x >= centre[2]), ("right", x < centre[2])):
        for gyrus, part in zip(GYRI[side], (y < border, y >= border), strict=True):
            classes[ball(SHAPE, centre, radius) & here & part] = gyrus
    classes[inside] = next(r.label for r in TABLES.structures if r.set == "cerebral white matter")
    for name, z, y, x in (("putamen", 0, -4, 5), ("pulvinar", 2, 4, 4), ("hippocampus", -5, 3, 5)):
        for side, sign in (("left", 1), ("right", -1)):
            middle = (centre[0] + z, centre[1] + y, centre[2] - 0.5 + sign * x)
            classes[ball(SHAPE, middle, 3)] = number(f"{side} {name}")
    return classes


def bent(volume: np.ndarray, shift: tuple[int, int, int], width: float) -> np.ndarray:
    """What lies in the middle of ``volume`` is moved by ``shift`` voxels, and less the farther away it is."""
    places = np.indices(volume.shape).astype(float)
    middle = np.array(volume.shape)[:, None, None, None] / 2
    weight = np.exp(-((places - middle) ** 2).sum(0) / (2 * width**2))
    there = [
        np.clip(np.rint(p - s * weight), 0, n - 1).astype(int) for p, s, n in zip(places, shift, SHAPE, strict=True)
    ]
    return volume[tuple(there)]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def test_a_bend_is_found_and_does_not_fold():
    moving = ball(SHAPE, (18, 22, 20), 10).astype(np.float32)
    fixed = bent(moving, (2, -4, 3), 10)
    shift = register(torch.from_numpy(fixed)[None], torch.from_numpy(moving)[None], [Level(1.5, 60, 0.4)], 0.1)
    places = np.rint(np.indices(SHAPE) + shift.numpy()).astype(int).clip(0, np.array(SHAPE)[:, None, None, None] - 1)
    moved = moving[tuple(places)]
    assert dice(fixed > 0, moving > 0) < 0.8 < 0.93 < dice(fixed > 0, moved > 0)
    assert all((1 + shift[axis].diff(dim=axis)).min() > 0 for axis in range(3))  # order along each axis is kept


def test_each_voxel_of_the_cortex_has_the_gyrus_that_the_registered_atlas_has_there():
    atlas = hemispheres(22)
    head = np.roll(atlas, (2, -3, 1), (0, 1, 2))
    sets = TABLES.set_of_class.numpy()[head]
    found = gyri_on(sets, atlas, 2.0, TABLES, FEW)
    cortex = TABLES.is_gyrus.numpy()[head]
    assert found.dtype == np.int16 and ((found > 0) == cortex).all()
    for side, numbers in GYRI.items():
        of_side = sets == TABLES.set_names.index(f"{side} cerebral cortex")
        assert set(np.unique(found[of_side])) == set(numbers)
        for gyrus in numbers:
            assert dice(found == gyrus, head == gyrus) > 0.95


def test_both_sides_of_the_atlas_vote():
    """Where the sides of the atlas draw a border at different places, both sides of the head get it in the middle."""
    left, right = hemispheres(18), hemispheres(26)
    atlas = np.where(np.arange(SHAPE[2]) >= 20, left, right)
    found = gyri_on(TABLES.set_of_class.numpy()[left], atlas, 2.0, TABLES, FEW)
    for numbers in GYRI.values():
        front, behind = (np.flatnonzero((found == gyrus).any((0, 2))) for gyrus in numbers)
        assert 20 <= (front.max() + behind.min()) / 2 <= 24


@pytest.fixture(scope="module")
def known(maps) -> LabelMaps:
    """The small people with a cortex in place of the putamina; of individual 1 the gyri are known."""
    person = maps.subjects[1].copy()
    of_values = {coarse(12): (coarse(3), GYRI["left"]), coarse(51): (coarse(42), GYRI["right"])}
    gyri = np.zeros(person.shape, np.int16)
    for old, (new, (front, behind)) in of_values.items():
        here = person == old
        person[here] = new
        gyri[here] = np.where(np.indices(person.shape)[1] < 15, front, behind)[here]
    return replace(maps, subjects=(maps.subjects[0], person, person), gyri={1: gyri})


def test_the_file_keeps_gyri_and_those_without_them_can_be_read(known, maps, tmp_path):
    known.write(tmp_path / "maps.npz", TABLES)
    read = LabelMaps.read(tmp_path / "maps.npz", TABLES)
    assert list(read.gyri) == [1] and (read.gyri[1] == known.gyri[1]).all()
    maps.write(tmp_path / "maps.npz", TABLES)
    assert LabelMaps.read(tmp_path / "maps.npz", TABLES).gyri == {}


@pytest.mark.parametrize(("individual", "cut"), [(1, 1), (9, 0)])
def test_gyri_that_belong_to_no_individual_of_the_file_are_refused(known, tmp_path, individual, cut):
    replace(known, gyri={individual: known.gyri[1][cut:]}).write(tmp_path / "maps.npz", TABLES)
    with pytest.raises(ClassScaleError, match="maps.npz is not a file of label maps"):
        LabelMaps.read(tmp_path / "maps.npz", TABLES)


def test_individuals_with_gyri_are_a_dataset_in_which_each_gyrus_has_a_label(known):
    source, seen = cases(known, atlas_share=0.0), set()
    of_set = {TABLES.set_names.index(f"{side} cerebral cortex") for side in GYRI}
    of_gyrus = {int(TABLES.label_of_gyrus[gyrus]) for numbers in GYRI.values() for gyrus in numbers}
    unknown = cases(replace(known, gyri={}), atlas_share=0.0)
    for index in range(20):
        image, labels, dataset = source[index]
        same_image, same_labels, other = unknown[index]
        assert torch.equal(image, same_image) and other == 1
        here = (same_labels[..., None] == torch.tensor(sorted(of_set))).any(-1)
        assert torch.equal(labels[~here], same_labels[~here])
        if dataset == 2:
            assert set(labels[here].tolist()) <= of_gyrus
        else:
            assert dataset == 1 and torch.equal(labels, same_labels)
        seen.add(dataset)
    assert seen == {1, 2}


def test_in_a_mirror_image_gyri_change_sides(known):
    plain, mirrored = cases(known, atlas_share=0.0), cases(known, atlas_share=0.0, mirrored=1.0)
    label = {side: [int(TABLES.label_of_gyrus[gyrus]) for gyrus in numbers] for side, numbers in GYRI.items()}
    index = next(n for n in range(20) if plain[n][2] == 2 and (plain[n][1] == label["left"][0]).any())
    (_, here, _), (_, there, _) = plain[index], mirrored[index]
    for one, other in zip(label["left"], label["right"], strict=True):
        assert torch.equal((here == one).flip(2), there == other) and torch.equal((here == other).flip(2), there == one)
    assert torch.equal((here == IGNORE_INDEX).flip(2), there == IGNORE_INDEX)


def test_every_class_has_one_label_in_the_dataset_with_gyri_and_gyri_share_theirs_with_nothing():
    labels = TABLES.label_sets.label_of_class[2]
    counts = torch.bincount(labels)
    assert (counts > 0).all() and (counts[labels[TABLES.is_gyrus]] == 1).all()
    others = ~TABLES.is_gyrus
    assert torch.equal(labels[others], TABLES.set_of_class[others])
    assert torch.equal(labels[TABLES.is_gyrus], TABLES.label_of_gyrus[TABLES.is_gyrus].long())
    swapped = TABLES.other_side_of_label
    assert torch.equal(swapped[swapped], torch.arange(len(swapped)))
    assert torch.equal(labels[TABLES.other_side_of_class], swapped[labels])


def test_a_training_learns_from_individuals_with_and_without_gyri(known, tmp_path):
    known.write(tmp_path / "maps.npz", TABLES)
    train(loop_options(tmp_path / "run", tmp_path / "maps.npz", atlas_share=0.3, steps=6, evaluate_every=6))
    assert (tmp_path / "run" / "fold_0" / "checkpoint_final.pth").exists()


def test_the_script_goes_on_with_the_individuals_that_lack_gyri(known, tmp_path, monkeypatch, capsys):
    import add_gyri

    known.write(tmp_path / "maps.npz", TABLES)
    asked = []
    drawn = np.full(known.subjects[2].shape, GYRI["left"][0], np.int16)
    monkeypatch.setattr(add_gyri, "gyri_of", lambda _maps, _tables, individual: asked.append(individual) or drawn)
    assert add_gyri.main(["--label-maps", str(tmp_path / "maps.npz")]) == 0
    read = LabelMaps.read(tmp_path / "maps.npz", TABLES)
    assert asked == [2] and (read.gyri[1] == known.gyri[1]).all() and (read.gyri[2] == drawn).all()
    assert "2 individuals with gyri" in capsys.readouterr().out
    assert add_gyri.main(["--label-maps", str(tmp_path / "none.npz")]) == 1


def test_an_individual_is_read_by_its_sets(known, monkeypatch):
    from classscale_training.data.brain import gyri as module

    given = []
    monkeypatch.setattr(module, "gyri_on", lambda *arguments: given.append(arguments))
    gyri_of(known, TABLES, 1)
    sets, atlas, spacing, _ = given[0]
    assert spacing == known.spacing and atlas is known.subjects[0]
    assert (sets[known.gyri[1] == GYRI["left"][0]] == TABLES.set_names.index("left cerebral cortex")).all()
