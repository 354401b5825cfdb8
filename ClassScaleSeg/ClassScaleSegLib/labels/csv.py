"""Read and write labels as 3D Slicer's colour-table CSV. Users edit these files, so each error names the line at fault.

The columns are those that `vtkMRMLColorTableStorageNode` of Slicer 5.8 and later reads and writes. Only ``LabelValue``
and ``Name`` are required. Labels without colour columns get the colours of `segment_color`; labels without terminology
columns have no codes. The last column, ``Group``, is an addition of ClassScaleSeg and is written only if a label has a
group. Slicer reads such a table too and ignores the column.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from ..errors import LabelTableError
from .label import CODE_FIELDS, MAX_VALUE, Code, Label, segment_color, segment_id

MAX_BYTES = 64 << 20  # 65536 rows of a kilobyte each; a larger file is not a label table
COLORS = ("Color_R", "Color_G", "Color_B")
CODE_COLUMNS = {
    field: tuple(f"{prefix}_{part}" for part in ("CodingScheme", "CodeValue", "CodeMeaning"))
    for field, prefix in zip(CODE_FIELDS, ("Category", "Type", "TypeModifier", "Region", "RegionModifier"), strict=True)
}
COLUMNS = ("LabelValue", "Name", *COLORS, "Color_A", *(column for three in CODE_COLUMNS.values() for column in three))
GROUP = "Group"


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read a colour-table CSV.

    :param path: the file, UTF-8.
    :returns: the labels in the order of the file.
    :raises LabelTableError: if the file cannot be read or used; the message names the file and, where known, the line.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    labels: dict[int, Label] = {}
    try:
        header = [column.strip() for column in next(reader, [])]
        missing = [column for column in ("LabelValue", "Name") if column not in header]
        repeated = [column for column in (*COLUMNS, GROUP) if header.count(column) > 1]
        if missing:
            found = ", ".join(header)[:100] or "nothing"
            raise LabelTableError(
                f"{path}: the first line has no column {missing[0]}; it has {found}. A label table is a CSV file with "
                "the columns LabelValue and Name, separated by commas, such as a colour table that 3D Slicer writes."
            )
        if repeated:
            raise LabelTableError(f"{path}: the first line has more than one column {repeated[0]}.")
        for fields in reader:
            if not fields:
                continue
            where = f"{path}, line {reader.line_num}"
            if len(fields) != len(header):
                raise LabelTableError(f"{where}: {len(fields)} fields were found, {len(header)} were expected.")
            label = _label(dict(zip(header, fields, strict=True)), where)
            if label.value in labels:
                raise LabelTableError(
                    f"{where}: label value {label.value} was used before, by {labels[label.value].name}."
                )
            labels[label.value] = label
    except csv.Error as error:
        raise LabelTableError(f"{path}, line {reader.line_num}: this is not valid CSV ({error}).") from error
    return tuple(labels.values())


def format_labels(labels: Iterable[Label]) -> str:
    """Return labels as CSV text with all columns. The background is transparent, every other label opaque.

    Text is quoted because Slicer's reader treats ``#`` outside quotes as the start of a comment.

    :param labels: the rows, written in this order.
    """
    text, rows = io.StringIO(), tuple(labels)
    grouped = any(label.group for label in rows)
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow((*COLUMNS, GROUP) if grouped else COLUMNS)
    for label in rows:
        group = [label.group or ""] if grouped else []
        writer.writerow([label.value, label.name, *label.color, 255 if label.value else 0, *code_cells(label), *group])
    return text.getvalue()


def code_cells(label: Label) -> list[str]:
    """Return the 15 cells of the columns `CODE_COLUMNS`; the three cells of a missing code are empty."""
    return [part for code in label.codes.values() for part in (astuple(code) if code else ("", "", ""))]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LabelTableError(f"{path} is larger than {MAX_BYTES >> 20} MiB: this is not a label table.")
        content = path.read_bytes()
    except OSError as error:
        raise LabelTableError(f"{path} cannot be read ({error.strerror or error}).") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise LabelTableError(f"{path}, line {line}: this is not UTF-8 text. Save it as CSV in UTF-8.") from error


def _label(cells: dict[str, str], where: str) -> Label:
    value = _number(cells, "LabelValue", MAX_VALUE, where)
    if any(column in cells for column in COLORS):
        red, green, blue = (_number(cells, column, 255, where) for column in COLORS)
    else:
        red, green, blue = segment_color(value)
    codes = {field: _code(cells, columns, where) for field, columns in CODE_COLUMNS.items()}
    return Label(value, segment_id(value), cells["Name"], (red, green, blue), **codes, group=cells.get(GROUP))


def _number(cells: dict[str, str], column: str, largest: int, where: str) -> int:
    text = cells.get(column, "").strip()
    # int() alone would also accept "1_0", digits of other scripts and numbers of any length
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= largest):
        raise LabelTableError(f'{where}: {column} is "{text[:30]}", expected a whole number from 0 to {largest}.')
    return int(text)


def _code(cells: dict[str, str], columns: tuple[str, ...], where: str) -> Code | None:
    code = Code(*(cells.get(column, "") for column in columns))
    if not any(astuple(code)):
        return None
    if not (code.scheme and code.value):
        raise LabelTableError(f"{where}: {columns[0]} and {columns[1]} must both be given, or neither of them.")
    return code
