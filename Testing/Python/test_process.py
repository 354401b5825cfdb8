"""The child process: end to end, cancelled, killed, orphaned, broken; nothing stays behind in any case."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import ClassScaleSegLib
import numpy as np
import psutil
import pytest
from ClassScaleSegLib import ClassScaleError, Options, OutputError, Segmentation
from ClassScaleSegLib.catalog.catalog import Catalog
from ClassScaleSegLib.commands.demo import mean_dice
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.process import Job, SegmentationProcess
from ClassScaleSegLib.process.child import default_python
from ClassScaleSegLib.process.job import read_job
from ClassScaleSegLib.process.process_tree import descendants, is_alive
from ClassScaleSegLib.resources import resource
from conftest import TOY

pytest.importorskip("nnunetv2")


SAMPLE, TRUTH = (resource("SampleData", f"toy-120{part}.nrrd") for part in ("", "-labels"))
CPU = {"device": "cpu", "threads": 1}
posix = pytest.mark.skipif(os.name == "nt", reason="a shell script stands between the processes")


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    """The system's temporary folder, empty at the start and looked at in the end."""
    folder = tmp_path / "Zwischen ablage 一時 (1)"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def toy_job(process, **more) -> Job:
    files = ("model", "output", "confidence", "statistics")
    named = {"model": TOY, "output": process.work_folder / "out.seg.nrrd"}
    named |= {name: more.pop(name) for name in files if name in more}
    return Job((SAMPLE,), **named, options=Options(**CPU, **more))


@pytest.fixture
def python(tmp_path):
    """Writes a shell script to be called in place of Python; ``{python}`` in it is the real one."""

    def write(*lines) -> str:
        script = tmp_path / "python in the middle"
        script.write_text("\n".join(["#!/bin/sh", *lines, ""]).replace("{python}", f'"{sys.executable}"'))
        script.chmod(0o755)
        return str(script)

    return write


def wait_until(condition, seconds=20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_two_jobs_side_by_side_with_names_of_any_alphabet(tmp_path, temporary):
    models = tmp_path / "modèles à moi"
    Catalog(models).add(shutil.copy(TOY, tmp_path / "Würfel 立方.zip"), "Würfel 立方")
    environment = {"CLASSSCALESEG_MODELS": str(models)}
    with SegmentationProcess(environment=environment) as named, SegmentationProcess() as subset:
        image = Path(shutil.copy(SAMPLE, named.work_folder / "Schädel des Herrn Müller.nrrd"))
        whole = toy_job(named, model="würfel 立方", output=named.work_folder / "Ergebnis 結果.seg.nrrd")
        named.job = Job((image,), whole.model, whole.output, options=Options(**CPU))
        extra = {"confidence": subset.work_folder / "c.nrrd", "statistics": tmp_path / "s.csv"}
        subset.job = toy_job(subset, classes=("cell 5", 17), **extra)
        events = {named: [], subset: []}
        for process in events:
            process.start()
        while any(process.state == "running" for process in events):
            for process, seen in events.items():
                seen += process.poll()
            time.sleep(0.02)
        for process, seen in events.items():
            assert process.state == "finished" and process.error is None, process.log
            kinds = [event.kind for event in seen]
            assert kinds[:2] == ["progress", "begin"] and kinds[-1] == "result" and "error" not in kinds
            stages = list(dict.fromkeys(event.stage for event in seen if event.kind == "progress"))
            assert stages == ["start", "read", "preprocess", "segment", "decode", "write"]
            assert process.result["output"] == str(process.job.output)
        assert named.result["structures"] == 120 and str(image) in named.log
        labels, truth = (Segmentation.from_image(file).labels for file in (named.job.output, TRUTH))
        assert mean_dice(labels, truth) > 0.9
        part = Segmentation.from_image(subset.job.output).labels
        assert np.array_equal(part, np.where(np.isin(labels, (5, 17)), labels, 0))
        assert subset.job.confidence.exists()
        assert len((tmp_path / "s.csv").read_text().splitlines()) == 3
    assert list(temporary.iterdir()) == []


@posix
@pytest.mark.parametrize("stage, launcher", [("start", True), ("read", False), ("segment", True), ("write", False)])
def test_cancelling_at_any_stage_ends_the_whole_tree_in_two_seconds(temporary, tmp_path, python, stage, launcher):
    between = python('{python} "$@"', "exit $?") if launcher else None  # as PythonSlicer does
    tree, seconds = [], []

    def cancel(event):
        if event.stage == stage and not seconds:
            assert wait_until(lambda: descendants(process.pid) or not launcher)
            tree.extend([psutil.Process(process.pid), *descendants(process.pid)])
            begin = time.monotonic()
            process.cancel()
            seconds.append(time.monotonic() - begin)

    with SegmentationProcess(python=between) as process:
        process.job = toy_job(process, output=tmp_path / "results" / "out.nii.gz")
        process.start()
        assert process.wait(cancel) == "cancelled"
        assert len(tree) == (2 if launcher else 1) and not any(map(is_alive, tree))
        assert list(temporary.iterdir()) == [] and process.poll() == [] and process.error is None
    assert seconds[0] < 2
    left = {path.name for path in (tmp_path / "results").iterdir()} if (tmp_path / "results").exists() else set()
    # nothing unfinished; the child may be done with writing before it hears that it should stop
    assert not left or stage == "write" and left == {"out.nii.gz", "out.labels.csv"}


def test_a_killed_child_is_a_sentence_about_memory(temporary):
    with SegmentationProcess() as process:
        process.job = toy_job(process)
        process.start()
        psutil.Process(process.pid).kill()
        events = []
        assert process.wait(events.append) == "failed"
        assert "killed" in process.error and (os.name == "nt" or "memory ran out" in process.error)
        assert events[-1].kind == "error" and events[-1].text == process.error
        assert process.error in process.log and list(temporary.iterdir()) == []


def test_what_the_child_says_about_a_fault_is_the_error(temporary, tmp_path):
    with SegmentationProcess() as process:
        process.job = toy_job(process, model=tmp_path / "nowhere.zip")
        process.start()
        events = []
        assert process.wait(events.append) == "failed"
        assert f"{tmp_path / 'nowhere.zip'} does not exist" in process.error
        assert [event.text for event in events if event.kind == "error"] == [process.error]
        assert list(temporary.iterdir()) == []


ENDINGS = {
    "no result": (["echo hello"], "ended without a result (exit code 0). Its last output was: hello"),
    "not our JSON": (["echo '[1]'", 'echo \'{"event": "party"}\''], "ended without a result"),
    "code alone": (["echo oh no >&2", "exit 7"], "ended because of a label table or a class name (exit code 7)"),
    "other code": (["echo one; echo two >&2", "exit 77"], "ended unexpectedly (exit code 77)"),
    "crash": (["kill -SEGV $$"], "crashed (SIGSEGV)"),
    "killed, said a shell": (["exit 137"], "killed (137), most likely by the system because memory ran out"),
    "no torch": (
        ["echo \"ModuleNotFoundError: No module named 'torch'\" >&2", "exit 1"],
        "lacks the package torch. Install",
    ),
}


@posix
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_other_end_is_a_sentence_too(temporary, python, ending):
    lines, sentence = ENDINGS[ending]
    with SegmentationProcess(python=python(*lines)) as process:
        process.job = toy_job(process)
        process.start()
        assert process.wait() == "failed"
        assert sentence in process.error
        assert list(temporary.iterdir()) == []


@posix
def test_a_child_that_hangs_is_ended_with_all_that_it_has_started(temporary, python):
    told = """echo '{"event": "progress", "stage": "read"}'"""
    with SegmentationProcess(
        python=python("sleep 100 &", "echo $!", f"for _ in 1 2 3; do {told}; sleep 1; done; wait")
    ) as process:
        process.job = toy_job(process)
        process.start()
        events = []
        assert process.wait(events.append, patience=2) == "failed", "after three seconds in which there was progress"
        sentence = "It made no progress in the stage read for 2 seconds, and was ended."
        assert process.error == events[-1].text == process.log.splitlines()[-1] == sentence
        assert [event.kind for event in events] == ["progress"] * 4 + ["error"]
        sleeper = int(process.log.splitlines()[1])
        assert wait_until(lambda: not psutil.pid_exists(sleeper) or not is_alive(psutil.Process(sleeper)))
        assert list(temporary.iterdir()) == []


@posix
def test_what_a_dead_child_leaves_running_does_not_hold_its_parent_up(temporary, python):
    with SegmentationProcess(python=python("sleep 100 &", "echo $!", "exit 3")) as process:
        process.job = toy_job(process)
        process.start()
        assert process.wait() == "failed" and "model cannot be used" in process.error
        sleeper = int(process.log.splitlines()[1])
        assert wait_until(lambda: not psutil.pid_exists(sleeper) or not is_alive(psutil.Process(sleeper)))


def test_a_child_that_prints_faster_than_it_is_heard_waits(temporary, python):
    line = "import json; text = json.dumps({'event': 'progress', 'stage': 'segment', 'message': 'x' * 20000})"
    code = f"{line}\nfor _ in range(20000): print(text)\nprint('the end', flush=True)"
    threads, before = threading.active_count(), psutil.Process().memory_info().rss
    with SegmentationProcess(python=python(f'exec {{python}} -c "{code}"')) as process:
        process.job = toy_job(process)
        process.start()
        time.sleep(3)
        assert psutil.Process().memory_info().rss - before < 50 << 20, "of the 400 MB that the child has to say"
        largest = 0
        while process.state == "running":
            largest = max(largest, len(process.poll()))
            assert psutil.Process().memory_info().rss - before < 100 << 20
        assert 500 < largest <= 1001  # and the error in the end
        assert process.log.splitlines()[-2] == "the end" and len(process.log) < 21e6
    with SegmentationProcess(python=python(f'exec {{python}} -c "{code}"')) as process:
        process.job = toy_job(process)
        process.start()
        time.sleep(1)
    assert wait_until(lambda: threading.active_count() == threads)  # nobody waits to be heard


def test_an_interpreter_that_is_not_there(temporary, tmp_path):
    with SegmentationProcess(python=str(tmp_path / "no python")) as process:
        process.job = toy_job(process)
        process.start()
        assert process.state == "failed" and "no python cannot be started" in process.error
        assert [event.kind for event in process.poll()] == ["error"] and list(temporary.iterdir()) == []
        with pytest.raises(ClassScaleError, match="only once"):
            process.start()


@posix
def test_a_full_temporary_folder_is_a_sentence(temporary, python, monkeypatch):
    small = python("ulimit -f 20", 'exec {python} "$@"')  # no file above 10 or 20 KiB
    with SegmentationProcess(python=small) as process:
        process.job = toy_job(process)
        process.start()
        assert process.wait() == "failed"
        assert "out.seg.nrrd cannot be written (File too large)" in process.error, process.log
        assert list(temporary.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(SAMPLE))
    with pytest.raises(OutputError, match="cannot be written"):
        SegmentationProcess()


PARENT = """
import sys, time
from ClassScaleSegLib import Options
from ClassScaleSegLib.process import Job, SegmentationProcess
process = SegmentationProcess()
options = Options(device="cpu", threads=1)
process.job = Job((sys.argv[1],), sys.argv[2], process.work_folder / "out.seg.nrrd", options=options)
process.start()
while sys.argv[3] not in [part for event in process.poll() for part in (event.kind, event.stage)]:
    time.sleep(0.02)
print(process.pid, process.work_folder.name, flush=True)
if sys.argv[4] == "stay":
    time.sleep(100)
"""


@pytest.mark.parametrize("moment, way", [("start", "stay"), ("begin", "stay"), ("start", "leave")])
def test_the_child_ends_with_its_parent(temporary, moment, way):
    command = [sys.executable, "-c", PARENT, str(SAMPLE), str(TOY), moment, way]
    environment = {**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        pid, folder = parent.stdout.readline().decode().split()
        children = [psutil.Process(int(pid))] if psutil.pid_exists(int(pid)) else []
        if way == "stay":
            assert children and (temporary / folder).is_dir()
            parent.kill()
    assert wait_until(lambda: not any(map(is_alive, children)))
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_copy_of_the_caller_leaves_the_folder_alone(temporary):
    code = "import os, sys; from ClassScaleSegLib.process import SegmentationProcess; p = SegmentationProcess()\n"
    code += "if not (copy := os.fork()): sys.exit()\n"
    code += "os.waitpid(copy, 0); print(p.work_folder.exists())"
    environment = {**os.environ, "TMPDIR": str(temporary)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True"] and list(temporary.iterdir()) == []


def test_a_child_that_nobody_listens_to_ends_though_its_parent_still_exists(temporary):
    folder = temporary / "classscaleseg-1-x"
    folder.mkdir()
    watch = "import sys; from ClassScaleSegLib.process.parent_watch import ParentWatch as W\n"
    watch += "with W(*sys.argv[1:]): raise BrokenPipeError"
    child = subprocess.run([sys.executable, "-c", watch, str(os.getpid()), str(folder)])
    assert child.returncode == 130 and not folder.exists()


def test_the_folder_goes_when_the_caller_fails_to_write_the_image(temporary):
    with pytest.raises(OSError, match="disk full"), SegmentationProcess() as process:
        (process.work_folder / "image.nrrd").write_bytes(b"half")
        raise OSError("disk full")
    assert process.state == "cancelled" and list(temporary.iterdir()) == []
    with pytest.raises(ClassScaleError, match="needs a job"):
        process.start()


def test_folders_of_programs_that_crashed_are_swept_up_after_a_day(temporary):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = {"old": f"classscaleseg-{gone.pid}-a", "new": f"classscaleseg-{gone.pid}-b"}
    names |= {"alive": f"classscaleseg-{os.getpid()}-c", "other": "classscaleseg-my-results"}
    for name, folder in names.items():
        (temporary / folder).mkdir()
        if name != "new":
            os.utime(temporary / folder, (time.time() - 90_000,) * 2)
    SegmentationProcess().close()
    assert {path.name for path in temporary.iterdir()} == {names[name] for name in ("new", "alive", "other")}


def test_only_a_folder_of_ours_is_ever_removed(tmp_path, capsys):
    precious = tmp_path / "precious"
    precious.mkdir()
    arguments = ["segment", str(SAMPLE), "-m", str(TOY), "-o", str(tmp_path / "o.nrrd")]
    assert main([*arguments, "--stop-with-parent", "999999999", str(precious)]) == ExitCode.FAULT
    assert "is not a temporary folder of ClassScaleSeg" in capsys.readouterr().err and precious.is_dir()


def test_hundreds_of_classes_do_not_fill_the_log(tmp_path, temporary):
    names = tuple(f"Cell_{value}" for value in range(1, 102))
    with SegmentationProcess() as process:
        process.job = toy_job(process, classes=names, step=1.0, mirroring=False)
        process.start()
        line = process.log
        assert process.wait() == "finished", process.log
        assert "step=1.0, mirroring=False, classes=('Cell_1', " in line and "Cell_99" not in line
        assert (
            process.result["structures"] == 101
            and len(read_job(process.work_folder / "job.json").options.classes) == 101
        )
    with SegmentationProcess(Job(("i.nrrd",), "toy-120", "o.nrrd")) as process:
        shutil.rmtree(process.work_folder)  # as good as a disk that is full
        process.start()
        assert process.state == "failed" and "cannot be written" in process.error


def test_without_psutil_it_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(ClassScaleError, match="psutil is not installed.*installDependencies"):
        SegmentationProcess()


def test_inside_slicer_the_interpreter_is_its_launcher(tmp_path, monkeypatch):
    import types

    monkeypatch.delitem(sys.modules, "slicer", raising=False)  # tests of the panel may have put an application there
    assert default_python() == sys.executable
    launcher = tmp_path / ("PythonSlicer.exe" if os.name == "nt" else "PythonSlicer")
    launcher.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert default_python() == sys.executable  # a Slicer on the path of another Python is none of our business
    monkeypatch.setitem(sys.modules, "slicer", types.SimpleNamespace(app=object()))
    assert Path(default_python()) == launcher
    monkeypatch.setattr(sys, "executable", str(tmp_path / "SlicerApp-real"))
    monkeypatch.setenv("PATH", "")
    assert Path(default_python()) == launcher


def test_ctrl_c_while_waiting_cancels(temporary):
    def interrupt(event):
        signal.raise_signal(signal.SIGINT)

    process = SegmentationProcess()
    process.job = toy_job(process)
    process.start()
    child = psutil.Process(process.pid)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs that a shell runs behind
    try:
        with pytest.raises(KeyboardInterrupt):
            process.wait(interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.state == "cancelled" and not is_alive(child) and list(temporary.iterdir()) == []


def test_the_child_finds_this_library_where_nothing_is_installed(tmp_path, monkeypatch):
    with SegmentationProcess(environment={"PYTHONPATH": str(tmp_path)}) as process:
        environment = process._child_environment()
    folders = environment["PYTHONPATH"].split(os.pathsep)
    assert folders == [str(Path(ClassScaleSegLib.__file__).resolve().parents[1]), str(tmp_path)]
    find = "import importlib.util as u; print(u.find_spec('ClassScaleSegLib').origin, u.find_spec('catalog'))"
    command = [sys.executable, "-S", "-c", find]  # -S: without the packages that are installed
    found = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [ClassScaleSegLib.__file__, "None"]
    installed = tmp_path / "site-packages" / "ClassScaleSegLib" / "process" / "child.py"
    # a folder of installed packages would come before the standard library
    monkeypatch.setattr("ClassScaleSegLib.process.child.__file__", str(installed))
    with SegmentationProcess(environment={"PYTHONPATH": str(tmp_path)}) as process:
        assert process._child_environment()["PYTHONPATH"] == str(tmp_path)


def test_the_parents_side_imports_nothing_heavy():
    code = "import sys, ClassScaleSegLib.process, ClassScaleSegLib.inference.several_models;"
    code += "import ClassScaleSegLib.commands.main;"
    code += "print([m for m in ('torch', 'nnunetv2', 'SimpleITK', 'scipy', 'psutil', 'slicer') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == "[]"
