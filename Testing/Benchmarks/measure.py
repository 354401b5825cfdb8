"""Helpers of all benchmarks: peak memory, separate processes, the machine, bars, and results as JSON.

Memory is resident memory as Linux reports it, so memory can only be measured on Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data"
_SAMPLING_SECONDS = 0.1


def resident_bytes() -> int:
    """Return the memory that this process holds now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Return the largest memory that this process held since its start or since :func:`reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Restart :func:`peak_bytes` from the memory that is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {key}: memory is measured on Linux only.")


@dataclass(frozen=True)
class Job:
    """One whole command, including the start of the interpreter.

    :ivar seconds: its duration.
    :ivar peak: largest memory of the process and its children, in bytes.
    """

    seconds: float
    peak: int


def run_job(command: Sequence[str], threads: int, every: float = _SAMPLING_SECONDS, **variables: str) -> Job:
    """Run ``command`` to its end and sample the memory of its process tree.

    :param every: seconds between two samples; each one costs milliseconds for each gigabyte that the processes hold.
    :param variables: environment variables in addition to those that limit it to ``threads``.
    :raises SystemExit: if it fails.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(command, env=environment(threads) | variables)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _tree_bytes(process.pid, peak))
        time.sleep(every)
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}.")
    return Job(seconds, peak)


def _tree_bytes(root: int, floor: int) -> int:
    """Return the sum of the proportional set sizes of a process and its children; shared pages count once.

    Reading them takes milliseconds. The resident sizes are never smaller, so the proportional sizes are read only if
    the resident sizes exceed ``floor``; otherwise the result is 0.
    """
    import psutil

    try:
        parent = psutil.Process(root)
        processes = [parent, *parent.children(recursive=True)]
    except psutil.Error:  # it has ended
        return 0
    resident = proportional = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            resident += process.memory_info().rss
    if resident <= floor:
        return 0
    for process in processes:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            proportional += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return proportional


def in_own_process(script: str, threads: int = 1, **task: Any) -> dict:
    """Run ``script`` with ``--task`` and this task; return the JSON object that it prints as its last line.

    :raises SystemExit: if it fails.
    """
    command = [sys.executable, script, "--task", json.dumps(task)]
    done = subprocess.run(command, env=environment(threads), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{Path(script).name} with the task {task} failed with exit code {done.returncode}.")
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def undisturbed() -> Iterator[bool]:
    """Keep other programs from interrupting this thread and those that it starts, as on a machine that is idle.

    They have real-time priority meanwhile, which Linux gives to root alone.

    :returns: whether it is so.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))
    except (AttributeError, OSError):
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def environment(threads: int) -> dict[str, str]:
    # nnU-Net takes its thread limit for networks and resampling from nnUNet_def_n_proc
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "nnUNet_def_n_proc": str(threads),
        "nnUNet_compile": "f",
    }


def free_bytes() -> int:
    """Return the memory that is available without swapping."""
    import psutil

    return psutil.virtual_memory().available


def machine() -> dict[str, Any]:
    """Return processor, memory, versions and date, which are stored with the figures."""
    import psutil

    names = ("torch", "nnunetv2", "numpy", "scipy", "scikit-image", "SimpleITK")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_GiB": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "date": date.today().isoformat(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


@dataclass(frozen=True)
class Bar:
    """A figure and its limit: the largest allowed value, or the smallest if ``at_least``."""

    what: str
    measured: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def parse(
    description: str, name: str, parts: Iterable[str] = (), more: Mapping[str, dict[str, Any]] | None = None
) -> argparse.Namespace:
    """Parse the options of all benchmarks: ``root`` (absolute path, for models and images), ``quick`` and ``task``.

    :param parts: names of parts that can be measured alone, with ``only``.
    :param more: further options, the arguments of ``add_argument`` by name.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(".benchmarks") / name, help="folder for models and images")
    parser.add_argument("--quick", action="store_true", help="a small version that shows that everything works")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=[*parts], help="measure one part anew" if parts else argparse.SUPPRESS)
    for option, arguments in (more or {}).items():
        parser.add_argument(option, **arguments)
    options = parser.parse_args()
    options.root = options.root.resolve()
    options.root.mkdir(parents=True, exist_ok=True)
    return options


def report(options: argparse.Namespace, name: str, rows: list[dict], bars: list[Bar], part: str | None = None) -> int:
    """Print a table and write ``results/<name>.json`` (with ``--quick``, into the root folder).

    :param part: that was measured; what the file has of other parts stays.
    :returns: the exit code: 1 if a bar is missed, else 0.
    """
    from ClassScaleSegLib.files import replacing

    print_table(rows)
    for bar in bars:
        sign = ">=" if bar.at_least else "<="
        print(f"{'met   ' if bar.met else 'MISSED'} {bar.what}: {bar.measured:.4g} (bar: {sign} {bar.limit:g})")
    folder = options.root if options.quick else HERE / "results"
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.json"
    told = [{**asdict(bar), "met": bar.met} for bar in bars]
    if part is not None:
        before = json.loads(file.read_text()) if file.exists() else {"bars": [], "cases": []}
        others = {key: [row for row in before[key] if row["part"] != part] for key in ("bars", "cases")}
        told = [*others["bars"], *({"part": part, **bar} for bar in told)]
        rows = [*others["cases"], *({"part": part, **row} for row in rows)]
    content = {"quick": options.quick, "bars": told, "cases": rows, "machine": machine()}
    with replacing(file, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    return int(not all(bar.met for bar in bars))


def print_table(rows: list[dict]) -> None:
    """Print rows with the same or different keys, with one column per key."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def mebibytes(count: float) -> float:
    return round(count / 2**20, 1)
