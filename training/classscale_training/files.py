"""Write JSON files and checkpoints completely or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import reason
from ClassScaleSegLib.files import replacing, unwritable

LATEST, PREVIOUS = "checkpoint_latest.pth", "checkpoint_previous.pth"


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
