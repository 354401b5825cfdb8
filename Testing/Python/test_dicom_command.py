"""``classscaleseg segment`` with structure sets and reports in DICOM: what is written, and what is refused at once."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from ClassScaleSegLib import Segmentation
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.process.job import Job, read_job

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("nnunetv2")
sitk = pytest.importorskip("SimpleITK")

from dicom_phantom import planes, write_series  # noqa: E402


@pytest.fixture
def source(tmp_path):
    return write_series(
        tmp_path / "series", planes(16, (18, 20), spacing=(1.2, 1.0), step=(0.0, 0.0, 1.5)), FrameOfReferenceUID="1.2.3"
    )


@pytest.fixture
def segment(write_model, tmp_path):
    """Runs the command in a folder ``out`` and returns its exit code."""
    model = write_model()

    def run(*arguments):
        names = ("-o", "--statistics", "--confidence")
        pairs = zip(("", *arguments[:-1]), arguments, strict=True)
        given = [tmp_path / "out" / name if option in names else name for option, name in pairs]
        return main(["segment", *map(str, given), "-m", str(model), "--device", "cpu", "--threads", "1"])

    return run


@pytest.fixture
def refused(monkeypatch, segment, tmp_path, capsys):
    """Checks that the command ends before the computation, with a sentence."""
    from ClassScaleSegLib.inference import label_map

    def run(sentence, *arguments):
        monkeypatch.setattr(label_map, "read_image", lambda *_, **__: pytest.fail("it was read"))
        assert segment(*arguments) == ExitCode.OUTPUT
        assert sentence in capsys.readouterr().err
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())

    return run


def test_a_structure_set_has_the_structures_of_the_label_map(segment, source, tmp_path):
    assert segment(source, "-o", "a.rtstruct.dcm", "-o", "a.seg.nrrd", "--classes", "2", "5", "6") == ExitCode.OK
    found = pydicom.dcmread(tmp_path / "out" / "a.rtstruct.dcm")
    labels = Segmentation.from_image(tmp_path / "out" / "a.seg.nrrd").labels
    names = {int(item.ROINumber) for item in found.StructureSetROISequence}
    assert names == set(np.unique(labels).tolist()) - {0} and names <= {2, 5, 6}
    assert found.StructureSetDescription.endswith("model Dataset007_Small")


def test_a_report_refers_to_the_segmentation_of_the_run(segment, source, tmp_path, capsys):
    highdicom = pytest.importorskip("highdicom")
    files = ("-o", "a.seg.nrrd", "-o", "a.seg.dcm", "--statistics", "a.csv", "--statistics", "a.sr.dcm")
    assert segment(source, *files, "--json-progress") == ExitCode.OK
    out = tmp_path / "out"
    assert sorted(file.name for file in out.iterdir()) == ["a.csv", "a.seg.dcm", "a.seg.nrrd", "a.sr.dcm"]
    report = highdicom.sr.srread(out / "a.sr.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    uid = pydicom.dcmread(out / "a.seg.dcm").SOPInstanceUID
    assert {group.referenced_segment.referenced_sop_instance_uid for group in groups} == {uid}
    rows = [line.split(",") for line in (out / "a.csv").read_text().splitlines()]
    volumes = [float(row[3]) for row in rows[1:] if row[2] != "0"]
    assert [group.get_measurements()[0].value for group in groups] == pytest.approx(volumes, rel=1e-5)
    (event,) = [e for e in map(json.loads, capsys.readouterr().out.splitlines()) if e["event"] == "result"]
    assert event["statistics"].endswith("a.csv") and [file[-8:] for file in event["more_statistics"]] == ["a.sr.dcm"]
    assert segment(source, *files) == ExitCode.OUTPUT


def test_a_report_that_cannot_be_written_leaves_nothing(segment, source, tmp_path, monkeypatch):
    pytest.importorskip("highdicom")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ClassScaleSegLib.images.statistics.write_dicom_sr", fail)
    assert segment(source, "-o", "a.seg.dcm", "--statistics", "a.sr.dcm") == ExitCode.OUTPUT
    assert not list((tmp_path / "out").iterdir())


def test_what_cannot_be_written_is_refused_before_the_computation(refused, source, tmp_path):
    pytest.importorskip("highdicom")
    report = ("--statistics", "a.sr.dcm")
    refused("would refer to a DICOM segmentation, and none is written. Add -o", source, "-o", "a.seg.nrrd", *report)
    refused("would replace another result", source, "-o", "a.seg.dcm", *report, *report)
    other = write_series(
        tmp_path / "other",
        planes(16, (18, 20), spacing=(1.2, 1.0), step=(0.0, 0.0, 1.5), seed=1),
        FrameOfReferenceUID="1.2.3",
    )
    refused("give one folder for the statistics", source, other, "-o", "f", "--statistics", "a", "--statistics", "b")
    sitk.WriteImage(sitk.Image([20, 18, 16], sitk.sitkInt16), str(tmp_path / "ct.nii.gz"))
    refused("is no DICOM series", tmp_path / "ct.nii.gz", "-o", "a.rtstruct.dcm")


def test_several_series_become_structure_sets_in_a_folder(segment, source, tmp_path):
    other = write_series(
        tmp_path / "other",
        planes(16, (18, 20), spacing=(1.2, 1.0), step=(0.0, 0.0, 1.5), seed=1),
        FrameOfReferenceUID="1.2.3",
    )
    assert segment(source, other, "-o", "", "--format", ".rtstruct.dcm", "--statistics", "") == ExitCode.OK
    names = sorted(file.name for file in (tmp_path / "out").glob("[!.]*"))
    assert names == ["other.csv", "other.rtstruct.dcm", "series.csv", "series.rtstruct.dcm"]


def test_a_job_names_all_files_of_the_statistics_and_an_older_one_has_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job(("i.nrrd",), "toy-120", "o.seg.dcm", None, "s.csv", more_statistics=("s.sr.dcm",))
    job.write(tmp_path / "job.json")
    read = read_job(tmp_path / "job.json")
    assert (read.statistics, read.more_statistics) == (str(tmp_path / "s.csv"), (str(tmp_path / "s.sr.dcm"),))
    facts = json.loads((tmp_path / "job.json").read_text())
    del facts["more_statistics"]
    (tmp_path / "job.json").write_text(json.dumps(facts))
    assert read_job(tmp_path / "job.json").more_statistics == ()


def test_an_image_that_the_model_was_not_made_for_is_warned_of_once(write_model, tmp_path, capsys):
    volume = planes(16, (18, 20), spacing=(1.2, 1.0), step=(0.0, 0.0, 3.5))
    series = write_series(tmp_path / "series", volume, Modality="MR", FrameOfReferenceUID="1.2.3")
    command = [
        "segment",
        series,
        "-m",
        write_model(),
        "-m",
        write_model(root=tmp_path / "other"),
        "-o",
        tmp_path / "o.nrrd",
        "--device",
        "cpu",
    ]
    assert main([*map(str, command), "--no-mirroring"]) == ExitCode.OK
    told = capsys.readouterr().err
    for name in ("Dataset007_Small", "Dataset007_Small 2"):
        assert told.count(f"{name}: The model was made for CT, but this volume is MR: expect a wrong result.") == 1
        assert told.count(f"{name}: The voxels are up to 3.5 mm long, 3.5 times as long as the model's") == 1
    assert main(["inspect", str(write_model()), str(series)]) == ExitCode.OK
    *_, first, second = capsys.readouterr().out.splitlines()
    assert "warning  The model was made for CT" in first and "warning  The voxels are up to" in second
    assert main(["inspect", str(write_model()), str(series), "--json"]) == ExitCode.OK
    assert len(json.loads(capsys.readouterr().out)["warnings"]) == 2


def test_a_wrong_option_is_told_without_the_list_of_all(capsys):
    with pytest.raises(SystemExit) as left:
        main(["segment", "a.nrrd", "-m", "x", "-o", "o.nrrd", "--smooth", "25"])
    assert left.value.code == ExitCode.USAGE
    first, second = capsys.readouterr().err.splitlines()
    assert "argument --smooth: The smooth is 25.0; it must be a number above 0 and at most 20" in first
    assert second == "classscaleseg segment --help lists all options."


def test_many_cases_in_several_formats_end_with_a_sum(write_model, tmp_path, capsys):
    patients = tmp_path / "patients"
    for name in ("p1", "p2"):
        volume = planes(16, (18, 20), spacing=(1.2, 1.0), step=(0.0, 0.0, 1.5))
        write_series(patients / name, volume, FrameOfReferenceUID="1.2.3")
    (patients / "p3").mkdir()
    (patients / "p3" / "IM0001.dcm").write_bytes((patients / "p1" / "IM0001.dcm").read_bytes()[:700])
    model, out = write_model(), tmp_path / "out"

    def run(*more):
        command = ["segment", patients, "-m", model, "-o", out, "--device", "cpu", "--no-mirroring", *more]
        return main(list(map(str, command))), capsys.readouterr()

    formats = ("--format", ".seg.dcm", "--format", ".nii.gz", "--format", ".seg.dcm")
    code, told = run(*formats)
    assert code == ExitCode.SOME_FAILED
    assert told.out.splitlines()[-1] == "2 of 3 cases segmented, 1 failed: p3"
    names = [f"{case}{suffix}" for case in ("p1", "p2") for suffix in (".labels.csv", ".nii.gz", ".seg.dcm")]
    assert sorted(file.name for file in out.glob("[!.]*")) == sorted(names)
    (out / "p2.nii.gz").unlink()
    code, told = run(*formats, "--statistics", tmp_path / "tables", "--json-progress")
    events = [json.loads(line) for line in told.out.splitlines()]
    again = {event["case"]: event["reason"] for event in events if event["event"] == "again"}
    assert again["p1"] == again["p2"] == "made without statistics"
    assert events[-1] == {"event": "end", "case": "", "done": 2, "skipped": 0, "failed": ["p3"]}
    assert (out / "p2.nii.gz").exists() and (tmp_path / "tables" / "p1.csv").exists()


def test_a_format_that_nothing_would_get_and_options_without_the_others_are_refused(
    source, write_model, tmp_path, capsys
):
    command = ["segment", source, "-m", write_model(), "-o", tmp_path / "o.nrrd", "--device", "cpu"]
    for more, code, sentence in (
        (
            ["--format", ".seg.dcm"],
            ExitCode.OUTPUT,
            "--format is for results in a folder, and .*o.nrrd is the name of a file",
        ),
        (["--locate-margin", "5"], ExitCode.USAGE, "need a model that locates: locate_with .--locate-with"),
        (["--clean-classes", "7"], ExitCode.USAGE, "needs smooth .--smooth. or remove_islands"),
    ):
        assert main([str(word) for word in (*command, *more)]) == code
        assert re.search(sentence, capsys.readouterr().err)
    assert not (tmp_path / "o.nrrd").exists()
