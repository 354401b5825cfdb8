"""Evaluation of label maps: both Dice rules and surface Dice against plain definitions, files, and bad input."""

import argparse
import csv
import json
import time

import numpy as np
import pytest
from classscale_training.evaluation import command as evaluation
from classscale_training.evaluation.evaluate import (
    EvaluationOptions,
    count_case,
    evaluate,
    evaluate_arrays,
)
from classscale_training.evaluation.labels import Labels
from classscale_training.evaluation.region_counts import region_counts
from classscale_training.evaluation.surface_dice import surface_counts
from classscale_training.nnunet.case_validation import case_metrics
from ClassScaleSegLib import Geometry, LabelTable, Segmentation
from ClassScaleSegLib.errors import ImageError, LabelTableError, OutputExistsError

sitk = pytest.importorskip("SimpleITK")
NO_SURFACE = EvaluationOptions(tolerance=None)


def blocks(seed, shape=(12, 14, 10), classes=5):
    """A label map with regions of a few voxels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes + 1, [-(-n // 3) for n in shape])
    return np.kron(coarse, np.ones((3, 3, 3), int))[: shape[0], : shape[1], : shape[2]].astype(np.uint16)


def write(folder, name, array, spacing=(1.0, 1.0, 1.0)):
    folder.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(folder / name), useCompression=True)


def test_the_two_rules_on_a_case_worked_by_hand():
    # class 1: case a 2 of 3 + 3 voxels, case b missed, case c absent but predicted in 4 voxels; class 2 nowhere
    a, b, c = (
        (np.array([[[1, 1, 1, 0]]], np.uint8), np.array([[[0, 1, 1, 1]]], np.uint8)),
        (np.array([[[1, 1, 0, 0]]], np.uint8), np.array([[[0, 0, 0, 0]]], np.uint8)),
        (np.array([[[0, 0, 0, 0]]], np.uint8), np.array([[[1, 1, 1, 1]]], np.uint8)),
    )
    options = EvaluationOptions(names={0: "background", 1: "x", 2: "y"}, tolerance=None)
    result = evaluate_arrays([(name, *pair, (1, 1, 1)) for name, pair in zip("abc", (a, b, c), strict=True)], options)
    assert result.dice[1] == pytest.approx((2 / 3 + 0) / 2) and np.isnan(result.dice[2])
    assert result.pooled_dice[1] == pytest.approx(2 * 2 / (7 + 5)) and np.isnan(result.pooled_dice[2])
    assert result.mean_dice == result.dice[1] and result.mean_pooled_dice == result.pooled_dice[1]


def test_dice_equals_the_mask_by_mask_definition():
    pairs = [(str(i), blocks(i), blocks(i + 50), (1, 1, 1)) for i in range(4)]
    pairs[2][1][pairs[2][1] == 3] = 0  # absent from one reference
    result = evaluate_arrays(pairs, NO_SURFACE)
    for value in range(1, 6):
        masks = [(g == value, p == value) for _, g, p, _ in pairs]
        each = [2 * (g & p).sum() / (g.sum() + p.sum()) for g, p in masks if g.any()]
        assert result.dice[value] == pytest.approx(np.mean(each), rel=1e-12)
        pooled = 2 * sum((g & p).sum() for g, p in masks) / sum(g.sum() + p.sum() for g, p in masks)
        assert result.pooled_dice[value] == pytest.approx(pooled, rel=1e-12)
    assert (
        len([1 for row in result.case_rows() if row["case"] == "2" and row["label"] == 3 and row["dice"] is None]) == 1
    )


@pytest.mark.parametrize("tolerance", [0.5, 1.5, 3.0])
def test_surface_dice_equals_distance_transforms_of_each_class(tolerance):
    from scipy import ndimage

    spacing, reference, prediction = (1.5, 0.7, 1.0), blocks(1), blocks(2)
    prediction = np.where(np.random.default_rng(3).random(prediction.shape) < 0.7, reference, prediction)
    near, total = surface_counts(reference, prediction, spacing, tolerance, 6)
    for value in range(1, 6):
        borders = []
        for labels in (reference, prediction):
            mask = labels == value
            borders.append(mask & ~ndimage.binary_erosion(mask))  # face neighbours; outside counts as background
        within = [
            (ndimage.distance_transform_edt(~other, sampling=spacing)[border] <= tolerance + 1e-9).sum()
            for border, other in (borders, borders[::-1])
        ]
        assert (near[value], total[value]) == (sum(within), sum(border.sum() for border in borders))


def test_a_shift_by_one_voxel_costs_no_surface_within_the_tolerance():
    reference = np.zeros((16, 16, 16), np.uint8)
    reference[4:12, 4:12, 4:12] = 1
    options = EvaluationOptions(tolerance=2.0)
    shifted = evaluate_arrays([("a", reference, np.roll(reference, 1, 0), (2.0, 1, 1))], options)
    assert shifted.mean_surface_dice == 1 and shifted.mean_dice == pytest.approx(7 / 8)
    further = evaluate_arrays([("a", reference, np.roll(reference, 1, 0), (2.1, 1, 1))], options)
    assert further.mean_surface_dice < 0.8
    flat = count_case(reference[6:7], reference[6:7], (5, 1, 1), options)  # one slice: only the outline is surface
    assert flat.surface[1, 1] == 2 * 28


def test_1000_classes_at_128_cubed_take_about_a_second():
    reference = np.kron(np.arange(1000).reshape(10, 10, 10) + 1, np.ones((13, 13, 13), int))[:128, :128, :128]
    reference = np.ascontiguousarray(reference, np.uint16)
    prediction = np.roll(reference, 1, 2)
    begin = time.process_time()
    result = evaluate_arrays([("a", reference, prediction, (1, 1, 1))], NO_SURFACE)
    assert time.process_time() - begin < 2  # measured 0.05
    assert 0.9 < result.mean_dice < 0.93


def test_ignored_voxels_count_nowhere():
    reference, prediction = blocks(4), blocks(5)
    reference[:6] = 9
    result = evaluate_arrays([("a", reference, prediction, (1, 1, 1))], EvaluationOptions(ignore=9, tolerance=None))
    rest = evaluate_arrays([("a", reference[6:], prediction[6:], (1, 1, 1))], NO_SURFACE)
    assert np.array_equal(result.voxels[0, :, :6], rest.voxels[0]) and not result.voxels[0, :, 6:].any()


def test_folders_give_tables_a_summary_and_a_plot(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    references, predictions, out = tmp_path / "data" / "labelsTr", tmp_path / "predicted", tmp_path / "out"
    for index in range(3):
        write(references, f"case_{index}.nii.gz", blocks(index))
        write(predictions, f"case_{index}.nrrd", blocks(index + 9))  # another format is no fault
    write(predictions, "other.nii.gz", blocks(1))
    names = {"background": 0, **{f"organ {value}": value for value in range(1, 7)}}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": names}))
    parser = argparse.ArgumentParser()
    evaluation.add_arguments(parser)
    arguments = parser.parse_args([str(references), str(predictions), "-o", str(out)])
    assert evaluation.run(arguments) == 0
    line = capsys.readouterr().out
    assert line.startswith("3 cases, 5 classes in the references: mean Dice 0.") and "at 1 mm" in line
    expected = evaluate_arrays([(str(i), blocks(i), blocks(i + 9), (1, 1, 1)) for i in range(3)])
    summary = json.loads((out / "summary.json").read_text())
    assert summary["dice"] == pytest.approx(expected.mean_dice, abs=1e-6)
    assert summary["pooled_dice"] == pytest.approx(expected.mean_pooled_dice, abs=1e-6)
    assert summary["surface_dice"] == pytest.approx(expected.mean_surface_dice, abs=1e-6)
    assert summary["predictions_without_reference"] == ["other"] and summary["missing_predictions"] == []
    assert summary["per_class"]["6"]["dice"] is None  # never there
    rows = list(csv.DictReader(open(out / "per_class.csv", encoding="utf-8")))
    assert [row["name"] for row in rows] == list(names)[1:]
    assert float(rows[2]["dice"]) == pytest.approx(expected.dice[3], abs=1e-6)
    cases = list(csv.DictReader(open(out / "per_case.csv", encoding="utf-8")))
    assert {(row["case"], row["label"]) for row in cases} == {
        (f"case_{i}", str(v)) for i in range(3) for v in range(1, 6)
    }
    assert (out / "dice.png").read_bytes()[:4] == b"\x89PNG"


def test_missing_predictions_are_an_error_or_count_as_missed(tmp_path):
    for index in range(2):
        write(tmp_path / "r", f"c{index}.nii.gz", blocks(index))
    write(tmp_path / "p", "c0.nii.gz", blocks(0))
    with pytest.raises(ImageError, match="lacks 1 of 2 cases, among them c1.*--allow-missing"):
        evaluate(tmp_path / "r", tmp_path / "p", NO_SURFACE)
    result = evaluate(tmp_path / "r", tmp_path / "p", EvaluationOptions(tolerance=None, allow_missing=True))
    assert result.missing == ("c1",) and result.mean_dice == 0.5
    assert result.sentence().endswith("; missing predictions: 1.")


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (
            lambda p: write(p, "c.nii.gz", blocks(0), (1, 1, 1.2)),
            r"r.c.nii.gz and .*p.c.nii.gz .* spacing \(1, 1, 1\) and",
        ),
        (lambda p: write(p, "c.nii.gz", blocks(0)[:-1]), r"r.c.nii.gz and .*p.c.nii.gz .* size \(10, 14, 12\) and"),
        (
            lambda p: write(p, "c.nii.gz", blocks(0) + np.uint16(60)),
            "p.c.nii.gz holds label 60, which is not among the 6",
        ),
        (lambda p: write(p, "c.nii.gz", blocks(0).astype(np.float32) / 2), "not a label map: whole numbers"),
        (
            lambda p: write(p, "c.nii.gz", blocks(0).astype(np.int16) - 1),
            "not a label map: whole numbers .* not -1 to 4",
        ),
        (lambda p: write(p, "c.nii.gz", np.where(blocks(0) == 1, np.nan, blocks(0))), "not a label map: .* not nan"),
        (lambda p: write(p, "c.nii.gz", np.stack([blocks(0)] * 2)), "14x12x2x10 values; a label map has"),
        (lambda p: (p / "c.nii.gz").write_bytes((p / "c.nii.gz").read_bytes()[:-40]), "c.nii.gz is truncated"),
        (lambda p: (p / "c.nii.gz").write_text("no image"), "c.nii.gz"),
        (lambda p: write(p, "c.mha", blocks(0)), "two files of the same case"),
        (lambda p: (p / "c.nii.gz").unlink(), "holds no label maps"),
    ],
)
def test_bad_predictions_get_a_sentence_that_names_the_file(tmp_path, spoil, sentence):
    write(tmp_path / "r", "c.nii.gz", blocks(0))
    write(tmp_path / "p", "c.nii.gz", blocks(0))
    spoil(tmp_path / "p")
    with pytest.raises(ImageError, match=sentence):
        evaluate(tmp_path / "r", tmp_path / "p", EvaluationOptions(dict.fromkeys(range(6), "x"), tolerance=None))


def test_grids_are_compared_in_voxels_so_that_micrometres_differ_too(tmp_path):
    write(tmp_path / "r", "c.nii.gz", blocks(0), (5e-4, 5e-4, 5e-4))
    write(tmp_path / "p", "c.nii.gz", blocks(0), (5e-4, 5e-4, 6e-4))
    with pytest.raises(ImageError, match=r"spacing \(0.0005, 0.0005, 0.0005\) and \(0.0005, 0.0005, 0.0006\)"):
        evaluate(tmp_path / "r", tmp_path / "p")
    write(tmp_path / "p", "c.nii.gz", blocks(0), (5e-4, 5e-4, 5.001e-4))  # rounded
    assert evaluate(tmp_path / "r", tmp_path / "p").mean_dice == 1


def test_label_maps_with_axes_that_itk_refuses_are_compared(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.array([[1, 0, 0.3, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float)
    for name in "rp":
        (tmp_path / name).mkdir()
        nibabel.save(nibabel.Nifti1Image(blocks(0), affine), tmp_path / name / "c.nii.gz")
    assert evaluate(tmp_path / "r", tmp_path / "p").mean_surface_dice == 1
    affine[0, 2] = 0.4
    nibabel.save(nibabel.Nifti1Image(blocks(0), affine), tmp_path / "p" / "c.nii.gz")
    with pytest.raises(ImageError, match="have different geometries"):
        evaluate(tmp_path / "r", tmp_path / "p")


def test_a_seg_nrrd_whose_names_contradict_the_values_is_refused(tmp_path):
    names = {1: "liver", 2: "kidney_left", 3: "spleen", 4: "x", 5: "y"}

    def save(folder, table):
        (tmp_path / folder).mkdir(exist_ok=True)
        result = Segmentation(blocks(0), LabelTable.from_names(table), Geometry((10, 14, 12), (1, 1, 1), (0, 0, 0)))
        result.write(tmp_path / folder / "c.seg.nrrd", overwrite=True)

    save("r", names)
    save("p", {**names, 2: "Left kidney", 4: "something else"})
    options = EvaluationOptions({0: "background", **names}, tolerance=None)
    assert evaluate(tmp_path / "r", tmp_path / "p", options).mean_dice == 1
    save("p", {**names, 1: "spleen", 3: "liver"})
    for known, whose in ((options, "dataset.json"), (NO_SURFACE, f"{tmp_path / 'r' / 'c.seg.nrrd'}")):
        with pytest.raises(ImageError, match=f"has spleen as label 1, {whose} as label 3: its label values mean"):
            evaluate(tmp_path / "r", tmp_path / "p", known)


@pytest.mark.parametrize("where", ["dataset.json", "c.labels.csv", "the NIfTI header"])
def test_predictions_of_a_model_with_other_label_values_are_refused(tmp_path, where):
    references, predictions = tmp_path / "data" / "labelsTr", tmp_path / "p"
    write(references, "c.nii.gz", blocks(0, classes=2))
    write(predictions, "c.nii.gz", blocks(0, classes=2))
    names = ["background", "liver", "spleen"]
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": {n: v for v, n in enumerate(names)}}))

    def evaluated(names):
        if where == "dataset.json":
            (predictions / where).write_text(json.dumps({"labels": {n: v for v, n in enumerate(names)}}))
        elif where == "the NIfTI header":
            rows = "".join(f'<Label Key="{value}">{name}</Label>' for value, name in enumerate(names))
            path = "CaretExtension", "VolumeInformation", "LabelTable"
            text = "".join(f"<{tag}>" for tag in path) + rows + "".join(f"</{tag}>" for tag in path[::-1])
            nibabel = pytest.importorskip("nibabel")
            image = nibabel.load(predictions / "c.nii.gz")
            image = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
            image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, text.encode()))
            nibabel.save(image, predictions / "c.nii.gz")
        else:
            LabelTable.from_names(dict(enumerate(names))).to_csv(predictions / where, overwrite=True)
        parser = argparse.ArgumentParser()
        evaluation.add_arguments(parser)
        words = [str(references), str(predictions), "-o", str(tmp_path / "out"), "--no-surface"]
        return evaluation.run(parser.parse_args(words))

    assert evaluated(["background", "Leber", "spleen"]) == 0  # renamed
    with pytest.raises(ImageError, match="has spleen as label 1, .*dataset.json as label 2: its label values mean"):
        evaluated(["background", "spleen", "liver"])


def test_two_dimensions_and_one_label_for_each_pixel(tmp_path):
    for name in "rp":
        write(tmp_path / name, "c.mha", blocks(0)[4], (1, 2))
    assert evaluate(tmp_path / "r", tmp_path / "p").mean_surface_dice == 1
    colours = sitk.GetImageFromArray(np.stack([blocks(0)[4]] * 3, -1), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "p" / "c.mha"))
    with pytest.raises(ImageError, match="c.mha has 10x14x1x3 values; a label map has"):
        evaluate(tmp_path / "r", tmp_path / "p")


def test_what_cannot_be_told_by_figures_is_said_in_words(tmp_path, capsys):
    write(tmp_path / "r", "c.nii.gz", blocks(0) * 0)
    for name in "cde":
        write(tmp_path / "p", f"{name}.nii.gz", blocks(0))
    sentence = evaluate(tmp_path / "r", tmp_path / "p").sentence()
    assert sentence == (
        "1 case, 0 classes in the references: no Dice, because all their voxels are background; predictions without a "
        "reference: 2."
    )
    parser = argparse.ArgumentParser()
    evaluation.add_arguments(parser)
    for tolerance in ("-1", "nan", "inf"):
        with pytest.raises(SystemExit):
            parser.parse_args(["r", "p", "-o", "out", "--tolerance", tolerance])
        assert "is not a distance in mm, 0 or more" in capsys.readouterr().err


def test_names_come_from_dataset_json(tmp_path):
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps({"labels": {"background": 0, "liver": 1, "ignore": 2}}))
    assert Labels.of(file) == Labels({0: "background", 1: "liver"}, 2)
    file.write_text(json.dumps({"labels": {"background": 0, "whole": [1, 2], "part": 2}}))
    assert Labels.of(file) == Labels({0: "background", 1: "whole", 2: "part"}, None, ((1, 2), 2))
    file.write_bytes(
        b"\xef\xbb\xbf" + json.dumps({"labels": {"background": "0", "liver": 1.0, "ignore": "2"}}).encode()
    )
    assert Labels.of(file) == Labels({0: "background", 1: "liver"}, 2)
    file.write_text("{")
    with pytest.raises(LabelTableError, match="cannot be read as an nnU-Net dataset.json"):
        Labels.of(file)


REGIONS = {"background": 0, "whole tumour": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}


@pytest.fixture
def tumours(tmp_path):
    """References with a label to ignore, predictions, and the dataset.json of their regions."""
    for index in range(3):
        reference = blocks(index, classes=4)
        reference[reference == 3] = 3 if index else 0  # one case without the innermost region
        write(tmp_path / "data" / "labelsTr", f"c{index}.nii.gz", reference)
        write(tmp_path / "p", f"c{index}.nii.gz", blocks(index + 9, classes=3))
    content = {
        "labels": REGIONS,
        "regions_class_order": [1, 2, 3],
        "file_ending": ".nii.gz",
        "channel_names": {"0": "MR"},
    }
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def evaluated(folder, *more):
    parser = argparse.ArgumentParser()
    evaluation.add_arguments(parser)
    words = [str(folder / "data" / "labelsTr"), str(folder / "p"), "-o", str(folder / "out"), *more]
    assert evaluation.run(parser.parse_args(words)) == 0
    return json.loads((folder / "out" / "summary.json").read_text())


def test_regions_are_compared_as_stock_nnunet_compares_them(tumours, capsys):
    stock = pytest.importorskip("nnunetv2.evaluation.evaluate_predictions")
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    manager = LabelManager(REGIONS, [1, 2, 3])
    summary = evaluated(tumours)
    assert "3 cases, 3 regions in the references" in capsys.readouterr().out
    rows = list(csv.DictReader(open(tumours / "out" / "per_case.csv", encoding="utf-8")))
    ours = {(row["case"], row["label"]): row for row in rows}
    for index in range(3):
        files = [str(tumours / folder / f"c{index}.nii.gz") for folder in ("data/labelsTr", "p")]
        found = stock.compute_metrics(*files, SimpleITKIO(), manager.foreground_regions, manager.ignore_label)
        for region, expected in found["metrics"].items():
            row = ours[f"c{index}", str(region)]
            assert int(row["reference_voxels"]) == expected["n_ref"]
            assert int(row["predicted_voxels"]) == expected["n_pred"]
            if expected["n_ref"]:
                assert float(row["dice"]) == pytest.approx(expected["Dice"], abs=1e-6)
            else:
                assert (
                    row["dice"] == "" and expected["Dice"] == 0
                )  # stock counts it as 0, the published rule not at all
    assert list(summary["per_class"]) == ["(1, 2, 3)", "(2, 3)", "3"]
    assert [row["name"] for row in summary["per_class"].values()] == ["whole tumour", "core", "enhancing"]
    means = [row["dice"] for row in summary["per_class"].values()]
    assert summary["dice"] == pytest.approx(np.mean(means), abs=1e-6) and len(set(means)) == 3


def test_names_in_tables_are_no_formulas(tmp_path):
    labels = np.array([[1]], np.uint8)
    options = EvaluationOptions({0: "background", 1: "=1+1"}, tolerance=None)
    evaluate_arrays([("-case", labels, labels, (1, 1))], options).write(tmp_path)
    [row] = csv.DictReader(open(tmp_path / "per_case.csv", encoding="utf-8"))
    assert (row["case"], row["name"], row["label"]) == ("'-case", "'=1+1", "1")


def test_values_of_regions_may_be_higher_than_a_label_map_can_hold():
    reference, prediction = np.array([1, 2, 255], np.uint8), np.array([1, 300, 255], np.uint16)
    metrics = case_metrics(reference, prediction, [(1, 255), (2, 300)], None)
    assert [entry["TP"] for entry in metrics.values()] == [2, 1]
    assert region_counts(reference, reference, [(1, 255)]).tolist() == [[2], [2], [2]]


def test_the_surface_of_a_region_has_no_borders_within(tumours):
    write(tumours / "data" / "labelsTr", "c0.nii.gz", np.pad([[[1, 2], [2, 2]], [[2, 2], [3, 2]]], 2).astype(np.uint8))
    write(tumours / "p", "c0.nii.gz", np.pad([[[2, 1], [1, 2]], [[2, 3], [3, 2]]], 2).astype(np.uint8))
    for name in ("c1", "c2"):
        for folder in ("data/labelsTr", "p"):
            (tumours / folder / f"{name}.nii.gz").unlink()
    whole, core, _ = evaluated(tumours, "--tolerance", "0")["per_class"].values()
    assert whole["surface_dice"] == whole["dice"] == 1 and core["surface_dice"] == pytest.approx(
        2 * 5 / (7 + 6), abs=1e-6
    )


def test_labels_in_no_region_and_models_of_other_regions_are_refused(tumours):
    model = tumours / "p" / "dataset.json"
    for labels in ({**REGIONS, "core": [1, 2]}, {"background": 0, "oedema": 1, "core": 2, "enhancing": 3}):
        model.write_text(json.dumps({"labels": labels}))
        with pytest.raises(ImageError, match="have different regions .*Give the one that counts"):
            evaluated(tumours)
    evaluated(tumours, "--dataset-json", str(tumours / "data" / "dataset.json"))
    model.write_text(json.dumps({"labels": REGIONS}))
    write(tumours / "p", "c0.nii.gz", blocks(9, classes=3) + np.uint16(7))
    with pytest.raises(ImageError, match="c0.nii.gz holds label 7, which is in no region of dataset.json"):
        evaluated(tumours)


def test_the_summary_of_a_validation_is_not_replaced_by_an_evaluation(tumours):
    summary = tumours / "p" / "summary.json"
    summary.write_text(json.dumps({"foreground_mean": {"Dice": 0.5}}))
    with pytest.raises(OutputExistsError, match="summary.json exists, and is not of an evaluation. Choose another"):
        evaluated(tumours, "-o", str(tumours / "p"))
    assert "foreground_mean" in summary.read_text()
    assert evaluated(tumours) == evaluated(tumours)  # its own is replaced
