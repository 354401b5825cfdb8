"""Read an RT Structure Set, whoever wrote it: its structures, with their names, colours, codes and contours."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ClassScaleError, ImageError, named, reason
from ...labels.label import MAX_VALUE, Code, Label, one_line, segment_color, segment_id
from ..layers import fresh_values
from .elements import Elements, read_elements
from .headers import STRUCTURE_SET
from .letters import decoded

_CLASS, _CHARACTER_SET = 0x00080016, 0x00080005
_STRUCTURES, _NUMBER, _NAME, _FRAME = 0x30060020, 0x30060022, 0x30060026, 0x30060024
_CONTOURS_OF, _OF_STRUCTURE, _COLOUR, _CONTOURS = 0x30060039, 0x30060084, 0x3006002A, 0x30060040
_KIND, _POINTS, _COORDINATES = 0x30060042, 0x30060046, 0x30060050
_OBSERVATIONS, _TYPE, _CATEGORY, _REGION = 0x30060080, 0x30060086, 0x00620003, 0x00082218
_TYPE_MODIFIER, _REGION_MODIFIER = 0x00620011, 0x00082220
_CODE_VALUES, _SCHEME, _MEANING = (0x00080100, 0x00080119, 0x00080120), 0x00080102, 0x00080104
_CODE = (*_CODE_VALUES, _SCHEME, _MEANING)
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_OPEN = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")
_FEWEST_POINTS = 3  # of a polygon
_MOST_CONTOURS = 2_000_000  # of a file; 1000 classes of a whole body have 300,000
_MOST_POINTS = 2_000_000  # of a contour
_BYTES_OF_POINT = 64  # while contours are read and placed
_FARTHEST = 1e6  # mm
_LONGEST_NAME = 1024  # bytes; the standard allows 64 letters
_LOCAL = "99"  # begins coding schemes of one clinic or product (PS3.16, 8.2)


@dataclass
class Structure:
    """A structure of a structure set.

    :ivar label: its name, colour and codes. The value is its number, or a free one where that is taken, or not one of
        a label map.
    :ivar frame_of_reference: FrameOfReferenceUID of its coordinates; "" if not given.
    :ivar contours: closed ones, each ``(n, 3)`` float64, n >= 3: LPS in mm.
    :ivar left_out: how many other contours it has, which enclose nothing.
    :ivar exclusive: whether the file says (CLOSEDPLANAR_XOR) that a contour inside of another is a hole.
    """

    label: Label
    frame_of_reference: str
    contours: list[np.ndarray] = field(default_factory=list)
    exclusive: bool = False
    left_out: int = 0


@dataclass(frozen=True)
class StructureSet:
    """What a file says of structures.

    :ivar structures: in the order of the file, also those without contours, but not those that have only others.
    :ivar notices: sentences on what was left out, which the user should see.
    """

    structures: tuple[Structure, ...]
    notices: tuple[str, ...]


def read_structure_set(path: Path) -> StructureSet:
    """Read an RT Structure Set. Points and open contours, which enclose nothing, are left out.

    :raises ImageError: if it cannot be read, part of it is missing, or a contour is damaged; naming the file.
    """
    with named(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on letters
        try:
            return _read(read_elements(path, (_CLASS, _CHARACTER_SET, _STRUCTURES, _CONTOURS_OF, _OBSERVATIONS)))
        except (ClassScaleError, MemoryError):
            raise
        except OSError as error:
            raise ImageError(f"It cannot be read ({error.strerror or reason(error)}).") from error
        except Exception as error:  # pydicom raises whatever a damaged header makes Python raise
            raise ImageError(f"It cannot be read as a structure set ({reason(error)}). Export it again.") from error


def _read(file: Elements) -> StructureSet:
    if file.ascii(_CLASS) != STRUCTURE_SET:
        raise ImageError("It is no RT Structure Set.")
    for tag, keyword in ((_STRUCTURES, "StructureSetROISequence"), (_CONTOURS_OF, "ROIContourSequence")):
        if tag not in file.values:
            raise ImageError(f"It has no {keyword}, so it is no complete structure set. Export it again.")
    found = _structures(file)
    left_out = _add_contours(file, found)
    for item in file.items(_OBSERVATIONS, (_OF_STRUCTURE, _TYPE, _CATEGORY, _REGION)):
        number = _number_or_none(item.ascii(_OF_STRUCTURE))
        if number is not None and (structure := found.get(number)):
            structure.label = replace(structure.label, **_codes(item, file.ascii(_CHARACTER_SET)))
    kept = [structure for structure in found.values() if structure.contours or not structure.left_out]
    return StructureSet(tuple(kept), left_out)


def _structures(file: Elements) -> dict[int, Structure]:
    """Return the structures that are listed, by their numbers; their contours are elsewhere."""
    numbers, names, frames = list[int](), list[str](), list[str]()
    for item in file.items(_STRUCTURES, (_NUMBER, _NAME, _FRAME)):
        number = _integer(item, _NUMBER, "ROINumber")
        if len(numbers) == MAX_VALUE:
            raise ImageError(f"It lists more than {MAX_VALUE:,} structures, so it is damaged. Export it again.")
        numbers.append(number)
        names.append(decoded(item.bytes_of(_NAME)[:_LONGEST_NAME], file.ascii(_CHARACTER_SET)))
        frames.append(item.ascii(_FRAME))
    number, times = Counter(numbers).most_common(1)[0] if numbers else (0, 0)
    if times > 1:
        raise ImageError(
            f"It has {times} structures with the number {number} (ROINumber), so it is not clear whose the contours "
            "are. Export it again."
        )
    found: dict[int, Structure] = {}
    for number, value, name, frame in zip(numbers, fresh_values(numbers), names, frames, strict=True):
        label = Label(value, segment_id(value), name, segment_color(value))
        label = label if one_line(name) else replace(label, name=f"structure {number}")
        found[number] = Structure(label, frame)
    return found


def _add_contours(file: Elements, found: dict[int, Structure]) -> tuple[str, ...]:
    """Add contours and colours to structures.

    :returns: sentences on what was left out.
    """
    import psutil

    free, contours, points = psutil.virtual_memory().available, 0, 0
    left_out: Counter[str] = Counter()
    for entry in file.items(_CONTOURS_OF, (_OF_STRUCTURE, _COLOUR, _CONTOURS)):
        structure = found.get(_integer(entry, _OF_STRUCTURE, "ReferencedROINumber"))
        if structure is None:
            left_out["contours of structures that it does not list"] += 1
            continue
        structure.label = replace(structure.label, color=_colour(entry) or structure.label.color)
        known = set[bytes]()
        for item in entry.items(_CONTOURS, (_KIND, _POINTS, _COORDINATES)):
            contours += 1
            kind = item.ascii(_KIND)
            if kind not in _CLOSED:
                if kind not in _OPEN:
                    raise ImageError(
                        f"A contour of {structure.label.name} has the kind {kind[:40]!r} (ContourGeometricType), which "
                        "is not known. Export it again."
                    )
                left_out["points and open lines, which enclose nothing"] += 1
                structure.left_out += 1
                continue
            text = item.bytes_of(_COORDINATES)
            digest = hashlib.sha256(text).digest()
            if kind == _CLOSED[0] and digest in known:
                continue  # the same line twice is a mistake of the writer, not a hole that fills the contour
            known.add(digest)
            contour = _points(structure.label.name, text, item)
            if len(contour) < _FEWEST_POINTS:
                left_out["contours of less than three points"] += 1
                structure.left_out += 1
                continue
            points += len(contour)
            structure.contours.append(contour)
            structure.exclusive |= kind != _CLOSED[0]
            if contours > _MOST_CONTOURS or points * _BYTES_OF_POINT > free:
                raise ImageError(f"It has {contours:,} contours and more, too many for the free memory.")
    return tuple(f"It has {what}; left out: {count}." for what, count in left_out.items())


def _points(name: str, text: bytes, item: Elements) -> np.ndarray:
    """Return the points of a contour, ``(n, 3)`` float64; that some writers repeat the first one does not matter."""
    count = text.count(b"\\") + 1 if text else 0
    declared = _integer(item, _POINTS, "NumberOfContourPoints") if _POINTS in item.values else None
    if count > 3 * _MOST_POINTS:
        raise ImageError(f"A contour of {name} has {count // 3:,} points, more than {_MOST_POINTS:,}. Export it again.")
    if count % 3 or (declared is not None and declared * 3 != count):
        expected = "a multiple of three" if declared is None else f"three for each of its {declared} points"
        raise ImageError(f"A contour of {name} has {count:,} coordinates instead of {expected}. Export it again.")
    try:
        points = np.array(list(map(float, text.split(b"\\"))) if text else [], float).reshape(-1, 3)
    except ValueError as error:
        raise ImageError(f"A contour of {name} has coordinates that are no numbers ({reason(error)[:80]}).") from error
    if not (np.abs(points) <= _FARTHEST).all():
        raise ImageError(f"A contour of {name} has coordinates that are not finite, or kilometres away.")
    return points


def _colour(item: Elements) -> tuple[int, int, int] | None:
    try:
        red, green, blue = (min(max(int(part), 0), 255) for part in item.ascii(_COLOUR).split("\\"))
    except ValueError:
        return None  # a colour is not worth an error
    return red, green, blue


def _codes(observation: Elements, characters: str) -> dict[str, Any]:
    """Return the codes of a structure, without those that are local: elsewhere they mean other structures."""
    found: dict[str, Any] = {}
    for tag, field_name, modifier in (
        (_TYPE, "type", _TYPE_MODIFIER),
        (_REGION, "region", _REGION_MODIFIER),
        (_CATEGORY, "category", None),
    ):
        wanted = _CODE if modifier is None else (*_CODE, modifier)
        item = next(observation.items(tag, wanted), None)
        code = None if item is None else _code(item, characters)
        if item is None or code is None or code.scheme.startswith(_LOCAL):
            continue
        found[field_name] = code
        if modifier is not None and (more := next(item.items(modifier, _CODE), None)) is not None:
            found[f"{field_name}_modifier"] = _code(more, characters)
    return found


def _code(item: Elements, characters: str) -> Code | None:
    value = next(filter(None, map(item.ascii, _CODE_VALUES)), "")
    scheme, meaning = (decoded(item.bytes_of(tag)[:_LONGEST_NAME], characters) for tag in (_SCHEME, _MEANING))
    return Code(scheme, value, meaning) if value else None


def _integer(item: Elements, tag: int, keyword: str) -> int:
    number = _number_or_none(item.ascii(tag))
    if number is None:
        text = item.ascii(tag)[:40]
        raise ImageError(f"It has {text!r} in the place of a whole number ({keyword}). Export it again.")
    return number


def _number_or_none(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,12}", text) else None
