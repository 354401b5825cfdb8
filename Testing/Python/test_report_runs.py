"""Runs that add to a report: skipped cases of other models and formats, replaced images, patients of one name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import DicomSeg, Geometry, LabelTable, Segmentation
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.images.reading import read_image
from ClassScaleSegLib.report import rendering
from conftest import MODEL, small_dataset, small_plans, stock_network, write_checkpoint
from dicom_phantom import planes, write_series

ORGANS = {value: f"organ {value}" for value in range(1, 6)}


@pytest.fixture(autouse=True)
def simple_view(monkeypatch):
    monkeypatch.setattr(rendering, "_failed", ["is not tried in this test"])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    plans, dataset = small_plans(), small_dataset({"background": 0, **{name: value for value, name in ORGANS.items()}})
    folder = tmp_path_factory.mktemp("model") / "Dataset007_Small" / MODEL
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", stock_network(plans, dataset))
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


@pytest.fixture
def image(tmp_path) -> Path:
    file = tmp_path / "in" / "x.nrrd"
    file.parent.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(np.full((16, 16, 16), 50, np.int16)), str(file))
    return file


def result(names: dict[int, str] = ORGANS, origin: float = 0.0) -> Segmentation:
    labels = np.zeros((16, 16, 16), np.uint16)
    labels[4:8, 4:8, 4:8], labels[4:8, 4:8, 10:12] = 1, 3
    return Segmentation(labels, LabelTable.from_names(names), Geometry((16,) * 3, (1.0,) * 3, (origin, 0.0, 0.0)))


def run(model: Path, *arguments: object) -> int:
    fast = ("--step", "1", "--no-mirroring", "--device", "cpu", "--threads", "1")
    return main(["segment", *map(str, arguments), "-m", str(model), *fast])


def cases(folder: Path) -> list[dict]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))["cases"]


def found(case: dict) -> dict[int, str]:
    return {one["value"]: one["name"] for one in case["structures"]}


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz"])
def test_a_skipped_case_keeps_the_names_of_its_file(model, image, tmp_path, suffix):
    out, folder = tmp_path / "out", tmp_path / "r"
    result({value: f"bone {value}" for value in range(1, 8)}).write(out / f"x{suffix}")
    assert run(model, image.parent, "-o", out, "--format", suffix, "--report", folder) == ExitCode.OK
    (only,) = cases(folder)
    assert found(only) == {1: "bone 1", 3: "bone 3"} and not any("organ" in name for name in only["not_found"])
    assert "names other classes than this run" in only["messages"][0]


def test_a_long_name_does_not_end_the_run(model, image, tmp_path):
    name = "%" * 90  # three letters each in the name of a file of the report
    image.rename(image.with_name(f"{name}.nrrd"))
    result().write(tmp_path / "out" / f"{name}.seg.nrrd")
    assert run(model, image.parent, "-o", tmp_path / "out", "--report", tmp_path / "r") == ExitCode.OK
    assert cases(tmp_path / "r")[0]["name"] == name


def test_a_skipped_case_of_the_same_model_lists_the_classes_that_are_not_there(model, image, tmp_path):
    result().write(tmp_path / "out" / "x.seg.nrrd")
    assert run(model, image.parent, "-o", tmp_path / "out", "--report", tmp_path / "r") == ExitCode.OK
    (only,) = cases(tmp_path / "r")
    assert found(only) == {1: "organ 1", 3: "organ 3"} and only["messages"] == []
    assert only["not_found"] == ["organ 2", "organ 4", "organ 5"]
    assert only["structures"][0]["intensities"]["mean"] == 50


def test_the_intensities_of_a_replaced_image_are_not_taken(model, image, tmp_path, capsys):
    result(origin=3.0).write(tmp_path / "out" / "x.seg.nrrd")
    assert run(model, image.parent, "-o", tmp_path / "out", "--report", tmp_path / "r") == ExitCode.SOME_FAILED
    said = capsys.readouterr()
    assert said.err.count("is not on the grid of") == 1 and "0 of 1 cases segmented, 1 failed: x" in said.out
    assert "is not on the grid of" in cases(tmp_path / "r")[0]["error"]


@pytest.mark.parametrize("place", [slice(4, 8), slice(6, 7), slice(3, 12, 4)])
def test_a_binary_dicom_segmentation_without_its_outer_slices_is_put_in_its_place(model, tmp_path, place):
    pytest.importorskip("highdicom")
    series = write_series(tmp_path / "in" / "p", planes(16, (16, 16), step=(0.0, 0.0, 2.0)), FrameOfReferenceUID="1.2")
    labels = np.zeros((16, 16, 16), np.uint16)
    labels[place, 4:8, 4:9] = 2
    whole = Segmentation(labels, LabelTable.from_names(ORGANS), read_image(series, 1).geometry)
    whole.write(tmp_path / "out" / "p.seg.dcm", source=DicomSeg(series, "binary"))
    arguments = ("-o", tmp_path / "out", "--format", ".seg.dcm", "--report", tmp_path / "r")
    assert run(model, tmp_path / "in", *arguments) == ExitCode.OK
    (read,) = cases(tmp_path / "r")
    (structure,) = read["structures"]
    first, last = np.argwhere(labels).min(0)[::-1], np.argwhere(labels).max(0)[::-1]
    assert read["size"] == [16, 16, 16] and structure["voxels"] == np.count_nonzero(labels)
    assert (structure["first"], structure["last"]) == (first.tolist(), last.tolist())


def test_a_structure_set_that_is_skipped_is_said_to_be_left_out(model, image, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.rtstruct.dcm").write_text("")
    arguments = ("-o", tmp_path / "out", "--format", ".rtstruct.dcm", "--report", tmp_path / "r")
    assert run(model, image.parent, *arguments) == ExitCode.OK
    assert "x.rtstruct.dcm is not in the report: a structure set cannot be read again" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_the_page_is_made_up_for_if_a_run_ended_before_it(model, image, tmp_path):
    result().write(tmp_path / "out" / "x.seg.nrrd")
    arguments = (model, image.parent, "-o", tmp_path / "out", "--report", tmp_path / "r")
    run(*arguments)
    page = tmp_path / "r" / "index.html"
    page.unlink()
    run(*arguments)
    before = page.stat().st_mtime_ns
    run(*arguments)
    assert page.stat().st_mtime_ns == before  # nothing is new
    (tmp_path / "r" / "cases" / "x.json").touch()
    run(*arguments)
    assert page.stat().st_mtime_ns > before


def test_patients_whose_folders_have_one_name_are_cases_each(model, tmp_path, capsys):
    for patient in ("p1", "p2"):
        series = write_series(tmp_path / patient / "CT", planes(16, (16, 16), step=(0.0, 0.0, 2.0)))
        out = tmp_path / f"{patient}.seg.nrrd"
        arguments = (series, "-o", out, "--report", tmp_path / "r", "--overwrite", "--json-progress")
        assert run(model, *arguments) == ExitCode.OK
        event = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert Path(event["report"]).is_file()
    assert [one["name"] for one in cases(tmp_path / "r")] == ["p1", "p2"]
    elsewhere = tmp_path / "other" / "p1.seg.nrrd"
    assert run(model, series, "-o", elsewhere, "--report", tmp_path / "r", "--overwrite") == ExitCode.OUTPUT
    assert "p1.json is of another result of that name" in capsys.readouterr().err and not elsewhere.exists()


def test_the_page_is_announced_once_it_is_there(model, image, tmp_path, capsys):
    shutil.copy(image, image.with_name("y.nrrd"))
    arguments = ("-o", tmp_path / "out", "--report", tmp_path / "r", "--json-progress")
    assert run(model, image.parent, *arguments) == ExitCode.OK
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    results = [event for event in events if event["event"] == "result"]
    assert len(results) == 2 and not any("report" in event for event in results)
    assert (tmp_path / "r" / "index.html").is_file()
