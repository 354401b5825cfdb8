"""What the answer of a DICOM archive says. It may be anything: other servers answer at a wrong address."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import ArchiveError, shown

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SECONDS, LEAST_BYTES = 300.0, 64 << 10  # an archive that gives less in this time is too slow to be waited for
LARGEST = 4 << 20  # bytes; what an archive says of a batch is below 1 MiB
ACCEPTED = "application/dicom+json"
XML = ("application/dicom+xml", "application/xml", "text/xml")
_JSON = (ACCEPTED, "application/json")
STATUS = {
    400: "it did not understand the request",
    403: "this user may not store here. Ask the administrator of the archive",
    404: "there is no DICOMweb service at this address. Give its root, such as http://localhost:8042/dicom-web",
    405: "there is no DICOMweb service that stores at this address. Give its root, without /studies",
    409: "it could not store the files, without saying why",
    411: "it does not accept the request. Try an address without a proxy in between",
    413: "it accepts no request of this size. Ask its administrator for a higher limit",
    415: "it does not take DICOM files by DICOMweb (STOW-RS). Ask its administrator",
    422: "it could not store the files, without saying why",
    507: "its disk is full. Tell its administrator",
    # by the first digit
    4: "it refused the request",
    5: "it has a fault. Try again later, or tell its administrator",
}


def received(answer: Any, size: int) -> Iterator[bytes]:
    """Yield the content of an answer piece by piece, and hang up if next to nothing comes: it could last for ever.

    :param size: of the pieces, bytes.
    :raises ArchiveError: if less than ``LEAST_BYTES`` come in ``SECONDS``.
    :raises requests.RequestException: if the connection is lost.
    """
    ended, slow = threading.Event(), threading.Event()

    def watch() -> None:
        before = answer.raw.tell()
        while not ended.wait(SECONDS):
            if answer.raw.tell() - before < LEAST_BYTES:
                slow.set()
                with suppress(OSError, ValueError, AttributeError):  # it ends just now; or a urllib3 before 2.3
                    answer.raw.shutdown()
                return
            before = answer.raw.tell()

    threading.Thread(target=watch, daemon=True, name="received").start()
    try:
        yield from answer.iter_content(size)
    except OSError:  # all of requests are
        if not slow.is_set():
            raise
    finally:
        ended.set()
    if slow.is_set():
        raise ArchiveError(
            f"{shown(answer.url)} is too slow: less than {LEAST_BYTES >> 10} KiB came in {SECONDS:g} s. Try again "
            "later, or tell its administrator."
        )


def read(answer: Any, largest: int = LARGEST) -> None:
    """Read the content of an answer, which may be compressed and become much more than was received.

    :param largest: bytes that it may have.
    :raises ArchiveError: if it is too long to be that of an archive.
    """
    content = bytearray()
    for part in received(answer, 1 << 16):
        content += part
        if len(content) > largest:
            answer.close()
            more = ", or narrow the search" if largest > LARGEST else ""
            raise ArchiveError(
                f"{shown(answer.url)} answers with more than {largest >> 20} MiB, as no DICOM archive does (status "
                f"{answer.status_code}). Give the root of its DICOMweb service{more}."
            )
    answer._content = bytes(content)  # as requests does that reads all at once


def content_type(answer: Any) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def verdicts(answer: Any) -> Dataset | None:
    """Return what an answer in JSON says of the instances, also if it does not say that it is JSON: Orthanc does not.

    :returns: ``None`` if it says nothing of any.
    """
    from pydicom.dataset import Dataset

    if content_type(answer) not in ("", *_JSON):
        return None
    try:
        found = Dataset.from_json(json.loads(answer.content))
    except Exception:  # whatever pydicom raises on what is not DICOM
        return None
    return found if "FailedSOPSequence" in found or "ReferencedSOPSequence" in found else None


def quote(answer: Any) -> str:
    """Return the beginning of an answer that is text for people, as a sentence."""
    html = "html" in answer.headers.get("Content-Type", "")
    text = "" if html else shown(answer.content[:1000].decode("utf-8", "replace"))
    return f"It says: {text}" if text else ""
