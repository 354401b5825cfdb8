"""The report where something is amiss: foreign files, other models, long names, damaged cases, thin structures."""

from __future__ import annotations

import json
import os
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib import Geometry, LabelTable, OutputError, OutputExistsError, Segmentation
from ClassScaleSegLib.report import rendering, report
from ClassScaleSegLib.report.case_files import case_path, read_case
from ClassScaleSegLib.report.cohort import Cohort
from ClassScaleSegLib.report.facts import facts_of
from ClassScaleSegLib.report.pictures import pictures_of
from ClassScaleSegLib.report.report import Report

NAMES = {1: "liver", 2: "kidney_left", 3: "kidney_right"}
GRID = Geometry((20, 20, 20), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))


@pytest.fixture(autouse=True)
def simple_view(monkeypatch):
    """VTK has a test of its own; here it would take a second for each case."""
    monkeypatch.setattr(rendering, "_failed", ["is not tried in this test"])


def small(names: dict[int, str] = NAMES) -> Segmentation:
    labels = np.zeros((20, 20, 20), np.uint16)
    for value in names:
        labels[4 * value : 4 * value + 3, 5:15, 5:15] = value
    return Segmentation(labels, LabelTable.from_names(names), GRID)


def test_the_process_that_renders_runs_nothing_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path, str(tmp_path)])
    monkeypatch.setattr(rendering.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(rendering, "_failed", [])
    rendering.render(np.ones((4, 4, 4), np.uint16), (1.0, 1.0, 1.0), np.full((65536, 3), 200, np.uint8))
    assert not (tmp_path / "was run").exists()


def test_json_that_is_no_case_is_seen_before_the_computation_and_never_replaced(tmp_path):
    sidecar = tmp_path / "cases" / "sub-01.json"
    sidecar.parent.mkdir()
    sidecar.write_text('{"MagneticFieldStrength": 3}')
    written = Report(tmp_path, overwrite=True)
    for arguments in ((), ("sub-01",)):
        with pytest.raises(OutputError, match="sub-01.json was not written by a report"):
            written.check(*arguments)
    with pytest.raises(OutputError, match="sub-01.json was not written by a report"):
        written.add("sub-01", small())
    assert "Magnetic" in sidecar.read_text(encoding="utf-8")


def test_a_case_of_another_result_is_not_replaced(tmp_path):
    written = Report(tmp_path / "r", overwrite=True)
    written.add("seg", small(), outputs=[tmp_path / "p1" / "seg.nrrd"])
    before = case_path(tmp_path / "r", "seg").read_bytes()
    for add in (
        lambda: written.add("seg", small(), outputs=[tmp_path / "p2" / "seg.nrrd"]),
        lambda: written.add_failed("seg", "It is empty.", outputs=[tmp_path / "p2" / "seg.nrrd"]),
    ):
        with pytest.raises(OutputExistsError, match="seg.json is of another result of that name"):
            add()
    assert case_path(tmp_path / "r", "seg").read_bytes() == before and b"p1" not in before
    written.add("seg", small({1: "spleen"}), outputs=[tmp_path / "r" / ".." / "p1" / "seg.nrrd"])
    assert read_case(case_path(tmp_path / "r", "seg")).facts.structures[0].name == "spleen"


@pytest.mark.parametrize("name", ["x" * 300, "%" * 100, "ü" * 150, "x" * 200])
def test_a_long_name_is_cut_for_its_file_only(tmp_path, name):
    written = Report(tmp_path)
    written.check(name)
    written.add(name, small())
    written.add(name + "2", small())
    written.write()
    cases = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["cases"]
    assert sorted(one["name"] for one in cases) == [name, name + "2"]
    assert all(len(os.fsencode(file.name)) < 210 for file in (tmp_path / "cases").iterdir())


def test_numbers_that_no_float_holds_are_refused(tmp_path):
    written = Report(tmp_path)
    written.add("a", small())
    file = case_path(tmp_path, "a")
    good = file.read_text(encoding="utf-8")
    for old, new, fault in (
        ('"surface_mm2":', '"surface_mm2":' + "9" * 400 + ',"x":', "surface_mm2 must be a finite number"),
        ('"volume_ml":', '"volume_ml":1e-320,"x":', "has no volume"),
        ('"modality":null', f'"modality":{"[" * 950}{"]" * 950}', "cannot be used"),
    ):
        file.write_text(good.replace(old, new))
        with pytest.raises(OutputError, match=f"a.json cannot be used as a case.*{fault}|a.json {fault}"):
            written.write()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_not_read(tmp_path, monkeypatch):
    written = Report(tmp_path)
    written.add("a", small())
    os.mkfifo(tmp_path / "cases" / "b.json")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("it would wait for ever"))
    with pytest.raises(OutputError, match="b.json was not written by a report"):
        written.check()
    with pytest.raises(OutputError, match="b.json cannot be used as a case of a report. It is not a file"):
        written.write()


def test_a_name_that_is_no_unicode_has_a_page_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MANY", 1)
    written = Report(tmp_path)
    written.add("a", small())
    text = case_path(tmp_path, "a").read_text(encoding="utf-8")
    case_path(tmp_path, "\ud800").write_text(text.replace('"name":"a"', '"name":"\\ud800"'))
    written.write()
    assert len(list((tmp_path / "cases").glob("*.html"))) == 2


def test_names_with_numbers_stay_apart(tmp_path):
    written = Report(tmp_path)
    written.add("a", small({1: "a", 2: "a", 3: "a (1)"}))
    names = [one.name for one in read_case(case_path(tmp_path, "a")).facts.structures]
    assert names == ["a (1) (1)", "a (2)", "a (1)"]


def test_a_case_that_another_machine_replaces_meanwhile_has_no_usual_ratio():
    result = small()
    facts = facts_of("a", result, result.measures())
    cohort = Cohort([replace(facts, structures=facts.structures[:1])])
    assert cohort.findings(facts) == []


def test_pages_of_cases_that_are_gone_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MANY", 2)
    written = Report(tmp_path)
    for name in "abcd":
        written.add(name, small())
    written.write()
    (tmp_path / "cases" / "notes.html").write_text("<title>My notes</title>")
    case_path(tmp_path, "a").unlink()
    written.write()
    pages = [file.name for file in sorted((tmp_path / "cases").glob("*.html"))]
    assert pages == ["b.html", "c.html", "d.html", "notes.html"]
    case_path(tmp_path, "b").unlink()
    written.write()
    assert [file.name for file in (tmp_path / "cases").glob("*.html")] == ["notes.html"]


def test_the_view_in_3d_shows_thin_and_tiny_structures():
    labels = np.zeros((400, 30, 30), np.uint16)
    labels[:, 11, 11] = 7  # between the voxels that every third one would take
    labels[5:8, 20:23, 20:23], labels[6, 21, 21] = 8, 9
    colors = np.zeros((65536, 3), np.uint8)
    reduced, _ = rendering._reduced(labels, (1.0, 1.0, 1.0))
    assert np.unique(reduced).tolist() == [0, 7, 8, 9]
    colors[7] = 255
    alone = np.where(labels == 7, labels, 0).astype(np.uint16)
    alone[0, 0, 0] = 7
    picture, how = rendering.render(alone, (1.0, 1.0, 1.0), colors)
    assert "there are none" not in how and picture.any(1).any(1).sum() > 300


@pytest.mark.parametrize("stored", ["SAR", "PIL"])
def test_pictures_take_a_fraction_of_the_memory_of_the_image(stored):
    labels = np.zeros((120, 120, 120), np.uint16)
    labels[40:80, 40:80, 40:80] = 1
    grid = Geometry((120, 120, 120), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)).turned(stored)[0]
    result = Segmentation(labels, LabelTable.from_names(NAMES), grid)
    voxels = np.full(labels.shape, 50.0)
    tracemalloc.start()
    try:
        pictures_of(result, voxels, ct=False)
        assert tracemalloc.get_traced_memory()[1] < 0.8 * voxels.nbytes
    finally:
        tracemalloc.stop()
