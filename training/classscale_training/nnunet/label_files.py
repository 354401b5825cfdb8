"""Notice label maps that have changed since they were preprocessed, such as those that somebody has corrected."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..data.raw_cases import RawCase

LABEL_FILES = "label_files"  # entry of the note on a folder of preprocessed cases


def label_files(cases: Iterable[RawCase]) -> dict[str, list[Any]]:
    """Return name, size, time of the last change and digest of each label map, as JSON holds them."""
    return {case.label.name: [*_stamp(case.label), _digest(case.label)] for case in cases if case.label is not None}


def changed_label_files(folder: Path, then: Mapping[str, Any]) -> list[str]:
    """Return the names of label maps that have other content than when they were preprocessed.

    Only files with another size or time are read: a copy of a dataset may have new times.

    :param folder: of the label maps; nothing is said of those that are not there.
    :param then: as :func:`label_files` has returned it.
    """
    found = []
    for name, (size, changed, digest) in sorted(then.items()):
        file = folder / Path(name).name
        try:
            now = _stamp(file)
            if now != [size, changed] and (now[0] != size or _digest(file) != digest):
                found.append(name)
        except OSError:
            continue
    return found


def _stamp(file: Path) -> list[int]:
    state = file.stat()
    return [state.st_size, state.st_mtime_ns]


def _digest(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
