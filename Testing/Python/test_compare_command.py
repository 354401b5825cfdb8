"""``classscaleseg compare``: one pair, folders of cases in several formats, tables, JSON, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import Geometry, LabelTable, Segmentation
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.images.comparison import COLUMNS, compare
from ClassScaleSegLib.images.comparison_summary import GatheredCases

SHAPE = (8, 10, 12)
GRID = Geometry(SHAPE[::-1], (1.0, 1.0, 2.0), (-5.0, 7.0, 3.0))
DRAWN = LabelTable.from_names({1: "kidney_left", 2: "my cyst", 3: "only drawn"})
FOUND = LabelTable.from_names({7: "Left kidney", 8: "My Cyst", 9: "only found"})


def drawn(rows: int = 4) -> Segmentation:
    labels = np.zeros(SHAPE, np.uint16)
    labels[0, :rows], labels[1, :2], labels[2, :2] = 1, 2, 3
    return Segmentation(labels, DRAWN, GRID)


def found(rows: int = 4) -> Segmentation:
    labels = np.zeros(SHAPE, np.uint16)
    labels[0, :rows], labels[1, 1:3], labels[3] = 7, 8, 9
    return Segmentation(labels, FOUND, GRID)


@pytest.fixture
def folders(tmp_path):
    """Three cases: kidneys of Dice 1, 2/3 and 0.8, in three formats; ``d`` and ``e`` are on one side only."""
    one, two = tmp_path / "drawn", tmp_path / "found"
    one.mkdir()
    two.mkdir()
    drawn().write(one / "a.seg.nrrd")
    drawn().write(one / "b.nii.gz")
    drawn().write(one / "c.v1.seg.nrrd")
    drawn().write(one / "d.seg.nrrd")
    found().write(two / "a.nii.gz")
    found(2).write(two / "b.seg.nrrd")
    found(6).write(two / "c.v1.mha")
    found().write(two / "c.v1.seg.nrrd")
    (two / "c.v1.seg.nrrd").unlink()
    found().write(two / "e.seg.nrrd")
    return one, two


def test_one_pair_prints_dice_and_volumes(tmp_path, capsys):
    drawn().write(tmp_path / "a.seg.nrrd")
    found(2).write(tmp_path / "b.nii.gz")
    assert main(["compare", str(tmp_path / "a.seg.nrrd"), str(tmp_path / "b.nii.gz")]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["structure", "Dice", "mL", "other", "mL", "difference", "mL"]
    assert lines[1].split() == ["kidney_left", "0.667", "0.096", "0.048", "-0.048"]
    assert lines[2].split() == ["my", "cyst", "0.500", "0.048", "0.048", "0.000"]
    assert lines[3].split() == ["only", "drawn", "0.048"] and lines[4].split() == ["only", "found", "0.240"]
    assert lines[5] == "Mean Dice 0.583 over 2 structures; 2 more are on one side alone."


def test_folders_are_compared_case_by_case_in_whatever_formats(folders, tmp_path, capsys):
    table = tmp_path / "table.csv"
    assert main(["compare", *map(str, folders), "-o", str(table)]) == ExitCode.SOME_FAILED  # d has no counterpart
    output, error = capsys.readouterr()
    assert f"Only in {folders[0]}, not in {folders[1]}: d\n" in error
    assert f"Only in {folders[1]}, not in {folders[0]}: e\n" in error
    kidney = next(line for line in output.splitlines() if line.startswith("kidney_left"))
    mean = (1 + 2 / 3 + 0.8) / 3
    assert kidney.split() == ["kidney_left", "3", f"{mean:.3f}", "0.667", "b", "0.000"]
    assert output.splitlines()[-1].startswith(f"Mean Dice {(mean + 0.5) / 2:.3f} over 2 structures of 3 cases")
    rows = list(csv.reader(table.open(encoding="utf-8")))
    assert rows[0] == ["Case", *COLUMNS] and [row[0] for row in rows[1:]] == ["a"] * 4 + ["b"] * 4 + ["c.v1"] * 4
    expected = compare(drawn(), found(6)).rows
    dice = [float(row[4]) if row[4] else None for row in rows[9:]]
    assert dice == [None if row.dice is None else pytest.approx(row.dice, rel=1e-5) for row in expected]


def test_folders_without_a_case_in_common_are_no_comparison(folders, tmp_path, capsys):
    for file in (*folders[1].glob("a.*"), *folders[1].glob("c.v1.*")):
        file.unlink()
    (folders[1] / "b.seg.nrrd").write_bytes(b"damaged")
    assert main(["compare", *map(str, folders)]) == ExitCode.IMAGE
    assert capsys.readouterr().out == "No case could be compared.\n"
    (folders[1] / "b.seg.nrrd").unlink()
    assert main(["compare", *map(str, folders), "-o", str(tmp_path / "a.csv")]) == ExitCode.SOME_FAILED
    output, error = capsys.readouterr()
    assert output.startswith("No case is in all folders.") and f"not in {folders[1]}: a, b, c.v1, d" in error
    assert not (tmp_path / "a.csv").exists()


def test_json_holds_everything(folders, capsys):
    (folders[0] / "d.seg.nrrd").unlink()
    assert main(["compare", *map(str, folders), "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["cases"]) == {"a", "b", "c.v1"} and facts["without_reference"] == ["e"]
    kidney = facts["structures"][0]
    assert (kidney["name"], kidney["cases"], kidney["least_case"]) == ("kidney_left", 3, "b")
    assert facts["cases"]["b"][0]["dice"] == pytest.approx(2 / 3)
    assert facts["cases"]["b"][0]["difference_ml"] == pytest.approx(-0.048)
    assert facts["mean_dice"] == pytest.approx(((1 + 2 / 3 + 0.8) / 3 + 0.5) / 2)


def test_a_program_is_told_where_both_agree_least(folders, capsys):
    assert main(["compare", *map(str, folders), "--json-progress"]) == ExitCode.SOME_FAILED
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["case"], one["index"]) for one in told if one["event"] == "begin"] == [("a", 1), ("b", 2), ("c.v1", 3)]
    least = {one["case"]: (one["structure"], round(one["dice"], 3)) for one in told if one["event"] == "result"}
    assert least == {name: ("my cyst", 0.5) for name in ("a", "b", "c.v1")}


def test_names_come_from_given_tables_else_from_the_one_beside_the_image(tmp_path, capsys):
    drawn().write(tmp_path / "a.nii.gz")
    (tmp_path / "a.labels.csv").unlink()
    found().write(tmp_path / "b.nii.gz")
    DRAWN.to_csv(tmp_path / "names.csv")
    both = [str(tmp_path / name) for name in ("a.nii.gz", "b.nii.gz")]
    assert main(["compare", *both]) == ExitCode.OK
    output = capsys.readouterr().out
    assert "label 1" in output and output.endswith("No structure is in both.\n")
    assert main(["compare", *both, "--labels", str(tmp_path / "names.csv")]) == ExitCode.OK
    assert "Mean Dice 0.750 over 2 structures" in capsys.readouterr().out
    LabelTable.from_names({7: "spleen", 8: "My Cyst", 9: "x"}).to_csv(tmp_path / "others.csv")
    more = ["--labels", str(tmp_path / "names.csv"), "--other-labels", str(tmp_path / "others.csv")]
    assert main(["compare", *both, *more]) == ExitCode.OK
    assert "Mean Dice 0.500 over 1 structure;" in capsys.readouterr().out


def test_a_case_that_cannot_be_read_is_told_and_the_others_are_compared(folders, capsys):
    (folders[0] / "d.seg.nrrd").unlink()
    (folders[1] / "b.seg.nrrd").write_bytes(b"broken")
    assert main(["compare", *map(str, folders)]) == ExitCode.SOME_FAILED
    output, error = capsys.readouterr()
    assert "b.seg.nrrd" in error and "structures of 2 cases" in output
    for name in ("a.nii.gz", "c.v1.mha"):
        (folders[1] / name).write_bytes(b"broken")
    assert main(["compare", *map(str, folders)]) == ExitCode.IMAGE


def test_of_a_result_in_several_formats_that_with_names_is_read(folders, capsys):
    image = sitk.GetImageFromArray(np.ones(SHAPE, np.uint8))
    sitk.WriteImage(image, str(folders[0] / "a.nii.gz"))  # beside a.seg.nrrd, and without names
    main(["compare", *map(str, folders), "--json"])
    assert json.loads(capsys.readouterr().out)["cases"]["a"][0]["dice"] == 1
    sitk.WriteImage(image, str(folders[0] / "b.nrrd"))
    assert main(["compare", *map(str, folders)]) == ExitCode.IMAGE
    assert "are of one case: move one of them elsewhere" in capsys.readouterr().err


def test_a_structure_that_only_some_results_have_is_missed_in_the_others(folders, tmp_path, capsys):
    """A ``.seg.nrrd`` lists what was found, so an empty one knows no structure."""
    (folders[0] / "d.seg.nrrd").unlink()
    Segmentation(np.zeros(SHAPE, np.uint16), FOUND, GRID).write(folders[1] / "c.v1.mha", overwrite=True)
    (folders[1] / "c.v1.labels.csv").unlink()
    table = tmp_path / "table.csv"
    assert main(["compare", *map(str, folders), "-o", str(table), "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    kidney, cyst = facts["structures"][:2]
    assert (kidney["cases"], kidney["least"], kidney["least_case"]) == (3, 0, "c.v1")
    assert kidney["dice"] == pytest.approx((1 + 2 / 3 + 0) / 3) and cyst["dice"] == pytest.approx(0.5 * 2 / 3)
    assert facts["missed"] == {"c.v1": ["kidney_left", "my cyst"]}  # nobody has ever found the third one
    with table.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["Case"] == "c.v1"]
    assert [(row["Name"], row["Dice"], row["OtherVolume_mL"]) for row in rows] == [
        *[("kidney_left", "0", "0"), ("my cyst", "0", "0"), ("only drawn", "", "")],
    ]
    main(["compare", *map(str, folders)])
    assert f"Structures that {folders[1]} has missed have a Dice of 0: c.v1 (kidney_left, my cyst)" in (
        capsys.readouterr().err
    )
    # what the reference lacks may not have been drawn
    main(["compare", *map(str, reversed(folders)), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["structures"][0]["cases"] == 2 and not facts["missed"]


def test_segmentations_that_hardly_belong_together_are_told(tmp_path, capsys):
    pytest.importorskip("highdicom")
    from dicom_phantom import planes
    from dicom_results import written

    far = Segmentation(found().labels, FOUND, replace(GRID, origin=(50.0, 7.0, 3.0)))
    drawn().write(tmp_path / "a.seg.nrrd")
    far.write(tmp_path / "b.seg.nrrd")
    pair = [str(tmp_path / "a.seg.nrrd"), str(tmp_path / "b.seg.nrrd")]
    assert main(["compare", *pair]) == ExitCode.OK
    assert f"{pair[1]} lies outside of {pair[0]}: they have no place in common" in capsys.readouterr().err
    ours = []
    for name, frame in (("one", "1.2.3"), ("two", "1.2.4")):
        (tmp_path / name).mkdir()
        _, path, _ = written(tmp_path / name, volume=planes(), FrameOfReferenceUID=frame)
        ours.append(str(path))
    assert main(["compare", *ours, "--json"]) == ExitCode.OK
    output, error = capsys.readouterr()
    assert "have different frames of reference" in error and json.loads(output)["mean_dice"] == 1


def test_a_name_that_several_structures_of_a_case_have_is_not_missed():
    table = LabelTable.from_names({1: "cyst", 2: "cyst", 3: "other"})
    labels = np.zeros(SHAPE, np.uint16)
    labels[0], labels[1] = 1, 2
    twice, nothing = Segmentation(labels, table, GRID), Segmentation(labels * 0, LabelTable(()), GRID)
    gathered = GatheredCases()
    gathered.add("a", compare(Segmentation(labels > 0, table, GRID), Segmentation(labels > 0, table, GRID)))
    gathered.add("b", compare(twice, nothing))
    found = gathered.found()
    assert not found.missed and [row.dice for row in found.rows["b"]] == [None, None]


@pytest.mark.parametrize("codes", [False, True])
def test_a_structure_that_was_found_in_several_parts_is_not_missed(codes):
    one, parts = (np.zeros(SHAPE, np.uint16) for _ in range(2))
    one[:2], parts[0], parts[1] = 1, 1, 2
    liver = LabelTable.from_names({1: "liver"})
    names = ("right part", "left part") if codes else ("liver", "liver")
    of_parts = LabelTable(
        tuple(replace(liver[1], value=n, name=name, id=f"Segment_{n}") for n, name in enumerate(names, 1))
    )
    gathered = GatheredCases()
    gathered.add("a", compare(Segmentation(one, liver, GRID), Segmentation(one, liver, GRID)))
    gathered.add("b", compare(Segmentation(one, liver, GRID), Segmentation(parts, of_parts, GRID)))
    found = gathered.found()
    assert not found.missed and [row.dice for row in found.rows["b"]] == [None, None, None]


FORMATS = [".nii.gz", ".seg.nrrd", ".seg.dcm", ".rtstruct.dcm"]


@pytest.fixture(scope="module")
def in_all_formats(tmp_path_factory):
    """Two cases in folders of each format: the reference has no spleen in ``b``, and the gallbladder in neither."""
    pytest.importorskip("highdicom")
    from ClassScaleSegLib.images.reading import read_image
    from dicom_results import series

    root = tmp_path_factory.mktemp("formats")
    table, image = LabelTable.from_names({1: "liver", 2: "spleen", 3: "gallbladder"}), series(root)
    grid = read_image(image, 1).geometry
    for side, values_of in (("drawn", {"a": (1, 2), "b": (1,)}), ("found", {"a": (1,), "b": (1, 2, 3)})):
        for case, values in values_of.items():
            labels = np.zeros(grid.size[::-1], np.uint16)
            for value in values:
                labels[1, value] = value
            for kind in FORMATS:
                result = Segmentation(labels, table, grid)
                result.write(root / f"{side}{kind}" / f"{case}{kind}", source=image)
    (root / "images").mkdir()
    for case in ("a", "b"):
        (root / "images" / case).symlink_to(image)
    return root


@pytest.mark.parametrize("kind", FORMATS)
def test_what_the_reference_lacks_has_no_dice_in_whatever_format(kind, in_all_formats, capsys):
    """NIfTI names all structures of the table beside it, the others those that were found."""
    root = in_all_formats
    for other in FORMATS:
        folders = [str(root / f"drawn{kind}"), str(root / f"found{other}")]
        assert main(["compare", *folders, "--json", "--grid", str(root / "images")]) == ExitCode.OK
        facts = json.loads(capsys.readouterr().out)
        found = {row["name"]: (row["cases"], row["dice"]) for row in facts["structures"]}
        assert found == {"liver": (2, 1.0), "spleen": (1, 0.0), "gallbladder": (0, None)}, other
        assert facts["mean_dice"] == 0.5 and facts["missed"] == {"a": ["spleen"]}
        assert facts["undrawn"] == {"b": ["spleen"]}  # nobody has drawn the third one
        spleen = facts["cases"]["b"][1]
        assert (spleen["value"], spleen["volume_ml"], spleen["dice"]) == (None, None, None)
        assert spleen["other_volume_ml"] > 0
        pair = [f"{folder}/b{end}" for folder, end in zip(folders, (kind, other), strict=True)]
        assert main(["compare", *pair, "--json", "--grid", str(root / "images" / "b")]) == ExitCode.OK
        alone = json.loads(capsys.readouterr().out)
        assert alone["cases"]["b"] == facts["cases"]["b"] and alone["mean_dice"] == 1


def test_structures_with_a_dice_are_printed_first(tmp_path, capsys):
    table = LabelTable.from_names({1: "only drawn", 2: "liver", 3: "never drawn"})
    labels = np.zeros(SHAPE, np.uint16)
    labels[0], labels[1] = 1, 2
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    Segmentation(labels, table, GRID).write(tmp_path / "one" / "a.nii.gz")
    other = Segmentation(labels + 10, LabelTable.from_names({10: "else", 11: "more", 12: "liver"}), GRID)
    other.write(tmp_path / "two" / "a.nii.gz")
    for pair in (["one", "two"], ["one/a.nii.gz", "two/a.nii.gz"]):
        main(["compare", *(str(tmp_path / name) for name in pair)])
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[1:-1]] == ["liver", "only", "else", "more"]
        assert lines[-1].endswith("; 3 more are on one side alone.")


def test_odd_names_stay_in_their_lines_and_whole_in_the_tables(tmp_path, capsys):
    names = {1: "=1+1", 2: "x" * 40_000, 3: "a\nb\x1b[31m\u202e"}
    for name in ("a", "b"):
        Segmentation(drawn().labels, LabelTable.from_names(names), GRID).write(tmp_path / f"{name}.seg.nrrd")
    pair = [str(tmp_path / "a.seg.nrrd"), str(tmp_path / "b.seg.nrrd")]
    assert main(["compare", *pair, "-o", str(tmp_path / "t.csv")]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and max(map(len, lines)) < 120 and lines[2].startswith("x" * 57 + "...")
    assert lines[3].startswith("a b [31m  ")
    with (tmp_path / "t.csv").open(encoding="utf-8") as file:
        assert [row["Name"] for row in csv.DictReader(file)] == ["'=1+1", "x" * 40_000, "a b [31m"]


def test_if_the_table_cannot_be_written_what_was_compared_is_printed(folders, tmp_path, capsys, monkeypatch):
    (folders[0] / "d.seg.nrrd").unlink()
    pytest.importorskip("xlsxwriter")
    monkeypatch.setattr("ClassScaleSegLib.images.tables._MOST_ROWS", 5)
    table = tmp_path / "table.xlsx"
    assert main(["compare", *map(str, folders), "-o", str(table)]) == ExitCode.OUTPUT
    output, error = capsys.readouterr()
    assert "over 2 structures of 3 cases" in output
    assert f"{table} was not written: a sheet has 5 rows, and there are 12. Write .csv" in error
    assert not list(tmp_path.glob("*.xlsx")) and not list(tmp_path.glob(".*"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_in_utf_8_does_not_end_the_process(folders, capsys):
    """ITK aborts at it."""
    (folders[0] / "d.seg.nrrd").unlink()
    for folder in folders:
        with open(os.path.join(os.fsencode(folder), b"\xff.seg.nrrd"), "wb") as file:
            file.write((folders[0] / "a.seg.nrrd").read_bytes())
    assert main(["compare", *map(str, folders)]) == ExitCode.SOME_FAILED
    output, error = capsys.readouterr()
    assert "is not a name in UTF-8, which ITK needs" in error and "of 3 cases" in output


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_not_waited_for(folders, capsys):
    os.mkfifo(folders[0] / "z.seg.nrrd")
    assert main(["compare", str(folders[0] / "z.seg.nrrd"), str(folders[1] / "e.seg.nrrd")]) == ExitCode.IMAGE
    assert "z.seg.nrrd is neither a file nor a folder" in capsys.readouterr().err
    main(["compare", *map(str, folders)])
    assert "of 3 cases" in capsys.readouterr().out  # it is no case either


def test_what_cannot_be_compared_gets_a_sentence(folders, tmp_path, capsys):
    one, two = folders
    empty, file, table = tmp_path / "empty", one / "a.seg.nrrd", tmp_path / "t.csv"
    empty.mkdir()
    contours = tmp_path / "a.rtstruct.dcm"
    contours.write_bytes(b"")
    table.write_text("mine")
    for arguments, code, sentence in (
        ([one, tmp_path / "gone"], ExitCode.IMAGE, "gone does not exist"),
        ([one, file], ExitCode.IMAGE, "is a folder and"),
        ([one, empty], ExitCode.IMAGE, "has no segmentation: none of its files ends with .seg.nrrd"),
        ([file, contours], ExitCode.IMAGE, "a.rtstruct.dcm is no RT Structure Set"),
        ([file, file, "-o", table], ExitCode.OUTPUT, "t.csv already exists"),
        ([file, file, "-o", tmp_path / "t.txt"], ExitCode.OUTPUT, "Use one of .csv, .xlsx"),
        ([file, file, "--labels", tmp_path / "none.csv"], ExitCode.LABELS, "none.csv"),
    ):
        assert main(["compare", *map(str, arguments)]) == code, arguments
        assert sentence in capsys.readouterr().err
    assert table.read_text() == "mine"
    assert main(["compare", str(file), str(file), "-o", str(table), "--overwrite"]) == ExitCode.OK
    assert table.read_text().startswith("Case,")


@pytest.mark.parametrize(("folder", "dataset"), [("out", "out"), ("labelsTs", ".")])
def test_label_maps_of_nnunet_have_the_names_of_its_dataset_json(tmp_path, capsys, folder, dataset):
    (tmp_path / folder).mkdir()
    sitk.WriteImage(drawn().to_image(), tmp_path / folder / "a.nii.gz")
    json_file = tmp_path / dataset / "dataset.json"
    json_file.write_text(json.dumps({"labels": {"background": 0, "kidney_left": 1, "my cyst": 2, "only drawn": 3}}))
    found(2).write(tmp_path / "b.seg.nrrd")
    files = [str(tmp_path / folder / "a.nii.gz"), str(tmp_path / "b.seg.nrrd")]
    assert main(["compare", *files]) == ExitCode.OK
    assert "Mean Dice 0.583 over 2 structures" in capsys.readouterr().out
    json_file.write_text(json.dumps({"labels": {"background": 0, "whole": [1, 2, 3]}, "regions_class_order": [1]}))
    assert main(["compare", *files]) == ExitCode.OK
    assert "label 1" in capsys.readouterr().out


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.0), (0.5, 1.0, 2.0)])
@pytest.mark.parametrize("several", [False, True])
def test_voxels_of_the_label_ignore_are_not_scored(tmp_path, capsys, spacing, several):
    json_file, one, two = tmp_path / "dataset.json", tmp_path / "labelsTr", tmp_path / "found"
    json_file.write_text(json.dumps({"labels": {"background": 0, "kidney_left": 1, "my cyst": 2, "ignore": 3}}))
    one.mkdir(), two.mkdir()
    labels = np.zeros(SHAPE, np.uint16)
    labels[0, :4], labels[0, 4:6], labels[1, :2], labels[5] = 1, 3, 2, 3
    image = Segmentation(labels, DRAWN, GRID).to_image()
    sitk.WriteImage(image, one / "a.nii.gz")
    fold = round(GRID.spacing[0] / spacing[0])
    finer = np.zeros(SHAPE, np.uint16)
    finer[0, :8], finer[1, :2], finer[5, :3] = 7, 8, 8  # rows 4 and 5 of the kidney, and plane 5, are ignored
    origin = (GRID.origin[0] + (spacing[0] - 1) / 2, *GRID.origin[1:])
    grid = Geometry((SHAPE[2] * fold, SHAPE[1], SHAPE[0]), spacing, origin)
    Segmentation(finer.repeat(fold, 2), FOUND, grid).write(two / "a.seg.nrrd")
    files = [one, two] if several else [one / "a.nii.gz", two / "a.seg.nrrd"]
    assert main(["compare", *map(str, files), "--json"]) == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    (rows,) = found["cases"].values()
    assert [(row["name"], round(row["dice"], 6)) for row in rows] == [("kidney_left", 0.8), ("my cyst", 1.0)]
    assert rows[0]["other_volume_ml"] == pytest.approx(6 * 12 * 2 / 1000) and not any(found["missed"].values())


def test_a_structure_of_this_name_in_another_table_is_compared(tmp_path, capsys):
    table = tmp_path / "names.csv"
    LabelTable.from_names({1: "kidney_left", 2: "ignore", 3: "only drawn"}).to_csv(table)
    sitk.WriteImage(drawn().to_image(), tmp_path / "b.nii.gz")
    files = [str(tmp_path / "b.nii.gz"), str(tmp_path / "b.nii.gz")]
    assert main(["compare", *files, "--labels", str(table), "--other-labels", str(table)]) == ExitCode.OK
    assert "Mean Dice 1.000 over 3 structures" in capsys.readouterr().out


def test_a_label_image_without_a_spacing_is_told(tmp_path, capsys):
    sitk.WriteImage(drawn().to_image(), str(file := tmp_path / "drawn.mha"))
    text = file.read_bytes()
    assert b"ElementSpacing = 1 1 2\n" in text
    file.write_bytes(text.replace(b"ElementSpacing = 1 1 2\n", b""))
    assert main(["compare", str(file), str(file)]) == ExitCode.OK
    said = f"{file} does not say how far its voxels are apart: 1 mm is assumed. Add the spacing to its header."
    assert said in capsys.readouterr().err
    assert Segmentation.from_image(file).notices == (said,)
