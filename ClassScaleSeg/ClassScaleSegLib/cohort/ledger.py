"""The ledger of a cohort: what happened to each case, in the order in which it happened.

``OUT/.classscaleseg/cohort.jsonl`` has a JSON object in each line. Lines are only added, and only by the command, which
holds a lock meanwhile. A line that was cut off, because the command was killed, is ignored and ended by the next run.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from ..errors import OutputError
from ..files import unwritable
from ..locking import is_locked, locked
from .records import FOLDER

NAME, LOCK, RUN = "cohort.jsonl", "lock", "run"
PUT_ASIDE = "WorkerDied"  # the error of a case whose workers died again and again
_BUSY = "The cohort in {} is being segmented"


class Ledger:
    """Adds lines to the ledger of a folder of results; see :func:`open_ledger`.

    :ivar run: id of this run, which the file ``OUT/.classscaleseg/run`` holds while it is the latest one. Workers look
        there before they write a result, so that one that was cut off does not replace the result of a later run.
    """

    def __init__(self, file: TextIO, run: str) -> None:
        self._file, self.run = file, run

    def add(self, event: str, **facts: Any) -> None:
        """Add a line: time, run, event, and the facts, which must be JSON values.

        :raises OutputError: if it cannot be written.
        """
        line = {"at": _now(), "run": self.run, "event": event, **facts}
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise unwritable(Path(self._file.name), error) from error


@contextmanager
def open_ledger(folder: str | Path) -> Iterator[Ledger]:
    """Open the ledger of a folder of results for one run.

    :raises Busy: if another process has opened it.
    :raises OutputError: if it cannot be written.
    """
    own = Path(folder) / FOLDER
    with locked(own / LOCK, _BUSY.format(folder)):
        run = secrets.token_hex(8)
        try:
            (own / RUN).write_text(run, encoding="utf-8")
            cut_off = _is_cut_off(own / NAME)
            file = open(own / NAME, "a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise unwritable(own / NAME, error) from error
        try:
            if cut_off:
                file.write("\n")
            yield Ledger(file, run)
        finally:
            with suppress(OSError):  # a full disk, which was told when the last line was added
                file.close()


def refuse_running(folder: str | Path) -> None:
    """Refuse a folder of results into which another command segments on a cluster.

    :raises Busy: naming the process.
    """
    lock = Path(folder) / FOLDER / LOCK
    if is_locked(lock):
        with suppress(OutputError), locked(lock, _BUSY.format(folder)):
            pass


def is_latest(folder: str | Path, run: str) -> bool | None:
    """Return whether a run is the latest one of a folder; ``None`` if the folder cannot be seen from here."""
    try:
        return (Path(folder) / FOLDER / RUN).read_text(encoding="utf-8") == run
    except (OSError, UnicodeError):
        return None


@dataclass
class CaseHistory:
    """What the ledger says of a case.

    :ivar state: "running", "waiting" after its worker died, "done", "failed", "kept" if it has results that are not as
        wanted and must not be replaced; "stopped" if a run ended meanwhile.
    :ivar host: the last one that worked on it.
    :ivar worker: the last process there.
    :ivar deaths: how many workers died while they worked on it, in the last run.
    :ivar seconds: of its segmentation.
    :ivar error: why it failed, in a sentence, and ``kind``, the class of the error.
    """

    name: str
    state: str = "waiting"
    host: str = ""
    worker: str = ""
    deaths: int = 0
    seconds: float | None = None
    error: str = ""
    kind: str = ""


@dataclass
class History:
    """What the ledger says of a cohort.

    :ivar cases: by name, in the order in which they began; not those that have not begun.
    :ivar begin: the facts of the last run's first line: "cases", the number of all, "cluster" and "job".
    :ivar running: whether a command is at work on it now.
    :ivar ended: whether the last run came to its end.
    :ivar times: when cases of the last run were done, in seconds since 1970.
    """

    cases: dict[str, CaseHistory] = field(default_factory=dict)
    begin: dict[str, Any] = field(default_factory=dict)
    running: bool = False
    ended: bool = False
    times: list[float] = field(default_factory=list)
    started: float = 0.0

    @property
    def counts(self) -> Counter[str]:
        """How many cases are in each state; "waiting" includes those that have not begun."""
        counts = Counter(case.state for case in self.cases.values())
        counts["waiting"] += max(0, self.begin.get("cases", 0) - counts.total())
        return counts

    @property
    def hosts(self) -> Counter[str]:
        """How many cases run on each host."""
        return Counter(case.host for case in self.cases.values() if case.state == "running")

    @property
    def per_hour(self) -> float | None:
        """How many cases the last run has done in an hour; ``None`` before the second one."""
        return pace(self.started, self.times)

    def failed(self) -> list[CaseHistory]:
        """Return the cases that failed."""
        return [case for case in self.cases.values() if case.state == "failed"]


def pace(started: float, times: list[float]) -> float | None:
    """Return how many cases are done in an hour, from the last 200 of them.

    :param started: when the run began, in seconds; before ``times``.
    :param times: when each case was done, in order.

    >>> pace(0, [10, 20, 30])
    360.0
    """
    recent = [started, *times][-201:]
    seconds = recent[-1] - recent[0]
    return 3600 * (len(recent) - 1) / seconds if len(times) > 1 and seconds > 0 else None


def read_ledger(folder: str | Path) -> History:
    """Read the ledger of a folder of results. It is not trusted.

    :raises OutputError: if there is none, or it cannot be read.
    """
    file, history = Path(folder) / FOLDER / NAME, History()
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                _note(history, line)
    except FileNotFoundError:
        if file.with_name("cases").is_dir():
            said = "was segmented without --cluster, so nothing is known of its runs. To go on, run its command again."
            raise OutputError(f"{folder} {said}") from None
        raise OutputError(f"{folder} is not a folder of results of segment --cluster ({file} is missing).") from None
    except OSError as error:
        raise OutputError(f"{file} cannot be read ({error.strerror or error}).") from error
    held = is_locked(file.with_name(LOCK))
    history.running = held is True
    if held is False:
        for case in history.cases.values():
            case.state = "stopped" if case.state in ("running", "waiting") else case.state
    return history


def _note(history: History, line: str) -> None:
    """Note what a line of the ledger says."""
    try:
        facts = json.loads(line)
        event, at = facts["event"], datetime.fromisoformat(facts["at"]).timestamp()
        name = facts["case"] if event in ("running", "died", "done", "kept", "failed", "gone") else None
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, OSError):
        return  # cut off, or not of ours
    if event == "begin" and type(facts.get("cases")) is int:
        history.begin, history.ended, history.times, history.started = facts, False, [], at
        for case in history.cases.values():
            case.state, case.deaths = "stopped" if case.state in ("running", "waiting") else case.state, 0
    elif event == "end":
        history.ended = True
    if not isinstance(name, str):
        return
    if event == "gone":
        history.cases.pop(name, None)
        return
    case = history.cases.setdefault(name, CaseHistory(name))
    case.host, case.worker = str(facts.get("host") or case.host), str(facts.get("worker") or case.worker)
    if event == "running":
        case.state = "running"
    elif event == "died":
        case.state, case.deaths = "waiting", case.deaths + 1
    elif event in ("done", "kept"):
        seconds = facts.get("seconds")
        case.state, case.error, case.kind = event, "", ""
        case.seconds = seconds if isinstance(seconds, (int, float)) else None
        if case.seconds is not None:  # not found by a later run
            history.times.append(at)
    else:
        case.state, case.error, case.kind = "failed", str(facts.get("error", "")), str(facts.get("kind", ""))


def _now() -> str:
    return datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="milliseconds")


def _is_cut_off(file: Path) -> bool:
    """Return whether the last line of a file has no end."""
    try:
        with file.open("rb") as stream:
            stream.seek(-1, 2)
            return stream.read(1) != b"\n"
    except OSError:  # missing or empty
        return False
