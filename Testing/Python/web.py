"""A web server on this machine that misbehaves as told, for tests of downloads."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """One address.
    :ivar cuts: bytes after which each of the next answers breaks off.
    :ivar ranges: whether ``Range`` is understood.
    :ivar trusting: send the piece asked for even if ``If-Range`` names another file.
    :ivar chunked: send
        no ``Content-Length``."""

    content: bytes = b""
    tag: str | None = '"one"'
    status: int = 200
    location: str | None = None
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    trusting: bool = False
    chunked: bool = False


class Site:
    """``pages`` by path; ``requests`` are the headers of all requests so far, each with its ``path``."""

    def __init__(self, address: str) -> None:
        self.address, self.pages, self.requests = address, {}, []


@contextmanager
def serve() -> Iterator[Site]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients hang up on purpose
    server.site = Site(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        site, path = self.server.site, self.path.partition("?")[0]
        site.requests.append({**self.headers, "path": path})
        page = site.pages.get(path, Page(status=404))
        start, status = 0, page.status
        piece = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = page.trusting or self.headers.get("If-Range") == page.tag
        if status == 200 and piece and page.ranges and same:
            start, status = int(piece[1]), 206
            if start >= len(page.content):
                status = 416
        body = page.content[start:] if status in (200, 206) else b"sorry"
        self.send_response(status)
        if page.location:
            self.send_header("Location", page.location)
        if page.tag:
            self.send_header("ETag", page.tag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(page.content) - 1}/{len(page.content)}")
        if page.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = page.cuts.pop(0) if page.cuts and status in (200, 206) else None
        sent = body[:cut]
        if page.chunked:
            sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(sent), sent)
        self.wfile.write(sent)
        self.close_connection = cut is not None

    def log_message(self, *_: object) -> None:
        pass
