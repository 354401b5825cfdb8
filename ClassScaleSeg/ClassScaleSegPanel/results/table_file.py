"""Ask for the file that a table is saved to, as CSV or as an Excel workbook."""

from __future__ import annotations

from ClassScaleSegLib.images.tables import EXCEL_SUFFIX, TABLE_SUFFIXES
from slicer.i18n import tr as _

from ..install.packages import ensure_excel
from ..widgets.saving import ask_file


def ask_table_file(title: str, name: str) -> str:
    """Ask the user for a file to save a table to, and return its path; empty if the user cancels.

    For a workbook, the package that writes it is installed, once the user has agreed.

    :raises ClassScaleError: if it is missing and is not installed; says what to do.
    """
    kinds = dict(zip(TABLE_SUFFIXES, (_("Table"), _("Excel workbook")), strict=True))
    path = ask_file(title, name, kinds)
    if path.lower().endswith(EXCEL_SUFFIX):
        ensure_excel()
    return path
