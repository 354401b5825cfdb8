"""How sure the model was of each structure: in statistics, in the tables of many cases, and in the report."""

from __future__ import annotations

import csv
import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import Geometry, LabelTable, Segmentation
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.errors import ImageError
from ClassScaleSegLib.images.measures import measure, sums_by_label
from ClassScaleSegLib.images.statistics import STATISTICS_DIGITS, statistics_columns
from ClassScaleSegLib.report import rendering
from ClassScaleSegLib.report.case_files import case_path
from ClassScaleSegLib.report.cohort import Cohort
from ClassScaleSegLib.report.facts import CaseFacts, facts_of
from conftest import TOY

GRID = Geometry((20, 20, 20), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))
NAMES = LabelTable.from_names({1: "liver", 2: "spleen", 3: "absent"})
FAST = ("--step", "1", "--no-mirroring", "--device", "cpu", "--threads", "1")


def drawn(liver: float = 0.9, spleen: float = 0.95) -> Segmentation:
    """Return two structures with a mean confidence."""
    labels, confidence = np.zeros((20, 20, 20), np.uint16), np.ones((20, 20, 20), np.float32)
    labels[2:6, 2:10, 2:10], labels[10:14, 2:10, 2:10] = 1, 2
    spread = np.linspace(-0.04, 0.04, 256, dtype=np.float32)
    confidence[labels == 1], confidence[labels == 2] = liver + spread, spleen + spread
    return Segmentation(labels, NAMES, GRID, confidence)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_the_mean_in_each_structure_is_measured_whatever_the_slabs(monkeypatch):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, (20, 20, 20)).astype(np.uint16)
    confidence = generator.random((20, 20, 20)).astype(np.float32)
    whole = measure(labels, GRID, None, confidence)
    monkeypatch.setattr("ClassScaleSegLib.images.measures._VOXELS_AT_ONCE", 500)
    for found in (whole, measure(labels, GRID, None, confidence)):
        for value in (1, 2, 3):
            assert found[value].confidence == pytest.approx(confidence[labels == value].mean(dtype=np.float64))
    assert measure(labels, GRID)[1].confidence is None
    with pytest.raises(ImageError, match="The confidence has the shape"):
        measure(labels, GRID, None, confidence[1:])


def test_the_mean_on_segments_takes_less_memory_than_the_label_map():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 300, (160, 160, 160)).astype(np.uint16)
    confidence = generator.random(labels.shape, dtype=np.float32)
    tracemalloc.start()
    try:
        sums = sums_by_label(labels, confidence, 300)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sums[299] == pytest.approx(confidence[labels == 299].sum(dtype=np.float64)) and len(sums) == 300
    assert peak < 1.5 * labels.nbytes, "much of it are pieces, which do not grow with the image"


def test_classes_that_overlap_have_the_confidence_of_their_own_voxels():
    one = drawn()
    second = np.zeros_like(one.labels)
    second[2:6, 2:10, 2:6] = 3
    found = replace(one, more_layers=(second,)).measures()
    assert found[3].confidence == pytest.approx(one.confidence[second == 3].mean(dtype=np.float64))


def test_statistics_have_a_column_of_it_only_if_it_was_computed(tmp_path):
    drawn().write_statistics(tmp_path / "a.csv")
    rows = rows_of(tmp_path / "a.csv")
    assert list(rows[0])[-1] == "Confidence" and rows[2]["Confidence"] == ""
    assert [float(row["Confidence"]) for row in rows[:2]] == pytest.approx([0.9, 0.95], abs=1e-6)
    replace(drawn(), labels=np.zeros((20, 20, 20), np.uint16)).write_statistics(tmp_path / "none.csv")
    assert list(rows_of(tmp_path / "none.csv")[0]) == list(rows[0]), "tables of several cases have the same columns"
    replace(drawn(), confidence=None).write_statistics(tmp_path / "b.csv")
    assert tuple(rows_of(tmp_path / "b.csv")[0]) == statistics_columns(intensities=False)
    assert STATISTICS_DIGITS >= 7


def facts(name: str, **confidences: float) -> CaseFacts:
    result = drawn(**confidences)
    return facts_of(name, result, result.measures())


def test_a_case_of_which_the_model_is_unsure_is_unusual():
    usual = [facts(f"usual {index}", liver=0.9 + index / 500) for index in range(6)]
    odd, a_little, no_confidence = facts("odd", liver=0.6), facts("a little", liver=0.86), facts("none")
    no_confidence = replace(
        no_confidence, structures=tuple(replace(one, confidence=None) for one in no_confidence.structures)
    )
    cases = [*usual, odd, a_little, no_confidence]
    cohort = Cohort(cases)
    (finding,) = cohort.findings(odd)
    assert (finding.kind, finding.structure, finding.value) == ("confidence", "liver", 0.6)
    assert finding.text == "The model was less sure of liver than usual: 0.60; the median is 0.90."
    assert finding.usual == pytest.approx(0.902, abs=0.003)
    assert not [one.name for one in cases if one is not odd and cohort.findings(one)]
    few = Cohort([*usual[:3], odd])
    assert few.findings(odd) == [], "too few cases say what is usual"


def test_doubt_is_ranked_among_what_else_is_far_from_usual():
    usual = [facts(f"usual {index}") for index in range(6)]
    odd = facts("odd", liver=0.3, spleen=0.7)
    texts = [finding.structure for finding in Cohort([*usual, odd]).findings(odd)]
    assert texts == ["liver", "spleen"] or texts == ["spleen", "liver"]
    ranks = [finding._rank for finding in Cohort([*usual, odd]).findings(odd)]
    assert ranks == sorted(ranks) and ranks[0] != ranks[1]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    whole = sitk.ReadImage(str(Path(__file__).parents[2] / "Resources" / "SampleData" / "toy-120.nrrd"))
    for name, start in (("a", 28), ("b", 30)):
        sitk.WriteImage(whole[start : start + 32, 30:62, 30:62], str(folder / f"{name}.nrrd"))
    return folder


def test_many_cases_have_it_in_their_table_and_on_their_page(images, tmp_path, monkeypatch, capsys):
    """Also where a later run adds a case that is finished from its files."""
    monkeypatch.setattr(rendering, "_failed", ["is not tried in this test"])
    table, report = tmp_path / "all.csv", tmp_path / "report"
    words = ["segment", images, "-m", TOY, "-o", tmp_path / "out", *FAST, "--confidence", tmp_path / "confidence"]
    words += ["--statistics", table, "--report", report]
    assert main([*map(str, words)]) == ExitCode.OK
    first = rows_of(table)
    found = [row for row in first if row["Voxels"] != "0"]
    assert {row["Case"] for row in found} == {"a", "b"} and all(0 < float(row["Confidence"]) <= 1 for row in found)
    cases = json.loads((report / "report.json").read_text(encoding="utf-8"))["cases"]
    assert all(0 < one["confidence"] <= 1 for case in cases for one in case["structures"])
    map_a = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "confidence" / "a.nrrd")))
    labels = Segmentation.from_image(tmp_path / "out" / "a.seg.nrrd").labels
    row = next(row for row in found if row["Case"] == "a")
    assert float(row["Confidence"]) == pytest.approx(map_a[labels == int(row["LabelValue"])].mean(dtype=np.float64))
    case_path(report, "a").unlink()
    shutil.rmtree(tmp_path / "out" / ".classscaleseg" / "statistics")
    assert main([*map(str, words)]) == ExitCode.OK
    assert rows_of(table) == first
    assert (
        json.loads((report / "report.json").read_text(encoding="utf-8"))["cases"][0]["structures"]
        == cases[0]["structures"]
    )
    shutil.rmtree(tmp_path / "out" / ".classscaleseg" / "statistics")
    (tmp_path / "confidence" / "a.nrrd").write_bytes(b"damaged")
    whole = sitk.ReadImage(str(file := tmp_path / "confidence" / "b.nrrd"))
    sitk.WriteImage(whole * 2, str(file))
    capsys.readouterr()
    assert main([*map(str, words)]) == ExitCode.OK
    said = capsys.readouterr().err
    for case in "ab":
        file = tmp_path / "confidence" / f"{case}.nrrd"
        assert f"{case} is not in the table. {file} is not the confidence of " in said
        assert f"Segment {case} again (--overwrite)." in said
