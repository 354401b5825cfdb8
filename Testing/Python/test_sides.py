"""Mirror images whose left and right classes are exchanged: which classes, which axis, and what is averaged."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import ModelError, open_model, pack, segment
from ClassScaleSegLib.commands.main import main
from ClassScaleSegLib.errors import LabelTableError
from ClassScaleSegLib.inference.backbone import Backbone
from ClassScaleSegLib.inference.memory_estimate import estimate
from ClassScaleSegLib.labels.label import Code, Label, segment_id
from ClassScaleSegLib.labels.sides import other_sides, side_by_name
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.models.side_swap import SideSwap, side_swap
from ClassScaleSegLib.models.summary import summarize
from ClassScaleSegLib.resources import resource
from conftest import logits, small_dataset, small_plans, stock_network, write_checkpoint

SIDE = 24
NAMES = ["left eye", "right lung", "liver", "right eye", "left lung", "vertebra L1"]  # 3, 5, -, 1, 2, -
OTHERS = {1: 4, 4: 1, 2: 5, 5: 2}


def labels_of(*names: str) -> list[Label]:
    return [Label(value, segment_id(value), name, (0, 0, 0)) for value, name in enumerate(names, 1)]


def bundle(write_model, tmp_path, classes: int, folds: int = 1, axes=(), **more):
    """Pack a random model with these mirror axes; of its classes, those of ``NAMES`` come first."""
    names = [*NAMES, *(f"organ {n}" for n in range(classes))][:classes]
    plans, dataset = small_plans(), small_dataset({"background": 0, **{n: v for v, n in enumerate(names, 1)}})
    for configuration in plans["configurations"].values():
        configuration["patch_size"] = [SIDE] * 3
    folder = write_model(plans, dataset, range(folds))
    for fold in range(folds):
        network = stock_network(plans, dataset, fold)
        write_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pth", network, axes)
    output = tmp_path / f"{classes}-{folds}-{len(axes)}.zip"
    options = {"orientation": "RAS", "swap_sides": True, **more}
    return pack(folder, output, overwrite=True, **options)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 30, (SIDE,) * 3).astype(np.float32)


def test_codes_of_a_side_decide_and_otherwise_the_name():
    kidney, left, right = Code("SCT", "64033007", "Kidney"), Code("SCT", "7771000", "L"), Code("SCT", "24028007", "R")
    coded = [
        Label(1, "a", "one", (0, 0, 0), type=kidney, type_modifier=right),
        Label(2, "b", "other", (0, 0, 0), type=kidney, type_modifier=left),
    ]
    named = [Label(3, "c", "left putamen", (0, 0, 0), type=Code("RadLex", "RID1", "left putamen"))]
    named += [Label(4, "d", "Putamen, RIGHT", (0, 0, 0), type=Code("RadLex", "RID2", "right putamen"))]
    assert other_sides([*coded, *named]) == {1: 2, 2: 1, 3: 4, 4: 3}
    assert other_sides(labels_of(*NAMES)) == OTHERS


@pytest.mark.parametrize(
    "names, told",
    [
        (("left eye", "liver"), "'left eye' (label 1)"),
        (("liver", "eye R"), "'eye R' (label 2)"),
        (("left eye", "eye left", "right eye"), "'left eye' (label 1)"),
    ],
)
def test_a_side_without_its_other_side_is_named(names, told):
    with pytest.raises(LabelTableError, match=re.escape(f"{told} does not have exactly one counterpart on the")):
        other_sides(labels_of(*names))


def test_letters_are_sides_only_without_words():
    assert side_by_name("left cerebellum V l") == ("left", ("name", "cerebellum", "v", "l"))
    assert side_by_name("lh_insula") == ("left", ("name", "insula")) and side_by_name("R")[0] is None
    assert side_by_name("left gyrus (banks of left sulcus)")[0] == "left"
    assert side_by_name("left right commissure")[0] is None and side_by_name("vertebra L1")[0] is None


def test_every_structure_of_the_embedded_head_has_its_other_side():
    table = summarize(resource("Models", "head-mr-312.zip")).table
    others = other_sides(table.foreground)
    assert len(others) > 200 and all(others[others[value]] == value for value in others)
    opposite = {"left": "right", "right": "left"}
    for value, other in others.items():
        assert table[other].name == re.sub(r"\b(left|right)\b", lambda word: opposite[word[0]], table[value].name)
    assert set(others) == {label.value for label in table.foreground if re.search(r"\b(left|right)\b", label.name)}


@pytest.mark.parametrize(
    "orientation, forward, axis",
    [("RAS", (0, 1, 2), 2), ("LPS", (2, 1, 0), 0), ("PIR", (0, 1, 2), 0), ("SLA", (1, 2, 0), 0), ("AIL", (2, 0, 1), 1)],
)
def test_the_axis_follows_from_orientation_and_order_of_axes(orientation, forward, axis):
    table = LabelTable.from_names({0: "background", 1: "left eye", 2: "right eye"})
    assert side_swap(table, (0, 1, 2), orientation, forward, (8, 8, 8), ()) == SideSwap(axis, (0, 2, 1))


def test_the_reason_is_told_if_sides_cannot_be_exchanged():
    eyes, none = ({0: "background", **dict(enumerate(n, 1))} for n in (("left eye", "right eye"), ("liver",)))
    lone = {0: "background", 1: "left eye"}
    plain = (eyes, "RAS", (8, 8, 8), ())
    for names, orientation, patch, axes, told in (
        (*plain[:1], None, *plain[2:], "a known orientation"),
        (*plain[:2], (8, 8), (), "only in 3D"),
        (*plain[:3], (0, 2), "trained with images mirrored"),
        (lone, *plain[1:], "'left eye' .label 1. does not have exactly one counterpart"),
        (none, *plain[1:], "no left and right structures"),
    ):
        with pytest.raises(ModelError, match=told):
            side_swap(LabelTable.from_names(names), tuple(names), orientation, (0, 1, 2), patch, axes)


@pytest.mark.parametrize("classes", [30, 6])
@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("axes", [(), (1,)])
def test_labels_are_those_of_the_mean_of_two_runs(write_model, tmp_path, monkeypatch, classes, folds, axes):
    model = open_model(bundle(write_model, tmp_path, classes, folds, axes, orientation="LPS"))
    assert model.swap_sides and model.average_folds == (classes < 8 * folds) and model.side_swap.axis == 2
    others = {value: OTHERS.get(value, value) for value in range(classes + 1)}
    seen, call = [], Backbone.__call__
    monkeypatch.setattr(Backbone, "__call__", lambda self, patch: seen.append(patch.clone()) or call(self, patch))
    image = sitk.GetImageFromArray(picture())
    found = segment(image, model, device="cpu").labels
    (patch,) = seen
    mean = 0
    for flip in ((), *([(3,)] if axes else [])):
        plain = logits(model, patch.flip(flip)).flip([a - 1 for a in flip])
        mirrored = logits(model, patch.flip((*flip, 4))).flip([*(a - 1 for a in flip), 3])
        mean = mean + plain + mirrored[[others[row] for row in range(classes + 1)]]
    expected = mean.argmax(0).numpy()
    assert np.array_equal(found, expected)
    assert not np.array_equal(segment(image, model, device="cpu", mirroring=False).labels, expected)


def test_the_mirror_image_of_a_patient_gives_the_mirror_image_of_the_result(write_model, tmp_path):
    model = open_model(bundle(write_model, tmp_path, 30))
    exchanged = np.array([OTHERS.get(value, value) for value in range(31)])

    def labels(voxels: np.ndarray, **more) -> np.ndarray:
        image = sitk.GetImageFromArray(voxels)
        turned = sitk.DICOMOrient(image, "PIR")  # the patient's left and right lie along the slices
        found = segment(turned, model, device="cpu", **more)
        back = sitk.GetImageFromArray(found.labels)
        back.CopyInformation(turned)
        return sitk.GetArrayFromImage(sitk.DICOMOrient(back, "LPS"))

    both = labels(picture()), labels(picture()[:, :, ::-1].copy())
    assert np.array_equal(exchanged[both[0]], both[1][:, :, ::-1]) and len(np.unique(both[0])) > 5
    plain = labels(picture(), mirroring=False), labels(picture()[:, :, ::-1].copy(), mirroring=False)
    assert not np.array_equal(exchanged[plain[0]], plain[1][:, :, ::-1])


def test_the_estimate_counts_twice_the_channels_for_every_number_of_classes(write_model, tmp_path):
    image = ((60, 60, 60), (1.0, 1.0, 1.0))
    for classes in (30, 200):
        path = bundle(write_model, tmp_path, classes)
        model = open_model(path)
        plain, both = (estimate(model, *image, mirroring=mirroring) for mirroring in (False, True))
        light = estimate(summarize(path), *image)
        assert both.basis == light.basis == 2 * 8 * 4 * SIDE**3 and both.ring == light.ring
        assert both.ring / plain.ring == pytest.approx(17 / 9)  # and the sum of the weights
    logits_only = bundle(write_model, tmp_path, 6)
    rings = [estimate(open_model(logits_only), *image, mirroring=mirroring).ring for mirroring in (False, True)]
    assert rings[0] == rings[1]


def test_a_bundle_says_so_only_if_it_is_asked_to(write_model, tmp_path, capsys):
    path = bundle(write_model, tmp_path, 30)
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mirrored with sides exchanged"] is True
    plain = open_model(bundle(write_model, tmp_path, 30, swap_sides=False))
    assert not plain.swap_sides and plain.side_swap is None
    folder = str(next(tmp_path.rglob("plans.json")).parent)
    command = ["pack", folder, "-o", str(tmp_path / "by-command.zip"), "--swap-sides"]
    assert main(command) != 0 and "a known orientation" in capsys.readouterr().err
    assert main([*command, "--orientation", "RAS"]) == 0
    assert (tmp_path / "by-command.zip").read_bytes() == bundle(write_model, tmp_path, 30).read_bytes()


def test_sides_that_cannot_be_exchanged_are_refused_before_anything_is_written(write_model, tmp_path):
    with pytest.raises(ModelError, match="'left eye' .label 1. does not have exactly one counterpart"):
        bundle(write_model, tmp_path, 2)
    with pytest.raises(ModelError, match="mirrored that way"):
        bundle(write_model, tmp_path, 30, axes=(0, 1, 2))
    assert not list(tmp_path.glob("*.zip"))
