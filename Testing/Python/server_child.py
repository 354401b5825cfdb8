"""What stands for the child processes of a server: a script that a test controls, in place of a segmentation."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from ClassScaleSegLib.resources import resource
from ClassScaleSegLib.server import serving
from ClassScaleSegLib.server.offers import Offers
from live_server import Api, live_server

IMAGE = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n\n" + bytes(64)
SAMPLE = resource("SampleData", "toy-120.nrrd")

# What the child process of a job does instead of computing: it reads the job, and does what the file "do" says.
_CHILD = """
import json, pathlib, shutil, sys, time
job = json.loads(pathlib.Path(sys.argv[sys.argv.index("--job") + 1]).read_text())
do = pathlib.Path({folder!r})
def say(**facts): print(json.dumps(facts), flush=True)
(do / f"began {{time.monotonic_ns()}}").touch()
say(event="progress", stage="segment", done=1, total=4, remaining=2.5)
exec((do / "do").read_text())
for name in ("output", "confidence"):
    if job[name]: shutil.copy(do / "result.seg.nrrd", job[name])
if job["statistics"]: pathlib.Path(job["statistics"]).write_text("name,volume")
say(event="result", structures=2, seconds=0.1)
"""


@cache
def toy_offers() -> Offers:
    """The models that the servers of the tests offer."""
    return Offers(("toy-120",))


class Child:
    """What stands for the child processes: Python code is done in place of a segmentation.

    :ivar folder: what it needs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.does("")

    def does(self, code: str) -> None:
        """Let the jobs do this before they write their results. It knows ``job``, ``say`` and ``do``, a folder."""
        (self.folder / "do").write_text(code)

    def waits(self) -> None:
        """Let the jobs wait until :meth:`goes_on` is called."""
        self.does("while not (do / 'go on').exists(): time.sleep(0.02)")

    def goes_on(self) -> None:
        """Let the jobs that wait end."""
        (self.folder / "go on").touch()

    @property
    def began(self) -> int:
        """How many have begun."""
        return len(list(self.folder.glob("began *")))


def fake_child(folder: Path, monkeypatch: Any) -> Child:
    """Let children of this process do what the test says, in a tenth of a second."""
    import SimpleITK as sitk
    from ClassScaleSegLib.process import child

    folder.mkdir()
    (folder / "child.py").write_text(_CHILD.format(folder=str(folder)))
    labels = sitk.ReadImage(resource("SampleData", "toy-120-labels.nrrd"))
    sitk.WriteImage(labels, folder / "result.seg.nrrd", useCompression=True)
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{folder}/child.py" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(child, "default_python", lambda: str(script))
    return Child(folder)


class Faults(logging.Handler):
    """Collects what a server logs as a fault of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.all: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(self.format(record))


@contextmanager
def without_faults(api: Api, token: str) -> Iterator[None]:
    """Assert that in the end a server still answers, and has not logged a fault of its own."""
    faults = Faults()
    logging.getLogger().addHandler(faults)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(faults)
    assert api("get", "health").json()["token"] == token and faults.all == []


def left(api: Api) -> list[str]:
    """Return what lies in the folder of a server: files, and folders too."""
    found: list[str] = []
    for name in ("uploads", "unfinished", "results"):
        for folder, folders, files in os.walk(api.folder / name):  # passes over what is removed meanwhile
            found += (os.path.relpath(os.path.join(folder, each), api.folder) for each in (*folders, *files))
    return sorted(found)


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> bool:
    """Wait until something is true, and return whether it is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(name="child")
def controlled_child(tmp_path, monkeypatch):
    """What the jobs do."""
    monkeypatch.setattr(serving, "_SECONDS_BETWEEN_CLEANINGS", 0.05)
    before = set(psutil.Process().children(recursive=True))  # of other tests
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield fake_child(tmp_path / "child", monkeypatch)
    assert wait_until(lambda: before.issuperset(psutil.Process().children(recursive=True)), 60)


@contextmanager
def a_server(folder: Path, token: str | None = None, **settings):
    """A server which logs no fault of its own, still answers in the end, and holds nothing then."""
    with live_server(folder, toy_offers(), token, **settings) as api:
        with without_faults(api, "accepted" if token else "not needed"):
            yield api
            assert wait_until(lambda: left(api) == [], 60), left(api)


@pytest.fixture(name="api")
def server_without_tokens(tmp_path, child):
    with a_server(tmp_path / "server") as server:
        yield server


def refused(answer: requests.Response, status: int, code: str, *words: str) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert all(word in error["message"] for word in words) and error["message"].endswith("."), error


def remove(api: Api, *ids: str) -> None:
    for name in ids:
        assert api("delete", f"jobs/{name}").status_code == 204


def start(api: Api, *images: str, **more) -> str:
    answer = api.job(list(images) or [api.upload(IMAGE)], **more)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def finished(api: Api, **more) -> str:
    name = start(api, **more)
    assert api.wait(name)["state"] == "finished"
    return name


def connection(api: Api) -> socket.socket:
    host, port = api.address[7:].split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def begin(api: Api, line: str, *headers: str, body: bytes = b"") -> socket.socket:
    """Send the head of a request, and the beginning of its body, and keep the connection."""
    opened = connection(api)
    opened.sendall("\r\n".join((f"{line} HTTP/1.1", f"Host: {api.address[7:]}", *headers, "", "")).encode() + body)
    return opened


def is_closed(opened: socket.socket) -> bool:
    """Read all that comes, and tell whether the connection was closed then."""
    try:
        while opened.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def nrrd(**fields: str) -> bytes:
    facts = {"type": "uint8", "dimension": "3", "sizes": "4 4 4", "encoding": "raw", **fields}
    return b"NRRD0004\n" + "".join(f"{name}: {value}\n" for name, value in facts.items()).encode() + b"\n" + bytes(64)
