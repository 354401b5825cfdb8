"""The names of files that are saved."""

from __future__ import annotations

import re


def file_name(name: str) -> str:
    """Return the name of a node as a file name that every system takes.

    >>> file_name("CT 1/2: liver?")
    'CT 1_2_ liver_'
    """
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(" .") or "Segmentation"


def with_suffix(path: str, suffix: str) -> str:
    """Return the path with a suffix such as ``.seg.nrrd`` for what the user has typed; an empty text stays empty.

    >>> with_suffix("a", ".seg.nrrd"), with_suffix("a.nrrd", ".seg.nrrd"), with_suffix("a.SEG.NRRD", ".seg.nrrd")
    ('a.seg.nrrd', 'a.seg.nrrd', 'a.SEG.NRRD')
    >>> with_suffix("a.dcm", ".rtstruct.dcm"), with_suffix("a.seg.nrrd", ".seg.dcm")
    ('a.rtstruct.dcm', 'a.seg.dcm')
    """
    if not path or path.lower().endswith(suffix):
        return path
    return re.sub(r"(\.seg|\.rtstruct)?(\.nrrd|\.dcm|\.csv)?$", "", path, flags=re.IGNORECASE) + suffix
