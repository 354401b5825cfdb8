"""The report of one case and of a cohort: facts, findings, pictures, files, and what the commands write."""

from __future__ import annotations

import base64
import io
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import Geometry, LabelTable, OutputError, OutputExistsError, Segmentation
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.images.measures import measure
from ClassScaleSegLib.process import Job
from ClassScaleSegLib.process.job import read_job
from ClassScaleSegLib.report import rendering
from ClassScaleSegLib.report.case_files import case_path, read_case
from ClassScaleSegLib.report.cohort import Cohort
from ClassScaleSegLib.report.facts import CaseFacts, facts_of, from_json
from ClassScaleSegLib.report.pictures import pictures_of
from ClassScaleSegLib.report.report import Report
from conftest import TOY
from dicom_phantom import planes, write_series

ROOT = Path(__file__).parents[2]
TOY_IMAGE = ROOT / "Resources" / "SampleData" / "toy-120.nrrd"
NAMES = {0: "background", 1: "liver", 2: "kidney_left", 3: "kidney_right", 4: "Left-Thing", 5: "Right-Thing"}
GRID = Geometry((20, 20, 20), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))
FAST = ("--step", "1", "--no-mirroring", "--device", "cpu", "--threads", "1")


@pytest.fixture(autouse=True)
def simple_view(monkeypatch):
    """VTK has a test of its own; here it would take a second for each case."""
    monkeypatch.setattr(rendering, "_failed", ["is not tried in this test"])


def case(name: str, **voxels: int) -> CaseFacts:
    """A case whose structures have so many voxels; ``cut`` is the value of one that reaches the edge."""
    labels = np.zeros((20, 20, 20), np.uint16)
    cut = voxels.pop("cut", None)
    for value, text in list(NAMES.items())[1:]:
        count = voxels.get(text.replace("-", "_"), 60)
        labels[2 * value, 1:19, 1:19] = np.where(np.arange(324) < count, value, 0).reshape(18, 18)
        if value == cut:
            labels[2 * value, 1, 0] = value
    result = Segmentation(labels, LabelTable.from_names(NAMES), GRID)
    return facts_of(name, result, measure(labels, GRID))


def found(cases: list[CaseFacts], name: str) -> list[tuple[str, str]]:
    cohort = Cohort(cases)
    (one,) = (facts for facts in cases if facts.name == name)
    return [(finding.kind, finding.structure) for finding in cohort.findings(one)]


def test_a_cohort_shows_what_is_unusual_and_nothing_else():
    usual = [case(f"usual {index}", liver=100 + index) for index in range(6)]
    odd = case("odd", liver=250, kidney_left=0, Left_Thing=150, cut=3)
    cases = [*usual, odd]
    kinds = [
        *[("missing", "kidney_left"), ("volume", "Left-Thing"), ("asymmetry", "Left-Thing"), ("volume", "liver")],
        ("edge", "kidney_right"),
    ]
    assert found(cases, "odd") == kinds  # 150 to 60 mL is farther than 250 to 103
    assert all(found(cases, one.name) == [] for one in usual)
    _, _, asymmetry, volume, _ = Cohort(cases).findings(odd)
    assert (volume.value, volume.usual) == (250.0, pytest.approx(103.0))
    assert volume.text == "liver has 250 mL; the median is 103 mL."
    assert asymmetry.text == "Left-Thing : Right-Thing is 2.5 (usual 1)."


def test_structures_of_a_few_voxels_are_not_compared():
    for usual, odd, kinds in ((29, 10, []), (30, 10, ["volume", "volume", "asymmetry"])):
        names = {"liver": usual, "kidney_left": usual, "kidney_right": usual}
        cases = [
            *(case(f"u{index}", **names) for index in range(6)),
            case("odd", **{**names, "liver": odd, "kidney_left": odd}),
        ]
        assert [kind for kind, _ in found(cases, "odd")] == kinds
    few = [case("a", kidney_left=20, kidney_right=29), case("b", kidney_left=9, kidney_right=29, Left_Thing=10)]
    assert found(few, "b") == [("asymmetry", "Right-Thing")]  # one side has enough


def test_a_few_cases_are_not_compared_but_their_sides_are():
    few = [case("a"), case("b", liver=300, kidney_left=20), case("c", kidney_left=0, Left_Thing=100)]
    assert found(few, "a") == []
    assert found(few, "b") == [("asymmetry", "kidney_right")]
    assert found(few, "c") == [("asymmetry", "kidney_right")]  # the left one is not there


def test_a_usual_asymmetry_is_none_and_what_is_cut_is_not_called_small():
    lopsided = [case(f"c{index}", kidney_left=40, kidney_right=160) for index in range(6)]
    assert found(lopsided, "c0") == []
    cut = case("cut", liver=20, cut=1)
    assert found([*(case(f"u{index}") for index in range(6)), cut], "cut") == [("edge", "liver")]
    assert found([*(case(f"u{index}", cut=1) for index in range(6)), cut], "cut") == []


def test_a_class_that_was_not_looked_for_is_not_missing():
    cases = [case(f"c{index}") for index in range(6)]
    part = replace(cases[0], name="part", classes=cases[0].classes[1:], structures=cases[0].structures[1:])
    assert found([*cases, part], "part") == []


def test_classes_of_one_name_are_told_apart():
    labels = np.zeros((2, 2, 2), np.uint16)
    labels[0, 0] = 1, 2
    grid = Geometry((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    result = Segmentation(labels, LabelTable.from_names({1: "node", 2: "node"}), grid)
    assert [one.name for one in facts_of("x", result, result.measures()).structures] == ["node (1)", "node (2)"]


def decoded(picture) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.data))).convert("RGB")).astype(int)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SAR", "PIL"])
def test_slices_look_the_same_whatever_the_order_of_the_voxels(orientation):
    # red: right anterior superior; green: left; blue: posterior; spacing 1, 2, 3 mm along x, y, z
    labels = np.zeros((16, 24, 48), np.uint16)
    labels[2:14, 3:21, 6:42] = 4
    labels[2:14, 3:21, 6:12] = 1
    labels[2:14, 3:21, 36:42] = 2
    labels[2:14, 15:21, 12:36] = 3
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((1.0, 2.0, 3.0))
    table = LabelTable.from_names({1: "r", 2: "l", 3: "p", 4: "rest"})
    colors = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255), 4: (90, 90, 90)}
    table = LabelTable(tuple(replace(label, color=colors[label.value]) for label in table))
    turned = sitk.DICOMOrient(image, orientation)
    shown = {one.kind: one for one in pictures_of(Segmentation.from_image(turned, table), None, False)}
    assert [*shown] == ["axial", "coronal", "sagittal", "3d", "sheet"]
    axial, coronal, sagittal = (decoded(shown[kind]) for kind in ("axial", "coronal", "sagittal"))
    assert axial.shape[:2] == (400, 400) and coronal.shape[:2] == (400, 400) and sagittal.shape[:2] == (400, 400)
    assert axial[200, 75].argmax() == 0 and axial[200, 325].argmax() == 1  # the patient's right is on the left
    assert axial[300, 200].argmax() == 2 and axial[380, 60].max() < 40  # posterior is below
    assert coronal[200, 75].argmax() == 0 and sagittal[200, 300].argmax() == 2  # anterior is on the left
    front = decoded(shown["3d"])
    assert front[200, 20].argmax() == 0 and front[200, 380].argmax() == 1


def test_the_intensities_are_windowed_without_the_extremes():
    labels = np.zeros((10, 10, 10), np.uint16)
    labels[5, 5, 5] = 1
    grid = Geometry((10, 10, 10), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    result = Segmentation(labels, LabelTable.from_names({1: "liver"}), grid)
    voxels = np.full((10, 10, 10), -1000, np.int16)
    voxels[:, :5] = 40  # soft tissue, in the anterior half
    voxels[0, 0, 0] = 30000
    grey = decoded(pictures_of(result, voxels, ct=True)[0])
    assert abs(int(grey[100, 200].mean()) - 128) < 12 and grey[350, 60].max() < 12
    voxels = voxels.clip(0, None)
    assert decoded(pictures_of(result, voxels, ct=True)[0])[100, 60].mean() > 200  # no CT has only positive values


def test_vtk_renders_in_a_process_of_its_own(monkeypatch):
    pytest.importorskip("vtkmodules")
    monkeypatch.setattr(rendering, "_failed", [])
    labels = np.zeros((12, 12, 24), np.uint16)
    labels[2:10, 2:10, 2:11], labels[2:10, 2:10, 13:22] = 300, 2
    colors = np.zeros((65536, 3), np.uint8)
    colors[300], colors[2] = (255, 0, 0), (0, 255, 0)
    picture, how = rendering.render(labels, (2.0, 2.0, 2.0), colors)
    if how:
        pytest.skip(f"3D{how}")
    assert picture.shape == (400, 400, 3)
    assert picture[200, 120].argmax() == 0 and picture[200, 280].argmax() == 1 and picture[5, 5].max() == 0


def test_where_vtk_crashes_there_is_a_simple_view_and_it_is_not_tried_again(monkeypatch):
    monkeypatch.setattr(rendering, "_failed", [])
    monkeypatch.setattr(rendering.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(rendering.sys, "executable", "/nowhere/python")
    labels = np.ones((4, 4, 4), np.uint16)
    colors = np.full((65536, 3), 200, np.uint8)
    picture, how = rendering.render(labels, (1.0, 1.0, 1.0), colors)
    assert how.startswith(" (VTK could not be used") and picture.max() > 100
    assert len(rendering._failed) == 1 and rendering.render(labels, (1.0, 1.0, 1.0), colors)[1] == how


def small(value: int = 1) -> Segmentation:
    labels = np.zeros((20, 20, 20), np.uint16)
    labels[5:15, 5:15, 5:15] = value
    return Segmentation(labels, LabelTable.from_names(NAMES), GRID)


def test_a_case_survives_its_file_and_names_are_made_safe(tmp_path):
    report = Report(tmp_path / "r")
    report.add("../a b", small(), images=[tmp_path / "image.nii.gz"], warnings=["odd"], modality="CT")
    assert [path.name for path in (tmp_path / "r" / "cases").iterdir()] == ["%..%2Fa b.json"]
    facts = read_case(case_path(tmp_path / "r", "../a b")).facts
    assert (facts.name, facts.images, facts.warnings, facts.modality) == ("../a b", ("image.nii.gz",), ("odd",), "CT")
    assert (
        facts.structures[0].volume_ml == 1000.0 and from_json(CaseFacts, json.loads(json.dumps(asdict(facts)))) == facts
    )


def test_a_finished_case_is_kept_and_a_failed_one_is_replaced(tmp_path):
    report = Report(tmp_path)
    report.add_failed("a", "The image is empty.")
    report.add("a", small())
    report.add_failed("a", "later")  # the result is still there
    with pytest.raises(OutputExistsError, match="a.json already exists"):
        report.check("a")
    with pytest.raises(OutputExistsError):
        report.add("a", small(2))
    Report(tmp_path, overwrite=True).add("a", small(2))
    assert [one.name for one in read_case(case_path(tmp_path, "a")).facts.structures] == ["kidney_left"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda facts: "[" * 100_000, "nested too deeply|not JSON|Expecting"),
        (lambda facts: "{}", "Its format is not classscaleseg-case"),
        (lambda facts: json.dumps(facts | {"version": 2}), "It has version 2"),
        (lambda facts: json.dumps(facts | {"facts": {}}), "facts has no name"),
        (lambda facts: json.dumps(facts).replace('"volume_ml": 1000.0', '"volume_ml": NaN'), "NaN is not JSON"),
        (lambda facts: json.dumps(facts).replace('"volume_ml": 1000.0', '"volume_ml": -1'), "'liver' has no volume"),
        (lambda facts: json.dumps(facts).replace('"voxels": 1000', '"voxels": true'), "voxels must be a whole number"),
        (lambda facts: json.dumps(facts).replace("#3467e4", "red;}</style>"), "has no colour such as"),
        (lambda facts: json.dumps(facts).replace('"data": "', '"data": "\\">'), "no WebP file in Base64"),
    ],
)
def test_a_damaged_case_is_refused_by_name_and_the_page_stays(tmp_path, change, fault):
    report = Report(tmp_path)
    report.add("a", small())
    before = report.write().read_bytes()
    file = case_path(tmp_path, "a")
    file.write_text(change(json.loads(file.read_text(encoding="utf-8"))))
    with pytest.raises(OutputError, match=f"a.json cannot be used as a case of a report.*({fault})"):
        report.write()
    assert report.index.read_bytes() == before and len(list(tmp_path.iterdir())) == 3


def test_a_copy_of_a_case_is_refused(tmp_path):
    Report(tmp_path).add("a", small())
    shutil.copy(case_path(tmp_path, "a"), case_path(tmp_path, "b"))
    with pytest.raises(OutputError, match="b.json cannot be used as a case of a report. It is of another case, 'a'"):
        Report(tmp_path).write()


def test_what_is_no_report_is_not_replaced(tmp_path):
    (tmp_path / "index.html").write_text("<title>My page</title>")
    with pytest.raises(OutputError, match="index.html was not written by a report"):
        Report(tmp_path).check()
    with pytest.raises(OutputError, match="has no case"):
        Report(tmp_path / "other").write()


def test_the_json_is_as_its_schema_says(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    report = Report(tmp_path)
    for index in range(6):
        report.add(f"case {index}", small(1 if index else 2))
    report.add_failed("broken", "The image is empty.")
    report.write()
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    schema = json.loads((ROOT / "Resources" / "Report" / "schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(content)
    assert (content["done"], content["failed"]) == (6, 1)
    by_name = {one["name"]: one for one in content["cases"]}
    assert [one["kind"] for one in by_name["case 0"]["findings"]] == ["missing"]
    assert by_name["broken"]["error"] == "The image is empty."
    assert content["classes"][0] | {"codes": {}} == {
        **{"value": 1, "name": "liver", "color": "#3467e4", "codes": {}, "looked_for": 6, "found": 5, "cut": 0},
        **{"median_ml": 1000.0, "smallest_ml": 1000.0, "largest_ml": 1000.0},
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """A part of the toy sample, so that the network has little to do."""
    file = tmp_path_factory.mktemp("sample") / "part.nrrd"
    sitk.WriteImage(sitk.ReadImage(str(TOY_IMAGE))[30:62, 30:62, 30:62], str(file))
    return file


def run(*arguments: object) -> int:
    return main(["segment", *map(str, arguments), "-m", str(TOY), *FAST])


def test_the_command_reports_a_case_with_all_that_was_run(sample, tmp_path, capsys):
    out, table, folder = tmp_path / "a.seg.nrrd", tmp_path / "a.csv", tmp_path / "report"
    assert run(sample, "-o", out, "--statistics", table, "--report", folder, "--remove-islands", 50) == ExitCode.OK
    assert "report/index.html" in capsys.readouterr().out
    (only,) = json.loads((folder / "report.json").read_text(encoding="utf-8"))["cases"]
    assert only["images"] == ["part.nrrd"] and only["outputs"] == ["a.seg.nrrd"] and only["changes"]
    assert any("island" in message for message in only["messages"])
    rows = {line.split(",")[1]: line.split(",") for line in table.read_text(encoding="utf-8").splitlines()}
    for structure in only["structures"][:5]:
        assert float(rows[structure["name"]][3]) == structure["volume_ml"]
    ran = only["run"]
    assert ran["device"].startswith("cpu") and "remove_islands=50.0" in ran["options"]
    assert {"read", "segment", "clean", "write"} <= ran["stages"].keys() and ran["memory_bytes"] > 1e8
    assert len(ran["models"][0]["sha256"]) == 64 and ran["versions"]["torch"]


def test_a_folder_of_cases_lists_failed_ones_and_is_added_to(sample, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(sample, tmp_path / "in" / "a.nrrd")
    (tmp_path / "in" / "bad.nrrd").write_text("nothing")
    folder, out = tmp_path / "report", tmp_path / "out"
    assert run(tmp_path / "in", "-o", out, "--report", folder) == ExitCode.SOME_FAILED
    names = [
        (one["name"], one["error"] is None)
        for one in json.loads((folder / "report.json").read_text(encoding="utf-8"))["cases"]
    ]
    assert names == [("a", True), ("bad", False)]
    # a finished case without a file in the report is added from its result, a repaired one replaces its error
    case_path(folder, "a").unlink()
    shutil.copy(sample, tmp_path / "in" / "bad.nrrd")
    assert run(tmp_path / "in", "-o", out, "--report", folder) == ExitCode.OK
    cases = json.loads((folder / "report.json").read_text(encoding="utf-8"))["cases"]
    assert [(one["name"], one["error"], one["run"] is None) for one in cases] == [
        ("a", None, True),
        ("bad", None, False),
    ]
    assert all(cases[0][key] == cases[1][key] for key in ("structures", "not_found"))
    assert len(cases[0]["structures"]) + len(cases[0]["not_found"]) == 120
    (folder / "index.html").unlink()
    assert main(["report", str(folder), "--title", "Both"]) == ExitCode.OK
    assert "<title>Both</title>" in (folder / "index.html").read_text(encoding="utf-8")


def test_an_interrupted_run_reports_what_is_done(sample, tmp_path, monkeypatch):
    from ClassScaleSegLib.commands import job_report

    (tmp_path / "in").mkdir()
    for name in "ab":
        shutil.copy(sample, tmp_path / "in" / f"{name}.nrrd")
    begin = job_report.JobReport.begin

    def stop_at_b(self, case, reporter):
        if case.name == "b":
            raise KeyboardInterrupt
        return begin(self, case, reporter)

    monkeypatch.setattr(job_report.JobReport, "begin", stop_at_b)
    assert run(tmp_path / "in", "-o", tmp_path / "out", "--report", tmp_path / "r") == ExitCode.CANCELLED
    assert [
        one["name"] for one in json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))["cases"]
    ] == ["a"]


def test_modality_and_spacing_are_warned_of(tmp_path):
    series = write_series(tmp_path / "series", planes(12, (30, 30), step=(0.0, 0.0, 9.0)), Modality="CT")
    assert run(series, "-o", tmp_path / "a.nrrd", "--report", tmp_path / "r") == ExitCode.OK
    (only,) = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))["cases"]
    assert only["modality"] == "CT"
    assert [sentence[:20] for sentence in only["warnings"]] == ["The voxels are up to"]


def test_a_report_that_cannot_be_written_is_said_and_the_segmentation_is_kept(sample, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "a.seg.nrrd"
    assert run(sample, "-o", out, "--report", tmp_path / "file" / "r") == ExitCode.OUTPUT
    assert not out.exists()  # it was seen before the computation

    def full(path, *arguments, **named):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full)
    assert run(sample, "-o", out, "--report", tmp_path / "r") == ExitCode.OUTPUT
    assert out.exists() and "is written, but the report is not" in capsys.readouterr().err
    assert not list((tmp_path / "r").rglob("*.json"))


def test_a_job_names_the_report_and_older_jobs_have_none(tmp_path):
    job = Job((TOY_IMAGE,), "toy-120", tmp_path / "a.nrrd", report=tmp_path / "r")
    job.write(tmp_path / "job.json")
    assert read_job(tmp_path / "job.json").report == str(tmp_path / "r")
    older = json.loads((tmp_path / "job.json").read_text(encoding="utf-8"))
    del older["report"]
    (tmp_path / "job.json").write_text(json.dumps(older))
    assert read_job(tmp_path / "job.json").report is None
