"""Write JSON files and checkpoints completely or not at all, alone, and find a checkpoint that is whole."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from ClassScaleSegLib.errors import ClassScaleError, ModelError, OutputError, reason
from ClassScaleSegLib.files import replacing, unwritable
from ClassScaleSegLib.locking import locked

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


def read_json(file: Path, entries: Mapping[str, type], advice: str, kind: type[ClassScaleError] = ModelError) -> dict:
    """Return the content of a JSON file that an earlier command wrote.

    :param entries: that it must have, with their types.
    :param advice: a sentence that says what to do if it cannot be read.
    :param kind: of the exception.
    :raises ClassScaleError: if it cannot be read, or is something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        odd = [name for name, of in entries.items() if not isinstance(content[name], of)]
    except (OSError, ValueError, RecursionError, TypeError, KeyError) as error:
        what = f"it has no entry {error}" if isinstance(error, KeyError) else reason(error)
        raise kind(f"{file} cannot be read ({what.rstrip('.')}). {advice}") from error
    if odd or not isinstance(content, dict):
        raise kind(f"{file} is not what an earlier command wrote ({', '.join(odd) or 'no object'}). {advice}")
    return content


@contextmanager
def alone(lock: Path, purpose: str) -> Iterator[None]:
    """Let no other process do the same within a ``with`` block, if the file system has locks; some clusters' have none.

    :param lock: the lock file.
    :param purpose: as for :func:`~ClassScaleSegLib.locking.locked`.
    :raises Busy: if another process does it.
    """
    with ExitStack() as stack:
        with suppress(OutputError):
            stack.enter_context(locked(lock, purpose))
        yield


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
