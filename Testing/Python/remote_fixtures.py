"""What the tests of the client share: a server whose jobs take no time, a network that breaks, servers that lie."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import SimpleITK as sitk
from ClassScaleSegLib import Segmentation
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.process.job import Event
from ClassScaleSegLib.remote import connection, exchange, removing
from ClassScaleSegLib.server import workers
from ClassScaleSegLib.server.job import ServerJob
from ClassScaleSegLib.server.jobs import Jobs
from live_server import Api, live_server

HEALTH = {"service": "ClassScaleSeg", "api": 1, "version": "0.2.0", "instance": "a", "token": "not needed"}


@dataclass
class Quick:
    """Jobs that put the first class where the image is above its mean.

    :ivar before: called with each job before it is done; may raise an exception or wait.
    :ivar shift: mm by which the grid of results is moved.
    :ivar names: of classes, instead of those of the model.
    :ivar seen: the options of each job that was begun.
    :ivar sizes: of their images.
    :ivar finished: the keys of those that were done.
    :ivar told: the ids of those whose progress a client was told: it is not told of a job that has ended.
    """

    before: Callable[[ServerJob], None] = lambda job: None
    shift: float = 0.0
    names: dict[int, str] | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    told: set[str] = field(default_factory=set)

    def until_told(self, job: ServerJob) -> None:
        """Wait until a client was told the progress of a job; to be called before it ends."""
        deadline = time.monotonic() + 60
        while job.id not in self.told and not job.stop.is_set() and time.monotonic() < deadline:
            time.sleep(0.01)

    def segment(self, worker: workers.Worker, job: ServerJob, folder: Path) -> None:
        """Do a job, in place of the child process."""
        folder.mkdir()
        self.seen.append(job.wish.options)
        image = sitk.ReadImage(str(job.paths[0]))
        self.sizes.append(image.GetSize())
        for event in (
            Event("message", "segment", 1, 2, 3.5, text="A notice."),
            Event("progress", "segment", 1, 2, 3.5),
        ):
            worker._jobs.happened(job, event, str)
        self.before(job)
        if job.stop.is_set():
            worker._jobs.cancelled(job)
            return
        voxels = sitk.GetArrayFromImage(image)
        summary = worker._offers.all[job.wish.models[0]].summaries[0]
        wanted = job.wish.options.get("classes")
        table = summary.table if wanted is None else summary.table.select(wanted)
        if self.names is not None:
            table = table.from_names(self.names)
        grid = Geometry.from_image(image)
        moved = Geometry(grid.size, grid.spacing, (grid.origin[0] + self.shift, *grid.origin[1:]), grid.direction)
        value = table.foreground[0].value
        labels = np.where(voxels > voxels.mean(), value, 0).astype(np.uint16)
        result = Segmentation(labels, table, moved, np.full(labels.shape, 0.5, np.float32))
        for what, name in job.wish.files.items():
            (result.write if what == "segmentation" else result.write_confidence)(folder / name, **_empty(what))
        files = workers.described_files(folder, job.wish)
        self.finished.append(job.wish.key)
        worker._jobs.finish(job, {"structures": 1, "seconds": 0.1, "files": files}, "")


def _empty(what: str) -> dict[str, bool]:
    return {"keep_empty": True} if what == "segmentation" else {}


@contextlib.contextmanager
def quick_server(folder: Path, offers: Any, quick: Quick, monkeypatch: Any, **more: Any) -> Iterator[Api]:
    """Run the server with such jobs, and clients that wait for the answer when they remove something."""
    real = Jobs.news

    def news(jobs: Jobs, owner: str, name: str, after: int) -> list[tuple[int, str, dict[str, Any]]]:
        found = real(jobs, owner, name, after)
        if any(kind == "progress" and facts["stage"] == "segment" for _number, kind, facts in found):
            quick.told.add(name)
        return found

    monkeypatch.setattr(Jobs, "news", news)
    monkeypatch.setattr(removing, "_SECONDS", 30.0)
    monkeypatch.setattr(workers.Worker, "_segment", lambda worker, job, place: quick.segment(worker, job, place))
    with live_server(folder, offers, **more) as api:
        yield api


def fail(kind: type[ClassScaleError], sentence: str) -> Callable[[ServerJob], None]:
    """Return what makes a job fail."""

    def before(job: ServerJob) -> None:
        raise kind(sentence)

    return before


class Clock:
    """Time as a client sees it, in place of the module ``time``: it passes where the client sleeps, or a test wants it.

    :ivar now: seconds.
    """

    def __init__(self, monkeypatch: Any) -> None:
        self.now = 1000.0
        for module in (connection, exchange):
            monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        time.sleep(0)  # other threads have a turn


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


class Network:
    """Carries connections to a server, and cuts them.

    :ivar up: bytes after which each of the next connections breaks on the way to the server.
    :ivar down: the same on the way back.
    :ivar sent: all that went to the server.
    """

    def __init__(self, address: str) -> None:
        self._target = urlsplit(address).port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.up: list[int] = []
        self.down: list[int] = []
        self.sent = bytearray()
        self.connections = 0
        self._ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._ended = True
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.connections += 1
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:  # it is being started again
                    client.close()
                    continue
                limits = [cuts.pop(0) if cuts else 1 << 60 for cuts in (self.up, self.down)]
                for one, other, limit, note in ((client, server, limits[0], True), (server, client, limits[1], False)):
                    threading.Thread(target=self._carry, args=(one, other, limit, note), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, limit: int, note: bool) -> None:
        with contextlib.suppress(OSError):
            while limit > 0 and (content := one.recv(min(limit, 1 << 16))):
                limit -= len(content)
                if note:
                    self.sent += content
                other.sendall(content)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def network_to(address: str) -> Iterator[Network]:
    network = Network(address)
    try:
        yield network
    finally:
        network.close()


@dataclass
class Liar:
    """A server that says what a test wants.

    :ivar answers: status, headers and content by method and path; health is there already.
    :ivar streams: the same, but what makes the pieces of a content that may have no end.
    :ivar after: called with what has answered one of these, while the connection is still open.
    :ivar requests: method, path and headers of all requests.
    :ivar later: what is said to a request, by method and path, once it was answered otherwise so many times.
    """

    address: str = ""
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    streams: dict[str, Callable[[], Iterator[bytes]]] = field(default_factory=dict)
    after: Callable[[Any], None] = lambda handler: None
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    later: dict[str, tuple[int, Any]] = field(default_factory=dict)

    def count(self, request: str) -> int:
        """Return how often a request has come."""
        return sum(f"{method} {path}" == request for method, path, _headers in self.requests)

    def health(self, **facts: Any) -> None:
        self.says("GET /v1/health", {**HEALTH, **facts})

    def says(self, request: str, facts: Any, status: int = 200, **headers: str) -> None:
        self.answers[request] = (status, headers, json.dumps(facts).encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        liar: Liar = self.server.liar
        liar.requests.append((self.command, self.path, dict(self.headers)))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = f"{self.command} {self.path}"
        times, facts = liar.later.get(asked, (0, None))
        if facts is not None and liar.count(asked) > times:
            liar.says(asked, facts)
        if (pieces := liar.streams.get(f"{self.command} {self.path}")) is not None:
            self._stream(pieces())
            return
        status, headers, content = liar.answers.get(f"{self.command} {self.path}", (404, {}, b"<html>no</html>"))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        liar.after(self)

    def _stream(self, pieces: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PATCH = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def lying_server(certificate: Path | None = None, key: Path | None = None) -> Iterator[Liar]:
    """Run such a server, encrypted if it has a certificate."""
    import ssl

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients hang up on purpose
    server.liar = Liar(f"{'http' if certificate is None else 'https'}://127.0.0.1:{server.server_port}")
    server.liar.health()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.liar
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
