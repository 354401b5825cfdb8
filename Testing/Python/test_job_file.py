"""The file that tells a child process its job: what is read from it, and what is refused."""

import json
import tempfile
from dataclasses import replace

import pytest
from ClassScaleSegLib import Options
from ClassScaleSegLib.commands.main import ExitCode, _parser, main
from ClassScaleSegLib.commands.segment_options import job_of_options
from ClassScaleSegLib.process import Job
from ClassScaleSegLib.process.job import read_job
from ClassScaleSegLib.resources import resource
from conftest import TOY

pytest.importorskip("nnunetv2")
SAMPLE = resource("SampleData", "toy-120.nrrd")


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The system's temporary folder, empty at the start and at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def test_a_job_is_read_from_its_file_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own model").mkdir()
    options = Options(
        "cuda:1",
        0.3,
        False,
        ("--liver", "left kidney", 7),
        False,
        4.5,
        3,
        ("0", "all"),
        "best",
        "3d_lowres",
        True,
        "binary",
    )
    job = Job(("-0.nrrd", "1.nrrd"), ("own model", "toy-120"), "o.nrrd", "c.nrrd", "s.csv", options, ("o.seg.dcm",))
    job.write(tmp_path / "job.json")
    read = read_job(tmp_path / "job.json")
    assert read.images == (str(tmp_path / "-0.nrrd"), str(tmp_path / "1.nrrd"))
    assert read.models == (str(tmp_path / "own model"), "toy-120")
    assert [read.output, read.confidence, read.statistics] == [
        str(tmp_path / name) for name in ("o.nrrd", "c.nrrd", "s.csv")
    ]
    assert read.options == options and read.more_outputs == (str(tmp_path / "o.seg.dcm"),)
    Job(("i.nrrd",), "toy-120", "o.nrrd").write(tmp_path / "job.json")
    plain = read_job(tmp_path / "job.json")
    assert plain.options == Options() and plain.confidence is None and plain.models == ("toy-120",)
    command = ["segment", plain.images[0], "-m", "toy-120", "-o", plain.output]
    assert job_of_options(_parser().parse_args(command)) == plain
    command += ["--folds", "0", "all", "--checkpoint=best", "--configuration=3d_lowres", "--device=cuda:1"]
    command += ["--step=0.3", "--no-mirroring", "--classes=--liver", "--classes", "left kidney", "7"]
    command += ["--memory-limit=4.5", "--threads=3", "--keep-empty", "--dicom-seg=binary"]
    given = job_of_options(_parser().parse_args(command)).options
    assert given == replace(options, classes=("--liver", "left kidney", "7"))


JOB = {"images": ["i.nrrd"], "model": ["toy-120"], "output": "o.nrrd"}
FAULTS = {
    "{": "cannot be read as a job in JSON (Expecting property name",
    "[" * 100_000: "cannot be read as a job in JSON",
    "[]": "must be JSON objects",
    '{"options": []}': "must be JSON objects",
    '{"shell": "true"}': "There is no option shell. The options are confidence, images, ",
    '{"options": {"memory_limit": 1}}': "There is no option memory_limit. The options are bfloat16, checkpoint, ",
    json.dumps({"model": ["toy-120"], "output": "o.nrrd"}): "images must be a list of one or more texts",
    json.dumps({**JOB, "model": "toy-120"}): "model must be a list of one or more texts",
    json.dumps({**JOB, "images": [1]}): "images must be a list of one or more texts",
    json.dumps({**JOB, "output": None}): "output must be the path of a file",
    json.dumps({**JOB, "statistics": 3}): "statistics must be the path of a file",
    json.dumps({**JOB, "more_outputs": "o.mha"}): "more_outputs must be a list of paths of files",
    json.dumps({**JOB, "options": {"step": "0.5"}}): "The step is '0.5'; it must be a number above 0",
    json.dumps({**JOB, "options": {"step": float("nan")}}): "The step is nan; it must be a number above 0",
    json.dumps({**JOB, "options": {"threads": True}}): "The threads is True; it must be a whole number",
    json.dumps({**JOB, "options": {"threads": 10**400}}): "it must be a whole number",
    json.dumps({**JOB, "options": {"memory_limit_gib": float("inf")}}): "is inf; it must be a number above 0",
    json.dumps({**JOB, "options": {"mirroring": "no"}}): "The mirroring is 'no'; it must be true or false",
    json.dumps({**JOB, "options": {"checkpoint": "../x"}}): "The checkpoint is '../x'; it must be final or best",
    json.dumps({**JOB, "options": {"classes": []}}): "classes is empty; leave it out for all classes",
    json.dumps({**JOB, "options": {"folds": [None]}}): "folds has the entry None; it must be text or a whole number",
    json.dumps({**JOB, "options": {"classes": 1.5}}): "classes has the entry 1.5",
}


@pytest.mark.parametrize("content", FAULTS, ids=lambda content: content[:60])
def test_a_file_that_is_no_job_is_a_sentence(tmp_path, capsys, content):
    file = tmp_path / "job.json"
    file.write_text(content)
    assert main(["segment", "--job", str(file)]) == ExitCode.FAULT
    said = capsys.readouterr().err
    assert said.startswith(str(file)) and FAULTS[content] in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "beside, named",
    [
        (["i.nrrd", "-m", "toy-120", "-o", "o.nrrd"], "images, output, model"),
        (["--device", "auto", "--no-mirroring"], "device, mirroring"),
        (["--classes", "liver", "--classes-file=c.txt", "--confidence=c.nrrd"], "confidence, classes_file, classes"),
        (["--memory-limit=4", "--keep-empty", "--statistics=s.csv"], "statistics, memory_limit_gib, keep_empty"),
    ],
)
@pytest.mark.parametrize("json_progress", [False, True])
def test_a_choice_beside_a_job_file_is_refused(tmp_path, capsys, beside, named, json_progress):
    file = tmp_path / "job.json"
    file.write_text(json.dumps({**JOB, "output": str(tmp_path / "o.nrrd")}))
    more = ["--json-progress"] if json_progress else []
    assert main(["segment", "--job", str(file), *beside, "--overwrite", *more]) == ExitCode.USAGE
    out, said = capsys.readouterr()
    if json_progress:
        said = json.loads(out)["message"]
    assert said.startswith(f"{file} says what to segment and how, so {named} cannot be given beside --job.")
    assert not (tmp_path / "o.nrrd").exists()


def test_without_a_job_file_the_command_needs_images_a_model_and_an_output(capsys):
    assert main(["segment", "--job", "missing.json"]) == ExitCode.FAULT
    assert "missing.json cannot be read as a job in JSON (" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["segment", "--device", "cpu"])
    assert "the following arguments are required: IMAGE, -o/--output, -m/--model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content, sentence",
    [
        (None, "cannot be read (No such file"),
        (b"\n \n", "lists no class"),
        (b"\xff\xfe", "cannot be read (it is not text in UTF-8)"),
    ],
)
def test_a_list_of_classes_that_is_none_is_a_sentence(tmp_path, capsys, content, sentence):
    file = tmp_path / "classes.txt"
    if content is not None:
        file.write_bytes(content)
    command = ["segment", str(SAMPLE), "-m", str(TOY), "-o", str(tmp_path / "o.nrrd"), "--classes-file", str(file)]
    assert main(command) == ExitCode.LABELS
    assert f"classes.txt {sentence}" in capsys.readouterr().err
