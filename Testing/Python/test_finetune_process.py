"""The steps of ``classscaleseg-train finetune`` in processes of their own: what they print, and how they end."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("nnunetv2")
from classscale_training.nnunet.finetuning import work as finetune_work  # noqa: E402
from classscale_training.nnunet.finetuning.report import JsonReport, Report  # noqa: E402
from classscale_training.processes import subcommand  # noqa: E402
from ClassScaleSegLib.process.exit_codes import ExitCode  # noqa: E402
from ClassScaleSegLib.process.job import parse_event  # noqa: E402
from finetune_steps import ALL, corrected, events_in, finetune, steps  # noqa: E402, F401


def test_a_termination_signal_means_afterwards_what_it_meant_before(steps, corrected):
    before = signal.getsignal(signal.SIGTERM)
    assert finetune(corrected, "--json-progress") == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_only_what_matters_is_shown_and_all_is_in_the_log(tmp_path, capfd, monkeypatch):
    printed = "noise\\n2026-11-30 07:26:41.393099: Epoch 3\\n2026-11-30 07:26:41.393099: Pseudo dice [1]\\nNext: x"
    monkeypatch.setattr(subcommand, "_CHILD", f"print('{printed}')")
    report = Report(None)
    report.step("train")
    ended = subcommand.run_subcommand([], {}, tmp_path / "train.txt", report.output, report.errors)
    assert ended.code == 0 and capfd.readouterr().out == "[4/5] train\nEpoch 3\n"
    begun, first, *_ = (tmp_path / "train.txt").read_text().splitlines()
    assert begun.startswith("--- 20") and first == "noise"


def test_files_where_the_command_is_run_are_not_taken_for_modules(tmp_path, monkeypatch):
    (tmp_path / "statistics.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subcommand, "_CHILD", "import statistics")
    assert subcommand.run_subcommand([], {}, tmp_path / "log.txt", print, print).code == 0


def test_a_process_that_outlives_a_step_and_still_prints_is_no_fault(tmp_path, monkeypatch):
    later = "import sys, time; time.sleep(1); print('later', file=sys.stderr, flush=True); time.sleep(1)"
    start = f"subprocess.Popen([sys.executable, '-c', {later!r}], stdout=subprocess.DEVNULL)"
    monkeypatch.setattr(subcommand, "_CHILD", f"import subprocess; {start}")
    monkeypatch.setattr(subcommand, "_SECONDS_TO_READ", 0.1)
    faults: list[object] = []
    monkeypatch.setattr(threading, "excepthook", faults.append)
    told: list[str] = []
    before = threading.enumerate()
    ended = subcommand.run_subcommand(["plan"], {}, tmp_path / "plan.txt", told.append, told.append)
    assert ended == (0, "")
    for thread in {*threading.enumerate()} - {*before}:
        thread.join()
    assert ("".join(told), faults) == ("later\n", [])


SLEEPER = "import os, time; open({file!r}, 'w').write(str(os.getpid())); time.sleep(60)"


PARENT = """
from pathlib import Path
from ClassScaleSegLib.process.ending import run_command
from ClassScaleSegLib.process.fault_log import FaultLog
from classscale_training.processes import subcommand as f
f._CHILD = "from classscale_training.processes.parent import end_with_parent; end_with_parent(); " + {sleeper!r}
run_command(lambda: f.run_subcommand([], {{}}, Path({log!r}), print, print), print, FaultLog("x", []), "Cancelled.")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither of these signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_step_ends_with_the_command(number, tmp_path):
    file = tmp_path / "pid"
    program = PARENT.format(sleeper=SLEEPER.format(file=str(file)), log=str(tmp_path / "log.txt"))
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        end = time.monotonic() + 60
        while not (file.exists() and file.read_text()) and time.monotonic() < end:
            time.sleep(0.1)
        child = psutil.Process(int(file.read_text()))
        parent.send_signal(number)
        with contextlib.suppress(psutil.NoSuchProcess):
            child.wait(20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_programs_get_json_lines(steps, corrected, capsys):
    assert finetune(corrected, "--json-progress", "--epochs", 5) == 0
    events = events_in(capsys.readouterr().out)
    assert [event.stage for event in events if event.kind == "progress"] == ALL
    assert [event.total for event in events if event.stage == "train"] == [5]
    assert events[-1].kind == "result"
    assert events[-1].facts["output"] == str(corrected.folder.parent / "mine.zip")


def test_programs_get_the_sentence_of_what_failed(steps, corrected, capsys):
    steps.failing = "plan"
    assert finetune(corrected, "--json-progress") == ExitCode.MODEL
    assert parse_event(capsys.readouterr().out.splitlines()[-1]).text == "That is why."
    assert finetune(corrected, "--json-progress", "--fold", "7") == ExitCode.FAULT
    last = parse_event(capsys.readouterr().out.splitlines()[-1])
    assert last.kind == "error" and last.text.startswith("7 is not a fold")


def test_epochs_and_preprocessed_cases_are_counted(capsys):
    report = JsonReport(10)
    report.step("preprocess")
    report.errors("\r 50%|#####     | 2/4 [00:01<00:01,  1.00it/s]")
    report.step("train")
    before = "2026-11-30 07:26:41.393099: "
    for line in ("Epoch 3", "train_loss -0.5", "noise", "Epoch time: 20.0 s", "Epoch 4", "Epoch time: 30.0 s"):
        report.output(before + line)
    events = [parse_event(line) for line in capsys.readouterr().out.splitlines()]
    shown = [(event.stage, event.done, event.total, event.remaining) for event in events if event.kind == "progress"]
    begun = [("preprocess", 0, 1, None), ("preprocess", 2, 4, None), ("train", 0, 10, None)]
    assert shown == [
        *begun,
        *[("train", 3, 10, None), ("train", 4, 10, 120), ("train", 4, 10, 120), ("train", 5, 10, 115)],
    ]
    assert [event.text for event in events if event.text][:2] == ["Epoch 3", "train_loss -0.5"]


def test_the_log_has_what_both_streams_said_and_the_last_state_of_bars(tmp_path, monkeypatch, capfd):
    printed = "import sys; print('Ä'); sys.stderr.write('1/2\\r2/2\\nWarning: ü\\r\\nend'); sys.exit(3)"
    monkeypatch.setattr(subcommand, "_CHILD", printed)
    log, pieces = tmp_path / "plan.txt", []
    assert subcommand.run_subcommand([], {}, log, print, pieces.append) == (3, "")
    assert "".join(pieces).replace("\r\n", "\n") == "1/2\r2/2\nWarning: ü\nend"
    assert sorted(log.read_text(encoding="utf-8").splitlines()[1:]) == ["2/2", "Warning: ü", "end", "Ä"]
    assert subcommand.run_subcommand([], {}, log, print, pieces.append).code == 3
    assert sum(line.startswith("--- 20") for line in log.read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_loses_lines_of_the_log_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(subcommand, "_CHILD", "import sys; print('x' * 9 ** 6); print('y' * 9 ** 6, file=sys.stderr)")
    (tmp_path / "plan.txt").symlink_to("/dev/full")
    said, lines = [], []
    ended = subcommand.run_subcommand([], {}, tmp_path / "plan.txt", lines.append, said.append)
    assert ended.code == 0 and len(lines[0]) == 9**6 and sum(map(len, said)) > 9**6


def test_a_step_leaves_its_sentence(tmp_path, capfd):
    ended = subcommand.run_subcommand(
        ["export", "-m", str(tmp_path), "-o", "x.zip"], {}, tmp_path / "export.txt", print, print
    )
    assert ended.code > 0 and ended.error.strip() and ended.error.strip() in capfd.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["export.txt"]


def test_a_step_that_was_killed_is_explained(steps, corrected, capsys):
    def killed(arguments, *more):
        return subcommand.Ended(-9, "") if arguments[0] == "plan" else steps(arguments, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_work, "run_subcommand", killed)
        assert finetune(corrected) == finetune(corrected, "--json-progress") == ExitCode.FAULT
    told = capsys.readouterr()
    sentence = "was killed (-9), most likely by the system because memory ran out. Close other programs. The step plan"
    assert sentence in told.err and sentence in parse_event(told.out.splitlines()[-1]).text
