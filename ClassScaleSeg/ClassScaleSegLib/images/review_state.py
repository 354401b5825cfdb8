"""How far somebody is with checking a segmentation, told from the header of its file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ..errors import ImageError, reason
from .case_notes import notes_in
from .seg_nrrd import CHECKED, CONFIDENCE_TAG, STATUS_TAG

_LONGEST = 1 << 26  # bytes of a header; one of a thousand segments has less than 1 MB
_AT_ONCE = 1 << 18  # bytes that are read
_END = re.compile(rb"\n\r?\n")
_FIELD = re.compile(r"^(Segment\d+)_(ID|Extent|Tags):=(.*)$", re.MULTILINE)


class ReviewState(NamedTuple):
    """What the header of a ``.seg.nrrd`` says.

    :ivar structures: segments with voxels.
    :ivar checked: how many of them somebody has checked.
    :ivar least_sure: the lowest mean confidence of the model in one of those that nobody has checked; ``None`` if it is
        not known.
    :ivar readers: who has saved the file, the last one last; only those who gave a name.
    """

    structures: int
    checked: int
    least_sure: float | None
    readers: tuple[str, ...] = ()


def review_state(file: Path) -> ReviewState:
    """Return how far the review of a ``.seg.nrrd`` is. Only its header is read.

    :raises ImageError: if it cannot be read, is no NRRD file, or has no segments.
    """
    header = _header(file)
    segments = _segments(header)
    if not segments:
        raise ImageError(f"{file} has no segments.")
    found = [_tags(one) for one in segments if _has_voxels(one.get("Extent", ""))]
    left = [tags for tags in found if tags.get(STATUS_TAG) != CHECKED]
    sure = [float(text) for tags in left if re.fullmatch(r"[01](\.\d+)?", text := tags.get(CONFIDENCE_TAG, ""))]
    return ReviewState(len(found), len(found) - len(left), min(sure, default=None), notes_in(header).readers)


def segment_tags(file: Path) -> dict[str, dict[str, str]]:
    """Return the tags of the segments of a ``.seg.nrrd``, by the id of the segment. Only the header is read.

    :raises ImageError: if it cannot be read, or is no NRRD file.
    """
    return {one["ID"]: _tags(one) for one in _segments(_header(file)) if "ID" in one}


def _header(file: Path) -> str:
    beginning = b""
    try:
        with file.open("rb") as opened:
            while len(beginning) < _LONGEST and not _END.search(beginning, max(0, len(beginning) - _AT_ONCE - 2)):
                more = opened.read(_AT_ONCE)
                beginning += more
                if not beginning.startswith(b"NRRD"):
                    raise ImageError(f"{file} is no NRRD file. Segment the image again, or take it out of the folder.")
                if not more:
                    break
    except OSError as error:
        raise ImageError(f"{file} cannot be read ({reason(error)}).") from error
    return _END.split(beginning, 1)[0].decode(errors="replace")


def _segments(header: str) -> list[dict[str, str]]:
    """Return some fields of each segment in a header."""
    segments: dict[str, dict[str, str]] = {}
    for segment, field, text in _FIELD.findall(header):
        segments.setdefault(segment, {})[field] = text.strip()
    return list(segments.values())


def _tags(segment: dict[str, str]) -> dict[str, str]:
    return dict(tag.split(":", 1) for tag in segment.get("Tags", "").split("|") if ":" in tag)


def _has_voxels(extent: str) -> bool:
    """Return whether first and last index along x, y and z enclose a voxel; unless they say otherwise, they do."""
    try:
        ends = [int(end) for end in extent.split()]
    except ValueError:
        return True
    return all(first <= last for first, last in zip(ends[::2], ends[1::2], strict=False))
