"""Measure the server: how fast images arrive, how fast it answers meanwhile, and what is left after crashes.

    python Testing/Benchmarks/server.py [--only upload|clients|kill] [--quick]

* ``upload``: 500 MB on loopback, three times. Then 1 GB is uploaded while a job runs, and ``/v1/health`` is asked fifty
  times a second.
* ``clients``: twenty clients at once, each with an image of its own, through a connection that breaks after a random
  number of bytes; a third of them cancel. Every result is compared with the one of this process.
* ``kill``: six clients send jobs, while server or child is killed (SIGKILL) at fifty random moments. A server is
  started again at once. The clients here are a loop that keeps what it was promised: it asks again, and sends image and
  job again only if the server does not know them any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
import SimpleITK as sitk
from ClassScaleSegLib import RemoteSegmenter, errors, open_model, segment
from ClassScaleSegLib.resources import resource
from measure import Bar, environment, parse, report

CHOICES = {"mirroring": False, "step": 1}
PART = 16 << 20
CLIENTS, KILLS, KILL_CLIENTS = 20, 50, 6


class Server:
    """The command in a process of its own, which can be started again on the same port and folder."""

    def __init__(self, folder: Path, port: int = 0, devices: int = 1) -> None:
        self.folder, self.port, self._devices = folder, port, devices
        self.log = folder.with_suffix(".log")
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "ClassScaleSegLib", "serve", "--folder", self.folder, "--models", "toy-120"]
        devices = ["cpu"] * self._devices
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*map(str, command), "--port", str(self.port), "--devices", *devices, "--threads", "1"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(1),
            )
        line = self.process.stdout.readline()
        if "serves" not in line:
            raise SystemExit(f"The server does not start; see {self.log}.")
        self.address = line.split()[-1]
        self.port = int(self.address.rpartition(":")[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.process.stdout.close()

    def files(self) -> list[Path]:
        folders = [self.folder / name for name in ("uploads", "unfinished", "results")]
        return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


@contextlib.contextmanager
def running(root: Path, **more: Any) -> Iterator[Server]:
    shutil.rmtree(root / "server", ignore_errors=True)
    (root / "server.log").unlink(missing_ok=True)
    server = Server(root / "server", **more)
    try:
        yield server
    finally:
        server.stop()


def session() -> requests.Session:
    made = requests.Session()
    made.trust_env = False
    return made


def send(http: requests.Session, address: str, data: bytes, key: str | None = None) -> str:
    facts = {"kind": ".nrrd", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    answer = http.post(f"{address}/v1/uploads", json={"key": key or secrets.token_hex(16), **facts}, timeout=30)
    answer.raise_for_status()
    upload, view = answer.json(), memoryview(data)
    for offset in range(upload["offset"], len(data), PART):
        url, place = f"{address}/v1/uploads/{upload['id']}", {"Upload-Offset": str(offset)}
        http.patch(url, data=view[offset : offset + PART], headers=place, timeout=30).raise_for_status()
    return upload["id"]


def image(number: int, root: Path) -> tuple[bytes, np.ndarray]:
    """Return a small image as a file, and its segmentation as this process makes it."""
    whole = sitk.ReadImage(str(resource("SampleData", "toy-120.nrrd")))
    place = random.Random(number)
    corner = [place.randrange(0, 48) for _ in range(3)]
    small = whole[tuple(slice(start, start + 40) for start in corner)]
    sitk.WriteImage(small, root / "small.nrrd")
    labels = segment(small, open_model(resource("Models", "toy-120.zip")), device="cpu", threads=1, **CHOICES).labels
    return (root / "small.nrrd").read_bytes(), labels


def large_image(root: Path) -> bytes:
    """Return an image that takes longer than an upload, as a file: the sample, sixteen times."""
    sample = sitk.ReadImage(str(resource("SampleData", "toy-120.nrrd")))
    large = sitk.GetImageFromArray(np.tile(sitk.GetArrayFromImage(sample), (1, 4, 4)))
    large.SetSpacing(sample.GetSpacing())
    sitk.WriteImage(large, root / "large.nrrd")
    return (root / "large.nrrd").read_bytes()


def labels_of(content: bytes, root: Path, name: str) -> np.ndarray:
    file = root / f"{name}.seg.nrrd"
    file.write_bytes(content)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(file))
    file.unlink()
    return labels


def measure_upload(root: Path, quick: bool) -> tuple[list[dict], list[Bar]]:
    size = 50_000_000 if quick else 500_000_000
    header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 1000 1000 {size // 10**6}\nencoding: raw\n\n"
    data, rates = header.encode() + os.urandom(size), []
    with running(root) as server:
        http = session()
        for _ in range(3):
            begin = time.perf_counter()
            upload = send(http, server.address, data)
            rates.append(size / 1e6 / (time.perf_counter() - begin))
            http.delete(f"{server.address}/v1/uploads/{upload}", timeout=30)
        job_image = send(http, server.address, large_image(root))
        facts = {"key": secrets.token_hex(16), "images": [job_image], "models": ["toy-120"], "options": {"step": 0.1}}
        job = http.post(f"{server.address}/v1/jobs", json=facts, timeout=30).json()["id"]
        while http.get(f"{server.address}/v1/jobs/{job}", timeout=30).json()["stage"] != "segment":
            time.sleep(0.1)
        waits: list[float] = []
        ended = threading.Event()

        def ask() -> None:
            other = session()
            while not ended.is_set():
                begin = time.perf_counter()
                other.get(f"{server.address}/v1/health", timeout=30)
                waits.append(time.perf_counter() - begin)
                ended.wait(0.02)

        asking = threading.Thread(target=ask)
        asking.start()
        for _ in range(2):
            send(http, server.address, data)
        ended.set()
        asking.join()
        state = http.get(f"{server.address}/v1/jobs/{job}", timeout=30).json()["state"]
        http.delete(f"{server.address}/v1/jobs/{job}", timeout=30)
    waits.sort()
    during = "health during a job and an upload of 1 GB"
    rows = [
        {"what": "upload of 500 MB on loopback, best of three", "figure": max(rates), "unit": "MB/s"},
        {"what": f"{during}, median", "figure": 1000 * waits[len(waits) // 2], "unit": "ms"},
        {"what": f"{during}, longest", "figure": 1000 * waits[-1], "unit": "ms"},
        {"what": "answers", "figure": len(waits), "unit": ""},
    ]
    if state != "running":
        raise SystemExit(f"The job was {state} before the upload ended, so nothing was measured.")
    bars = [
        Bar("MB/s on loopback", max(rates), 200, at_least=True),
        Bar("ms until health answers", 1000 * waits[-1], 100),
    ]
    return rows, bars


class BrokenLine:
    """A connection to a server that breaks after a random number of bytes.

    :ivar breaks: connections that broke so far.
    """

    def __init__(self, port: int, seed: int) -> None:
        self._target, self._random, self.breaks = port, random.Random(seed), 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        left = [self._random.randrange(2_000, 200_000)]
        with contextlib.suppress(OSError):
            server = socket.create_connection(("127.0.0.1", self._target))
            ways = [
                threading.Thread(target=self._copy, args=(*pair, left), daemon=True)
                for pair in ((client, server), (server, client))
            ]
            for way in ways:
                way.start()

    def _copy(self, source: socket.socket, target: socket.socket, left: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                left[0] -= len(data)
                target.sendall(data)
                if left[0] < 0:
                    self.breaks += 1
                    break
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        self._listening.close()


def measure_clients(root: Path, quick: bool) -> tuple[list[dict], list[Bar]]:
    count = 4 if quick else CLIENTS
    images = [image(number, root) for number in range(count)]
    outcome: list[str] = [""] * count
    with running(root) as server:
        line = BrokenLine(server.port, 0)

        def client(number: int) -> None:
            data, labels = images[number]
            file = root / f"client{number}.nrrd"
            file.write_bytes(data)
            cancel = threading.Event()
            if number % 3 == 2:
                threading.Timer(random.Random(number).uniform(0, 3 * count), cancel.set).start()
            try:
                with RemoteSegmenter(f"http://127.0.0.1:{line.port}") as segmenter:
                    result = segmenter.segment(file, "toy-120", cancel=cancel, **CHOICES)
                outcome[number] = "right" if (result.labels == labels).all() else "wrong"
            except errors.Cancelled:
                outcome[number] = "cancelled"
            except errors.ClassScaleError as error:
                outcome[number] = f"failed: {error}"
            file.unlink()

        begin = time.perf_counter()
        threads = [threading.Thread(target=client, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begin
        line.close()
        time.sleep(3)  # a job that was cancelled ends within two seconds
        left = server.files()
    for number, what in enumerate(outcome):
        if what not in ("right", "cancelled"):
            print(f"client {number}: {what}")
    counts = Counter(outcome)
    rows = [
        {"what": f"{count} clients: results that are right", "figure": counts["right"], "unit": ""},
        {"what": f"{count} clients: cancelled", "figure": counts["cancelled"], "unit": ""},
        {"what": "connections that broke", "figure": line.breaks, "unit": ""},
        {"what": "from the first to the last", "figure": seconds, "unit": "s"},
    ]
    wrong = count - counts["right"] - counts["cancelled"]
    return rows, [Bar("clients with another outcome", wrong, 0), Bar("files left after twenty clients", len(left), 0)]


class Promise:
    """A client that keeps to what it was promised, whatever happens to the server.

    :ivar jobs: ids that its present job has had.
    """

    def __init__(self, server: Server, data: bytes, labels: np.ndarray, root: Path, number: int) -> None:
        self._server, self._data, self._labels, self._root, self._number = server, data, labels, root, number
        self._http = session()
        self.counts: Counter[str] = Counter()
        self.ids: list[list[str]] = []

    def run(self, ended: threading.Event) -> None:
        while not ended.is_set():
            self.ids.append([])
            self.counts[self._one(secrets.token_hex(16))] += 1

    def _one(self, key: str) -> str:
        upload_key, upload, job, promised = secrets.token_hex(16), "0" * 32, "", False
        while True:
            try:
                if not job:
                    facts = {"key": key, "images": [upload], "models": ["toy-120"], "options": CHOICES}
                    answer = self._ask("POST", "jobs", json=facts)
                    if answer.status_code == 404:
                        upload = send(self._http, self._server.address, self._data, upload_key)
                        continue
                    if answer.status_code == 409:  # of an upload: its connection broke
                        upload_key = secrets.token_hex(16)
                        upload = send(self._http, self._server.address, self._data, upload_key)
                        continue
                    answer.raise_for_status()
                    job = answer.json()["id"]
                    self.ids[-1].append(job)
                facts = self._ask("GET", f"jobs/{job}")
                if facts.status_code == 404:
                    if promised:
                        return "lost"
                    job = ""
                    continue
                state = facts.json()["state"]
                promised = promised or state == "finished"
                if state == "finished":
                    result = self._ask("GET", f"jobs/{job}/result")
                    if result.status_code == 404:
                        return "lost"
                    result.raise_for_status()
                    right = (labels_of(result.content, self._root, f"r{self._number}") == self._labels).all()
                    self._forget(job)
                    return "right" if right else "wrong"
                if state == "failed":
                    error = facts.json()["error"]
                    self._forget(job)
                    return (
                        "child killed" if "kill" in error.lower() or "signal" in error.lower() else f"failed: {error}"
                    )
            except requests.HTTPError as error:
                if error.response.status_code in (404, 409):  # of an upload that went with the server
                    upload_key = secrets.token_hex(16)
                    continue
                return f"answer {error.response.status_code}: {error.response.text}"
            except requests.RequestException:
                time.sleep(0.2)
            time.sleep(0.1)

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        return self._http.request(method, f"{self._server.address}/v1/{path}", timeout=30, **more)

    def _forget(self, job: str) -> None:
        while True:
            try:
                self._ask("DELETE", f"jobs/{job}")
                return
            except requests.RequestException:
                time.sleep(0.2)


def measure_kills(root: Path, quick: bool) -> tuple[list[dict], list[Bar]]:
    kills, moment = (6 if quick else KILLS), random.Random(1)
    counts: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    with running(root, devices=2) as server:
        clients = [Promise(server, *image(number, root), root, number) for number in range(KILL_CLIENTS)]
        ended = threading.Event()
        threads = [threading.Thread(target=client.run, args=(ended,)) for client in clients]
        for thread in threads:
            thread.start()
        for _ in range(kills):
            time.sleep(moment.uniform(0.2, 12))
            children = psutil.Process(server.process.pid).children()
            if children and moment.random() < 0.4:
                with contextlib.suppress(psutil.Error):
                    moment.choice(children).kill()
                    killed["child"] += 1
            else:
                server.kill()
                killed["server"] += 1
                server.start()
        ended.set()
        for thread in threads:
            thread.join()
        time.sleep(3)
        left = server.files()
        log = server.log.read_text()
    for client in clients:
        counts += client.counts
    finished = Counter(re.findall(r"job (\w{8}) of \S+ (?:is finished|was finished)", log))
    twice = sum(sum(finished[job[:8]] for job in dict.fromkeys(ids)) > 1 for client in clients for ids in client.ids)
    odd = {what: number for what, number in counts.items() if what not in ("right", "child killed")}
    print(dict(counts), dict(killed), f"log: {server.log}")
    rows = [
        {"what": "servers killed", "figure": killed["server"], "unit": ""},
        {"what": "children killed", "figure": killed["child"], "unit": ""},
        {"what": "results that are right", "figure": counts["right"], "unit": ""},
        {
            "what": "jobs whose child was killed, and whose client was told",
            "figure": counts["child killed"],
            "unit": "",
        },
    ]
    bars = [
        Bar("promised results that were lost, or other outcomes", sum(odd.values()), 0),
        Bar("jobs that ran to their end twice", twice, 0),
        Bar("files left after the crashes", len(left), 0),
    ]
    return rows, bars


PARTS = {"upload": measure_upload, "clients": measure_clients, "kill": measure_kills}


def main() -> int:
    options = parse(__doc__, "server", PARTS)
    code = 0
    for name in [options.only] if options.only else PARTS:
        rows, bars = PARTS[name](options.root, options.quick)
        rows = [{"part": name, **row} for row in rows]
        code |= report(options, "server", rows, bars, name)
    return code


if __name__ == "__main__":
    sys.exit(main())
