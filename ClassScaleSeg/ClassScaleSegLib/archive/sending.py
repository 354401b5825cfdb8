"""Send DICOM files to an archive in batches, and tell for each file what the archive did with it."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArchiveError, ImageError, OutOfMemoryError, reason
from ..images.dicom.deflate import inflated
from .connection import Archive, NotReached, NotUnderstood, RequestRefused, RequestTooLarge
from .files import DicomFile

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

BATCH_BYTES, BATCH_FILES = 64 << 20, 500  # of one request, unless a single file is larger
_COPIES = 3  # of a file in memory: pydicom's data set, and two of the request while the client puts it together

STORED, CHANGED, REFUSED, UNKNOWN, UNSENT = "stored", "changed", "refused", "unknown", "not sent"
_SILENT = "The archive did not say whether it has stored it. Look there."
_REASONS = {  # the first digits of a status, as PS3.4 GG.4 and PS3.18 I.2 have them; the longest one counts
    "0110": "it failed to process it",
    "0111": "it has an object with this identifier already",
    "0112": "it knows no such object",
    "0117": "its identifier is not valid",
    "0122": "it does not store this kind of object (SOP class)",
    "0124": "this user may not store it",
    "A7": "it is out of resources, such as disk space",
    "A9": "it is not what its kind of object must be",
    "B000": "it changed values",
    "B006": "it dropped elements",
    "B007": "it is not quite what its kind of object must be",
    "C": "it cannot understand it",
    "C122": "it does not take the transfer syntax of the file",
}


@dataclass(frozen=True)
class Sent:
    """What happened to a file.

    :ivar state: "stored"; "changed", if stored with changes or doubts; "refused"; or "unknown", if the archive did not
        say.
    :ivar reason: a sentence, unless it was simply stored.

    >>> Sent(Path("ct.seg.dcm"), "1.2.3", "stored").arrived
    True
    """

    file: Path
    instance: str
    state: str
    reason: str | None = None

    @property
    def arrived(self) -> bool:
        return self.state in (STORED, CHANGED)


def send(files: Iterable[DicomFile], archive: Archive) -> Iterator[Sent]:
    """Send files to an archive, and yield for each what happened to it. The order is that of the files.

    :raises ArchiveError: if the archive cannot be reached or takes no files. What was yielded before holds, and the
        other files were not sent. So it is after a ``KeyboardInterrupt``.
    :raises OutOfMemoryError: if a file is too large.
    """
    batches = deque(_batches(files))
    understood, in_vain = False, 0
    while batches:
        batch = batches.popleft()
        try:
            readable, damaged = _read(batch)
        except OutOfMemoryError:
            if len(batch) == 1:
                raise
            batches.extendleft(_halves(batch))
            continue
        said: dict[DicomFile, tuple[str, str | None]] = {}
        fault: BaseException | None = None
        whole = UNKNOWN, _SILENT  # what is said of the files if the archive does not speak of each
        try:
            if readable:
                answer = archive.store(data for _, data in readable)
                said = {file: _outcome(answer, str(data.SOPInstanceUID)) for file, data in readable}
                understood = True
        except RequestTooLarge as error:
            if len(batch) > 1:  # find out which file it is
                batches.extendleft(_halves(batch))
                continue
            whole = REFUSED, str(error)
            in_vain += isinstance(error, NotUnderstood)
            if in_vain == 2 and not understood:  # it is not the files
                fault = error
        except NotReached:
            raise
        except (ArchiveError, KeyboardInterrupt) as error:
            fault = error
            if isinstance(error, RequestRefused):
                whole = REFUSED, "The archive refuses the request."
        for file in batch:
            state = (REFUSED, damaged[file]) if file in damaged else said.get(file, whole)
            yield Sent(file.path, file.instance, *state)
        if fault is not None:
            raise fault


def _batches(files: Iterable[DicomFile]) -> list[list[DicomFile]]:
    batches: list[list[DicomFile]] = []
    size = 0
    for file in files:
        if not batches or size + file.size > BATCH_BYTES or len(batches[-1]) == BATCH_FILES:
            batches.append([])
            size = 0
        batches[-1].append(file)
        size += file.size
    return batches


def _halves(batch: list[DicomFile]) -> tuple[list[DicomFile], list[DicomFile]]:
    """Return the halves of a batch, the second one first, as ``extendleft`` turns them."""
    half = len(batch) // 2
    return batch[half:], batch[:half]


def _read(batch: Sequence[DicomFile]) -> tuple[list[tuple[DicomFile, Dataset]], dict[DicomFile, str]]:
    """Return the data sets of the files, and a sentence for each file that cannot be read.

    :raises OutOfMemoryError: if they do not fit into memory together, uncompressed.
    """
    import psutil

    need, free = 0, psutil.virtual_memory().available
    readable: list[tuple[DicomFile, Dataset]] = []
    damaged: dict[DicomFile, str] = {}
    for file in batch:
        try:
            source = inflated(file.path)
            need += _COPIES * (file.size if isinstance(source, Path) else source.getbuffer().nbytes)
            if need > free:
                raise OutOfMemoryError(
                    f"{file.path} is too large: to send it takes {need / 2**30:.1f} GiB of memory, and "
                    f"{free / 2**30:.1f} GiB are free. Close other programs."
                )
            readable.append((file, _data(file.path, source)))
        except (MemoryError, OutOfMemoryError):
            raise
        except ImageError as error:
            damaged[file] = str(error)
        except Exception as error:  # pydicom raises whatever a damaged value makes Python raise
            damaged[file] = f"It is damaged or gone ({reason(error)}), so it was not sent. Export it again."
    return readable, damaged


def _data(path: Path, source: Path | BytesIO) -> Dataset:
    """Read a file from what :func:`inflated` gave for it."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on values that the standard does not allow
        data = pydicom.dcmread(source)
        if source is not path:  # it is sent compressed, as it is stored
            data.file_meta = pydicom.filereader.read_file_meta_info(path)
    if any(_cut(element) for element in data.values()):
        raise ValueError("its end is missing")
    if not data.get("SOPInstanceUID"):
        raise ValueError("no SOPInstanceUID")
    return data


def _cut(element: Any) -> bool:
    """Return whether an element as pydicom has read it is shorter than it says, which pydicom passes over."""
    from pydicom.dataelem import RawDataElement

    if not isinstance(element, RawDataElement) or element.length == 0xFFFFFFFF:
        return False
    return len(element.value or b"") < element.length


def _outcome(answer: Dataset, instance: str) -> tuple[str, str | None]:
    """Return what an archive says of an instance: its state, and the reason if it was not simply stored."""
    failed, stored = (_items(answer, name) for name in ("FailedSOPSequence", "ReferencedSOPSequence"))
    for item in failed:
        if item.get("ReferencedSOPInstanceUID") == instance:
            return REFUSED, f"The archive refuses it: {_explain(item.get('FailureReason'))}."
    for item in stored:
        if item.get("ReferencedSOPInstanceUID") == instance:
            doubt = item.get("WarningReason")
            return (STORED, None) if doubt is None else (CHANGED, f"The archive warns: {_explain(doubt)}.")
    if stored or failed:
        return REFUSED, "The archive does not list it among the files that it has stored."
    return UNKNOWN, _SILENT


def _items(answer: Dataset, keyword: str) -> list[Dataset]:
    element = answer.get_item(keyword)
    return list(element.value or ()) if element is not None and element.VR == "SQ" else []


def _explain(status: Any) -> str:
    """Return in words, and as a number, what a status of DICOM means.

    >>> _explain(0x0122)
    'it does not store this kind of object (SOP class) (status 0122)'
    """
    try:
        number = int(status)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if not 0 <= number <= 0xFFFF:
        return "it gives no reason"
    code = f"{number:04X}"
    known = max((start for start in _REASONS if code.startswith(start)), key=len, default="")
    return f"{_REASONS[known]} (status {code})" if known else f"status {code}"
