"""Write JSON files and checkpoints completely or not at all, and find a checkpoint that is whole."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ClassScaleSegLib.errors import ModelError, reason
from ClassScaleSegLib.files import replacing, unwritable

LATEST, PREVIOUS = "checkpoint_latest.pth", "checkpoint_previous.pth"
Content = TypeVar("Content")


def write_json(file: Path, content: Any) -> None:
    """Write ``content`` to ``file`` as JSON, replacing an older file only once the new one is complete.

    :param file: path to write; missing folders are created.
    :param content: anything that :func:`json.dumps` accepts.
    :raises OutputError: if ``file`` cannot be written; an older file is then left unchanged.
    """
    with replacing(file, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def save_whole(file: Path, write: Callable[[str], None]) -> None:
    """Write a temporary file and, once it is complete, let it replace ``file``.

    If ``file`` is ``checkpoint_latest.pth``, the older file is kept as ``checkpoint_previous.pth``.

    :param file: the checkpoint to write or replace.
    :param write: called with the name of the temporary file, which it writes.
    :raises OutputError: if the file cannot be written, because the disk is full for example; the older checkpoints are
        then unchanged.
    """
    with replacing(file, overwrite=True) as temporary:
        try:
            write(str(temporary))
        except RuntimeError as error:  # torch's zip writer raises this instead of the OSError
            raise unwritable(file, reason(error)) from error
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        if file.name == LATEST and file.exists():
            previous = file.with_name(PREVIOUS)
            previous.unlink(missing_ok=True)
            try:
                os.link(file, previous)  # a second name, so that the file always exists
            except OSError:  # no hard links
                os.replace(file, previous)


def whole(checkpoint: Path) -> Path:
    """Return the checkpoint, if none of the checksums in it is wrong.

    :raises zipfile.BadZipFile: if one is wrong, or the file is no zip.
    """
    with zipfile.ZipFile(checkpoint) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"checksum of {damaged}")
    return checkpoint


def read_newest(files: Sequence[Path], read: Callable[[Path], Content], advice: str) -> Content:
    """Return what ``read`` makes of the first checkpoint that it can read, with a warning if the first one is damaged.

    :param files: the newest checkpoint first.
    :param read: raises any exception for a damaged file.
    :param advice: a sentence that says what to do if all are damaged.
    :raises ModelError: if ``read`` can read none of them.
    """
    faults = []
    for file in files:
        try:
            content = read(file)
        except Exception as error:  # torch does not document which errors damaged files raise
            faults.append(f"{file} ({reason(error) if file.exists() else 'does not exist'})")
            continue
        if faults:
            warnings.warn(f"{faults[0]} cannot be read; the training continues from {file.name}.", stacklevel=3)
        return content
    raise ModelError(f"No checkpoint can be read: {'; '.join(faults)}. {advice}")
