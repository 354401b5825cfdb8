"""Read and write a taxonomy: the CSV that says which label of which dataset stands for which classes.

The header is ``dataset,label,class`` or ``dataset,label,class,modality``, and every row names one class::

    dataset,label,class,modality
    291,,,MR
    ,thalamus,left thalamus
    ,thalamus,right thalamus
    292,background,liver

Rows for the same label add up. A dataset is given by its number or by the name of its folder. Without one, the row is
for all datasets: their labels of this name stand for the class, and other rows may name the label in place of its
classes.
Cells at the end of a row may be left out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ClassScaleSegLib.errors import LabelTableError, reason
from ClassScaleSegLib.files import replacing
from ClassScaleSegLib.labels.csv import guarded, unguarded

COLUMNS = ("dataset", "label", "class", "modality")
_MAX_BYTES = 64 << 20  # a larger file is not a taxonomy


@dataclass(frozen=True)
class Row:
    """One row; a cell that is not given is empty.

    :ivar line: number of its line in the file, counted from 1.
    :ivar member: the class, or a label without a dataset that stands for several classes.
    """

    line: int
    dataset: str
    label: str
    member: str
    modality: str


@dataclass(frozen=True)
class Taxonomy:
    """The rows of a taxonomy, as they are written.

    :ivar file: what messages call it; empty if there is none.
    :ivar delimiter: between the cells, a comma or a semicolon.

    >>> taxonomy = Taxonomy.parse(b"dataset,label,class\\n,thalamus,left thalamus\\n", "brain.csv")
    >>> taxonomy.rows[0].label, taxonomy.rows[0].member, taxonomy.rows[0].line
    ('thalamus', 'left thalamus', 2)
    >>> taxonomy.line(291, "thalamus", "nuclei, left")
    '291,thalamus,"nuclei, left"'
    """

    file: str = ""
    rows: tuple[Row, ...] = ()
    delimiter: str = ","

    @classmethod
    def read(cls, path: Path) -> Taxonomy:
        """Read a taxonomy.

        :raises LabelTableError: if it cannot be read, or a row cannot be understood; the message names the line.
        """
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise LabelTableError(f"{path} is larger than {_MAX_BYTES >> 20} MiB: this is not a taxonomy.")
            content = path.read_bytes()
        except OSError as error:
            raise LabelTableError(f"{path} cannot be read ({error.strerror or error}). Check its name.") from error
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: bytes, file: str) -> Taxonomy:
        """Read a taxonomy from the content of a file: UTF-8, also with a byte-order mark.

        :param file: what messages call it.
        :raises LabelTableError: as :meth:`read`.
        """
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise LabelTableError(f"{file}, line {line}: this is not UTF-8 text. Save it as CSV in UTF-8.") from error
        first = text.partition("\n")[0]
        delimiter = ";" if ";" in first and "," not in first else ","
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
        rows = []
        try:
            _check_header(file, next(reader, []))
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    rows.append(_row(file, reader.line_num, [*map(unguarded, cells)]))
        except csv.Error as error:
            raise LabelTableError(
                f"{file}, line {reader.line_num}: this is not valid CSV ({reason(error)}). Put names with commas or "
                "quotation marks between quotation marks."
            ) from error
        return cls(file, tuple(rows), delimiter)

    def line(self, *cells: object) -> str:
        """Return a line of this file, without its end."""
        return _format([cells], self.delimiter).rstrip("\n")

    def where(self, *rows: Row) -> str:
        """Return the file and the lines of some rows, such as ``brain.csv, line 3``."""
        lines = sorted({row.line for row in rows})
        return f"{self.file}, line{'s' if len(lines) > 1 else ''} {' and '.join(map(str, lines))}"


def write_taxonomy(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a taxonomy with all four columns.

    :param rows: dataset, label, class and modality of each.
    :raises OutputError: if the file cannot be written.
    """
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(_format([COLUMNS, *rows]), encoding="utf-8", newline="")


def _format(rows: Iterable[Iterable[object]], delimiter: str = ",") -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", delimiter=delimiter)
    writer.writerows([guarded(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()


def _check_header(file: str, cells: list[str]) -> None:
    header = tuple(cell.strip().lower() for cell in cells)
    if header not in (COLUMNS, COLUMNS[:3]):
        found = ", ".join(cells)[:100] or "nothing"
        raise LabelTableError(
            f"{file}: the first line must be {','.join(COLUMNS[:3])} or {','.join(COLUMNS)}; it is {found}. Correct it."
        )


def _row(file: str, line: int, cells: list[str]) -> Row:
    if len(cells) > len(COLUMNS):
        raise LabelTableError(
            f"{file}, line {line}: {len(cells)} cells were found, at most {len(COLUMNS)} were expected "
            f"({', '.join(COLUMNS)}). Put names with commas between quotation marks."
        )
    dataset, label, member, modality = (*(cell.strip() for cell in cells), "", "", "")[:4]
    row = Row(line, dataset, label, member, modality)
    if modality and not dataset:
        raise LabelTableError(
            f"{file}, line {line}: the modality {modality} has no dataset. Name one in the first cell."
        )
    if bool(label) != bool(member) or not (label or modality):
        missing = "class" if label else "label" if member else "label and no class"
        raise LabelTableError(
            f"{file}, line {line}: it has no {missing}. Write dataset, label and class, or a dataset and its modality."
        )
    return row
