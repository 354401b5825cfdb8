"""A server that lies or is broken: what it sends without end neither fills the memory of a client nor keeps it."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ClassScaleSegLib.errors import Cancelled, ServerError
from ClassScaleSegLib.inference.progress import Monitor, Progress
from ClassScaleSegLib.remote import connection as module
from ClassScaleSegLib.remote import events, exchange, jobs, sending
from ClassScaleSegLib.remote.connection import Connection
from ClassScaleSegLib.remote.jobs import Outcome, RemoteJob
from ClassScaleSegLib.remote.preparing import ImageFile
from ClassScaleSegLib.remote.sending import send
from remote_fixtures import Clock, lying_server

FILE = {"size": 3, "sha256": 64 * "a"}
FINISHED = {"id": "a", "state": "finished", "result": {"files": {"segmentation": FILE}}}
PROGRESS = b'event: progress\ndata: {"stage": "segment", "done": 1, "total": 8}\n\n'
END = b"event: end\ndata: {}\n\n"


@pytest.fixture
def liar(monkeypatch):
    monkeypatch.setattr(module, "_PAUSES", (0.05,) * 7)
    with lying_server() as server:
        server.says("POST /v1/jobs", {"id": "a", "state": "running"})
        server.says("GET /v1/jobs/a", FINISHED)
        server.says("DELETE /v1/jobs/a", {})
        yield server


def followed(liar, progress=lambda report: None, cancel=None) -> Outcome:
    """What a job has made that such a server pretends to do."""
    return RemoteJob(Connection(liar.address), {"key": "a"}, Monitor(cancel=cancel), progress).run()


def test_events_without_end_are_stopped_by_cancelling_and_do_not_pile_up(liar):
    made, token = itertools.count(), threading.Event()
    liar.streams["GET /v1/jobs/a/events"] = lambda: (100 * PROGRESS for _ in iter(lambda: next(made), None))
    threading.Timer(1, token.set).start()
    begin, seen = time.monotonic(), []
    with pytest.raises(Cancelled):
        followed(liar, lambda report: seen.append(report) or time.sleep(0.002), token)
    assert time.monotonic() - begin < 30
    assert 100 * next(made) < len(seen) + 100_000  # the rest fits into the buffers of the network


def test_lines_without_end_are_read_up_to_a_limit(liar, monkeypatch):
    monkeypatch.setattr(events, "_STREAM_BYTES", 1 << 20)
    liar.streams["GET /v1/jobs/a/events"] = lambda: itertools.repeat(b"data: " + 10_000 * b"x")
    with pytest.raises(ServerError, match="sends more than the 1048576 bytes"):
        followed(liar)


def test_the_last_event_may_be_longer_than_any_other(liar):
    long = b'event: end\ndata: {"result": "' + (3 << 20) * b"x" + b'"}\n\n'
    liar.streams["GET /v1/jobs/a/events"] = lambda: iter([PROGRESS, long])
    assert followed(liar).files["segmentation"].size == 3


def test_a_stream_that_does_not_end_is_left_and_the_job_asked_for(liar, monkeypatch):
    monkeypatch.setattr(events, "_STREAM_SECONDS", 0.3)
    liar.streams["GET /v1/jobs/a/events"] = lambda: slowly(itertools.repeat(b": alive\n\n"), 0.05)
    assert followed(liar).files["segmentation"].size == 3


def test_messages_without_end_are_passed_on_up_to_a_limit(liar, monkeypatch):
    monkeypatch.setattr(jobs, "_MESSAGES", 10)
    message = b'event: message\ndata: {"text": "Again."}\n\n'
    liar.streams["GET /v1/jobs/a/events"] = lambda: iter([50 * message, PROGRESS, END])
    seen: list[Progress] = []
    followed(liar, seen.append)
    assert [report.message for report in seen] == [*10 * ["Again."], ""]


@pytest.mark.parametrize("name", [5000 * "9", "\u0663", "-1", "1 "])
def test_an_odd_id_of_an_event_is_not_sent_back(liar, name):
    begun = iter(range(2))
    said = [f"id: 7\nevent: progress\ndata: {{}}\nid: {name}\n\n".encode()], [END]
    liar.streams["GET /v1/jobs/a/events"] = lambda: iter(said[next(begun)])
    states = iter(["running", "finished"])

    def state() -> Iterator[bytes]:
        yield json.dumps({**FINISHED, "state": next(states)}).encode()

    liar.streams["GET /v1/jobs/a"] = state
    followed(liar)
    asked = [headers.get("Last-Event-ID") for _, path, headers in liar.requests if path.endswith("events")]
    assert asked == [None, "7"]


def slowly(pieces: Iterator[bytes], seconds: float) -> Iterator[bytes]:
    for piece in pieces:
        time.sleep(seconds)
        yield piece


def endless(liar, monkeypatch, size: int, each: Callable[[], None]) -> None:
    """Let the server answer without end in pieces of this size, and call something before each."""
    monkeypatch.setattr(exchange, "LARGEST_JSON", 1 << 40)
    liar.answers["GET /v1/models"] = (200, {"Content-Length": str(1 << 40)}, b"")

    def write(handler) -> None:
        for piece in slowly(itertools.repeat(size * b" "), 0.01):
            each()
            handler.wfile.write(piece)

    liar.after = write


def test_an_answer_that_comes_by_single_bytes_is_none(liar, monkeypatch):
    """Time passes as the server sends them, and they are no piece: nothing arrives."""
    clock, connection = Clock(monkeypatch), Connection(liar.address)
    connection.health()
    endless(liar, monkeypatch, 1, lambda: clock.sleep(5))
    with pytest.raises(ServerError, match="has not answered for 600 s. Its last fault"):
        connection.ask("GET", "/v1/models", Monitor())


def test_an_answer_that_comes_so_slowly_that_it_has_no_end_is_given_up(liar, monkeypatch):
    """Time passes as its pieces arrive, so that there is always a last one."""
    clock, connection = Clock(monkeypatch), Connection(liar.address)
    connection.health()
    endless(liar, monkeypatch, 16 << 10, lambda: None)
    touch = Connection.touch
    monkeypatch.setattr(Connection, "touch", lambda connection: (clock.sleep(5), touch(connection)))
    with pytest.raises(ServerError, match="has not sent a whole answer"):
        connection.ask("GET", "/v1/models", Monitor())


def test_an_answer_that_breaks_off_again_and_again_is_given_up(liar, monkeypatch):
    Clock(monkeypatch)
    connection = Connection(liar.address, patience=1)
    connection.health()
    liar.answers["GET /v1/models"] = (200, {"Content-Length": "100000"}, 50_000 * b" ")
    liar.after = lambda handler: handler.connection.shutdown(2)
    with pytest.raises(ServerError, match="has not sent a whole answer"):
        connection.ask("GET", "/v1/models", Monitor())


def test_a_packed_answer_is_not_unpacked(liar):
    liar.answers["GET /v1/models"] = (200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(1 << 20)))
    with pytest.raises(ServerError, match=r"packs its answer \(gzip\), which was not asked for"):
        Connection(liar.address).ask("GET", "/v1/models", Monitor())
    connection = Connection(liar.address)
    connection.health()
    liar.answers["GET /v1/models"] = (502, {"Content-Encoding": "gzip"}, gzip.compress(bytes(1 << 20)))  # of a proxy
    liar.later["GET /v1/models"] = (liar.count("GET /v1/models") + 2, {"models": []})
    assert connection.ask("GET", "/v1/models", Monitor()) == {"models": []}


def test_a_server_that_takes_a_byte_of_each_part_is_given_up(liar, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(sending, "_MOST_PARTS", 10)
    (tmp_path / "a.nrrd").write_bytes(bytes(5000))
    file = ImageFile(tmp_path / "a.nrrd", ".nrrd", 5000, 64 * "a", 32 * "k")
    liar.says("POST /v1/uploads", {"id": "b", "offset": 0, "complete": False})
    count = itertools.count(1)

    def taken() -> Iterator[bytes]:
        yield json.dumps({"id": "b", "offset": min(next(count), 4999), "complete": False}).encode()

    liar.streams["PATCH /v1/uploads/b"] = taken
    with pytest.raises(ServerError, match="lost the image 5 times"):
        send(Connection(liar.address), [file], Monitor(), [])
    assert next(count) < 100
