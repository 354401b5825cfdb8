"""A DICOM archive on this machine that is searched (QIDO-RS) and read (WADO-RS), or misbehaves as told."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pydicom
from archive_server import serving
from ClassScaleSegLib.commands.main import main

Query = list[tuple[str, str]]
Answer = tuple[int, dict[str, str], "bytes | Iterable[bytes]"]
JSON = {"Content-Type": "application/dicom+json"}
BOUNDARY = "3f1c-boundary"
MULTIPART = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_LEVELS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_TOLD = {
    "StudyInstanceUID": ("StudyDate", "PatientID", "PatientName", "StudyInstanceUID"),
    "SeriesInstanceUID": ("Modality", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber"),
    "SOPInstanceUID": ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
}
_ASKED_FOR = {  # what is told only if it is asked for
    "StudyInstanceUID": ("StudyDescription", "NumberOfStudyRelatedInstances"),
    "SeriesInstanceUID": ("SeriesDescription", "NumberOfSeriesRelatedInstances"),
    "SOPInstanceUID": (),
}


def multipart(parts: Iterable[bytes], boundary: str = BOUNDARY, end: bool = True) -> bytes:
    found = b"".join(
        b"\r\n--" + boundary.encode() + b"\r\nContent-Type: application/dicom\r\n\r\n" + part for part in parts
    )
    return found[2:] + (b"\r\n--" + boundary.encode() + b"--\r\n" if end else b"")


@dataclass
class Shelf:
    """
    :ivar files: the content of each file and what is in it.
    :ivar requests: path below the root, query and headers of each.
    :ivar queries: of the same requests, as they came.
    :ivar ignores: of "filters", "limit", "offset", "includefield", what the archive passes over.
    :ivar untold: keywords of what it does not tell.
    :ivar most: things that it gives at once, whatever the limit.
    :ivar answer: makes the answer to a request, in place of the usual one unless it is ``None``.
    :ivar lengths: say how long answers with files are; otherwise the connection ends with them, as with Orthanc.
    """

    address: str = ""
    files: list[tuple[bytes, pydicom.Dataset]] = field(default_factory=list)
    requests: list[tuple[str, Query, dict[str, str]]] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    ignores: set[str] = field(default_factory=set)
    untold: set[str] = field(default_factory=set)
    most: int = 1 << 30
    answer: Callable[[str, Query, dict[str, str]], Answer | None] | None = None
    lengths: bool = False

    def add(self, folder: Path) -> Path:
        for file in sorted(folder.glob("*.dcm")):
            self.files.append((file.read_bytes(), pydicom.dcmread(file)))
        return folder

    def asked(self, *, files: bool) -> list[str]:
        """The paths that were asked for: those of files, or those of searches."""
        plain = [path for path, _, headers in self.requests if ("multipart" in headers["Accept"]) == files]
        return plain

    def usual(self, path: str, query: Query, headers: dict[str, str]) -> Answer:
        words = path.strip("/").split("/")
        named = dict(zip(("studies", "series", "instances"), _LEVELS, strict=True))
        where = {named[word]: uid for word, uid in zip(words[::2], words[1::2], strict=False)}
        there = [each for each in self.files if all(each[1].get(key) == uid for key, uid in where.items())]
        if len(words) % 2:
            return self._found(named[words[-1]], [data for _, data in there], query)
        if not there:
            return 404, {"Content-Type": "text/plain"}, b"nothing like that"
        return 200, MULTIPART, multipart(content for content, _ in there)

    def _found(self, level: str, there: list[pydicom.Dataset], query: Query) -> Answer:
        things: dict[str, list[pydicom.Dataset]] = {}
        for data in there:
            things.setdefault(data[level].value, []).append(data)
        asked = dict(query)
        filters = (
            {}
            if "filters" in self.ignores
            else {key: value for key, value in query if key not in ("limit", "offset", "includefield", "fuzzymatching")}
        )
        found = [(uid, each) for uid, each in things.items() if all(_fits(each, *pair) for pair in filters.items())]
        first = 0 if "offset" in self.ignores else int(asked.get("offset", 0))
        count = len(found) if "limit" in self.ignores else int(asked.get("limit", len(found)))
        found = found[first : first + min(count, self.most)]
        if not found:
            return 204, {}, b""
        wanted = {pydicom.datadict.keyword_for_tag(int(value, 16)) for key, value in query if key == "includefield"}
        extra = [] if "includefield" in self.ignores else [word for word in _ASKED_FOR[level] if word in wanted]
        rows = [self._row(level, extra, each) for _, each in found]
        return 200, JSON, json.dumps(rows).encode()

    def _row(self, level: str, extra: list[str], there: list[pydicom.Dataset]) -> dict[str, Any]:
        short = pydicom.Dataset()
        for keyword in (*_TOLD[level], *extra):
            if keyword in there[0] and keyword not in self.untold:
                short[keyword] = there[0][keyword]
        if level == "StudyInstanceUID":
            short.ModalitiesInStudy = sorted({data.Modality for data in there})
        for keyword in extra:
            if keyword.startswith("NumberOf"):
                setattr(short, keyword, len(there))
        for keyword in self.untold:
            if keyword in short:
                del short[keyword]
        return short.to_json_dict()


def _fits(there: list[pydicom.Dataset], keyword: str, wanted: str) -> bool:
    if keyword == "ModalitiesInStudy":
        return any(data.Modality == wanted for data in there)
    value = str(there[0].get(keyword) or "")
    if keyword == "StudyDate" and "-" in wanted:
        first, last = wanted.split("-")
        return bool(value) and first <= value <= (last or "9")
    return fnmatch.fnmatchcase(value.casefold(), wanted.casefold())


def run(*words: object) -> int:
    """Return the exit code of ``classscaleseg dicom``."""
    return main(["dicom", *map(str, words)])


@contextmanager
def reading_server(certificate: Path | None = None, key: Path | None = None) -> Iterator[Shelf]:
    """Run an archive, encrypted if it has a certificate."""
    with serving(Shelf(), _Handler, certificate, key) as shelf:
        yield shelf


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and content in one packet: the system would delay the second one by 40 ms

    def do_GET(self) -> None:
        shelf: Shelf = self.server.archive
        parts = urlsplit(self.path)
        asked = parts.path.removeprefix("/dicom-web"), parse_qsl(parts.query), dict(self.headers)
        shelf.requests.append(asked)
        shelf.queries.append(parts.query)
        answer = shelf.answer(*asked) if shelf.answer is not None else None
        status, headers, content = shelf.usual(*asked) if answer is None else answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if isinstance(content, bytes) and (shelf.lengths or "multipart" not in headers.get("Content-Type", "")):
            self.send_header("Content-Length", str(len(content)))
        else:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()  # waits in the buffer
        for piece in [content] if isinstance(content, bytes) else content:
            self.wfile.write(piece)
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass
