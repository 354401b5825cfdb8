"""Cases of which only something was drawn: the rest is what a model finds (``fill``, ``collect --under``)."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from classscale_training import commands
from classscale_training.data.collect.filling import filled
from classscale_training.data.collect.on_image import OnImage
from ClassScaleSegLib import Geometry, ImageError, LabelTable, Segmentation
from ClassScaleSegLib.images.paired_reading import read_segmentation
from ClassScaleSegLib.process.exit_codes import ExitCode
from collect_cases import SHAPE, Training, boxes, save, training  # noqa: F401

SAMPLE = Path(__file__).parents[2] / "Resources" / "SampleData" / "toy-120.nrrd"
DEVICE = ["-device", "cpu"]


def found(training: Training, case: str, names: dict[int, str], *layers: np.ndarray) -> Path:
    """Write what a model has found."""
    there = training.segmentations
    training.segmentations = training.folder.parent / "found"
    training.segmentations.mkdir(exist_ok=True)
    try:
        return training.segmentation(case, LabelTable.from_names(names), layers)
    finally:
        training.segmentations = there


def test_what_a_case_lacks_comes_from_another_segmentation_and_what_is_drawn_stays(training, capsys):
    training.case("a", {1: "cyst", 4: "Spleen"}, boxes(1, 4))
    training.case("b", {1: "cyst", 2: "kidney"}, boxes(1))  # an empty segment says that there is no kidney
    anywhere = np.full_like(boxes(1), 3)
    anywhere[:, :, 5:] = 7
    anywhere[0] = 9
    names = {3: "liver", 7: "spleen", 9: "kidney"}
    found(training, "a", names, anywhere)
    under = found(training, "b", names, anywhere).parent
    assert training.collect("--missing", "background") == 0
    assert training.json["labels"] == {"background": 0, "cyst": 1, "Spleen": 2}
    assert training.collect("--under", under, "--renew", "--missing", "background") == 0
    labels = training.json["labels"]
    assert labels == {"background": 0, "cyst": 1, "Spleen": 2, "liver": 3, "kidney": 4}
    a, b = training.label("a"), training.label("b")
    drawn = boxes(1, 2)
    assert np.array_equal(a[drawn > 0], drawn[drawn > 0]) and set(np.unique(b)) == {0, 1, 2, 3}
    rest = np.where(anywhere == 3, 3, np.where(anywhere == 9, 4, 0))  # the drawn spleen is all of it
    assert np.array_equal(a[drawn == 0], rest[drawn == 0])
    one = boxes(1) == 0
    assert np.array_equal(b[one], np.where(anywhere == 9, 0, np.where(anywhere == 7, 2, 3))[one])
    capsys.readouterr()
    assert training.collect("--under", under, "--renew", "--missing", "background") == 0
    assert "is finished already" in capsys.readouterr().out
    found(training, "a", names, np.full_like(anywhere, 3))  # found again
    assert training.collect("--under", under, "--renew", "--missing", "background") == 0
    assert "1 changed" in capsys.readouterr().out and not (training.label("a") == 4).any()


def test_a_case_that_was_not_segmented_is_a_fault(training, tmp_path):
    training.case("a", {1: "cyst"})
    training.case("b", {1: "cyst"})
    under = found(training, "b", {1: "liver"}, boxes(1)).parent
    with pytest.raises(ImageError, match=r"found has no segmentation of a\. Segment the image too"):
        training.collect("--under", under)
    with pytest.raises(ImageError, match=r"nowhere is no folder\."):
        training.collect("--under", tmp_path / "nowhere")
    assert not training.dataset.exists()


def test_the_folder_of_what_is_drawn_is_not_that_of_what_is_found(training, capsys):
    file = training.case("a", {1: "cyst"})
    before = file.read_bytes()
    with pytest.raises(ImageError, match="has the segmentations themselves"):
        training.collect("--under", training.segmentations)
    fill = ["fill", str(training.folder), "-m", "toy-120", "-o", str(training.segmentations), *DEVICE]
    assert commands.main(fill) == ExitCode.OUTPUT
    assert f"{training.segmentations} has what is drawn. Name another folder" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_values_are_free_and_names_that_are_no_names_of_a_structure_do_not_matter():
    grid = np.zeros((1, 1, 4), np.uint16)
    drawn, under = grid.copy(), grid.copy()
    drawn[..., 0], under[..., 1:] = 65535, [1, 2, 3]
    mine = LabelTable.from_names({65535: "cyst", 1: "liver"})  # a table of all that could be drawn
    theirs = LabelTable.from_names({1: "Liver", 2: "left kidney", 3: "kidney left"})
    both = filled(
        OnImage((drawn,), mine.foreground, frozenset({65535}), ("mine",)),
        OnImage((under,), theirs.foreground, frozenset({1, 2, 3}), ("theirs",)),
        (Path("a.nrrd"), Path("b.nrrd")),
    )
    *given, told = both.notices
    assert given == ["mine", "theirs"] and both.drawn == {65535, 2}
    assert told.startswith("a.nrrd gets nothing of left kidney, kidney left: these names in b.nrrd do not")
    assert [(label.value, label.name) for label in both.labels] == [(65535, "cyst"), (2, "Liver")]
    assert [layer.ravel().tolist() for layer in both.layers] == [[65535, 0, 0, 0], [0, 2, 0, 0]]


def test_crumbs_of_a_structure_that_is_drawn_under_another_name_are_left_out():
    drawn, under = np.zeros((2, 1, 1, 30), np.uint16)
    drawn[..., 2:20], under[..., :20], under[..., 20:29] = 1, 5, 6
    drawn[..., 20:27] = 1  # 2 of 20 voxels are left of one, 2 of 9 of the other
    both = filled(
        OnImage((drawn,), LabelTable.from_names({1: "left adrenal, corrected"}).foreground, frozenset({1}), ()),
        OnImage((under,), LabelTable.from_names({5: "left adrenal", 6: "spleen"}).foreground, frozenset({5, 6}), ()),
        (Path("a.nrrd"), Path("b.nrrd")),
    )
    assert both.layers[1].ravel().tolist() == [0] * 27 + [3] * 2 + [0]
    assert both.notices == ("a.nrrd covers nearly all of left adrenal in b.nrrd: the rest is left out.",)
    assert both.drawn == {1, 2, 3}, "it is known that there is no other one"


def test_what_is_drawn_but_gets_no_label_leaves_no_hole_in_what_was_found(training, tmp_path):
    training.case("a", {1: "scratch", 4: "lesion"}, boxes(1, 4))
    under = found(training, "a", {3: "liver"}, np.full_like(boxes(1), 3)).parent
    LabelTable.from_names({1: "lesion", 2: "liver"}).to_csv(tmp_path / "wanted.csv")
    assert training.collect("--under", under, "--labels", tmp_path / "wanted.csv") == 0
    assert np.array_equal(training.label("a"), np.where(boxes(1, 4) == 4, 1, 2))
    wrong = LabelTable.from_names({1: "lesion", 2: "Lesion"})  # is told elsewhere
    grid = np.ones((1, 1, 1), np.uint16)
    one = OnImage((grid,), LabelTable.from_names({1: "cyst"}).foreground, frozenset({1}), ())
    assert filled(one, one, (Path("a"), Path("b")), wrong).layers[0].all()


def test_what_is_taken_for_a_found_structure_by_its_codes_is_said():
    """Slicer gives a copy of a segment the codes of the first one: it then looks like the structure itself."""
    grid = np.zeros((1, 1, 2), np.uint16)
    drawn, under = grid.copy(), grid.copy()
    drawn[..., 0], under[..., 1] = 1, 1
    (liver,) = LabelTable.from_names({1: "liver"}).foreground
    both = filled(
        OnImage((drawn,), (replace(liver, name="lesion"),), frozenset({1}), ()),
        OnImage((under,), (liver,), frozenset({1}), ()),
        (Path("a.seg.nrrd"), Path("b.seg.nrrd")),
    )
    assert [label.name for label in both.labels] == ["lesion"] and not both.layers[1].any()
    assert both.notices == (
        "a.seg.nrrd has drawn, by its codes, what was found under other names, which is not filled in: lesion for "
        "liver. If they are different structures, give the drawn one another terminology.",
    )


def test_a_model_fills_in_what_nobody_has_drawn(tmp_path, monkeypatch, capsys):
    """A lesion in one volume and a known structure in the other: all else is as the model finds it."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    training = Training(tmp_path)
    image = sitk.ReadImage(str(SAMPLE))
    for case in ("one", "two"):
        sitk.WriteImage(image, str(training.images / f"{case}_0000.nii.gz"))
    lesion = np.zeros(image.GetSize()[::-1], np.uint16)
    lesion[20:30, 20:30, 20:30] = 1
    names, grid = LabelTable.from_names({1: "lesion", 2: "cell 5"}), Geometry.from_image(image)
    Segmentation(lesion, names, grid).write(training.segmentations / "one.seg.nrrd", keep_empty=True)
    Segmentation(np.where(lesion, 2, 0).astype(np.uint16), names, grid).write(
        training.segmentations / "two.seg.nrrd", keep_empty=True
    )
    under = tmp_path / "found"
    fill = ["fill", str(training.folder), "-m", "toy-120", "-o", str(under), *DEVICE]
    assert commands.main(fill) == 0
    assert sorted(file.name for file in under.glob("[!.]*")) == ["one.seg.nrrd", "two.seg.nrrd"]
    assert "[2/2] two: 120 structures" in capsys.readouterr().out
    assert commands.main(fill) == 0 and capsys.readouterr().out.count("skipped") == 2
    assert training.collect("--under", under, channels="toy") == 0
    labels = training.json["labels"]
    assert list(labels.values()) == list(range(122)) and set(labels) == {
        "background",
        "lesion",
        *(f"cell {number}" for number in range(1, 121)),
    }
    model, _notices = read_segmentation(under / "one.seg.nrrd", training.images / "one_0000.nii.gz")
    (layer,) = model.layers
    back = {value: name for name, value in labels.items()}
    for case, own, empty in (("one", "lesion", "cell 5"), ("two", "cell 5", "lesion")):
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(training.dataset / "labelsTr" / f"{case}.nii.gz")))
        assert {back[value] for value in np.unique(written[lesion > 0])} == {own}
        assert not (written == labels[empty]).any()
        outside = (lesion == 0) & (layer > 0) & (layer != 5)
        for value in np.unique(layer[outside]):
            name = model.table[int(value)].name
            assert np.array_equal(written[outside] == labels[name], layer[outside] == value)


def test_a_case_that_cannot_be_segmented_is_named_and_the_others_are(tmp_path, capsys):
    training = Training(tmp_path)
    training.case("a", {1: "lesion"})
    training.case("b", {1: "lesion"})
    save(np.full(SHAPE, np.nan, np.float32), training.images / "a_0000.nii.gz")
    with_faults = ["fill", str(training.folder), "-m", "toy-120", "-o", str(tmp_path / "found"), *DEVICE]
    ending = tmp_path / "ending"
    assert commands.main(with_faults, ending) == ExitCode.IMAGE
    output, error = capsys.readouterr()
    said = ending.read_text()  # which finetune, and so the panel, shows
    assert said.startswith("1 of 2 cases were not segmented: a. ") and "a_0000.nii.gz has " in said
    assert output.endswith("1 of 2 cases segmented, 1 failed: a\n") and "a_0000.nii.gz has " in error
    assert (tmp_path / "found" / "b.seg.nrrd").is_file()


def test_what_collect_would_refuse_is_refused_before_any_case_is_segmented(tmp_path, capsys):
    training = Training(tmp_path)
    for case in "abcd":
        training.case(case, {1: "lesion"})
    (training.images / "a_0000.nii.gz").write_bytes(b"damaged")
    (training.segmentations / "b.seg.nrrd").write_bytes(b"damaged")
    (training.segmentations / "c.seg.nrrd").unlink()
    save(boxes(1), training.segmentations / "c.nii.gz")
    fill = ["fill", str(training.folder), "-m", "toy-120", "-o", str(tmp_path / "found"), *DEVICE]
    assert commands.main(fill) == ExitCode.FAULT
    output, error = capsys.readouterr()
    assert "has 3 faults:" in error and output == "" and not (tmp_path / "found").exists()
    for file in ("a_0000.nii.gz", "b.seg.nrrd", "c.nii.gz"):
        assert f"{file} " in error
    (table := tmp_path / "labels.csv").write_text("LabelValue,Name\n1,lesion\n")
    training.image("a")
    training.case("b", {1: "lesion"})
    assert commands.main([*fill, "--labels", str(table)]) == 0
    assert len(list((tmp_path / "found").glob("[!.]*"))) == 4


def test_results_that_nobody_has_changed_are_left_out(tmp_path, monkeypatch):
    training = Training(tmp_path)
    for case in "ab":
        training.case(case, {1: "lesion"})
    unchanged = {"b": ["toy-120"]}
    monkeypatch.setattr(
        "classscale_training.data.collect.cases.models_of_unchanged", lambda name, _: unchanged.get(name)
    )
    found = tmp_path / "found"
    fill = ["fill", str(training.folder), "-m", "toy-120", "-o", str(found), "--corrected", *DEVICE]
    assert commands.main(fill) == 0
    assert [file.name for file in found.glob("[!.]*")] == ["a.seg.nrrd"]


def test_if_nobody_has_changed_any_the_refusal_is_of_the_segmentations_and_not_of_the_folder(
    tmp_path, monkeypatch, capsys
):
    training = Training(tmp_path)
    training.case("a", {1: "lesion"})
    monkeypatch.setattr("classscale_training.data.collect.cases.models_of_unchanged", lambda *case: ("toy-120",))
    found = tmp_path / "found"
    fill = ["fill", str(training.folder), "-m", "toy-120", "-o", str(found), "--corrected", *DEVICE]
    assert commands.main(fill) == ExitCode.LABELS
    said = capsys.readouterr().err
    assert (
        "as toy-120 made them" in said and f"No segmentation in {training.segmentations} is left to be filled." in said
    )
    monkeypatch.setenv("nnUNet_raw", str(training.raw))
    collect = ["collect", str(training.folder), "-d", "300", "--channels", "CT", "--corrected", "--under", str(found)]
    assert commands.main(collect) == ExitCode.LABELS
    assert "is left to be collected." in capsys.readouterr().err


def test_cases_with_more_images_than_the_model_takes_are_refused(tmp_path, capsys):
    training = Training(tmp_path)
    for case in "ab":
        training.case(case, {1: "lesion"})
        training.image(case, "_0001.nii.gz")
    found = tmp_path / "found"
    assert commands.main(["fill", str(training.folder), "-m", "toy-120", "-o", str(found), *DEVICE]) == ExitCode.IMAGE
    said = capsys.readouterr().err
    assert f"{training.segmentations} has 2 faults:" in said and str(found) not in said
    assert "If a_0000, a_0001 ... are its channels, choose a model that takes as many." in said
