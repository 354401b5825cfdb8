"""The command line: results, folders of cases, exit codes, bad input, interruption."""

import json
import os
import signal
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
from ClassScaleSegLib import Segmentation, open_model
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.resources import resource
from conftest import small_dataset, small_plans

pytest.importorskip("nnunetv2")
sitk = pytest.importorskip("SimpleITK")


@pytest.fixture
def model(write_model):
    return write_model()


@pytest.fixture
def ct(tmp_path):
    """Writes an image file and returns its path."""

    def write(name="ct.nii.gz", size=(20, 18, 24), seed=0):
        image = sitk.GetImageFromArray(np.random.default_rng(seed).normal(50, 30, size).astype(np.int16))
        image.SetSpacing((1.1, 0.9, 1.4))
        image.SetOrigin((-3.0, 2.0, 8.0))
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(tmp_path / name))
        return tmp_path / name

    return write


def run(*arguments):
    return main([str(a) for a in arguments])


def cpu(*arguments):
    return run("segment", *arguments, "--device", "cpu", "--threads", 1)


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz", ".mha"])
def test_one_image_becomes_one_file_on_its_own_grid(model, ct, tmp_path, suffix):
    image, out = ct(), tmp_path / "results" / f"out{suffix}"
    assert cpu(image, "-m", model, "-o", out) == ExitCode.OK
    written, original = sitk.ReadImage(str(out)), sitk.ReadImage(str(image))
    assert written.GetSize() == original.GetSize()
    assert written.GetOrigin() == pytest.approx(original.GetOrigin())
    assert written.GetSpacing() == pytest.approx(original.GetSpacing())
    beside = {f"out{suffix}"} if suffix == ".seg.nrrd" else {f"out{suffix}", "out.labels.csv"}
    assert {p.name for p in out.parent.iterdir()} == beside


def test_confidence_and_statistics_come_along(model, ct, tmp_path, capsys):
    files = ["-o", tmp_path / "o.nii.gz", "--confidence", tmp_path / "c.nrrd", "--statistics", tmp_path / "s.csv"]
    assert cpu(ct(), "-m", model, *files, "--classes", "organ 3", "organ 4") == ExitCode.OK
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "o.nii.gz")))
    assert set(np.unique(labels)) <= {0, 3, 4}
    confidence = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "c.nrrd")))
    assert confidence.dtype == np.float32 and 0 < confidence.min() and confidence.max() <= 1
    rows = (tmp_path / "s.csv").read_text().splitlines()
    assert rows[0].startswith("LabelValue,Name,Voxels,Volume_mL")
    organ = next(row.split(",") for row in rows if row.startswith("3,organ 3,"))
    assert int(organ[2]) == (labels == 3).sum()
    assert float(organ[3]) == pytest.approx((labels == 3).sum() * 1.1 * 0.9 * 1.4 / 1000, rel=1e-4)
    assert "structures in" in capsys.readouterr().out


def test_a_folder_of_cases_resumes_and_outlives_a_broken_one(model, ct, tmp_path, capsys):
    for i, name in enumerate("abc"):
        ct(f"cases/{name}_0000.nii.gz", seed=i)
    (tmp_path / "cases" / "b_0000.nii.gz").write_bytes(b"broken")
    out = tmp_path / "out"
    assert cpu(tmp_path / "cases", "-m", model, "-o", out, "--statistics", out) == ExitCode.SOME_FAILED
    assert {p.name for p in out.glob("[!.]*")} == {"a.seg.nrrd", "a.csv", "c.seg.nrrd", "c.csv"}
    assert "b_0000.nii.gz" in capsys.readouterr().err
    before = (out / "a.seg.nrrd").stat().st_mtime_ns
    ct("cases/b_0000.nii.gz", seed=1)
    assert cpu(tmp_path / "cases", "-m", model, "-o", out, "--statistics", out, "--json-progress") == ExitCode.OK
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["case"] for e in events if e["event"] == "skipped"] == ["a", "c"]
    assert [e["output"] for e in events if e["event"] == "result"] == [str(out / "b.seg.nrrd")]
    assert [e["stage"] for e in events if e["event"] == "progress"][-1] == "write"
    assert (out / "a.seg.nrrd").stat().st_mtime_ns == before


def test_an_unexpected_fault_in_one_case_does_not_stop_the_others(model, ct, tmp_path, capsys, monkeypatch):
    from ClassScaleSegLib.inference import label_map

    for i, name in enumerate("ab"):
        ct(f"cases/{name}.nii.gz", seed=i)
    original = label_map.read_image

    def read(source, *rest, **more):
        if "a.nii.gz" in str(source):
            raise ZeroDivisionError("a bug")
        return original(source, *rest, **more)

    monkeypatch.setattr(label_map, "read_image", read)
    assert cpu(tmp_path / "cases", "-m", model, "-o", tmp_path / "out") == ExitCode.SOME_FAILED
    assert "a failed unexpectedly (ZeroDivisionError: a bug)" in capsys.readouterr().err
    assert {p.name for p in (tmp_path / "out").glob("[!.]*")} == {"b.seg.nrrd"}


def test_it_can_be_called_from_a_thread(model, ct, tmp_path):
    codes, image = [], ct()
    call = threading.Thread(target=lambda: codes.append(cpu(image, "-m", model, "-o", tmp_path / "o.nrrd")))
    call.start()
    call.join()
    assert codes == [ExitCode.OK]


def test_a_device_that_is_not_here_is_named(model, ct, tmp_path, capsys):
    assert run("segment", ct(), "-m", model, "-o", tmp_path / "o.nrrd", "--device", "cuda:7") == ExitCode.FAULT
    assert "There is no device cuda:7 here" in capsys.readouterr().err


def test_channels_of_a_case_are_separate_files(write_model, ct, tmp_path):
    model = write_model(small_plans(channels=2), small_dataset(channels=2))
    files = [ct(f"cases/x_000{channel}.nii.gz", seed=channel) for channel in range(2)]
    assert cpu(*files, "-m", model, "-o", tmp_path / "one.nrrd") == ExitCode.OK
    assert cpu(tmp_path / "cases", "-m", model, "-o", tmp_path / "out", "--format", ".nrrd") == ExitCode.OK
    one, two = (sitk.ReadImage(str(f)) for f in (tmp_path / "one.nrrd", tmp_path / "out" / "x.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(two))
    assert cpu(files[0], "-m", model, "-o", tmp_path / "two.nrrd") == ExitCode.IMAGE


def test_an_existing_result_is_kept_unless_told_otherwise(model, ct, tmp_path, capsys):
    out = tmp_path / "out.seg.nrrd"
    out.write_text("precious")
    assert cpu(ct(), "-m", model, "-o", out) == ExitCode.OUTPUT
    assert out.read_text() == "precious" and f"{out} already exists" in capsys.readouterr().err
    assert cpu(ct(), "-m", model, "-o", out, "--overwrite") == ExitCode.OK
    assert Segmentation.from_image(out).labels.shape == (20, 18, 24)


def bad_images(tmp_path, good):
    content = good.read_bytes()
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "truncated.nii.gz").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.nii.gz").write_text("no image")
    sitk.WriteImage(sitk.ReadImage(str(good))[:, :, 3], str(tmp_path / "flat.mha"))
    broken = sitk.Cast(sitk.ReadImage(str(good)), sitk.sitkFloat32)
    broken[1, 2, 3] = float("nan")
    sitk.WriteImage(broken, str(tmp_path / "nan.nrrd"))
    sitk.WriteImage(sitk.Compose([broken, broken]), str(tmp_path / "vector.nrrd"))
    sitk.WriteImage(sitk.ReadImage(str(good)), str(tmp_path / "plain.nii"))
    for name, offset, form, values in (
        ("zero.nii", 80, "<f", (0,)),
        ("negative.nii", 80, "<f", (-1,)),
        ("gigantic.nii", 42, "<hhh", (32000, 32000, 32000)),
    ):
        changed = bytearray((tmp_path / "plain.nii").read_bytes())
        struct.pack_into(form, changed, offset, *values)
        (tmp_path / name).write_bytes(changed)
    return {
        "absent.nii.gz": "does not exist",
        "empty.nii.gz": "is empty",
        "truncated.nii.gz": "is truncated",
        "text.nii.gz": "is not an image that SimpleITK can read",
        "flat.mha": "is a 2D image",
        "nan.nrrd": "1 voxels that are NaN or infinite",
        "vector.nrrd": "1 file(s) with 2 channels were given, but the model needs 1",
        "zero.nii": "every spacing must be positive",
        "negative.nii": "every spacing must be positive",
        "gigantic.nii": "declares 32000x32000x32000 voxels",
    }


def test_a_bad_image_is_one_sentence_and_nothing_is_written(model, ct, tmp_path, capsys):
    for name, sentence in bad_images(tmp_path, ct()).items():
        assert cpu(tmp_path / name, "-m", model, "-o", tmp_path / "out" / "o.seg.nrrd") == ExitCode.IMAGE, name
        said = capsys.readouterr().err
        assert sentence in said and name in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_bad_model_is_one_sentence(model, ct, tmp_path, capsys):
    image = ct()
    assert cpu(image, "-m", tmp_path / "nowhere", "-o", tmp_path / "o.seg.nrrd") == ExitCode.MODEL
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    assert cpu(image, "-m", model, "-o", tmp_path / "o.seg.nrrd") == ExitCode.MODEL
    assert "checkpoint_final.pth" in capsys.readouterr().err.splitlines()[-1]


def test_labels_and_weights_that_disagree(model, ct, tmp_path, capsys):
    dataset = json.loads((model / "dataset.json").read_text())
    dataset["labels"]["one more"] = 21
    (model / "dataset.json").write_text(json.dumps(dataset))
    assert cpu(ct(), "-m", model, "-o", tmp_path / "o.seg.nrrd") == ExitCode.MODEL
    assert "they have 21 classes, dataset.json has 22" in capsys.readouterr().err


def test_an_unknown_class_names_its_neighbours(model, ct, tmp_path, capsys):
    assert cpu(ct(), "-m", model, "-o", tmp_path / "o.nrrd", "--classes", "orgam 3") == ExitCode.LABELS
    assert "organ 3" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="folders take their permissions from elsewhere on Windows")
def test_an_output_that_cannot_be_written_is_known_before_the_work(model, ct, tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert cpu(ct(), "-m", model, "-o", tmp_path / "file" / "o.seg.nrrd") == ExitCode.OUTPUT
    assert "cannot be written" in capsys.readouterr().err
    assert cpu(ct(), "-m", model, "-o", tmp_path / "o.jpg") == ExitCode.OUTPUT
    assert "o.jpg: this file format cannot be written here" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_leaves_nothing(model, ct, tmp_path, monkeypatch, capsys):
    from ClassScaleSegLib.images import formats

    def full(path, *_given, **_more):
        path.write_bytes(b"some")
        with open("/dev/full", "wb") as disk:
            disk.write(b"x" * 100_000)

    monkeypatch.setattr(formats, "write_seg_nrrd", full)
    assert cpu(ct(), "-m", model, "-o", tmp_path / "out" / "o.seg.nrrd") == ExitCode.OUTPUT
    assert "No space left on device" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("stage", ["begin", "read", "segment", "write"])
def test_interrupted_at_any_stage_it_leaves_nothing(model, ct, tmp_path, stage):
    image, out = ct(size=(40, 60, 60)), tmp_path / "out"
    command = [sys.executable, "-m", "ClassScaleSegLib", "segment", image, "-m", model, "-o", out / "o.seg.nrrd"]
    command += ["--confidence", out / "c.nrrd", "--json-progress", "--device", "cpu", "--threads", "1"]
    command += ["--no-mirroring"]
    options = {"stdout": subprocess.PIPE, "text": True, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    # a shell's background job, such as a CI's, hands down an ignored SIGINT
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen([str(c) for c in command], **options) as process:
        for line in process.stdout:
            event = json.loads(line)
            if stage in (event["event"], event.get("stage")):
                process.send_signal(signal.SIGINT if stage != "read" else signal.SIGTERM)
                break
        rest = process.stdout.read()
    assert process.returncode == ExitCode.CANCELLED
    assert json.loads(rest.splitlines()[-1])["kind"] == "Cancelled"
    assert not out.exists() or list(out.iterdir()) == []


def test_a_process_whose_reading_was_cancelled_ends_without_waiting_for_it():
    code = """
import threading, time
from ClassScaleSegLib import __main__ as command
from ClassScaleSegLib.inference.progress import Monitor

def main(arguments):
    try:
        Monitor().wait_for(lambda: threading.Timer(0.2, __import__("_thread").interrupt_main).start() or time.sleep(60))
    except KeyboardInterrupt:
        print("cancelled")
        return 130

command.main = main
command.run()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (130, "cancelled\n"), ended.stderr


def test_inspect_tells_what_a_model_is_and_what_a_job_takes(model, ct, capsys):
    assert run("inspect", model, ct(), "--json") == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert facts["number of classes"] == 20 and facts["rank"] == 8 and facts["patch"] == [16, 16, 16]
    assert facts["classes"]["3"] == "organ 3"
    assert facts["model grid"] == [28, 16, 26] and facts["windows"] == 3 * 1 * 3
    assert 0.3 < facts["memory on a CPU (GiB)"] < 1


def test_inspect_warns_of_a_header_with_two_places_as_segment_does(model, ct, tmp_path, capsys):
    nib = pytest.importorskip("nibabel")
    read = nib.load(ct())
    moved = read.affine.copy()
    moved[0, 3] += 7
    read.set_qform(read.affine, 1)
    read.set_sform(moved, 1)
    nib.save(read, tmp_path / "two.nii.gz")
    assert run("inspect", model, tmp_path / "two.nii.gz", "--json") == ExitCode.OK
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert "7.00 mm apart" in warning
    assert cpu(tmp_path / "two.nii.gz", "-m", model, "-o", tmp_path / "o.nrrd") == ExitCode.OK
    assert warning in " ".join(capsys.readouterr().err.split())


def test_pack_makes_a_bundle_that_segments_alike(model, ct, tmp_path):
    image, bundle = ct(), tmp_path / "small.zip"
    assert run("pack", model, "-o", bundle, "--name", "Small", "--licence", "CC0-1.0") == ExitCode.OK
    for source, out in ((model, "a.nrrd"), (bundle, "b.nrrd")):
        assert cpu(image, "-m", source, "-o", tmp_path / out) == ExitCode.OK
    a, b = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / n))) for n in ("a.nrrd", "b.nrrd"))
    assert np.array_equal(a, b)
    assert run("pack", model, "-o", bundle) == ExitCode.OUTPUT
    half, quarter = tmp_path / "half.zip", tmp_path / "quarter.zip"
    assert run("pack", model, "-o", half, "--bits", 16) == ExitCode.OK
    assert run("pack", model, "-o", quarter, "--bits", 8) == ExitCode.OK
    assert quarter.stat().st_size < half.stat().st_size < bundle.stat().st_size


def test_a_demo_that_is_not_there_is_refused_by_name(tmp_path, capsys):
    assert run("demo", "feet", "-o", tmp_path) == ExitCode.FAULT
    assert "no demo 'feet'" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "classes"), [(None, 120), ("toy-1000", 1000)])
def test_a_toy_demo_reaches_what_its_card_promises(name, classes, tmp_path, capsys):
    assert run("demo", *([name] if name else []), "-o", tmp_path, "--device", "cpu") == ExitCode.OK
    files = {f"toy-{classes}.{kind}" for kind in ("seg.nrrd", "csv", "png")}
    assert {p.name for p in tmp_path.iterdir()} == files | {"report"} and (tmp_path / "report" / "index.html").is_file()
    assert (tmp_path / f"toy-{classes}.png").read_bytes().startswith(b"\x89PNG")
    assert f"{classes} structures" in (said := capsys.readouterr().out) and "mean Dice 0.9" in said


def test_the_head_demo_finds_over_250_structures_with_left_on_the_left(tmp_path, capsys):
    assert run("demo", "head", "-o", tmp_path, "--device", "cpu") == ExitCode.OK
    assert "Dice" not in capsys.readouterr().out
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "head-mr.seg.nrrd")))
    assert len(np.unique(labels)) - 1 > 250
    value = {name: label for label, name in open_model(resource("Models", "head-mr-312.zip")).table.names.items()}
    left, right = (
        np.argwhere(labels == value[f"white matter of {side} cerebral hemisphere"])[:, 2].mean()
        for side in ("left", "right")
    )
    assert left > right + 20  # x runs from right to left


# --- DICOM segmentations


@pytest.fixture
def dicom(tmp_path):
    """Writes a DICOM series and returns its folder."""
    pytest.importorskip("highdicom")
    from dicom_phantom import planes, write_series

    return write_series(
        tmp_path / "series", planes(16, (18, 20), spacing=(1.2, 1.0), step=(0.0, 0.0, 1.5)), FrameOfReferenceUID="1.2.3"
    )


@pytest.mark.parametrize("kind", ["labelmap", "binary"])
def test_a_series_becomes_a_dicom_segmentation(model, dicom, tmp_path, kind):
    import pydicom

    out = tmp_path / "results" / "out.seg.dcm"
    assert cpu(dicom, "-m", model, "-o", out, "--dicom-seg", kind) == ExitCode.OK
    assert cpu(dicom, "-m", model, "-o", tmp_path / "out.seg.nrrd") == ExitCode.OK
    ours, plain = Segmentation.from_image(out), Segmentation.from_image(tmp_path / "out.seg.nrrd")
    found = pydicom.dcmread(out)
    assert found.SegmentationType == {"labelmap": "LABELMAP", "binary": "BINARY"}[kind]
    assert found.SegmentSequence[-1].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters == (
        "model=Dataset007_Small"
    )
    assert np.array_equal(ours.labels, plain.labels) and ours.table.names == plain.table.names
    assert ours.geometry.distance(plain.geometry) < 1e-9
    assert [p.name for p in out.parent.iterdir()] == ["out.seg.dcm"]


def test_a_dicom_segmentation_names_the_file_of_the_model(dicom, tmp_path):
    import hashlib

    import pydicom

    toy = resource("Models", "toy-120.zip")
    assert cpu(dicom, "-m", toy, "-o", tmp_path / "out.seg.dcm") == ExitCode.OK
    item = pydicom.dcmread(tmp_path / "out.seg.dcm").SegmentSequence[-1]
    said = item.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    assert said.endswith(f"sha256={hashlib.sha256(toy.read_bytes()).hexdigest()}") and "model=Toy atlas" in said


def test_a_dicom_segmentation_of_another_format_is_refused_before_the_computation(
    model, ct, tmp_path, capsys, monkeypatch
):
    from ClassScaleSegLib.inference import label_map

    pytest.importorskip("highdicom")
    monkeypatch.setattr(label_map, "read_image", lambda *_, **__: pytest.fail("it was read"))
    assert cpu(ct(), "-m", model, "-o", tmp_path / "out.seg.dcm") == ExitCode.OUTPUT
    assert "is no DICOM series, so a DICOM segmentation of it would have no patient" in capsys.readouterr().err
    assert not (tmp_path / "out.seg.dcm").exists()


def test_several_series_become_dicom_segmentations_in_a_folder(model, dicom, tmp_path):
    from dicom_phantom import planes, write_series

    other = write_series(
        tmp_path / "other",
        planes(16, (18, 20), spacing=(1.2, 1.0), step=(0.0, 0.0, 1.5), seed=1),
        FrameOfReferenceUID="1.2.3",
    )
    assert cpu(dicom, other, "-m", model, "-o", tmp_path / "out", "--format", ".seg.dcm") == ExitCode.OK
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == ["other.seg.dcm", "series.seg.dcm"]


def test_one_run_writes_several_formats(model, dicom, tmp_path, capsys):
    names = ("out.seg.nrrd", "out.nii.gz", "out.seg.dcm")
    outputs = [argument for name in names for argument in ("-o", tmp_path / "results" / name)]
    assert cpu(dicom, "-m", model, *outputs, "--json-progress") == ExitCode.OK
    first, second, third = (Segmentation.from_image(tmp_path / "results" / name) for name in names)
    assert np.array_equal(first.labels, third.labels) and np.array_equal(first.labels, second.labels)
    assert {p.name for p in (tmp_path / "results").iterdir()} == {*names, "out.labels.csv"}
    (event,) = [e for e in map(json.loads, capsys.readouterr().out.splitlines()) if e["event"] == "result"]
    assert event["output"].endswith("out.seg.nrrd") and [f[-10:] for f in event["more_outputs"]] == [
        "out.nii.gz",
        "ut.seg.dcm",
    ]


def test_outputs_that_replace_each_other_are_refused_before_the_computation(model, ct, tmp_path, capsys):
    for names in (("a.nii.gz", "a.mha"), ("a.seg.nrrd", "a.seg.nrrd")):
        outputs = [argument for name in names for argument in ("-o", tmp_path / name)]
        assert cpu(ct(), "-m", model, *outputs) == ExitCode.OUTPUT
        assert "would replace another result" in capsys.readouterr().err
    for name in "ab":
        ct(f"cases/{name}.nii.gz")
    several = ["-o", tmp_path / "out", "-o", tmp_path / "more"]
    assert cpu(tmp_path / "cases", "-m", model, *several) == ExitCode.OUTPUT
    assert "With several images, give one folder" in capsys.readouterr().err
    assert not list(tmp_path.glob("a.*")) and not (tmp_path / "out").exists()
