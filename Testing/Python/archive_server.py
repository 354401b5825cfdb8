"""A DICOM archive on this machine that stores by STOW-RS, or misbehaves as told, for tests of sending."""

from __future__ import annotations

import io
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom
import pytest
from ClassScaleSegLib.commands.main import main

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class StandIn:
    """
    :ivar instances: the data sets of each request, whatever was answered.
    :ivar methods: of HTTP, of each request.
    :ivar headers: of each request.
    :ivar verdicts: (sequence, reason) for an identifier, in place of (ReferencedSOPSequence, None); ``None`` to leave
        it out of the answer.
    :ivar answer: makes the answer to a request of these data sets, in place of the usual one.
    :ivar limit: bytes of the largest request that is taken.
    """

    address: str = ""
    instances: list[list[pydicom.Dataset]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    verdicts: dict[str, tuple[str, int | None] | None] = field(default_factory=dict)
    answer: Callable[[list[pydicom.Dataset]], Answer | None] | None = None
    limit: int = 1 << 40

    def usual(self, instances: list[pydicom.Dataset]) -> Answer:
        sequences: dict[str, list[dict]] = {"ReferencedSOPSequence": [], "FailedSOPSequence": []}
        for data in instances:
            verdict = self.verdicts.get(data.SOPInstanceUID, ("ReferencedSOPSequence", None))
            if verdict is not None:
                sequences[verdict[0]].append(_item(data, *verdict))
        answer = {
            f"{pydicom.datadict.tag_for_keyword(name):08X}": {"vr": "SQ", "Value": items}
            for name, items in sequences.items()
            if items
        }
        status = 200 if not sequences["FailedSOPSequence"] else 202 if sequences["ReferencedSOPSequence"] else 409
        return status, {"Content-Type": "application/dicom+json"}, json.dumps(answer).encode()


def _item(data: pydicom.Dataset, sequence: str, reason: int | None) -> dict:
    item: dict = {
        "00081150": {"vr": "UI", "Value": [data.SOPClassUID]},
        "00081155": {"vr": "UI", "Value": [data.SOPInstanceUID]},
    }
    if reason is not None:
        item["00081197" if sequence == "FailedSOPSequence" else "00081196"] = {"vr": "US", "Value": [reason]}
    return item


def run(*words: object) -> int:
    """Return the exit code of ``classscaleseg dicom send``."""
    return main(["dicom", "send", *map(str, words)])


def make_certificate(folder: Path, name: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """Return the files of a certificate for this machine and of its key; skip the test if there is no openssl."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", f"subjectAltName={name}", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl, which makes a certificate")
    return certificate, key


@contextmanager
def archive_server(certificate: Path | None = None, key: Path | None = None) -> Iterator[StandIn]:
    """Run an archive, encrypted if it has a certificate."""
    with serving(StandIn(), _Handler, certificate, key) as archive:
        yield archive


@contextmanager
def serving(
    archive: Any, handler: type[BaseHTTPRequestHandler], certificate: Path | None = None, key: Path | None = None
) -> Iterator[Any]:
    """Run a handler of requests that has the archive as ``server.archive``, and give it its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients hang up on purpose
    archive.address = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}/dicom-web"
    server.archive = archive
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        archive: StandIn = self.server.archive
        archive.methods.append(self.command)
        archive.headers.append(dict(self.headers))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        instances = [pydicom.dcmread(io.BytesIO(part)) for part in _parts(body)]
        archive.instances.append(instances)
        answer = archive.usual(instances)
        if len(body) > archive.limit:
            answer = 413, {"Content-Type": "text/plain"}, b"Request Entity Too Large"
        elif self.path != "/dicom-web/studies":
            answer = 404, {"Content-Type": "text/html"}, b"<html>nothing here</html>"
        elif archive.answer is not None:
            answer = archive.answer(instances)
        if answer is None:  # hang up without an answer
            self.close_connection = True
            return
        status, headers, content = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST  # a redirect that was followed; fails here, because a GET has no body

    def log_message(self, *_: object) -> None:
        pass


def _parts(body: bytes) -> list[bytes]:
    boundary = body.lstrip().split(b"\r\n", 1)[0]
    return [part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in body.split(boundary)[1:-1]]
