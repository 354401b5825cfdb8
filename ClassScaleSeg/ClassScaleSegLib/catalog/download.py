"""One file from an http(s) address to disk: resumed, bounded, checked, and under its name only when it is complete.

A download that was cut goes on where it stopped, if the server says that the file is still the same one (``If-Range``);
otherwise it starts again. What has arrived waits as ``NAME.part``, what the server called it as ``NAME.part.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from ..errors import Cancelled, CatalogError
from ..files import replacing, unwritable

MAX_DOWNLOAD = 16 << 30  # bytes; five folds of nnU-Net's largest network are below 8 GiB
CHUNK = 64 << 10  # small, so that cancelling is quick on a slow line
ATTEMPTS = 3  # in a row that bring nothing new
REDIRECTS = 5
TIMEOUT = (15, 60)  # seconds to connect, and without a single byte
ZIP = b"PK"


Progress = Callable[[int, "int | None"], None]  # bytes so far, bytes in all if known


class CancelToken(Protocol):
    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class Source:
    """:ivar size: bytes it must have.
    :ivar sha256: it must have. Either may be unknown."""

    address: str
    size: int | None = None
    sha256: str | None = None


class _ConnectionLost(Exception):
    """The rest may be had by asking again."""


def check_address(address: str) -> str:
    """The address, if it is one of http or https.

    :raises CatalogError: for anything else.
    """
    try:
        parts = urlsplit(address)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and address.isprintable()
    except ValueError:
        fine = False
    if not fine or len(address) > 2000 or " " in address:
        raise CatalogError(f"{address[:200]!r} is not an address of a file: it must start with https:// or http://.")
    return address


def fetch(
    source: Source,
    target: Path,
    check: Callable[[Path], Any],
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> str:
    """Download a zip to ``target``; its folder exists, ``target`` does not.

    :param check: called with the complete file before it gets its name; what it raises refuses the file.
    :param progress: called with bytes so far and bytes in all (if the server says).
    :returns: SHA-256 of the file.
    :raises CatalogError: one sentence naming address, fault, and what to do.
    :raises Cancelled: what came is kept.
    """
    part, note = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")
    check_address(source.address)
    longest = failures = 0
    try:
        while True:
            try:
                _receive(source, part, note, progress or (lambda done, total: None), cancel)
                break
            except _ConnectionLost as error:
                have = part.stat().st_size if part.exists() else 0
                longest, failures = max(have, longest), 0 if have > longest else failures + 1
                if failures == ATTEMPTS:
                    raise CatalogError(
                        f"{source.address} could not be reached, or the connection was lost ({error}); {have} bytes "
                        "have arrived. Check the network and start the download again: it goes on from there. Or get "
                        f"the file elsewhere and save it as {target}."
                    ) from error
        digest = sha256_of(part, cancel)
        try:
            if source.sha256 and digest != source.sha256:
                raise CatalogError(
                    f"What {source.address} gave has the SHA-256 {digest}, {source.sha256} was expected: the file was "
                    "altered or exchanged, and is not kept."
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


def sha256_of(path: Path, cancel: CancelToken | None = None) -> str:
    """:raises Cancelled: if the token is set."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            _stop_if(cancel)
            digest.update(chunk)
    return digest.hexdigest()


def _receive(source: Source, part: Path, note: Path, progress: Progress, cancel: CancelToken | None) -> None:
    """Bring ``part`` to the full length, going on where it stands if the server has the same file still."""
    import requests

    have, validator, whole = _arrived(source, part, note)
    if have and have == whole:
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": "ClassScaleSeg"}  # the bytes themselves, to be counted
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    _stop_if(cancel)
    try:
        with requests.Session() as session, _answer(session, source.address, headers) as response:
            if response.status_code == 416:  # as long as the file already, or longer
                part.unlink()
                raise _ConnectionLost("the server had no more to send")
            start = have if response.status_code == 206 else 0
            fits = re.match(rf"bytes {start}-\d+/", response.headers.get("Content-Range", ""))
            if start and not (fits and _validator(response.headers) in (None, validator)):
                part.unlink()
                raise _ConnectionLost("the server sent another piece than was asked for, or of another file")
            total = _total(source, start, response.headers)
            _room(part, total, start)
            _keep_note(source, note, response.headers, total)
            with part.open("r+b" if start else "wb") as file:
                file.seek(start)
                done = start
                progress(done, total)
                for chunk in response.iter_content(CHUNK):
                    _stop_if(cancel)
                    if done == 0 and not chunk.startswith(ZIP):
                        raise CatalogError(
                            f"{source.address} gave something that is not a zip (it begins with {chunk[:20]!r}): open "
                            "it in a browser to see what it is; it may want a login."
                        )
                    done += len(chunk)
                    if done > (MAX_DOWNLOAD if total is None else total):
                        note.unlink()  # nothing to go on from
                        raise CatalogError(f"{source.address} sent more than {total or MAX_DOWNLOAD} bytes: stopped.")
                    file.write(chunk)
                    progress(done, total)
    except requests.RequestException as error:
        raise _ConnectionLost(_reason(error)) from error
    if total is not None and done < total:
        raise _ConnectionLost(f"it ended after {done} of {total} bytes")


def _answer(session: Any, address: str, headers: dict[str, str]) -> Any:
    """The response with the file, after following redirects that do not leave https.

    :raises CatalogError: for every status but 200, 206 and 416.
    """
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
        raise CatalogError(f"{address} leads through more than {REDIRECTS} redirects: not followed.")
    if response.status_code in (404, 410):
        raise CatalogError(f"{address} does not exist (status {response.status_code}): it was moved or withdrawn.")
    if response.status_code in (401, 403):
        raise CatalogError(f"{address} is not open to everyone (status {response.status_code}): get the file by hand.")
    raise CatalogError(f"{address}: the server answered with status {response.status_code}. Try again later.")


def follow(address: str, location: str) -> str:
    """Where a redirect leads.

    :raises CatalogError: if that is no web address, or leaves https.
    """
    following = check_address(urljoin(address, location))
    if address.startswith("https:") and not following.startswith("https:"):
        raise CatalogError(f"{address} leads from https to {following}, which others can alter on the way: refused.")
    return following


def _arrived(source: Source, part: Path, note: Path) -> tuple[int, str, int | None]:
    """Bytes that can be kept, what the server calls the file they are of, and bytes of all of it if known.

    Nothing can be kept of a file that the server gave no name.
    """
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
        validator = noted["validator"] if noted["address"] == source.address else None
        have, whole = part.stat().st_size, noted["size"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0, "", None
    known = isinstance(validator, str) and bool(validator) and validator.isprintable()
    return (have, validator, whole) if known else (0, "", None)


def _keep_note(source: Source, note: Path, headers: Any, total: int | None) -> None:
    noted = {"address": source.address, "validator": _validator(headers), "size": total}
    with replacing(note, overwrite=True) as temporary:
        temporary.write_text(json.dumps(noted), encoding="utf-8")


def _validator(headers: Any) -> str | None:
    """What ``If-Range`` takes (RFC 9110): an entity tag that is not weak, or else a date."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _total(source: Source, start: int, headers: Any) -> int | None:
    """Bytes of the whole file, as far as catalogue and server say.

    :raises CatalogError: if they contradict each other, or it is too large.
    """
    length = headers.get("Content-Length", "")
    declared = start + int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None
    if None not in (declared, source.size) and declared != source.size:
        raise CatalogError(
            f"{source.address} has {declared} bytes, {source.size} were expected: it was exchanged since. If you trust "
            f"it, add it as a model of your own: classscaleseg models add {source.address}"
        )
    total = source.size if declared is None else declared
    if total is not None and total > MAX_DOWNLOAD:
        raise CatalogError(f"{source.address} has {total} bytes; more than {MAX_DOWNLOAD} are not downloaded.")
    return total


def _room(part: Path, total: int | None, start: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise CatalogError(
            f"{part.parent} has {free / 1e6:.0f} MB left, {(total - start) / 1e6:.0f} MB are needed: make room there, "
            "or set CLASSSCALESEG_MODELS to another folder."
        )


def _stop_if(cancel: CancelToken | None) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled("Cancelled; what has arrived is kept, and the next download goes on from there.")


def _reason(error: Exception) -> str:
    """The innermost cause, without the objects that requests puts around it."""
    while getattr(error, "args", None) and isinstance(error.args[-1], Exception):
        error = error.args[-1]
    reason = getattr(error, "reason", None)
    text = str(reason if isinstance(reason, Exception) else error)
    return re.sub(r"<[^>]*>:? ?", "", text)[:200]
