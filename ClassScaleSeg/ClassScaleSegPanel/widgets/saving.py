"""Ask for the file that something is saved to. Its suffix says what is written there, and need not be typed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import qt
import slicer
from ClassScaleSegLib.images.formats import ALL_SUFFIXES
from slicer.i18n import tr as _

from .texts import ask

_BEGUN = r"\.(seg|rtstruct|sr)$"  # of a suffix that was typed as far as this


def ask_file(title: str, name: str, kinds: Mapping[str, str]) -> str:
    """Ask the user for a file to save to, and return its path; empty if the user cancels.

    A file that exists is replaced only if the user has said so.

    :param title: of the dialogue.
    :param name: what is saved, as people call it; the name that is proposed.
    :param kinds: for each suffix, such as ``.seg.nrrd``, what such a file is, in the language of Slicer. A suffix that
        is typed chooses among them, else the filter of the dialogue, which at first is that of the first one.
    """
    filters = {f"{kind} (*{suffix})": suffix for suffix, kind in kinds.items()}
    # with a proposed suffix the filter would say nothing
    proposed = file_name(name) + (next(iter(kinds)) if len(kinds) == 1 else "")
    typed, chosen = show(title, str(Path(slicer.mrmlScene.GetRootDirectory() or "", proposed)), list(filters))
    path = with_suffix(typed, tuple(kinds), filters.get(chosen, ""))
    # the dialogue has asked about the name as it was typed, not about the one with a suffix
    question = _("{path} already exists. Replace it?").format(path=path)
    return "" if path != typed and Path(path).exists() and not ask(question, title) else path


def show(title: str, proposed: str, filters: Sequence[str]) -> tuple[str, str]:
    """Show the dialogue, and return the path as it was typed, and the filter; both empty if the user cancels.

    Qt's own function, ``getSaveFileName``, does not tell the filter in PythonQt.
    """
    dialog = qt.QFileDialog(slicer.util.mainWindow(), title, "", ";;".join(filters))
    dialog.setAcceptMode(qt.QFileDialog.AcceptSave)
    dialog.setFileMode(qt.QFileDialog.AnyFile)
    dialog.selectFile(proposed)
    accepted = (getattr(dialog, "exec_", None) or dialog.exec)()
    files, chosen = dialog.selectedFiles(), dialog.selectedNameFilter()
    dialog.deleteLater()
    return (str(files[0]), str(chosen)) if accepted and files else ("", "")


def file_name(name: str) -> str:
    """Return the name of a node as a file name that every system takes.

    >>> file_name("CT 1/2: liver?")
    'CT 1_2_ liver_'
    """
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(" .") or "Segmentation"


def with_suffix(path: str, suffixes: Sequence[str], chosen: str = "") -> str:
    """Return the path with one of some suffixes for what the user has typed; an empty text stays empty.

    :param suffixes: such as ``.seg.nrrd``. The path keeps the one that it has.
    :param chosen: which of them it gets, if it has none, or one of another kind; empty: the first.

    >>> with_suffix("a", [".seg.nrrd"]), with_suffix("a.nrrd", [".seg.nrrd"]), with_suffix("a.SEG.NRRD", [".seg.nrrd"])
    ('a.seg.nrrd', 'a.seg.nrrd', 'a.SEG.NRRD')
    >>> with_suffix("a.dcm", [".rtstruct.dcm"]), with_suffix("a.seg.nrrd", [".seg.dcm"])
    ('a.rtstruct.dcm', 'a.seg.dcm')
    >>> tables = (".csv", ".xlsx")
    >>> with_suffix("a", tables, ".xlsx"), with_suffix("a.csv", tables, ".xlsx"), with_suffix("v1.2", tables)
    ('a.xlsx', 'a.csv', 'v1.2.csv')
    """
    if not path or path.lower().endswith(tuple(suffixes)):
        return path
    foreign = next((suffix for suffix in (*ALL_SUFFIXES, ".dcm") if path.lower().endswith(suffix)), "")
    bare = path[: len(path) - len(foreign)]
    return re.sub(_BEGUN, "", bare, flags=re.IGNORECASE) + (chosen or suffixes[0])
