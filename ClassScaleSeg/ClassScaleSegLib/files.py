"""Results appear under their name only when they are complete: written beside it first, then moved."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError, OutputExistsError


@contextmanager
def replacing(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary name in the folder of ``path``, with its suffix, that becomes ``path`` when the block ends well.

    Missing folders are made. If the block fails or is interrupted, the temporary file goes and whatever stood at
    ``path`` stays.

    :raises OutputExistsError: if ``path`` exists and is not to be overwritten.
    :raises OutputError: in place of an OSError: unwritable folder, full disk, a name the file system refuses.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    temporary = path.with_name(f".{secrets.token_hex(6)}{''.join(path.suffixes[-2:]).lower()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        refuse_existing(path, overwrite)  # it may have appeared while the block ran
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass  # the folder itself is at fault, and the fault is on its way to the caller


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Do nothing if ``path`` is free, or a file that may be overwritten.

    :raises OutputExistsError: if it is a file not to be overwritten.
    :raises OutputError: if it is a folder, or cannot even be looked at.
    """
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # no permission to enter the folder, a name too long
        raise unwritable(path, error) from error
    if is_folder:
        raise OutputError(f"{path} is a folder; name a file in it.")
    if exists and not overwrite:
        raise OutputExistsError(f"{path} exists already; allow overwriting or choose another name.")


def refuse_unwritable_folder(path: Path) -> None:
    """Try whether a file can be made where ``path`` shall stand, in the nearest folder that exists; leaves nothing.

    :raises OutputError: a sentence naming the folder.
    """
    folder = next((parent for parent in path.absolute().parents if parent.exists()), None)
    try:
        # permissions bits say too little: read-only mounts, network shares, Windows
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, reason: object) -> OutputError:
    text = (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
    return OutputError(f"{path} cannot be written ({text}). Choose another folder, or make room there.")
