"""Head images from label maps: what is in a case, what it depends on, and that the tables mean what they say."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from brain_fixtures import PATCH, TABLES, cases, coarse, file, loop_options, maps, number  # noqa: F401  (fixtures)
from classscale_training.data.brain import IGNORE_INDEX, BrainTables, LabelMaps
from classscale_training.data.brain.synthesis import Palette, blur, nearest, paint
from classscale_training.loop.data import open_data
from classscale_training.loop.options import LoopOptions
from classscale_training.loop.train import main, train
from classscale_training.loss.losses import CrossEntropyDiceLoss
from classscale_training.loss.soft_dice import SoftDice
from ClassScaleSegLib.errors import ClassScaleError, ModelError
from scipy import ndimage

DATA = Path(__file__).parents[3] / "shared" / "data"
TRAINING = Path(__file__).parents[2] / "training"


def test_a_case_is_a_function_of_seed_and_index(maps):
    image, labels, dataset = cases(maps)[5]
    again, labels_again, _ = cases(maps)[5]
    assert torch.equal(image, again) and torch.equal(labels, labels_again)
    assert image.shape == (1, *PATCH) and image.dtype == torch.float32
    assert labels.shape == PATCH and labels.dtype == torch.int16
    for other in (cases(maps)[6], cases(maps, seed=1)[5]):
        assert not torch.equal(image, other[0])
    with pytest.raises(IndexError):
        cases(maps)[1000]


def test_both_kinds_of_subjects_come_with_the_labels_of_their_own_table(maps):
    source, seen = cases(maps), {0: set(), 1: set()}
    shares = []
    for index in range(60):
        _, labels, dataset = source[index]
        seen[dataset] |= set(labels.unique().tolist())
        shares.append(dataset)
    assert 8 <= sum(shares) <= 30  # 3 of 10 expected
    own = {IGNORE_INDEX, *maps.subjects[0].ravel().tolist()}  # -1: beside an image smaller than the patch
    assert seen[0] <= own and len(seen[0]) == 9
    expected = {
        TABLES.set_names.index(f"{side} {name}") for side in ("left", "right") for name in ("thalamus", "putamen")
    }
    assert seen[1] == {IGNORE_INDEX, 0} | expected


def test_a_warm_up_begins_with_the_atlas_subject_in_the_middle_and_ends_with_everything(maps):
    source = cases(maps, spacing=2.0, patch=(32, 48, 48), warm_up=500)
    begin, end = ([source[index] for index in range(first, first + 40)] for first in (0, 960))
    assert sum(dataset for _, _, dataset in begin) <= 5 <= sum(dataset for _, _, dataset in end)
    centres = [[labels[labels > 0].numel() for _, labels, _ in part] for part in (begin, end)]
    assert min(centres[0]) > 1.5 * min(centres[1])  # no patch misses the brain at first
    later = cases(maps, spacing=2.0, patch=(32, 48, 48))[960]
    assert torch.equal(end[0][0], later[0])  # after it, as if there were none


def test_shares_are_those_of_the_atlas_in_a_patch_and_none_is_tiny(maps):
    shares = cases(maps).shares()
    voxels = np.bincount(maps.subjects[0].ravel(), minlength=len(shares))
    putamen, pulvinar = number("left putamen"), number("left pulvinar")
    assert float(shares.sum()) == pytest.approx(1) and float(shares.min()) > 0
    assert float(shares[putamen] / shares[pulvinar]) == pytest.approx(voxels[putamen] / voxels[pulvinar])
    absent = number("pons")
    assert not voxels[absent] and float(shares[putamen] / shares[absent]) == pytest.approx(voxels[putamen] * 8 / 200)


def test_left_stays_left(maps):
    left, right = (number(f"{side} putamen") for side in ("left", "right"))
    for index in range(10):
        _, labels = cases(maps, spacing=2.0).unseen(index, 0, (32, 48, 48))
        across = [float((labels == value).nonzero()[:, 2].float().mean()) for value in (left, right)]
        assert across[0] > across[1] + 5  # x runs from right to left


def test_the_atlas_subject_gets_the_skull_of_an_individual_and_strips_it_sometimes(maps):
    source = cases(maps, spacing=2.0)
    muscle, empty_muscle, around = number("left masseter"), 0, []
    for index in range(40):
        image, labels = source.unseen(index, 0, (32, 48, 48))
        assert image.min() >= 0
        outside = image[(labels == 0)]
        around.append(float((outside > 0.1 * image.max()).float().mean()))
        empty_muscle += int(not (labels == muscle).any())
    assert 2 <= empty_muscle <= 16 and np.median(around) > 0.1


def test_contrasts_differ_and_white_matter_is_bright_in_a_third_of_them_at_least():
    generator = torch.Generator().manual_seed(0)
    tissues = [row.tissue for row in TABLES.tissues]
    white, grey = (tissues.index(f"cerebral {name}") for name in ("white matter", "cortex"))
    drawn = torch.stack([Palette.draw(generator, TABLES).mean for _ in range(200)])
    assert 0.45 < float((drawn[:, white] > drawn[:, grey]).float().mean()) < 0.75
    assert drawn[:, tissues.index("air")].max() <= 0.05 and drawn.max() <= 1 and drawn.min() >= 0


def test_tissues_have_the_grey_values_of_the_palette():
    count = len(TABLES.tissues)
    palette = Palette(torch.linspace(0, 1, count), torch.full((count,), 0.01), torch.zeros(count))
    parts = torch.tensor([3, 20])[:, None, None].expand(2, 24, 24)
    generator = torch.Generator().manual_seed(1)
    image = paint(generator, parts, torch.arange(count), palette, 2.0)
    assert image.mean((1, 2)).numpy() == pytest.approx(palette.mean[[3, 20]].numpy(), abs=0.12)
    assert image.std((1, 2)).numpy() == pytest.approx([0.01, 0.01], rel=0.2)


def test_blurring_equals_scipys():
    image = torch.rand(12, 14, 10)
    expected = ndimage.gaussian_filter(image.numpy(), (0.6, 1.0, 1.4), mode="nearest", radius=(2, 3, 4))
    assert blur(image, [0.6, 1.0, 1.4]).numpy() == pytest.approx(expected, abs=1e-5)
    several = blur(torch.stack([image, 2 * image])[None], [0.6, 1.0, 1.4])
    assert several.shape == (1, 2, *image.shape)
    assert several[0, 1].numpy() == pytest.approx(2 * expected, abs=1e-5)


def test_nearest_rounds_and_is_zero_outside():
    volume = torch.arange(1, 9).view(2, 2, 2)
    places = torch.tensor([[0.4, 0.6, 0.0], [1.0, 1.4, 1.0], [-0.6, 0.0, 0.0], [0.0, 0.0, 2.0]])
    assert nearest(volume, places.T).tolist() == [3, 8, 0, 0]


def test_every_structure_belongs_to_one_set_and_the_marginal_loss_takes_individuals(maps):
    tables, source = TABLES.label_sets, cases(maps)
    classes = len(TABLES.names)
    assert tables.label_of_class.shape == (3, classes) and classes == 312
    assert tables.label_of_class[0].tolist() == list(range(classes))
    assert TABLES.label_of_coarse[coarse(512)] == IGNORE_INDEX and TABLES.label_of_coarse[coarse(0)] == 0
    index = next(index for index in range(100) if source[index][2] == 1)
    _, labels, dataset = source[index]
    labels = labels.clone()
    labels[0] = IGNORE_INDEX
    basis, projection = torch.randn(1, 8, *PATCH, requires_grad=True), torch.randn(classes, 8)
    loss = CrossEntropyDiceLoss(SoftDice(present_only=True), IGNORE_INDEX, label_sets=TABLES.label_sets)
    value = loss(basis, projection, torch.zeros(classes), labels[None], torch.tensor([dataset]))
    value.backward()
    assert torch.isfinite(value) and (basis.grad[:, :, 0] == 0).all() and (basis.grad[:, :, 1:] != 0).any()


def test_the_loop_trains_on_heads_and_resumes_to_the_same_weights(file, tmp_path):
    more = {"warm_up": 2, "balance": 0.5, "deep_supervision": True, "loss_stride": 2, "finest_every": 2}
    whole, halves = (loop_options(tmp_path / name, file, **more) for name in ("whole", "halves"))
    entries = []
    train(whole, entries.append)
    assert "dice" in entries[-1]
    while not train(loop_options(halves.folder, file, minutes=0.0, **more)).finished:
        pass
    first, second = (
        torch.load(options.folder / "fold_0" / "checkpoint_final.pth", weights_only=True)["network_weights"]
        for options in (whole, halves)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    data = open_data(whole, "cpu")
    assert data.names[0] == "background" and len(data.names) == 312
    with pytest.raises(ModelError, match=r"was trained with spacing 4.0, not 2.0"):
        train(loop_options(tmp_path / "whole", file, spacing=2.0, **more))
    with pytest.raises(ModelError, match=r"was trained with mirrored 0.0, not 0.5"):
        train(loop_options(tmp_path / "whole", file, mirrored=0.5, **more))


def test_label_maps_that_change_during_a_training_are_noticed(maps, file, tmp_path):
    path, folder = tmp_path / "maps.npz", tmp_path / "run"
    maps.write(path, TABLES)
    train(loop_options(folder, path, minutes=0.0))
    train(loop_options(folder, file, minutes=0.0))  # the same label maps in another file
    gyri = np.zeros_like(maps.subjects[1], np.int16)
    replace(maps, gyri={1: gyri}).write(path, TABLES)  # what add_gyri.py does
    with pytest.raises(ModelError, match=r"other gyri than those of now \(.*maps.npz\).* add --changed-data"):
        train(loop_options(folder, path))
    with pytest.warns(UserWarning, match="goes on from .*checkpoint_latest.pth, which was trained with other gyri"):
        train(loop_options(folder, path, minutes=0.0, changed_data=True))
    assert train(loop_options(folder, path)).finished  # it is no longer another file
    maps.subjects[1][20, 24, 22] += 1
    try:
        assert maps.digests() != LabelMaps.read(file, TABLES).digests()
    finally:
        maps.subjects[1][20, 24, 22] -= 1
    with pytest.raises(ModelError, match="was trained on heads, not on toy data: use the same --data"):
        train(LoopOptions(folder=folder, device="cpu"))


def test_other_tables_are_noticed_but_not_other_colours(tmp_path):
    folder = TRAINING / "classscale_training" / "data" / "brain"
    for name in ("structures.csv", "label_sets.csv", "tissues.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    path = tmp_path / "structures.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    for column, value, same in (("red", "7", True), ("tissue", "air", False)):
        changed = [{**rows[0], column: value}, *rows[1:]]
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(changed)
        assert (BrainTables.read(tmp_path).digest() == TABLES.digest()) is same


def test_our_engine_opens_the_model_folder(file, tmp_path):
    from ClassScaleSegLib import open_model

    train(loop_options(tmp_path, file, steps=1, evaluate_every=1))
    model = open_model(tmp_path)
    assert model.classes == 312 and model.patch == PATCH and list(model.configuration.spacing) == [4.0] * 3
    assert model.table.names[1] == "white matter of left cerebral hemisphere"


def test_bad_files_and_options_get_a_sentence(file, tmp_path, capsys):
    (tmp_path / "no.npz").write_bytes(b"no")
    assert main(["--folder", str(tmp_path / "run"), "--data", f"head:{tmp_path / 'no.npz'}"]) == 1
    assert "is not a file of label maps" in capsys.readouterr().err
    content = dict(np.load(file))
    content["atlas_values"] = content["atlas_values"] + 1
    np.savez(tmp_path / "other.npz", **content)
    with pytest.raises(ClassScaleError, match="was made with other tables .atlas_values differ"):
        LabelMaps.read(tmp_path / "other.npz", TABLES)
    assert LoopOptions(folder=tmp_path, data="head:x.npz").data == "brain:x.npz"  # as options of older runs say it
    with pytest.raises(ClassScaleError, match="--data heads is unknown"):
        LoopOptions(folder=tmp_path, data="heads")
    with pytest.raises(ClassScaleError, match="Size 40 does not fit"):
        LoopOptions(folder=tmp_path, data="brain:x.npz", patch=(32, 40, 32))
    with pytest.raises(ClassScaleError, match="has 2 numbers; expected three"):
        LoopOptions(folder=tmp_path, data="brain:x.npz", patch=(32, 32))


def test_a_table_that_names_an_unknown_tissue_or_set_is_refused(tmp_path):
    folder = TRAINING / "classscale_training" / "data" / "brain"
    for name in ("structures.csv", "label_sets.csv", "tissues.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    path = tmp_path / "label_sets.csv"
    good = path.read_text()
    path.write_text(good.replace("left thalamus,thalamus,left thalamus", "left thalamus,thalamus,left talamus"))
    with pytest.raises(ClassScaleError, match="no structure belongs to the set 'left talamus'"):
        BrainTables.read(tmp_path)
    path.write_text(good.replace("left thalamus,thalamus", "left thalamus,wood"))
    with pytest.raises(ClassScaleError, match="left thalamus: tissue 'wood' is not in"):
        BrainTables.read(tmp_path)
    path.write_text("value,name\n1,x\n")
    with pytest.raises(ClassScaleError, match="is not a table with the columns value, name, tissue, set, around"):
        BrainTables.read(tmp_path)


@pytest.mark.skipif(not (DATA / "spl_brain").is_dir(), reason="the atlas is not at hand")
def test_the_tables_name_the_structures_as_their_sources_do():
    with open(DATA / "spl_brain" / "hncma-atlas-lut.tsv", newline="") as stream:
        atlas = {int(row["value"]): row["label"] for row in csv.DictReader(stream, delimiter="\t")}
    with open(DATA / "spl_brain" / "brain-atlas-labels-with-metadata.tsv", newline="") as stream:
        codes = {int(row["value"]): row["radlex_id"] for row in csv.DictReader(stream, delimiter="\t")}
    for row in TABLES.structures:
        assert row.name.replace("cerebellum ", "").replace("crus I", "crusI") == atlas[row.atlas_value]
        assert row.radlex in ("", codes.get(row.atlas_value))
    folder = DATA / "synthseg_labels"
    labels = np.load(folder / "generation_labels.npy").tolist()
    assert sorted(row.value for row in TABLES.coarse) == sorted(labels)
    # SynthSeg's own merging of its labels, and its names
    merged = dict(zip(labels, np.load(folder / "synthseg_segmentation_labels.npy").tolist(), strict=True))
    names = dict(zip(labels, np.load(folder / "synthseg_segmentation_names.npy").tolist(), strict=True))
    for row in TABLES.coarse:
        if merged[row.value]:
            assert row.name.startswith(names[row.value])
            side = row.name.split()[0]
            assert side not in ("left", "right") or row.set.startswith((side, "cerebral white matter"))


@pytest.mark.skipif(not (DATA / "synthseg_labels").is_dir(), reason="the label maps are not at hand")
def test_real_label_maps_are_brought_to_one_orientation_and_onto_each_other(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(TRAINING))
    from prepare_brain_data import label_maps

    individual = DATA / "synthseg_labels" / "training_seg_09.nii.gz"  # of a brain without neck
    maps = label_maps(DATA / "spl_brain" / "hncma-atlas.nrrd", [individual], TABLES)
    thalamus = [np.argwhere(maps.subjects[1] == coarse(value)).mean(0) for value in (10, 49)]
    assert thalamus[0][2] > thalamus[1][2] + 10  # left at the higher x
    names = [[row.label for row in TABLES.structures if row.set == f"{side} thalamus"] for side in ("left", "right")]
    atlas = [np.argwhere(np.isin(maps.subjects[0], labels)).mean(0) for labels in names]
    for here, there in zip(atlas, thalamus, strict=True):
        assert np.linalg.norm(maps.from_atlas[1] @ [*here, 1] - there) < 8  # mm; measured 3.7 at most
    assert "SimpleITK" in sys.modules and maps.spacing == 1.0
