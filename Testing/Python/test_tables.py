"""Tables of structures as CSV and as workbooks: the same cells, numbers as numbers, and no formulas."""

from __future__ import annotations

import csv
import sys
import zipfile

import numpy as np
import openpyxl
import pytest
from ClassScaleSegLib import Geometry, LabelTable, OutputError, OutputExistsError, Segmentation
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.images.comparison import compare, write_comparison
from ClassScaleSegLib.images.tables import write_table
from ClassScaleSegLib.labels.csv import unguarded

GRID = Geometry((12, 10, 8), (1.0, 1.0, 2.0), (-5.0, 7.0, 3.0))
FORMULA = "=1+A1"


@pytest.fixture
def result() -> Segmentation:
    labels = np.zeros((8, 10, 12), np.uint16)
    labels[0, :4], labels[3, 1:3] = 1, 2
    return Segmentation(labels, LabelTable.from_names({1: "kidney_left", 2: FORMULA, 3: "absent"}), GRID)


def of_workbook(path) -> list[list]:
    (sheet,) = openpyxl.load_workbook(path).worksheets
    return [[cell.value for cell in row] for row in sheet.iter_rows()]


def of_csv(path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def same(workbook: list[list], rows: list[list[str]]) -> None:
    assert workbook[0] == rows[0] and len(workbook) == len(rows)
    for ours, theirs in zip(workbook[1:], rows[1:], strict=True):
        for value, text in zip(ours, theirs, strict=True):
            if isinstance(value, bool):
                assert text == str(value).lower()
            elif isinstance(value, (int, float)):
                assert float(text) == pytest.approx(value, rel=1e-5)
            else:
                assert unguarded(text) == (value or "")


def test_statistics_in_a_workbook_are_those_of_the_csv_and_numbers_are_numbers(result, tmp_path):
    image = np.random.default_rng(0).normal(size=(8, 10, 12)).astype(np.float32)
    for name in ("a.csv", "a.XLSX"):
        result.write_statistics(tmp_path / name, image=image)
    workbook = of_workbook(tmp_path / "a.XLSX")
    same(workbook, of_csv(tmp_path / "a.csv"))
    kidney = dict(zip(workbook[0], workbook[1], strict=True))
    assert kidney["Voxels"] == 48 and kidney["Volume_mL"] == 0.096 and kidney["TouchesEdge"] is True
    assert {type(kidney[name]) for name in ("Mean", "Surface_mm2", "Centroid_R_mm")} <= {int, float}
    assert not list(tmp_path.glob(".*"))


def test_a_name_is_never_a_formula(result, tmp_path):
    result.write_statistics(tmp_path / "a.xlsx")
    assert of_workbook(tmp_path / "a.xlsx")[2][1] == FORMULA
    with zipfile.ZipFile(tmp_path / "a.xlsx") as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
        assert '<c r="B3" t="s">' in sheet and "<f>" not in sheet and "hyperlink" not in sheet


def test_a_workbook_shows_its_titles_and_can_be_filtered(result, tmp_path):
    result.write_statistics(tmp_path / "a.xlsx")
    (sheet,) = openpyxl.load_workbook(tmp_path / "a.xlsx").worksheets
    assert sheet.freeze_panes == "A2" and sheet.auto_filter.ref.startswith("A1:") and sheet["A1"].font.b
    assert len("kidney_left") < sheet.column_dimensions["B"].width <= 61


def test_comparisons_too(result, tmp_path):
    other = Segmentation(np.roll(result.labels, 1, 1), result.table, GRID)
    for name in ("c.csv", "c.xlsx"):
        write_comparison(tmp_path / name, compare(result, other).rows)
    same(of_workbook(tmp_path / "c.xlsx"), of_csv(tmp_path / "c.csv"))
    for name, found in (("one.seg.nrrd", result), ("two.seg.nrrd", other)):
        found.write(tmp_path / name)
    files = [str(tmp_path / name) for name in ("one.seg.nrrd", "two.seg.nrrd")]
    assert main(["compare", *files, "-o", str(tmp_path / "d.xlsx")]) == ExitCode.OK
    assert [row[1:] for row in of_workbook(tmp_path / "d.xlsx")] == of_workbook(tmp_path / "c.xlsx")


def test_files_are_not_replaced_unasked_and_numbers_that_a_sheet_lacks_stay_empty(tmp_path):
    write_table(tmp_path / "n.xlsx", ["a", "b", "c"], [[float("nan"), None, np.float32(0.5)]], False, 6)
    assert of_workbook(tmp_path / "n.xlsx")[1] == [None, None, 0.5]
    with pytest.raises(OutputExistsError):
        write_table(tmp_path / "n.xlsx", ["a"], [], False, 6)
    write_table(tmp_path / "n.xlsx", ["a"], [], True, 6)
    assert of_workbook(tmp_path / "n.xlsx") == [["a"]]
    with pytest.raises(OutputError, match="a sheet has 1,048,575 rows, and there are 1,048,576"):
        write_table(tmp_path / "many.xlsx", ["a"], ([] for _ in range(1_048_576)), False, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["n.xlsx"]


def test_without_the_package_a_sentence_says_what_to_install_before_the_computation(
    result, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    with pytest.raises(OutputError, match=r'Install it: python -m pip install "XlsxWriter>=3\.1".*Or write \.csv'):
        result.write_statistics(tmp_path / "a.xlsx")
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(b"no image")
    command = ["segment", damaged, "-m", "toy-120", "-o", tmp_path / "a.seg.nrrd", "--statistics"]
    assert main([*map(str, command), str(tmp_path / "a.xlsx")]) == ExitCode.OUTPUT
    assert "XlsxWriter" in capsys.readouterr().err and list(tmp_path.iterdir()) == [damaged]


def test_in_csv_no_name_is_a_formula_and_our_reader_gives_it_back(tmp_path):
    names = dict(enumerate(["=1+1", "+1", "-1", "@SUM(A1)", "\uff1dA1", "'=1", "'quoted' lobe", "C5-C6"], start=1))
    table, labels = LabelTable.from_names(names), np.zeros((8, 10, 12), np.uint16)
    labels[0, 0, :8] = range(1, 9)
    drawn = Segmentation(labels, table, GRID)
    drawn.write(tmp_path / "a.nii.gz")
    drawn.write_statistics(tmp_path / "statistics.csv")
    write_comparison(tmp_path / "comparison.csv", compare(drawn, drawn).rows)
    kept = {"'quoted' lobe", "C5-C6"}
    written = [name if name in kept else f"'{name}" for name in names.values()]
    for file in ("a.labels.csv", "statistics.csv", "comparison.csv"):
        rows = of_csv(tmp_path / file)
        assert [row[rows[0].index("Name")] for row in rows[1:]] == written, file
    assert LabelTable.from_csv(tmp_path / "a.labels.csv").names == names
    write_table(tmp_path / "t.csv", ["Case", "mL"], [["-1", -1.5], ["=2", -2]], False, 6)  # a number stays one
    assert of_csv(tmp_path / "t.csv")[1:] == [["'-1", "-1.5"], ["'=2", "-2"]]
