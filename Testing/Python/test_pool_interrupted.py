"""Ctrl-C ends commands that have started several processes with one line, whatever these are doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from ClassScaleSegLib.commands.main import ExitCode

pytest.importorskip("torch")

PROGRAM = """
import os, sys, time
from pathlib import Path
folder = Path({folder!r})
def work(name):
    (folder / f"{{name}} works").touch()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / f"{{name}} cleaned").touch()
        raise
if __name__ == "__main__":
    from classscale_training.data.parallel import map_cases
    from ClassScaleSegLib.process.ending import run_command
    from ClassScaleSegLib.process.fault_log import FaultLog
    sys.exit(run_command(lambda: len(list(map_cases(work, {items!r}, 2))), print, FaultLog("x", []), "Cancelled."))
else:
    (folder / f"{{os.getpid()}} imports").touch()
    time.sleep({importing})
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no groups of processes that get a signal")
@pytest.mark.parametrize(
    ("items", "importing", "seen", "count"),
    [(["a", "b", "c"], 8, " imports", 1), (["a", "b", "c"], 0, " works", 2), (["a"], 0, " works", 1)],
    ids=["import", "work", "work and wait"],
)
def test_ctrl_c_is_one_line_and_partial_files_are_removed(tmp_path, items, importing, seen, count):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(folder=str(tmp_path), items=items, importing=importing))
    form = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(program)], env=environment, **form) as command:
        end = time.monotonic() + 60
        while len(list(tmp_path.glob(f"*{seen}"))) < count and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.3)
        os.killpg(command.pid, signal.SIGINT)
        said = command.communicate(timeout=30)[0]
    assert (said, command.returncode) == ("Cancelled.\n", 130)
    assert len(list(tmp_path.glob("* cleaned"))) == (count if seen == " works" else 0)


STOCK = """
import multiprocessing, sys, time
from pathlib import Path
def work(name):
    Path(name).touch()
    time.sleep(60)
def run():
    with spawned_without_interrupts(), multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(work, {names!r})
if __name__ == "__main__":
    from classscale_training.processes.interrupts import spawned_without_interrupts
    from ClassScaleSegLib.process.ending import run_command
    from ClassScaleSegLib.process.fault_log import FaultLog
    sys.exit(run_command(run, print, FaultLog("x", []), "Cancelled."))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no groups of processes that get a signal")
def test_ctrl_c_is_one_line_in_the_pools_of_nnunet_too(tmp_path):
    names = [str(tmp_path / name) for name in "ab"]  # the third process waits
    (tmp_path / "program.py").write_text(STOCK.format(names=names))
    form = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(tmp_path / "program.py")], env=environment, **form) as command:
        end = time.monotonic() + 60
        while not all(map(os.path.exists, names)) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.3)
        os.killpg(command.pid, signal.SIGINT)
        said = command.communicate(timeout=30)[0]
    assert (said, command.returncode) == ("Cancelled.\n", 130)


@pytest.mark.skipif(os.name == "nt", reason="on Windows a signal to the process itself ends it")
def test_a_second_ctrl_c_while_the_process_ends_prints_no_traceback():
    ended, again = int(ExitCode.CANCELLED), "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))"
    code = f"import atexit, os, signal; from ClassScaleSegLib.process.ending import leave; {again}; leave({ended})"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (-signal.SIGINT, "")
