"""Read and write labels as 3D Slicer's colour-table CSV. Users edit these files, so each error names the line at fault.

The columns are those that `vtkMRMLColorTableStorageNode` of Slicer 5.8 and later reads and writes. Only ``LabelValue``
and ``Name`` are required. Labels without colour columns get the colours of `segment_color`; labels without terminology
columns have no codes. The last column, ``Group``, is an addition of ClassScaleSeg and is written only if a label has a
group. Slicer reads such a table too and ignores the column.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from ..errors import LabelTableError, named
from .label import CODE_FIELDS, MAX_VALUE, Code, Label, segment_color, segment_id

# Where a spreadsheet takes a text for a formula, OWASP's advice ("CSV Injection") is a single quote before it. We take
# it away again when we read. A text that begins so itself gets one more.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
MAX_BYTES = 64 << 20  # 65536 rows of a kilobyte each; a larger file is not a label table
COLORS = ("Color_R", "Color_G", "Color_B")
CODE_COLUMNS = {
    field: tuple(f"{prefix}_{part}" for part in ("CodingScheme", "CodeValue", "CodeMeaning"))
    for field, prefix in zip(CODE_FIELDS, ("Category", "Type", "TypeModifier", "Region", "RegionModifier"), strict=True)
}
COLUMNS = ("LabelValue", "Name", *COLORS, "Color_A", *(column for three in CODE_COLUMNS.values() for column in three))
GROUP = "Group"


def read_content(path: Path) -> bytes:
    """Return the content of a file with a label table.

    :raises LabelTableError: if it cannot be read, or is far too large.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LabelTableError(f"{path} is larger than {MAX_BYTES >> 20} MiB: this is not a label table.")
        return path.read_bytes()
    except OSError as error:
        raise LabelTableError(f"{path} cannot be read ({error.strerror or error}).") from error


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read a colour-table CSV, as `parse_labels` does. A file that cannot be read is a LabelTableError too."""
    return parse_labels(read_content(path), str(path))


def decoded(content: bytes, file: str) -> str:
    """Return the text of a label table.

    :param content: UTF-8, with a byte-order mark or without.
    :raises LabelTableError: if it is something else; the message names file and line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise LabelTableError(f"{file}, line {line}: this is not UTF-8 text. Save it in UTF-8.") from error


def parse_labels(content: bytes, file: str, delimiter: str = ",") -> tuple[Label, ...]:
    """Return the labels of a colour-table CSV in the order of the file.

    :param content: UTF-8 text.
    :param file: what messages call it.
    :param delimiter: between the fields.
    :raises LabelTableError: if it is not a label table; the message names the file and, where known, the line.
    """
    text = decoded(content, file)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    labels: dict[int, Label] = {}
    try:
        with named(file):
            header = _header(next(reader, []))
        for fields in filter(None, reader):
            with named(f"{file}, line {reader.line_num}"):
                if len(fields) != len(header):
                    raise LabelTableError(f"{len(fields)} fields were found, {len(header)} were expected.")
                label = _label(dict(zip(header, map(unguarded, fields), strict=True)))
                if labels.setdefault(label.value, label) is not label:
                    before = labels[label.value].name
                    raise LabelTableError(f"label value {label.value} was used before, by {before}.")
    except csv.Error as error:
        raise LabelTableError(f"{file}, line {reader.line_num}: this is not valid CSV ({error}).") from error
    return tuple(labels.values())


def format_labels(labels: Iterable[Label]) -> str:
    """Return labels as CSV text with all columns. The background is transparent, every other label opaque.

    Text is quoted because Slicer's reader treats ``#`` outside quotes as the start of a comment.
    """
    text, rows = io.StringIO(), tuple(labels)
    grouped = any(label.group for label in rows)
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow((*COLUMNS, GROUP) if grouped else COLUMNS)
    for label in rows:
        name, *texts = map(guarded, (label.name, *code_cells(label), *([label.group or ""] if grouped else [])))
        writer.writerow([label.value, name, *label.color, 255 if label.value else 0, *texts])
    return text.getvalue()


def guarded(text: str) -> str:
    """Return a text as a cell of a CSV file has it, so that no spreadsheet runs it.

    >>> guarded("liver"), guarded("=1+1"), guarded("'=1+1")
    ('liver', "'=1+1", "''=1+1")
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """Return the text of a cell, without what :func:`guarded` has put before it.

    >>> unguarded("'=1+1"), unguarded("'anterior' lobe")
    ('=1+1', "'anterior' lobe")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def code_cells(label: Label) -> list[str]:
    """Return the 15 cells of the columns `CODE_COLUMNS`; the three cells of a missing code are empty."""
    return [part for code in label.codes.values() for part in (astuple(code) if code else ("", "", ""))]


def _header(cells: list[str]) -> list[str]:
    header = [column.strip() for column in cells]
    for column in ("LabelValue", "Name"):
        if column not in header:
            found = ", ".join(header)[:100] or "nothing"
            raise LabelTableError(
                f"the first line has no column {column}; it has {found}. A label table is a CSV file with the columns "
                "LabelValue and Name, separated by commas, such as a colour table that 3D Slicer writes. Colour tables "
                "of another form have names that end with .ctbl or .txt."
            )
    for column in (*COLUMNS, GROUP):
        if header.count(column) > 1:
            raise LabelTableError(f"the first line has more than one column {column}.")
    return header


def _label(cells: dict[str, str]) -> Label:
    value = _number(cells, "LabelValue", MAX_VALUE)
    if any(column in cells for column in COLORS):
        red, green, blue = (_number(cells, column, 255) for column in COLORS)
    else:
        red, green, blue = segment_color(value)
    codes = {field: _code(cells, columns) for field, columns in CODE_COLUMNS.items()}
    return Label(value, segment_id(value), cells["Name"], (red, green, blue), **codes, group=cells.get(GROUP))


def _number(cells: dict[str, str], column: str, largest: int) -> int:
    return whole_number(cells.get(column, ""), column, largest)


def whole_number(text: str, what: str, largest: int) -> int:
    """Return a number of a label table.

    :param what: what messages call it.
    :raises LabelTableError: if it is no whole number from 0 to ``largest``.
    """
    text = text.strip()
    # int() alone would also accept "1_0", digits of other scripts and numbers of any length
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= largest):
        raise LabelTableError(f'{what} is "{text[:30]}", expected a whole number from 0 to {largest}.')
    return int(text)


def _code(cells: dict[str, str], columns: tuple[str, ...]) -> Code | None:
    given = [cells.get(column, "") for column in columns]
    if not any(given):  # as of most classes
        return None
    code = Code(*given)
    if not (code.scheme or code.value or code.meaning):
        return None
    if not (code.scheme and code.value):
        raise LabelTableError(f"{columns[0]} and {columns[1]} must both be given, or neither of them.")
    return code
