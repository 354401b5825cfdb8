"""Download one file from an http(s) address: resumable, limited in size, checked, and renamed only when complete.

An interrupted download is resumed if the server says that the file has not changed (``If-Range``); otherwise it starts
again. The bytes received so far are kept in ``NAME.part``, and what identifies the server's file in ``NAME.part.json``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from ..errors import Cancelled, CatalogError, innermost
from ..files import replacing, sha256_of, unwritable
from ..models.json_checks import is_text

MAX_DOWNLOAD = 16 << 30  # bytes; five folds of nnU-Net's largest network take less than 8 GiB
CHUNK = 64 << 10  # bytes; small, so that cancelling is quick on a slow connection
ATTEMPTS = 3  # successive attempts without a new byte, after which the download fails
REDIRECTS = 5
TIMEOUT = (15, 60)  # seconds: to connect, and to wait for the next byte
ZIP = b"PK"


Progress = Callable[[int, "int | None"], None]  # bytes so far, and bytes in total if known


class CancelToken(Protocol):
    """Any object with ``is_set()``, such as ``threading.Event``."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class Source:
    """A file on a server.

    :ivar address: of http or https.
    :ivar size: bytes that the file must have, if known.
    :ivar sha256: 64 hexadecimal digits that the file must have, if known.
    """

    address: str
    size: int | None = None
    sha256: str | None = None


class _ConnectionLost(Exception):
    """The download stopped, but another request may get the rest."""


def is_address(value: Any) -> bool:
    """Tell whether ``value`` is a valid address of http or https."""
    try:
        parts = urlsplit(value if is_text(value) else "")
        return parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in value
    except ValueError:
        return False


def check_address(address: str) -> str:
    """Return the address if it is a valid one of http or https.

    :raises CatalogError: for anything else.

    >>> check_address("https://example.org/model.zip")
    'https://example.org/model.zip'
    """
    if not is_address(address):
        raise CatalogError(
            f"{address[:200]!r} is not an address of a file. It must start with https:// or http:// and contain no "
            "space."
        )
    return address


def fetch(
    source: Source,
    target: Path,
    check: Callable[[Path], Any],
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    begins: bytes = ZIP,
) -> str:
    """Download a file and return its SHA-256, 64 hexadecimal digits.

    :param target: path of the new file, which does not exist yet, in a folder that does.
    :param check: called with the complete file before it is renamed to ``target``; raises an error to refuse the file.
    :param progress: called with the bytes so far, and the bytes in total if known.
    :param cancel: a token that is checked before each chunk.
    :param begins: the first bytes of a zip, or none if the file may begin with anything.
    :raises CatalogError: if the file cannot be downloaded, or is not what was expected.
    :raises OutputError: if the file cannot be written.
    :raises Cancelled: if the token is set; the bytes received so far are kept.
    """
    part, note = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")
    check_address(source.address)
    longest = failures = 0
    try:
        while True:
            try:
                _receive(source, part, note, progress or (lambda done, total: None), cancel, begins)
                break
            except _ConnectionLost as error:
                have = part.stat().st_size if part.exists() else 0
                longest, failures = max(have, longest), 0 if have > longest else failures + 1
                if failures == ATTEMPTS:
                    raise CatalogError(
                        f"{source.address} could not be reached, or the connection was lost ({error}). {have} bytes "
                        "have arrived and are kept. Check the network and download again to get the rest, or get the "
                        f"file in another way and save it as {target}."
                    ) from error
        digest = sha256_of(part, lambda: stop_if(cancel))
        try:
            if source.sha256 and digest != source.sha256:
                raise CatalogError(
                    f"The file from {source.address} has the SHA-256 {digest}, but {source.sha256} was expected. The "
                    "file has been altered or replaced, and was not kept. Download it again; if that fails, tell the "
                    "publishers of the model."
                )
            check(part)
        except Exception:
            part.unlink()
            note.unlink(missing_ok=True)
            raise
        os.replace(part, target)
        note.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(target, error) from error
    return digest


def _receive(
    source: Source, part: Path, note: Path, progress: Progress, cancel: CancelToken | None, begins: bytes
) -> None:
    """Download the rest of ``part``, or all of it if the server's file has changed."""
    import requests

    have, validator, whole = _arrived(source, part, note)
    if have and have == whole:
        return
    # uncompressed, so that the bytes can be counted
    headers = {"Accept-Encoding": "identity", "User-Agent": "ClassScaleSeg"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    stop_if(cancel)
    try:
        with requests.Session() as session, _answer(session, source.address, headers) as response:
            if response.status_code == 416:  # the part is as long as the file, or longer
                part.unlink()
                raise _ConnectionLost("the server had nothing more to send")
            start = have if response.status_code == 206 else 0
            fits = re.match(rf"bytes {start}-\d+/", response.headers.get("Content-Range", ""))
            if start and not (fits and _validator(response.headers) in (None, validator)):
                part.unlink()
                raise _ConnectionLost("the server sent a different range than requested, or a different file")
            total = _total(source, start, response.headers)
            free = shutil.disk_usage(part.parent).free
            if total is not None and total - start > free:
                raise CatalogError(
                    f"{part.parent} has {free / 1e6:.0f} MB left, but {(total - start) / 1e6:.0f} MB are needed. Free "
                    "some space there, or set CLASSSCALESEG_MODELS to another folder."
                )
            _keep_note(source, note, response.headers, total)
            with part.open("r+b" if start else "wb") as file:
                file.seek(start)
                done = start
                progress(done, total)
                for chunk in response.iter_content(CHUNK):
                    stop_if(cancel)
                    if done == 0 and not chunk.startswith(begins):
                        raise CatalogError(
                            f"{source.address} sent a file that is not a zip (it begins with {chunk[:20]!r}). Open the "
                            "address in a browser to see what it is; it may require a login."
                        )
                    done += len(chunk)
                    if done > (MAX_DOWNLOAD if total is None else total):
                        note.unlink()  # so that the next download starts again
                        raise CatalogError(
                            f"{source.address} sent more than {total or MAX_DOWNLOAD} bytes, so the download was "
                            "stopped. Get the file in another way."
                        )
                    file.write(chunk)
                    progress(done, total)
    except requests.RequestException as error:
        raise _ConnectionLost(innermost(error)) from error
    if total is not None and done < total:
        raise _ConnectionLost(f"it ended after {done} of {total} bytes")


def _answer(session: Any, address: str, headers: dict[str, str]) -> Any:
    """Return the response with the file (status 200, 206 or 416), after redirects that do not leave https."""
    current = address
    for _ in range(REDIRECTS + 1):
        response = session.get(current, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False)
        if response.status_code in (200, 206, 416):
            return response
        response.close()
        if not response.is_redirect:
            break
        current = follow(current, response.headers["Location"])
    else:
        raise CatalogError(
            f"{address} leads through more than {REDIRECTS} redirects, which were not followed. Give the address of "
            "the file itself."
        )
    status = response.status_code
    if status in (404, 410):
        raise CatalogError(
            f"{address} does not exist (status {status}): the file was moved or withdrawn. Look for its new address."
        )
    if status in (401, 403):
        raise CatalogError(f"{address} is not open to everyone (status {status}). Get the file by hand.")
    raise CatalogError(f"{address}: the server answered with status {status}. Try again later.")


def follow(address: str, location: str) -> str:
    """Return the address that a redirect from ``address`` leads to, whose ``Location`` may be relative.

    :raises CatalogError: if the new address is not one of http or https, or leaves https.

    >>> follow("https://example.org/a/b.zip", "c.zip")
    'https://example.org/a/c.zip'
    """
    following = check_address(urljoin(address, location))
    if address.startswith("https:") and not following.startswith("https:"):
        raise CatalogError(
            f"{address} leads from https to {following}, which others can alter in transit, so it was not followed. "
            "Get the file in another way."
        )
    return following


def _arrived(source: Source, part: Path, note: Path) -> tuple[int, str, int | None]:
    """Return the number of bytes to keep, the server's validator of their file, and the size of that file if known.

    Without a validator no byte can be kept, because the server's file may have changed.
    """
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
        validator, whole, have = noted["validator"], noted["size"], part.stat().st_size
        if noted["address"] == source.address and is_text(validator):
            return have, validator, whole
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no note, or a damaged one
    return 0, "", None


def _keep_note(source: Source, note: Path, headers: Any, total: int | None) -> None:
    noted = {"address": source.address, "validator": _validator(headers), "size": total}
    with replacing(note, overwrite=True) as temporary:
        temporary.write_text(json.dumps(noted), encoding="utf-8")


def _validator(headers: Any) -> str | None:
    """Return the validator that ``If-Range`` takes (RFC 9110): an entity tag that is not weak, otherwise a date."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _total(source: Source, start: int, headers: Any) -> int | None:
    """Return the bytes of the whole file, if the catalogue or the server states them."""
    length = headers.get("Content-Length", "")
    declared = start + int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None
    if None not in (declared, source.size) and declared != source.size:
        raise CatalogError(
            f"{source.address} has {declared} bytes, but {source.size} were expected: the file was replaced. If you "
            f"trust the new one, add it as your own model: classscaleseg models add {source.address}"
        )
    total = source.size if declared is None else declared
    if total is not None and total > MAX_DOWNLOAD:
        raise CatalogError(
            f"{source.address} has {total} bytes, but at most {MAX_DOWNLOAD} are downloaded. Get the file in another "
            "way."
        )
    return total


def stop_if(cancel: CancelToken | None) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled("Cancelled. What has arrived is kept, and the next download continues from there.")
