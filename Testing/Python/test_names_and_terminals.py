"""Names of files in any script, links, bytes that are no text; terminals that lack letters; faults nobody foresaw."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ClassScaleSegLib import Options, OutputError
from ClassScaleSegLib.commands.cases import find_cases
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.files import given_name, refuse_existing, replacing
from ClassScaleSegLib.process import Job, SegmentationProcess
from ClassScaleSegLib.process.exit_codes import exit_code
from ClassScaleSegLib.process.fault_log import FaultLog
from ClassScaleSegLib.resources import resource

sitk = pytest.importorskip("SimpleITK")
posix = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="only Linux allows such names")

SMALL = ["--device", "cpu", "--no-mirroring", "--threads", "1"]
TOY = str(resource("Models", "toy-120.zip"))
NOT_UTF8 = os.fsdecode(b"M\xfcller")  # Latin-1, as from an old share or zip
CYRILLIC = "Печень_肝"
ENCODINGS = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "ASCII": {"PYTHONIOENCODING": "ascii:strict"},
    "C locale": {"LC_ALL": "C", "PYTHONIOENCODING": ""},
    "C locale as it was": {"LC_ALL": "C", "PYTHONIOENCODING": "", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The system's temporary folder."""
    import tempfile

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path / "catalogue"))
    return folder


@pytest.fixture
def image(tmp_path):
    """Writes a small image to a path below the test's folder, with any bytes in its name."""

    def write(name="ct.nii.gz"):
        path, plain = tmp_path / name, tmp_path / "plain.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GaussianSource(sitk.sitkInt16, size=[12, 12, 12]), str(plain))
        os.replace(plain, path)
        return path

    return write


def run(*arguments):
    return main([str(argument) for argument in arguments])


def segment(*arguments):
    return run("segment", *arguments, "-m", TOY, *SMALL)


def spawn(command, *arguments, **environment):
    """Run a command in a process of its own, and return exit code, output and standard error as bytes."""
    module = {"classscaleseg": "ClassScaleSegLib", "classscaleseg-train": "classscale_training.commands"}[command]
    paths = [str(Path(__file__).parents[2] / folder) for folder in ("ClassScaleSeg", "training")]
    more = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **environment}
    ended = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], capture_output=True, env={**os.environ, **more}
    )
    assert b"Traceback" not in ended.stderr and b"Exception ignored" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stdout, ended.stderr


ALL = """
import json, sys
from ClassScaleSegLib.commands.main import main
for arguments in json.loads(sys.argv[1]):
    for stream in (sys.stdout, sys.stderr):
        print(end="\\0", file=stream, flush=True)
    code = main(arguments)
    print(end=f"\\1{code}", flush=True)
"""


def spawn_all(commands, **environment):
    """Run several commands in one process, and return exit code, output and standard error of each."""
    lines = json.dumps([[str(argument) for argument in arguments] for arguments in commands])
    paths = {"PYTHONPATH": str(Path(__file__).parents[2] / "ClassScaleSeg"), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", ALL, lines], capture_output=True, env={**os.environ, **paths, **environment}
    )
    assert ended.returncode == 0 and b"Traceback" not in ended.stderr, ended.stderr
    outputs, errors = (stream.split(b"\0")[1:] for stream in (ended.stdout, ended.stderr))
    assert len(outputs) == len(errors) == len(commands)
    told = [output.rsplit(b"\1", 1) for output in outputs]
    return [(int(code), output, error) for (output, code), error in zip(told, errors, strict=True)]


# names


def names(*images, output, flat=False):
    return {case.name: case.files for case in find_cases(images, 1, output, ".seg.nrrd", flat).cases}


def test_cases_have_the_names_of_links_and_not_of_their_targets(tmp_path, image):
    store = image("store/MD5E-s1--abc.nii.gz")
    cases = tmp_path / "cases"
    cases.mkdir()
    for name in ("anna.nii.gz", "bert.nii.gz"):  # two links to one file, as after a deduplication
        (cases / name).symlink_to(store)
    assert set(names(cases, output=tmp_path)) == {"anna", "bert"}
    assert set(names(cases / "anna.nii.gz", output=tmp_path)) == {"anna"}
    assert set(names(*cases.iterdir(), output=tmp_path)) == {"anna", "bert"}
    (tmp_path / "of cases").symlink_to(cases)
    assert set(names(tmp_path / "of cases", output=tmp_path)) == {"anna", "bert"}


def test_channels_of_links_are_those_of_their_names(tmp_path, image):
    store = [image(f"store/{number}") for number in (7, 3)]  # keys of an annex need no suffix
    cases = tmp_path / "cases"
    cases.mkdir()
    for channel, file in enumerate(store):
        (cases / f"x_{channel:04}.nii.gz").symlink_to(file)
    (case,) = find_cases([cases], 2, tmp_path, ".nrrd").cases
    assert case.name == "x" and [file.name for file in case.files] == ["x_0000.nii.gz", "x_0001.nii.gz"]


def test_a_link_to_a_folder_keeps_its_name_however_it_is_written(tmp_path, monkeypatch):
    (tmp_path / "store" / "1.2.840").mkdir(parents=True)
    (tmp_path / "store" / "1.2.840" / "1.dcm").write_bytes(bytes(128) + b"DICM")
    link = tmp_path / "patient 5"
    link.symlink_to(tmp_path / "store" / "1.2.840")
    for written in (link, f"{link}/", f"{link}/."):
        assert set(names(written, output=tmp_path)) == {"patient 5"}
    monkeypatch.chdir(link)
    monkeypatch.setenv("PWD", str(link))
    assert set(names(".", output=tmp_path)) == {"patient 5"}
    assert given_name(Path("..")) == "store"
    monkeypatch.setenv("PWD", "/somewhere/else")
    assert set(names(".", output=tmp_path)) == {"1.2.840"}


def test_a_linked_case_is_segmented_and_a_dangling_link_is_a_sentence(tmp_path, image, capsys):
    cases = tmp_path / "cases"
    cases.mkdir()
    (cases / "anna.nii.gz").symlink_to(image("store/MD5E-s1--abc.nii.gz"))
    (cases / "lost.nii.gz").symlink_to(tmp_path / "store" / "gone.nii.gz")
    assert segment(cases, "-o", tmp_path / "out") == ExitCode.SOME_FAILED
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["anna.seg.nrrd"]
    assert "lost.nii.gz is a link whose target is missing" in capsys.readouterr().err


def test_a_model_behind_a_link_has_the_name_of_the_link(tmp_path, toy_folder):
    from ClassScaleSegLib.models.files import FolderFiles

    link = tmp_path / "liver model"
    link.symlink_to(toy_folder)
    assert FolderFiles(link).name == "liver model"


# bytes that are no text


@posix
def test_a_name_that_is_not_utf8_fails_alone(tmp_path, image, capsys):
    for name in ("a", NOT_UTF8, "z"):
        image(f"cases/{name}.nii.gz")
    out = tmp_path / "out"
    assert segment(tmp_path / "cases", "-o", out, "--json-progress") == ExitCode.SOME_FAILED
    assert sorted(path.name for path in out.glob("[!.]*")) == ["a.seg.nrrd", "z.seg.nrrd"]
    lines = capsys.readouterr().out
    assert lines.isascii()
    (error,) = (event for event in map(json.loads, lines.splitlines()) if event["event"] == "error")
    assert "is not a name in UTF-8, which ITK needs. Rename the file" in error["message"] and error["message"].encode()


@posix
@pytest.mark.parametrize("place", [f"{NOT_UTF8}.nii.gz", f"{NOT_UTF8}/ct.nii.gz", f"{NOT_UTF8}/0001.dcm"])
def test_one_image_with_such_a_name_is_a_sentence(tmp_path, image, place):
    path = image(place)
    code, _, error = spawn("classscaleseg", "segment", path, "-m", TOY, "-o", tmp_path / "o.nrrd", *SMALL)
    assert code == ExitCode.IMAGE and b"is not a name in UTF-8" in error


@posix
@pytest.mark.parametrize(
    "result", [f"{NOT_UTF8}.seg.nrrd", f"{NOT_UTF8}.nii.gz", f"{NOT_UTF8}/deep/o.mha", f"{NOT_UTF8}.csv"]
)
def test_no_result_gets_such_a_name(tmp_path, image, capsys, result):
    files = ["-o", tmp_path / "o.nrrd", "--statistics"] if result.endswith("csv") else ["-o"]
    assert segment(image(), *files, tmp_path / result) == ExitCode.OUTPUT
    assert "is not a name in UTF-8" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"ct.nii.gz", "temporary"}


@posix
def test_nor_does_a_folder_of_results(tmp_path, image, capsys):
    image("cases/a.nii.gz")
    folder = tmp_path / NOT_UTF8
    folder.mkdir()
    assert segment(tmp_path / "cases", "-o", folder) == ExitCode.SOME_FAILED
    assert "is not a name in UTF-8" in capsys.readouterr().err and not os.listdir(folder)


@posix
def test_models_and_tables_with_such_names_are_used_or_are_a_sentence(tmp_path, image, toy_folder, capsys):
    inside = tmp_path / NOT_UTF8
    shutil.copytree(toy_folder, inside)
    shutil.copy(TOY, tmp_path / f"{NOT_UTF8}.zip")
    ct = image()
    for model in (inside, tmp_path / f"{NOT_UTF8}.zip"):
        code = run("segment", ct, "-m", model, "-o", tmp_path / "o.seg.nrrd", "--overwrite", *SMALL)
        assert code == ExitCode.OK, capsys.readouterr().err
        for command in (["inspect", model], ["inspect", model, "--json"]):
            assert run(*command) == ExitCode.OK, capsys.readouterr().err
        assert run("models", "add", model) == ExitCode.MODEL
        assert "is not text in UTF-8" in capsys.readouterr().err
    classes = tmp_path / f"{NOT_UTF8}.txt"
    classes.write_text("cell 7\n", encoding="utf-8")
    assert segment(ct, "-o", tmp_path / "p.nrrd", "--classes-file", classes) == ExitCode.OK
    missing = tmp_path / f"{NOT_UTF8}.none"
    assert segment(ct, "-o", tmp_path / "q.nrrd", "--classes-file", missing) == ExitCode.LABELS
    assert run("segment", ct, "-m", missing, "-o", tmp_path / "q.nrrd") == ExitCode.MODEL
    assert run("pack", inside, "-o", tmp_path / f"{NOT_UTF8}.new.zip") == ExitCode.OUTPUT
    assert run("pack", inside, "-o", tmp_path / "new.zip", "--card", missing) == ExitCode.MODEL
    assert run("pack", inside, "-o", tmp_path / "new.zip", "--labels", missing) == ExitCode.LABELS


@posix
def test_a_job_with_such_names_is_a_sentence(tmp_path, image, capsys):
    file = tmp_path / f"{NOT_UTF8}.json"
    job = Job((image(f"{NOT_UTF8}.nii.gz"),), TOY, tmp_path / "o.seg.nrrd", options=Options(device="cpu"))
    job.write(file)
    assert run("segment", "--job", file) == ExitCode.IMAGE
    assert run("segment", "--job", tmp_path / f"{NOT_UTF8}.none") == ExitCode.FAULT
    with SegmentationProcess(job) as process:
        process.start()
        assert process.wait() == "failed"
        assert "is not a name in UTF-8" in process.error
        assert process.error.encode() and process.log.encode()


@pytest.mark.parametrize("name", ["M\udcfcller.csv", "null\0.csv", "\ud83d.csv"])
def test_names_that_no_file_can_have_are_refused_before_anything_is_written(tmp_path, name):
    for write in (lambda path: refuse_existing(path, True), lambda path: replacing(path).__enter__()):
        with pytest.raises(OutputError, match="is not a name in UTF-8"):
            write(tmp_path / name)


# terminals that are not UTF-8


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_letters_that_a_terminal_lacks_are_replaced_and_json_lines_are_ascii(tmp_path, image, encoding):
    out = tmp_path / "Ergebnisse_ß"
    image(f"cases/{CYRILLIC}.nii.gz")
    (tmp_path / "cases" / "ā.nii.gz").write_bytes(b"broken")
    one = tmp_path / f"{CYRILLIC}.seg.nrrd"
    (code, output, error), (code_of_one, lines, _) = spawn_all(
        [
            ["segment", tmp_path / "cases", "-m", TOY, "-o", out, "--statistics", out, *SMALL],
            ["segment", image(f"{CYRILLIC}.nii.gz"), "-m", TOY, "-o", one, "--json-progress", *SMALL],
        ],
        **ENCODINGS[encoding],
    )
    assert code == ExitCode.SOME_FAILED
    assert b"structures in" in output and b"SimpleITK can read" in error
    assert {path.name for path in out.glob("[!.]*")} == {f"{CYRILLIC}.seg.nrrd", f"{CYRILLIC}.csv"}
    assert code_of_one == ExitCode.OK and lines.isascii() and one.exists()
    assert json.loads(lines.splitlines()[-1])["output"] == str(one)


@pytest.mark.parametrize("encoding", ["cp1252", "ASCII"])
def test_every_command_prints_to_them(tmp_path, toy_folder, encoding):
    dataset = json.loads((toy_folder / "dataset.json").read_text(encoding="utf-8"))
    dataset["labels"] = {CYRILLIC if value == 7 else name: value for name, value in dataset["labels"].items()}
    (toy_folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    model = toy_folder.rename(tmp_path / CYRILLIC)
    (tmp_path / "card.md").write_text(f"# {CYRILLIC}\n", encoding="utf-8")
    bundle = tmp_path / f"{CYRILLIC}.zip"
    pack = ["pack", model, "-o", bundle, "--card", tmp_path / "card.md", "--name", CYRILLIC]
    place = tmp_path / f"Demo {CYRILLIC}"
    demo = [["demo", "-o", place, "--device", "cpu"]] if encoding == "ASCII" else []  # once: it takes long
    commands = [
        pack,
        ["inspect", bundle],
        ["inspect", bundle, "--json"],
        ["models", "add", bundle],
        ["models", "list"],
        ["models", "list", "--json"],
        ["models", "info", CYRILLIC],
        ["models", "card", CYRILLIC],
        ["models", "path", CYRILLIC],
        ["models", "remove", CYRILLIC],
        *demo,
        ["models", "info", "Ж"],
    ]
    *ended, (code, _, error) = spawn_all(commands, **ENCODINGS[encoding])
    for arguments, (each, output, told) in zip(commands, ended, strict=False):
        assert each == ExitCode.OK and output, (arguments, told)
    assert not demo or len(os.listdir(place)) == 4
    assert code == ExitCode.MODEL and error


def test_the_trainer_prints_to_them_too(tmp_path):
    raw = tmp_path / CYRILLIC
    raw.mkdir()
    pytest.importorskip("nnunetv2")
    toy = ["toy", "--classes", 3, "--dataset-id", 903, "--cases", 2, "--size", 32]
    code, output, error = spawn(
        "classscaleseg-train", *toy, PYTHONIOENCODING="ascii", nnUNet_raw=str(raw), nnUNet_preprocessed=str(raw)
    )
    assert code == ExitCode.OK and b"?" in output, error
    code, _, error = spawn("classscaleseg-train", "plan", "-d", "999", PYTHONIOENCODING="ascii", nnUNet_raw=str(raw))
    assert code not in (0, 1) and error


def test_output_that_nobody_reads_or_that_finds_no_room_is_no_traceback(temporary):
    command = f"{sys.executable} -m ClassScaleSegLib models list"
    if os.path.exists("/dev/full"):
        ended = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True)
        assert ended.returncode == ExitCode.OUTPUT and "Standard output cannot be written" in ended.stderr
        assert "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr
    if sys.platform != "win32":
        reading, writing = os.pipe()
        os.close(reading)
        ended = subprocess.run(command.split(), stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        assert ended.returncode == ExitCode.CANCELLED and ended.stderr == b""
    assert not list(temporary.glob("*.log"))


# faults that nobody foresaw


@pytest.fixture
def bug(monkeypatch):
    """Makes reading fail with any exception."""
    from ClassScaleSegLib.inference import label_map

    def make(fault, where=""):
        original = label_map.read_image

        def read(source, *rest, **more):
            if where in str(source):
                raise fault
            return original(source, *rest, **more)

        monkeypatch.setattr(label_map, "read_image", read)

    return make


def log_of(text, temporary):
    (file,) = temporary.glob("*.log")
    assert str(file) in text
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "fault",
    [
        ZeroDivisionError("a bug"),
        UnicodeEncodeError("ascii", "ä\udcfc", 0, 1, "a bug"),
        PermissionError(13, "a bug"),
        type("PanicException", (BaseException,), {})("a bug"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_fault_that_nobody_foresaw_is_a_sentence_with_a_log(tmp_path, image, capsys, temporary, bug, fault):
    bug(fault)
    assert segment(image(), "-o", tmp_path / "o.nrrd") == ExitCode.FAULT
    told = capsys.readouterr()
    assert "Traceback" not in told.err + told.out
    assert len(told.err.strip().splitlines()) == 1 and f"{type(fault).__name__}: " in told.err
    log = log_of(told.err, temporary)
    assert "Traceback" in log and "in read" in log  # the traceback
    assert re.search(r"Python 3\.\d+.*numpy \d", log) and "classscaleseg segment" in log and "o.nrrd" in log
    assert not (tmp_path / "o.nrrd").exists()


def test_such_faults_of_cases_share_one_log_and_the_others_go_on(tmp_path, image, capsys, temporary, bug):
    for name in ("a1", "a2", "b"):
        image(f"cases/{name}.nii.gz")
    bug(ZeroDivisionError("a bug"), "/a")
    assert segment(tmp_path / "cases", "-o", tmp_path / "out") == ExitCode.SOME_FAILED
    told = capsys.readouterr().err
    assert "a1 failed unexpectedly" in told and "a2 failed unexpectedly" in told and "Traceback" not in told
    assert log_of(told, temporary).count("Traceback") == 2
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["b.seg.nrrd"]


def test_memory_that_ran_out_is_no_such_fault(tmp_path, image, capsys, temporary, bug):
    bug(MemoryError())
    assert segment(image(), "-o", tmp_path / "o.nrrd") == ExitCode.OUT_OF_MEMORY
    assert not list(temporary.glob("*.log"))
    assert exit_code(FaultLog("x", ()).sentence("It", MemoryError())) == ExitCode.OUT_OF_MEMORY


def test_without_a_place_for_the_log_the_traceback_is_on_standard_error(tmp_path, image, capsys, monkeypatch, bug):
    import tempfile

    bug(ZeroDivisionError("a bug"))
    monkeypatch.setattr(tempfile, "mkstemp", lambda *rest, **more: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert segment(image(), "-o", tmp_path / "o.nrrd") == ExitCode.FAULT
    told = capsys.readouterr().err
    assert "Traceback" in told and "No log could be written" in told.splitlines()[-1]


def test_the_trainer_ends_alike(capsys, temporary, monkeypatch):
    commands = pytest.importorskip("classscale_training.commands")
    monkeypatch.setattr(commands, "trainer_folder", lambda: 1 // 0)
    assert commands.main(["trainers"]) == ExitCode.FAULT
    told = capsys.readouterr().err
    log = log_of(told, temporary)
    assert "Traceback" not in told and "Traceback" in log and "classscaleseg-train trainers" in log
    monkeypatch.setattr(commands, "trainer_folder", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert commands.main(["trainers"]) == ExitCode.CANCELLED
    assert capsys.readouterr().err == "Cancelled.\n"


def test_the_panel_gets_the_sentence(tmp_path, image, temporary):
    """A module that replaces the library's reader stands for a bug in the child process."""
    (tmp_path / "sitecustomize.py").write_text(
        "import ClassScaleSegLib.inference.label_map as label_map\n"
        "def read(*rest, **more):\n    raise ZeroDivisionError('a bug')\n"
        "label_map.read_image = read\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2] / "ClassScaleSeg")])
    job = Job((image(),), TOY, tmp_path / "o.seg.nrrd", options=Options(device="cpu"))
    with SegmentationProcess(job, environment={"PYTHONPATH": paths}) as process:
        process.start()
        assert process.wait() == "failed"
    assert "failed unexpectedly (ZeroDivisionError: a bug)" in process.error
    assert "Traceback" in log_of(process.error, temporary)


# slices


def test_slices_of_a_series_are_one_sentence_and_each_a_case_for_a_2d_model(tmp_path, capsys):
    pytest.importorskip("pydicom")
    from dicom_phantom import planes, write_series

    write_series(tmp_path / "series", planes())
    files = sorted((tmp_path / "series").iterdir())
    assert segment(*files, "-o", tmp_path / "out") == ExitCode.IMAGE
    told = capsys.readouterr().err
    assert "slices of one DICOM series" in told and str(tmp_path / "series") in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert len(names(*files, output=tmp_path, flat=True)) == len(files)
