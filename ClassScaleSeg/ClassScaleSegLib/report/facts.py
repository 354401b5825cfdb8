"""What a report says of a case, and the same as JSON. JSON that is read is not trusted."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import ClassScaleError
from ..images.cleanup import ClassChange
from ..images.dicom.seg import UsedModel
from ..images.measures import LabelMeasures
from ..images.segmentation import Segmentation
from ..labels.label import Code, unique_names

VERSION = 1  # of the JSON files; a reader refuses another one


@dataclass(frozen=True)
class ClassFacts:
    """A class that was looked for.

    :ivar value: its label value.
    :ivar name: its name, unique in its case.
    :ivar color: as HTML writes it, such as ``#ff8000``.
    :ivar codes: its terminology codes, by the names in ``CODE_FIELDS``; those that it has.
    """

    value: int
    name: str
    color: str
    codes: dict[str, Code] = field(default_factory=dict)


@dataclass(frozen=True)
class Structure:
    """What was measured of a class that was found: as :class:`~ClassScaleSegLib.images.measures.LabelMeasures`.

    :ivar intensities: mean, median and so on; ``None`` if there was no image.
    :ivar confidence: its mean, 0 to 1; ``None`` if it was not computed.
    """

    value: int
    name: str
    voxels: int
    volume_ml: float
    surface_mm2: float
    centroid: tuple[float, float, float]
    first: tuple[int, int, int]
    last: tuple[int, int, int]
    touches_edge: bool
    intensities: dict[str, float] | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Run:
    """How a case was segmented.

    :ivar started: date and time in UTC, as ISO 8601 writes them.
    :ivar seconds: from the start to the written segmentation.
    :ivar stages: seconds of each stage.
    :ivar device: the device that was chosen, with its name.
    :ivar options: those that differ from the defaults, in one line.
    :ivar memory_bytes: the most main memory that the process held; ``None`` if the system does not tell.
    :ivar gpu_memory_bytes: the most GPU memory that torch held; ``None`` without CUDA.
    :ivar versions: of the packages that computed.
    :ivar models: which found the structures.
    """

    started: str
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    device: str = ""
    options: str = ""
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    models: tuple[UsedModel, ...] = ()


@dataclass(frozen=True)
class CaseFacts:
    """All that a report says of a case, but for its pictures.

    :ivar name: of the case, and of its files.
    :ivar images: names of the image files.
    :ivar outputs: names of the files with the segmentation.
    :ivar error: why there is no segmentation; ``None`` if there is one.
    :ivar size: voxels along x, y, z; ``None`` if the case failed, as are spacing and directions.
    :ivar spacing: mm along x, y, z.
    :ivar orientation: to where x, y and z point most, such as ``LPS``.
    :ivar modality: as in DICOM; ``None`` if unknown.
    :ivar warnings: why the result may be poor: modality, spacing.
    :ivar messages: what the user was told during the run.
    :ivar classes: the classes that were looked for.
    :ivar structures: those that were found, with their measures, in the order of the classes.
    :ivar changes: what the clean-up changed; ``None`` if nothing was cleaned up.
    :ivar run: ``None`` if it is not known how the segmentation was made.
    """

    name: str
    images: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    error: str | None = None
    size: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    orientation: str | None = None
    modality: str | None = None
    warnings: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    classes: tuple[ClassFacts, ...] = ()
    structures: tuple[Structure, ...] = ()
    changes: tuple[ClassChange, ...] | None = None
    run: Run | None = None

    @property
    def not_found(self) -> tuple[ClassFacts, ...]:
        """The classes without a voxel."""
        found = {structure.value for structure in self.structures}
        return tuple(one for one in self.classes if one.value not in found)


def facts_of(name: str, result: Segmentation, measures: Mapping[int, LabelMeasures], **more: Any) -> CaseFacts:
    """Return the facts of a segmentation.

    :param measures: as :meth:`Segmentation.measures` returns them.
    :param more: further fields of :class:`CaseFacts`.
    """
    labels = result.table.foreground
    names = unique_names(labels)
    classes = tuple(
        ClassFacts(
            label.value,
            names[label.value],
            "#{:02x}{:02x}{:02x}".format(*label.color),
            {part: code for part, code in label.codes.items() if code is not None},
        )
        for label in labels
    )
    structures = tuple(_structure(one, measures[one.value]) for one in classes if one.value in measures)
    grid = result.geometry
    return CaseFacts(
        name,
        size=_whole(grid.size),
        spacing=_rounded(grid.spacing),
        orientation=grid.orientation,
        classes=classes,
        structures=structures,
        changes=result.changes,
        **more,
    )


def _structure(one: ClassFacts, found: LabelMeasures) -> Structure:
    inside = found.intensities
    return Structure(
        value=one.value,
        name=one.name,
        voxels=int(found.voxels),
        volume_ml=_short(found.volume_ml),
        surface_mm2=_short(found.surface_mm2),
        centroid=_rounded(found.centroid),
        first=_whole(found.first),
        last=_whole(found.last),
        touches_edge=bool(found.touches_edge),
        intensities=None if inside is None else {key: _short(part) for key, part in inside._asdict().items()},
        confidence=None if found.confidence is None else _short(found.confidence),
    )


def _short(number: float) -> float:
    """Round to six digits: a report of a thousand cases has a million numbers."""
    return float(f"{number:.6g}")


def _rounded(three: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = map(_short, three)
    return x, y, z


def _whole(three: tuple[int, int, int]) -> tuple[int, int, int]:
    x, y, z = map(int, three)
    return x, y, z


def to_json(facts: Any) -> dict[str, Any]:
    """Return facts as JSON has them; tuples become lists when they are written."""
    return asdict(facts)


def from_json(kind: Any, value: Any, where: str = "It") -> Any:
    """Return the object that JSON describes, after checking every type: :func:`to_json` backwards.

    :param kind: a dataclass of this file, or a type such as ``tuple[str, ...]``.
    :param value: what :func:`json.loads` returned. Members that are not known are ignored.
    :param where: the entry, for messages.
    :raises ClassScaleError: if something is missing or of another type.

    >>> from_json(tuple[int, int], [1, 2])
    (1, 2)
    >>> from_json(Structure, {"value": "1"})
    Traceback (most recent call last):
    ClassScaleSegLib.errors.ClassScaleError: value must be a whole number; it is '1'.
    """
    if type(value) is kind and kind in (int, str, bool):  # first what most entries are
        return value
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:  # an int may be too large
        return float(value)
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (other,) = (part for part in inner if part is not type(None))
        return None if value is None else from_json(other, value, where)
    if origin is tuple and isinstance(value, list):
        if inner[-1] is Ellipsis:
            return tuple(from_json(inner[0], part, where) for part in value)
        if len(value) == len(inner):
            return tuple(from_json(part, item, where) for part, item in zip(inner, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {key: from_json(inner[1], part, f"{where} {key}") for key, part in value.items()}
    names = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false", dict: "an object"}
    must = names.get(origin or kind, f"a list of {len(inner)}" if inner[-1:] != (Ellipsis,) else "a list")
    raise ClassScaleError(f"{where} must be {must}; it is {_quoted(value)}.")


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ClassScaleError(f"{where} must be an object; it is {_quoted(value)}.")
    given = {}
    for name, entry, needed in _entries(kind):
        if name in value:
            given[name] = from_json(entry, value[name], name)
        elif needed:
            raise ClassScaleError(f"{where} has no {name}.")
    return kind(**given)


@cache
def _entries(kind: Any) -> list[tuple[str, Any, bool]]:
    """Return name and type of each field of a dataclass, and whether it has no default."""
    types_of = get_type_hints(kind)
    return [
        (entry.name, types_of[entry.name], entry.default is MISSING and entry.default_factory is MISSING)
        for entry in fields(kind)
    ]


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def loads(text: str) -> Any:
    """Return what JSON says.

    :raises ValueError: if it is not JSON, which has neither NaN nor Infinity.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
