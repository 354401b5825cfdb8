"""``classscaleseg segment --server``: all of the command works, without torch and without a model on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import Options, Segmentation, addresses, errors
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.process import SegmentationProcess, child
from ClassScaleSegLib.process.job import Job, job_of, parse_event, read_job
from ClassScaleSegLib.server.offers import Offers
from ClassScaleSegLib.server.tokens import Tokens
from dicom_phantom import planes, write_series
from remote_fixtures import Quick, fail, free_port, lying_server, quick_server

# An interpreter that has neither the packages of inference and of the server, nor a catalogue.
WITHOUT = """
import sys
for name in ("torch", "nnunetv2", "fastapi", "uvicorn", "safetensors"):
    sys.modules[name] = None
import ClassScaleSegLib.catalog.catalog as catalog
def refuse(*_, **__):
    raise AssertionError("a model was looked up on this machine")
catalog.Catalog.find = catalog.resolve_model = refuse
from ClassScaleSegLib.commands.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def offers():
    return Offers(["toy-120", "toy-1000"])


@pytest.fixture
def quick():
    return Quick()


@pytest.fixture
def api(tmp_path, offers, quick, monkeypatch):
    with quick_server(tmp_path / "server", offers, quick, monkeypatch) as api:
        yield api
        assert api.files() == []


@pytest.fixture
def image(tmp_path) -> Path:
    return written(tmp_path / "ct.nii.gz")


def written(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(7).normal(0, 100, (20, 22, 24)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), file)
    return file


def bare(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in such an interpreter."""
    command = [sys.executable, "-c", WITHOUT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


def test_all_results_of_a_case_are_made_without_torch_and_without_a_catalogue(api, quick, image, tmp_path):
    quick.before = quick.until_told
    out = tmp_path / "out"
    words = ["segment", image, "-m", "toy-120", "--server", api.address, "-o", out / "a.seg.nrrd", "-o", out / "a.nii"]
    words += ["--statistics", out / "a.csv", "--confidence", out / "c.nrrd", "--report", out / "report"]
    run = bare(*words, "--json-progress")
    assert run.returncode == 0, run.stderr
    events = [json.loads(line) for line in run.stdout.splitlines()]
    stages = list(dict.fromkeys(event["stage"] for event in events if event["event"] == "progress"))
    assert stages[:2] == ["read", "send"] and stages[-2:] == ["fetch", "write"] and "segment" in stages
    assert events[-1]["event"] == "result" and events[-1]["structures"] == 1
    messages = [event["message"] for event in events if event.get("message")]
    assert "A notice." in messages
    (need,) = [message for message in messages if "will need" in message]
    assert need.startswith(f"{api.address} will need about ") and "GB of RAM; this does not grow with" in need
    assert "classes. That fits: there are " in need or "classes. That is too much: there are " in need
    result = Segmentation.from_image(out / "a.seg.nrrd")
    assert result.table.names == {1: "cell 1"} and result.labels.sum() > 100
    assert (out / "a.csv").read_text().count("\n") == 121
    case = json.loads((out / "report" / "cases" / "a.json").read_text())["facts"]
    assert case["run"]["device"].startswith(f"{api.address} (cpu")
    assert case["run"]["models"][0]["sha256"] == api("get", "models").json()["models"][0]["sha256"][0]


def test_many_cases_are_segmented_and_finished_ones_skipped(api, quick, tmp_path, capsys):
    for name in ("a", "b", "c"):
        written(tmp_path / "in" / f"{name}.nii.gz")
    words = ["segment", str(tmp_path / "in"), "-m", "toy-120", "--server", api.address, "-o", str(tmp_path / "out")]
    assert main(words) == ExitCode.OK
    assert sorted(file.name for file in (tmp_path / "out").glob("*.seg.nrrd")) == [f"{c}.seg.nrrd" for c in "abc"]
    (tmp_path / "out" / "b.seg.nrrd").unlink()
    assert main(words) == ExitCode.OK
    assert len(quick.seen) == 4
    out, err = capsys.readouterr()
    assert "with another model" not in out and "will need" not in err
    assert main([*words, "--step", "1"]) == ExitCode.OK  # another recipe keeps what is there


def test_one_of_many_cases_that_fails_does_not_stop_the_others(api, quick, tmp_path):
    for name in ("a", "b"):
        written(tmp_path / "in" / f"{name}.nii.gz")
    failing = fail(errors.OutOfMemoryError, "Too large.")
    quick.before = lambda job: failing(job) if len(quick.seen) == 1 else None
    words = ["segment", str(tmp_path / "in"), "-m", "toy-120", "--server", api.address, "-o", str(tmp_path / "out")]
    assert main(words) == ExitCode.SOME_FAILED
    assert [file.name for file in (tmp_path / "out").glob("*.seg.nrrd")] == ["b.seg.nrrd"]


def test_a_dicom_series_becomes_a_dicom_segmentation(api, tmp_path):
    pydicom, _ = pytest.importorskip("pydicom"), pytest.importorskip("highdicom")
    series = write_series(tmp_path / "series", planes())
    out = tmp_path / "out.seg.dcm"
    assert main(["segment", str(series), "-m", "toy-120", "--server", api.address, "-o", str(out)]) == ExitCode.OK
    found = pydicom.dcmread(out)
    assert found.Modality == "SEG" and "Toy atlas" in str(found)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ModelError, ExitCode.MODEL),
        (errors.ImageError, ExitCode.IMAGE),
        (errors.OutputError, ExitCode.OUTPUT),
        (errors.OutOfMemoryError, ExitCode.OUT_OF_MEMORY),
        (errors.LabelTableError, ExitCode.LABELS),
        (errors.ClassScaleError, ExitCode.FAULT),
    ],
)
def test_the_exit_code_is_that_of_the_job_on_the_server(api, quick, image, tmp_path, capsys, kind, code):
    quick.before = fail(kind, "It failed.")
    words = ["segment", str(image), "-m", "toy-120", "--server", api.address, "-o", str(tmp_path / "a.nrrd")]
    assert main(words) == code
    assert f"{api.address}: It failed." in capsys.readouterr().err and not (tmp_path / "a.nrrd").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--device", "cpu"], "--device cannot be given beside --server"),
        (["--threads", "2", "--memory-limit", "4"], "--threads, --memory-limit cannot be given beside --server"),
        (["--checkpoint", "best"], "--checkpoint cannot be given beside --server"),
        (["--cluster", "local:2"], "--cluster cannot be given beside --server"),
    ],
)
def test_what_the_server_decides_is_a_wrong_command_line(image, tmp_path, capsys, more, sentence):
    words = ["segment", str(image), "-m", "toy-120", "--server", f"localhost:{free_port()}", "-o", "a.nrrd"]
    assert main([*words, *more]) == ExitCode.USAGE
    assert sentence in capsys.readouterr().err


def test_options_of_a_server_without_one_are_a_wrong_command_line(image, capsys):
    assert main(["segment", str(image), "-m", "toy-120", "-o", "a.nrrd", "--server-ca", "a.pem"]) == ExitCode.USAGE
    assert "--server-ca needs a server. Name it (--server)." in capsys.readouterr().err
    assert main(["segment", str(image), "-m", "toy-120", "-o", "a.nrrd", "--insecure"]) == ExitCode.USAGE
    assert "--insecure needs a server. Name it (--server)." in capsys.readouterr().err


def test_faults_of_the_server_are_sentences_on_standard_error(image, tmp_path, capsys):
    out = ["-o", str(tmp_path / "a.nrrd")]
    for address, sentence in (("lab:8471", "lacks its beginning"), (f"localhost:{free_port()}", "cannot be reached")):
        assert main(["segment", str(image), "-m", "toy-120", "--server", address, *out]) == ExitCode.FAULT
        assert sentence in capsys.readouterr().err


def test_the_token_comes_from_the_environment_or_a_file(tmp_path, offers, quick, monkeypatch, image, capsys):
    secret = Tokens(tmp_path / "server").make("anna")
    (tmp_path / "token").write_text(f"{secret}\n")
    (tmp_path / "wrong").write_text("wrong")
    monkeypatch.delenv("CLASSSCALESEG_TOKEN", raising=False)
    with quick_server(tmp_path / "server", offers, quick, monkeypatch, require_token=True) as api:
        words = ["segment", str(image), "-m", "toy-120", "--server", api.address, "--overwrite"]
        words += ["-o", str(tmp_path / "a.nrrd")]
        assert main(words) == ExitCode.FAULT
        assert "asks for a token. Put it into the environment variable" in capsys.readouterr().err
        assert main([*words, "--server-token-file", str(tmp_path / "wrong")]) == ExitCode.FAULT
        assert "does not take the token" in capsys.readouterr().err
        assert main([*words, "--server-token-file", str(tmp_path / "nothing")]) == ExitCode.FAULT
        assert "should hold the token" in capsys.readouterr().err
        assert main([*words, "--server-token-file", str(tmp_path / "token")]) == ExitCode.OK
        monkeypatch.setenv("CLASSSCALESEG_TOKEN", secret)
        assert main(words) == ExitCode.OK
        assert secret not in "".join(capsys.readouterr())


def test_nothing_is_sent_where_others_could_read_it_unless_the_user_allows_it(image, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(addresses, "is_private", lambda address: False)
    monkeypatch.delenv("CLASSSCALESEG_TOKEN", raising=False)
    with lying_server() as liar:
        words = ["segment", str(image), "-m", "toy-120", "--server", liar.address, "-o", str(tmp_path / "a.nrrd")]
        said = f"The connection to {liar.address} is not encrypted, so others in the network could read the images"
        assert main(words) == ExitCode.USAGE
        assert f"{said}. Nothing was sent. Use an address of https, or allow it" in capsys.readouterr().err
        monkeypatch.setenv("CLASSSCALESEG_TOKEN", "secret")
        assert main([*words, "--json-progress"]) == ExitCode.USAGE
        event = parse_event(capsys.readouterr().out)
        assert event.kind == "error" and event.text.startswith(f"{said} and the token. Nothing was sent.")
        job = Job((image,), "toy-120", tmp_path / "a.nrrd", server=liar.address)
        job.write(tmp_path / "job.json")
        assert main(["segment", "--job", str(tmp_path / "job.json")]) == ExitCode.USAGE and liar.requests == []
        replace(job, insecure=True).write(tmp_path / "job.json")
        for allowed in ([*words, "--insecure"], ["segment", "--job", str(tmp_path / "job.json")]):
            liar.requests.clear()
            assert main(allowed) == ExitCode.FAULT  # it offers no models
            assert "/v1/models" in [path for _method, path, _headers in liar.requests]
            assert liar.requests[0][2]["Authorization"] == "Bearer secret"


def test_a_job_with_a_server_comes_back_from_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy-120").mkdir()  # a folder here is not the model of the server
    options = Options(locate_with="toy-120")
    job = Job(
        ("ct.nrrd",), "toy-120", "a.seg.nrrd", options=options, server="http://lab", server_ca="ca.pem", insecure=True
    )
    job.write(tmp_path / "job.json")
    found = read_job(tmp_path / "job.json")
    assert (found.models, found.server, found.insecure) == (("toy-120",), "http://lab", True)
    assert found.options.locate_with == "toy-120" and found.server_ca == str(tmp_path / "ca.pem")
    for name in ("server", "server_ca", "insecure"):
        with pytest.raises(errors.ClassScaleError, match=name):
            job_of({**job.facts(), name: ["http://lab"]})


def test_the_child_process_of_the_panel_segments_on_a_server(api, quick, image):
    quick.before = quick.until_told
    with SegmentationProcess() as process:
        output = process.work_folder / "a.seg.nrrd"
        confidence = process.work_folder / "c.nrrd"
        process.job = Job((image,), ("toy-120",), output, confidence=confidence, server=api.address)
        process.start()
        stages = []
        while process.state == "running":
            stages += [event.stage for event in process.poll()]
            time.sleep(0.02)
        assert process.state == "finished", process.error
        assert Segmentation.from_image(output).table.names == {1: "cell 1"} and confidence.exists()
    assert "segment" in stages


def test_cancelling_the_child_process_cancels_the_job_on_the_server(api, quick, image, monkeypatch):
    monkeypatch.setattr(child, "_SECONDS_TO_STOP", 30.0)  # it is not killed on a machine that stood still
    quick.before = lambda job: job.stop.wait(20)
    with SegmentationProcess() as process:
        process.job = Job((image,), ("toy-120",), process.work_folder / "a.seg.nrrd", server=api.address)
        process.start()
        while not quick.seen:
            process.poll()
            time.sleep(0.02)
        process.cancel()
        assert process.state == "cancelled"
    until = time.monotonic() + 30
    while api.files() and time.monotonic() < until:
        time.sleep(0.02)
    assert api("get", "health").json()["queue"] == {"waiting": 0, "running": 0}


@pytest.mark.parametrize("name", ["device", "threads", "memory_limit_gib", "checkpoint"])
def test_a_job_with_what_the_server_decides_is_refused(tmp_path, image, name, capsys):
    value = {"device": "cpu", "threads": 2, "memory_limit_gib": 4.0, "checkpoint": "best"}[name]
    job = Job((image,), "toy-120", tmp_path / "a.nrrd", options=Options(**{name: value}), server="http://lab")
    job.write(tmp_path / "job.json")
    assert main(["segment", "--job", str(tmp_path / "job.json")]) == ExitCode.FAULT
    assert f"The server chooses {name}. Leave that out." in capsys.readouterr().err


def test_nothing_is_sent_if_the_result_cannot_be_written(api, quick, image, tmp_path):
    (tmp_path / "a.nrrd").write_text("mine")
    words = ["segment", str(image), "-m", "toy-120", "--server", api.address, "-o", str(tmp_path / "a.nrrd")]
    assert main(words) == ExitCode.OUTPUT
    assert quick.seen == [] and (tmp_path / "a.nrrd").read_text() == "mine"
