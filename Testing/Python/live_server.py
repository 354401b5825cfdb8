"""A server of this process for tests, on a free port, and requests to it."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests
from ClassScaleSegLib.server import jobs, serving, uploads
from ClassScaleSegLib.server.offers import Offers
from ClassScaleSegLib.server.serving import Settings, prepared
from ClassScaleSegLib.server.workers import Slot

FOLDERS = ("uploads", "unfinished", "results")
SLOT = Slot("cpu", "cpu", threads=1)


class Ahead:
    """The clock of a server that a test lets run ahead, in place of the module ``time``."""

    def __init__(self, monkeypatch: Any) -> None:
        self._seconds, self._cleanings, real = 0.0, 0, jobs.Jobs.remove_old

        def remove_old(these: jobs.Jobs) -> None:
            real(these)
            self._cleanings += 1

        for module in (jobs, uploads):
            monkeypatch.setattr(module, "time", self)
        monkeypatch.setattr(jobs.Jobs, "remove_old", remove_old)
        monkeypatch.setattr(serving, "_SECONDS_BETWEEN_CLEANINGS", 0.02)

    def monotonic(self) -> float:
        return time.monotonic() + self._seconds

    def runs(self, seconds: float) -> None:
        """Let some seconds pass, and wait until the server has removed what is old then."""
        self._seconds += seconds
        after, deadline = self._cleanings + 2, time.monotonic() + 60
        while self._cleanings < after:  # the first one may have begun before
            assert time.monotonic() < deadline
            time.sleep(0.01)


class Api:
    """Requests to a server, as one client makes them.

    :ivar folder: of the server.
    """

    def __init__(self, address: str, folder: Path, token: str | None = None) -> None:
        self.address, self.folder = address, folder
        self.session = requests.Session()
        self.session.trust_env = False
        if token is not None:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def __call__(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.session.request(method, f"{self.address}/v1/{path}", timeout=30, **more)

    def announce(self, data: bytes, **more: Any) -> requests.Response:
        facts = {"key": secrets.token_hex(16), "kind": ".nrrd", "size": len(data)}
        return self("post", "uploads", json={**facts, "sha256": hashlib.sha256(data).hexdigest(), **more})

    def part(self, upload: str, offset: int, data: bytes) -> requests.Response:
        return self("patch", f"uploads/{upload}", headers={"Upload-Offset": str(offset)}, data=data)

    def upload(self, data: bytes, **more: Any) -> str:
        upload = self.announce(data, **more).json()["id"]
        answer = self.part(upload, 0, data)
        assert answer.json()["complete"], answer.text
        return upload

    def job(self, images: list[str], models: tuple[str, ...] = ("toy-120",), **more: Any) -> requests.Response:
        facts = {"key": secrets.token_hex(16), "images": images, "models": list(models), **more}
        return self("post", "jobs", json=facts)

    def wait(self, job: str, *states: str, seconds: float = 300) -> dict[str, Any]:
        """Wait until a job has one of these states, by default until it has ended."""
        until = time.monotonic() + seconds
        while (facts := self("get", f"jobs/{job}").json())["state"] not in (
            states or ("finished", "failed", "cancelled")
        ):
            assert time.monotonic() < until, facts
            time.sleep(0.05)
        return facts

    def files(self) -> list[str]:
        """Return the files of images and results that the server holds."""
        while True:
            try:
                held = [path for name in FOLDERS for path in (self.folder / name).rglob("*") if path.is_file()]
            except FileNotFoundError:  # the server removes a folder at this moment
                continue
            return sorted(str(path.relative_to(self.folder)) for path in held)


@contextlib.contextmanager
def live_server(folder: Path, offers: Offers | None = None, token: str | None = None, **more: Any) -> Iterator[Api]:
    """Run a server in a thread."""
    settings = replace(Settings(folder, ("toy-120",), port=0, slots=(SLOT,)), **more)
    with prepared(settings, offers) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        api = Api(server.address, folder, token)
        try:
            yield api
        finally:
            api.session.close()
            server.stop()
            thread.join(20)
            assert not thread.is_alive()
