"""Read labels from the colour tables of other programs. Users edit these files, so each error names the line at fault.

3D Slicer (``.ctbl``, ``.txt``) and FreeSurfer (``FreeSurferColorLUT.txt``, ``.ctab``) have lines of value, name, red,
green, blue and opacity. ITK-SNAP's label descriptions (``.txt``, ``.label``) have value, red, green, blue, opacity, two
flags and the name in quotes. BIDS (``.tsv``) has the columns ``index`` and ``name``, and sometimes ``color``. nnU-Net
has names alone, in the entry ``labels`` of ``dataset.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import LabelTableError, named, reason, shown
from .csv import decoded, parse_labels, whole_number
from .label import MAX_VALUE, Label, segment_color, segment_id

COLOR_FILES = (".ctbl", ".txt", ".ctab", ".label", ".lut", ".tsv", ".json")
_ROW = "value, name, red, green, blue, opacity"
_NO_NAMES = ("(none)", "_")  # Slicer's words for a colour without a name
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?")


def is_color_file(path: Path) -> bool:
    """Return whether a file is a colour table of another program by its name."""
    return path.name.lower().endswith(COLOR_FILES)


def parse_color_file(content: bytes, file: str) -> tuple[Label, ...]:
    """Return the labels of a colour table in the order of the file. They have no codes.

    :param content: UTF-8 text.
    :param file: what messages call it; by its suffix, tables of BIDS are known.
    :raises LabelTableError: if it is none; the message names the file and, where known, the line.
    """
    text = decoded(content, file)
    if file.lower().endswith(".json"):
        with named(file):
            return _names_alone(text)
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    if "LabelValue" in first:
        return parse_labels(content, file, delimiter="\t" if "\t" in first else ",")
    rows = _columns(text, file) if file.lower().endswith(".tsv") else _lines(text, file)
    labels: dict[int, Label] = {}
    for number, label in rows:
        before = labels.setdefault(label.value, label)
        if before != label:  # the same line twice does no harm
            raise LabelTableError(
                f"{file}, line {number}: label value {label.value} was used before, by {before.name}."
            )
    if not labels:
        raise LabelTableError(f"{file} has no label. Each line of a colour table is one: {_ROW}.")
    return tuple(labels.values())


def _lines(text: str, file: str) -> Iterator[tuple[int, Label]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            with named(f"{file}, line {number}"):
                yield number, _label(line)


def _label(line: str) -> Label:
    parts = line.split(maxsplit=7)
    if len(parts) == 8 and all(map(_NUMBER.fullmatch, parts[:7])):  # of ITK-SNAP
        return _made(parts[0], parts[7], parts[1:4])
    return _named_first(line) or _named_first(line.partition(" #")[0]) or _refuse(line)


def _named_first(line: str) -> Label | None:
    """Return the label of a line of value, name and colours; ``None`` if it has no three numbers behind the name."""
    parts = line.split()
    for colors in (4, 3):  # with the opacity, or without
        if len(parts) >= colors + 2 and all(map(_NUMBER.fullmatch, parts[-colors:])):
            return _made(parts[0], " ".join(parts[1:-colors]), parts[-colors:][:3])
    return None


def _refuse(line: str) -> Label:
    raise LabelTableError(f'"{shown(line)[:80]}" is no label. Each line of a colour table is one: {_ROW}.')


def _made(value: str, name: str, colors: list[str]) -> Label:
    number = whole_number(value, "The label value", MAX_VALUE)
    red, green, blue = (
        whole_number(color.partition(".")[0] if re.fullmatch(r"[0-9]+\.0*", color) else color, what, 255)
        for what, color in zip(("Red", "Green", "Blue"), colors, strict=True)
    )
    return _new(number, name, (red, green, blue))


def _new(value: int, name: str, color: tuple[int, int, int]) -> Label:
    name = name.strip()
    for quote in "\"'":
        if len(name) > 1 and name.startswith(quote) and name.endswith(quote):
            name = name[1:-1]
    return Label(value, segment_id(value), "" if name in _NO_NAMES else name, color)


def _names_alone(text: str) -> tuple[Label, ...]:
    """Return the labels of a ``dataset.json``: values by names, or, before nnU-Net v2, names by values."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabelTableError(f"It is not valid JSON ({reason(error)}).") from error
    rows = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(rows, dict) or not rows:
        raise LabelTableError("It has no 'labels'; of JSON files, the dataset.json of nnU-Net is a label table.")
    if all(isinstance(name, str) for name in rows.values()) and all(map(_NUMBER.fullmatch, rows)):
        rows = {name: value for value, name in rows.items()}
    labels: dict[int, Label] = {}
    for name, stated in rows.items():
        if isinstance(stated, list):
            raise LabelTableError(
                f"'{shown(name)}' is a region of several labels. Give a table with one value for each."
            )
        value = whole_number("" if isinstance(stated, bool) else str(stated), f"'{shown(name)}'", MAX_VALUE)
        if value in labels:
            raise LabelTableError(f"label value {value} was used before, by {labels[value].name}.")
        labels[value] = _new(value, name, segment_color(value))
    return tuple(labels.values())


def _columns(text: str, file: str) -> Iterator[tuple[int, Label]]:
    """Yield the labels of a table of BIDS."""
    header: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        with named(f"{file}, line {number}"):
            fields = [field.strip() for field in line.split("\t")]
            if not header:
                header = fields
                if not {"index", "name"} <= set(header):
                    found = shown(", ".join(header))[:100]
                    raise LabelTableError(f"The columns index and name are needed, separated by tabs; it has {found}.")
                continue
            if len(fields) != len(header):
                raise LabelTableError(f"{len(fields)} fields were found, {len(header)} were expected.")
            cells = dict(zip(header, fields, strict=True))
            value = whole_number(cells["index"], "index", MAX_VALUE)
            color = re.fullmatch("#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", cells.get("color", ""))
            red, green, blue = map(lambda part: int(part, 16), color.groups()) if color else segment_color(value)
            name = "" if cells["name"] == "n/a" else cells["name"]
            yield number, _new(value, name, (red, green, blue))
