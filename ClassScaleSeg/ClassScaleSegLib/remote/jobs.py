"""A job on a server: sent, followed until it ends, its files fetched, and removed there."""

from __future__ import annotations

import hashlib
import json
import queue
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..errors import (
    ClassScaleError,
    ImageError,
    LabelTableError,
    ModelError,
    OutOfMemoryError,
    OutputError,
    ServerError,
    shown,
)
from ..images.cleanup import ClassChange
from ..inference.progress import Monitor, Progress
from ..labels.label import MAX_VALUE
from ..models.json_checks import is_sha256, is_text
from .connection import LARGEST_JOB, Connection
from .events import Events
from .faults import Refused
from .fetching import Fetching, RemoteFile
from .removing import Sent, is_id, remove_quickly
from .sending import MIB

KINDS = {"segmentation": "result", "confidence": "confidence"}  # files of a job, and the end of their addresses
_ENDED = ("finished", "failed", "cancelled")
_FORGOTTEN = ("job_unknown", "upload_unknown", "upload_incomplete")  # after a restart
_EVENTS = 256  # that wait to be passed on
_MESSAGES = 1000  # of one job that are passed on; a server keeps 500
_TRIES = 3  # to fetch a file whose checksum is wrong
# what an exit code of the server's job means; others are faults of the server
_ERRORS: dict[int, type[ClassScaleError]] = {
    3: ModelError,
    4: ImageError,
    5: OutputError,
    6: OutOfMemoryError,
    7: LabelTableError,
}


class Forgotten(ServerError):
    """The server does not know the job or its images any more: it was started again."""


@dataclass(frozen=True)
class Outcome:
    """What a job has made.

    :ivar files: by the names in ``KINDS``.
    :ivar changes: what cleaning up changed; ``None`` if nothing was cleaned up, or the server does not know any more.
    """

    files: dict[str, RemoteFile]
    changes: tuple[ClassChange, ...] | None


class RemoteJob:
    """A job of a server, from sending it to removing it.

    :ivar name: its id, while the server has it.

    :param body: as the protocol describes it; with its ``key``, it can be sent again without being done twice.
    :param monitor: gets reports of the stage "fetch", in MiB, and may cancel.
    :param progress: called with each report of the server.
    """

    def __init__(
        self, connection: Connection, body: Mapping[str, Any], monitor: Monitor, progress: Callable[[Progress], None]
    ):
        self._connection, self._body, self._monitor, self._progress = connection, dict(body), monitor, progress
        self.name, self._places, self._messages = "", 0, 0
        self._unanswered = False  # the server may have the job, but has not told its id
        self._last = Progress("queue", 0, 1)

    def run(self) -> Outcome:
        """Send the job, and wait until it ends.

        :raises Forgotten: if the server does not know it or its images any more.
        :raises ClassScaleError: if it has failed, of the kind that a job on this machine would raise.
        :raises Cancelled: if the monitor's token is set. The job is removed.
        """
        try:
            return self._result(self._follow(self._send()))
        except Refused as error:
            if error.code in _FORGOTTEN:
                self.name = ""
                raise Forgotten(str(error)) from error
            raise

    def fetch(self, kind: str, file: RemoteFile, place: Path, most: int) -> None:
        """Fetch a file of the job, in several pieces if the connection is lost.

        :param kind: one of ``KINDS``.
        :param most: bytes that the file can have.
        :raises Forgotten: if the server does not know the job any more.
        :raises ServerError: if it is too large, or arrives damaged.
        """
        if file.size > most:
            raise ServerError(
                f"{self._connection.address} would send {file.size} bytes, more than the result can have. Nothing was "
                "fetched."
            )
        for _ in range(_TRIES):
            digest, fetching = hashlib.sha256(), Fetching(self._connection, self._path(KINDS[kind]), file, place)
            try:
                self._connection.patiently(fetching.work, self._monitor, meanwhile=self._reporting(fetching))
            except Refused as error:
                if error.code in _FORGOTTEN:
                    raise Forgotten(str(error)) from error
                raise
            except OSError as error:
                raise OutputError(
                    f"The result cannot be fetched: it cannot be written to {place.parent} first "
                    f"({error.strerror or error}). Free some space there, or set the environment variable TMPDIR to "
                    "another folder."
                ) from error
            finally:
                fetching.close()
            self._monitor.check()
            with place.open("rb") as stream:
                while piece := stream.read(MIB):
                    digest.update(piece)
            if digest.hexdigest() == file.sha256:
                return
            place.unlink()
        raise ServerError(
            f"The result from {self._connection.address} arrived damaged {_TRIES} times (its SHA-256 differs). Run "
            "this again."
        )

    def remove(self) -> None:
        """Cancel the job if it runs, and remove all that the server has of it. Faults are ignored: it does so itself
        after a while."""
        name, self.name = self.name, ""
        unanswered, self._unanswered = self._unanswered, False
        if name or unanswered:
            remove_quickly(self._connection, [Sent("/v1/jobs", self._body, name)])

    def _path(self, end: str = "") -> str:
        return f"/v1/jobs/{self.name}{'/' * bool(end)}{end}"

    def _send(self) -> dict[str, Any]:
        self._unanswered = True
        try:
            facts = self._connection.ask("POST", "/v1/jobs", self._monitor, self._body, most=LARGEST_JOB)
        except Refused:
            self._unanswered = False
            raise
        if not is_id(facts.get("id")):
            raise self._connection.odd("a job")
        self.name, self._unanswered = facts["id"], False
        return facts

    def _follow(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return what the server says of the job when it has ended."""
        events = Events(self._connection, self._path("events"))
        while facts.get("state") not in _ENDED:
            found: queue.Queue[tuple[str, str]] = queue.Queue(_EVENTS)  # if it is full, the server has to wait
            stop = threading.Event()

            def work(found: Any = found, stop: threading.Event = stop) -> None:
                for event in events.read(stop):
                    while not stop.is_set():
                        with suppress(queue.Full):
                            found.put(event, timeout=0.1)
                            break

            def meanwhile(found: Any = found) -> None:
                with suppress(queue.Empty):
                    for _ in range(_EVENTS):
                        kind, data = found.get_nowait()
                        self._happened(kind, _json(data))

            try:
                self._connection.patiently(work, self._monitor, meanwhile=meanwhile)
            finally:
                stop.set()
            meanwhile()
            facts = self._connection.ask("GET", self._path(), self._monitor, most=LARGEST_JOB)
            if facts.get("state") not in _ENDED:
                self._connection.pause(self._monitor)
        return facts

    def _happened(self, kind: str, facts: dict[str, Any]) -> None:
        """Report an event of the job."""
        if kind == "queued":
            place = _whole(facts.get("place"), 0)
            first = not self._places
            self._places = max(self._places, place)
            said = f"{place} {'jobs are' if place > 1 else 'job is'} before this one." if first and place else ""
            self._tell(Progress("queue", max(1, self._places) - place, max(1, self._places), message=said))
        elif kind == "message" and self._messages < _MESSAGES:
            self._messages += 1
            self._progress(replace(self._last, message=shown(str(facts.get("text")))))
        elif kind == "progress":
            remaining: Any = facts.get("remaining")
            known = type(remaining) in (int, float) and 0 <= remaining < 1e9
            total, parts = _whole(facts.get("total"), 1), _whole(facts.get("parts"), 1)
            stage = facts.get("stage")
            self._tell(
                Progress(
                    stage if isinstance(stage, str) and re.fullmatch(r"[a-z]{1,20}", stage) else "segment",
                    min(_whole(facts.get("done"), 0), total),
                    total,
                    float(remaining) if known else None,
                    part=min(_whole(facts.get("part"), 1), parts),
                    parts=parts,
                )
            )

    def _result(self, facts: Mapping[str, Any]) -> Outcome:
        """Return what a job that has ended has made.

        :raises ClassScaleError: if it has failed.
        """
        if facts.get("state") == "failed":
            code, said = facts.get("exit_code"), shown(str(facts.get("error") or "The job has failed."))
            self.remove()
            raise _ERRORS.get(code if type(code) is int else 0, ServerError)(f"{self._connection.address}: {said}")
        if facts.get("state") == "cancelled":
            self.remove()
            raise ServerError(f"The job was cancelled at {self._connection.address}, or the server was stopped.")
        result = facts.get("result")
        listed = result.get("files") if isinstance(result, dict) else None
        files = {}
        for kind in KINDS:
            each = listed.get(kind) if isinstance(listed, dict) else None
            if each is None:
                continue
            if not isinstance(each, dict) or type(each.get("size")) is not int or not is_sha256(each.get("sha256")):
                raise self._connection.odd("a result")
            files[kind] = RemoteFile(each["size"], each["sha256"])
        if "segmentation" not in files:
            raise self._connection.odd("a result")
        return Outcome(files, _changes(result.get("changes") if isinstance(result, dict) else None))

    def _tell(self, report: Progress) -> None:
        self._last = replace(report, message="")
        self._progress(report)

    def _reporting(self, fetching: Fetching) -> Callable[[], None]:
        steps = max(1, -(-fetching.file.size // MIB))
        return lambda: self._monitor.report("fetch", min(steps, fetching.done // MIB), steps)


def _changes(listed: Any) -> tuple[ClassChange, ...] | None:
    """Return what cleaning up changed; ``None`` if that is not said as it should be: nothing else depends on it."""
    if not isinstance(listed, list) or len(listed) > MAX_VALUE:
        return None
    names = [each.name for each in fields(ClassChange)]
    found = []
    for each in listed:
        values: list[Any] = [each.get(name) for name in names] if isinstance(each, dict) else []
        numbers = [value for name, value in zip(names, values, strict=False) if name != "name"]
        if not values or not all(type(value) is int for value in numbers) or not is_text(each["name"]):
            return None
        found.append(ClassChange(*values))
    return tuple(found)


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole(value: Any, least: int) -> int:
    return value if type(value) is int and least <= value < 10**9 else least
