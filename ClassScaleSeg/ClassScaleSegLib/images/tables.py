"""Write tables of structures as ``.csv``, or as ``.xlsx``, whose numbers a spreadsheet shows in its own language."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ..errors import OutputError, named, reason
from ..files import replacing
from ..labels.csv import guarded

EXCEL_SUFFIX = ".xlsx"
TABLE_SUFFIXES = (".csv", EXCEL_SUFFIX)
XLSXWRITER = "XlsxWriter>=3.1"
_WIDEST = 60  # letters of a column
_MOST_ROWS = 1_048_575  # below the title, as many as a sheet has
Cell = str | int | float | bool | None


def is_workbook(path: str | Path) -> bool:
    """Return whether a file has the suffix of an Excel workbook."""
    return Path(path).name.lower().endswith(EXCEL_SUFFIX)


def refuse_missing_xlsxwriter() -> None:
    """Raise an :class:`OutputError` if the package that writes workbooks is missing; it says how to install it."""
    try:
        import xlsxwriter  # noqa: F401
    except ImportError as error:
        raise OutputError(
            f"Excel workbooks need the Python package XlsxWriter ({reason(error)}). Install it: python -m pip install "
            f'"{XLSXWRITER}", or in the Python console of 3D Slicer: slicer.util.pip_install("{XLSXWRITER}"). Or write '
            ".csv."
        ) from error


def write_table(
    path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[Cell]], overwrite: bool, digits: int
) -> None:
    """Write a table; an existing file is replaced if ``overwrite`` is true.

    :param path: ``.xlsx``, or any other suffix for CSV.
    :param columns: titles.
    :param rows: cells of each row, as many as titles; ``None`` is an empty cell. In a workbook numbers are numbers, and
        a text is never a formula.
    :param digits: of numbers that are not integers, in CSV. There, a text that a spreadsheet would take for a formula
        has a single quote before it.
    :raises OutputExistsError: if the file exists and ``overwrite`` is false.
    :raises OutputError: if it cannot be written, or XlsxWriter is missing.
    """
    if is_workbook(path):
        refuse_missing_xlsxwriter()
        with replacing(path, overwrite) as temporary, named(path):
            _write_workbook(temporary, columns, rows)
        return
    with replacing(path, overwrite) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(
            [guarded(cell) if isinstance(cell, str) else _text(cell, digits) for cell in row] for row in rows
        )


def _text(cell: Cell, digits: int) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    return f"{cell:.{digits}g}" if isinstance(cell, Real) and not isinstance(cell, Integral) else str(cell)


def _write_workbook(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    import xlsxwriter

    listed = [list(row) for row in rows]
    if len(listed) > _MOST_ROWS:
        raise OutputError(
            f"It was not written: a sheet has {_MOST_ROWS:,} rows, and there are {len(listed):,}. Write .csv."
        )
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet()
        title = book.add_format({"bold": True})
        for column, name in enumerate(columns):
            sheet.write_string(0, column, name, title)
            longest = max((len(_text(row[column], 6)) for row in listed), default=0)
            sheet.set_column(column, column, min(max(longest, len(name)) + 2, _WIDEST))
        for number, row in enumerate(listed, 1):
            for column, cell in enumerate(row):
                _write_cell(sheet, number, column, cell)
        sheet.freeze_panes(1, 0)
        sheet.autofilter(0, 0, max(len(listed), 1), len(columns) - 1)


def _write_cell(sheet: Any, row: int, column: int, cell: Cell) -> None:
    if isinstance(cell, bool):
        sheet.write_boolean(row, column, cell)
    elif isinstance(cell, Real):
        if math.isfinite(cell):  # a workbook has no other numbers
            sheet.write_number(row, column, cell)
    elif cell:
        sheet.write_string(row, column, cell)
