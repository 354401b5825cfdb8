"""Parts of `cohort.py` in which workers and commands are killed, or told to stop."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from cohort_runs import FAST, Command, different, kill, ledger, run, stray_files, write_cases
from measure import Bar

SIDE, LONG = (64, 64, 64), (96, 96, 96)
CASES, KILLS, COMMANDS = 200, 20, 3
POISONED = 20
_SECONDS_AFTER = 2.0  # at most, from a case that is done to the next kill
_SOME_FAILED, _CANCELLED = 1, 130


class _Writes(threading.Thread):
    """Counts how often each result gets its name: a file that is replaced has another inode."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder, self._inodes, self._ended = folder, dict[str, int](), threading.Event()
        self.count: Counter[str] = Counter()

    def run(self) -> None:
        while not self._ended.wait(0.02):
            for entry in os.scandir(self._folder):
                if not entry.name.startswith(".") and self._inodes.get(entry.name) != entry.inode():
                    self._inodes[entry.name] = entry.inode()
                    self.count[entry.name] += 1

    def end(self) -> None:
        self._ended.wait(0.05)
        self._ended.set()
        self.join()


def kills(root: Path, quick: bool) -> tuple[list[dict[str, Any]], list[Bar]]:
    """Kill workers and the command while a cohort is segmented, and compare its results with those of one process."""
    count, of_workers, of_commands = (24, 3, 1) if quick else (CASES, KILLS, COMMANDS)
    images, output, reference = write_cases(root / f"cases_{count}", count, SIDE), root / "kills", root / "alone"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    if not reference.exists() or len(list(reference.glob("*.nrrd"))) != count:
        shutil.rmtree(reference, ignore_errors=True)
        run("segment", images, *FAST, "-o", reference)
    rng = random.Random(17)
    moments = sorted(rng.randrange(count * 3 // 4) for _ in range(of_workers + of_commands))
    victims = rng.sample(["worker"] * of_workers + ["command"] * of_commands, len(moments))
    writes, commands, slowest, killed = _Writes(output), [_segment(images, output)], 0.0, 0
    writes.start()
    for done, victim in zip(moments, victims, strict=True):
        _wait(lambda done=done: len(writes.count) >= done)
        time.sleep(rng.uniform(0, _SECONDS_AFTER))
        if victim == "worker":
            killed += _kill_one(commands[-1], rng)
        else:
            commands[-1].kill()
            commands.append(_segment(images, output))  # at once: the workers of the last one may still be there
            slowest = max(slowest, commands[-2].seconds_until_gone())
    code = commands[-1].end()
    writes.end()
    lines = ledger(output)
    events = Counter((line["event"], line.get("case")) for line in lines)
    begun = Counter({case: number for (event, case), number in events.items() if event == "running"})
    names = [file.name.removesuffix(".nrrd") for file in images.iterdir()]
    not_once = [name for name in names if events["done", name] != 1]
    wrong, stray = different(output, reference), stray_files(output)
    row = {
        "cases": count,
        "workers killed": killed,
        "while they segmented": sum(line["event"] == "died" for line in lines),
        "commands killed": of_commands,
        "cases begun again": sum(number > 1 for number in begun.values()),
        "results written again": sum(number > 1 for number in writes.count.values()),
        "seconds until workers of a killed command are gone": round(slowest, 2),
        "seconds": round(time.perf_counter() - commands[0].begin, 1),
    }
    print(row, wrong, stray, not_once, flush=True)
    left = sum(len(command.left()) for command in commands)
    return [row], [
        Bar("workers killed", killed, of_workers, at_least=True),
        Bar("exit code", code, 0),
        Bar("results missing, too many, or other than without a cluster", len(wrong), 0),
        Bar("cases that are not done once in the ledger", len(not_once), 0),
        Bar("temporary files left", len(stray), 0),
        Bar("processes left", left, 0),
    ]


def _kill_one(command: Command, rng: random.Random) -> bool:
    """Kill a worker of a command that runs; return whether there was one."""
    while command.process.poll() is None:
        if (there := command.workers()) and kill(rng.choice(there)):
            return True
        time.sleep(0.01)
    return False


def _segment(images: Path, output: Path, where: str = "local:4") -> Command:
    return Command("segment", images, *FAST, "-o", output, "--cluster", where)


def _wait(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > deadline:
            raise SystemExit("Nothing has happened for a long time; the command may hang.")
        time.sleep(0.01)


def poison(root: Path, quick: bool) -> tuple[list[dict[str, Any]], list[Bar]]:
    """Kill every worker that begins with one of the cases; then let the case be tried again."""
    count = 6 if quick else POISONED
    images, output = write_cases(root / f"cases_{count}", count, SIDE), root / "poison"
    shutil.rmtree(output, ignore_errors=True)
    command, seen, deaths = _segment(images, output, "local:2"), 0, 0
    while command.process.poll() is None:
        lines = ledger(output)
        for line in lines[seen:]:
            if line["event"] == "running" and line["case"] == "case0003":
                deaths += kill(psutil.Process(int(re.findall(r"process (\d+)", line["worker"])[0])))
        seen = len(lines)
        time.sleep(0.01)
    code, at = command.end(), time.perf_counter()
    others = sum(line["event"] == "done" for line in ledger(output))
    aside = [line.get("kind") for line in ledger(output) if line["event"] == "failed"]
    again = run("segment", images, *FAST, "-o", output, "--cluster", "local:2", code=_SOME_FAILED)
    retried = run("cohort", "retry", output)
    done = [line["case"] for line in ledger(output) if line["event"] == "done"]
    row = {
        "cases": count,
        "workers that died": deaths,
        "others done": others,
        "seconds": round(at - command.begin, 1),
        "cases begun when the command is run again": len(again.times("cohort")),
        "done by retry": len(retried.times("result")),
    }
    return [row], [
        Bar("workers that a case kills", deaths, 4),
        Bar("other cases that are not done", count - 1 - others, 0),
        Bar("cases that are not put aside, of one", abs(len(aside) - 1), 0),
        Bar("exit codes other than 1 before the retry", code != _SOME_FAILED, 0),
        Bar("cases not done once after the retry", count - len(set(done)) + len(done) - len(set(done)), 0),
        Bar("temporary files left", len(stray_files(output)), 0),
    ]


def ending(root: Path, quick: bool) -> tuple[list[dict[str, Any]], list[Bar]]:
    """Send Ctrl-C and termination signals at several moments, and wait until all processes are gone."""
    images, rows = write_cases(root / "long_6", 6, LONG), []
    for moment in _MOMENTS if not quick else ("models load", "in a case"):
        for name, to_all in (("SIGINT", True), ("SIGINT", False), ("SIGTERM", False), ("SIGTERM", True)):
            if quick and (name == "SIGTERM") == to_all:
                continue
            output = root / "ending"
            shutil.rmtree(output, ignore_errors=True)
            command = _segment(images, output, "local:2")
            _MOMENTS[moment](command, output)
            send, number = os.killpg if to_all else os.kill, getattr(signal, name)
            send(command.process.pid, number)
            seconds = command.seconds_until_gone()
            code = command.end()
            rows.append(
                {
                    "when": moment,
                    "signal": name,
                    "to": "all processes" if to_all else "the command",
                    "seconds": round(seconds, 2),
                    "exit code": code,
                    "files left": len(stray_files(output)) if output.exists() else 0,
                }
            )
            print(rows[-1], flush=True)
    return rows, [
        Bar("seconds until nothing is left, at the slowest", max(row["seconds"] for row in rows), 5),
        Bar("exit codes other than 130", sum(row["exit code"] != _CANCELLED for row in rows), 0),
        Bar("temporary files left", sum(row["files left"] for row in rows), 0),
    ]


def _events(output: Path, event: str) -> Iterator[dict[str, Any]]:
    return (line for line in ledger(output) if line["event"] == event)


def _after(seconds: float) -> Callable[[Command, Path], None]:
    return lambda command, output: time.sleep(seconds)


def _models_load(command: Command, output: Path) -> None:
    _wait(lambda: any(_events(output, "running")))
    time.sleep(0.5)


def _in_a_case(command: Command, output: Path) -> None:
    _wait(lambda: command.times("result"))
    time.sleep(1)


def _between(command: Command, output: Path) -> None:
    _wait(lambda: len(command.times("result")) > 1)


_MOMENTS: dict[str, Callable[[Command, Path], None]] = {
    "Python starts": _after(0.5),
    "Dask starts": _after(1.5),
    "workers start": _after(2.5),
    "models load": _models_load,
    "in a case": _in_a_case,
    "a case is done": _between,
}
