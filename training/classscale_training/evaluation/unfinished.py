"""Where a comparison keeps what models have found until it ends, if the user names no folder for it.

What was cancelled or killed is there for the next try, for a week: it may be of patients, who are not to lie around.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ClassScaleSegLib.catalog.catalog import data_folder
from ClassScaleSegLib.errors import OutputError
from ClassScaleSegLib.files import refuse_unwritable_folder
from ClassScaleSegLib.locking import is_locked

from ..files import alone

DAYS = 7
_FOLDER, _LOCK = "comparisons", "lock"


class Room:
    """A folder for what models find.

    :ivar folder: it exists.
    :ivar lasting: whether it is there the next time.
    :ivar done: whether nothing in it is needed any more.
    """

    def __init__(self, folder: Path, lasting: bool = True) -> None:
        self.folder, self.lasting, self.done = folder, lasting, False

    @property
    def empty(self) -> bool:
        """Whether no model has found anything yet."""
        return next(self.folder.glob("*/[!.]*"), None) is None


@contextmanager
def unfinished(
    images: Path, segmentations: Path, models: Iterable[Path], cases: Iterable[str] | None = None
) -> Iterator[Room]:
    """Yield a room for what models find, always the same for the same comparison, and empty it at the end.

    It is kept if the block ends by an error or a signal, or leaves the attribute ``done`` false. What no comparison has
    touched for a week is removed. If the data folder of this user cannot be written, the room is a temporary one.

    :param images: the folder of the images.
    :param segmentations: the folder of what is drawn: that of somebody else is another comparison.
    :param models: their files and folders.
    :param cases: the names of those that are compared; ``None``: all that are drawn.
    :raises Busy: if another process makes the same comparison.
    """
    root = data_folder() / _FOLDER
    _sweep(root)
    paths = [str(path.resolve()) for path in (images, segmentations, *models)]
    words = json.dumps([paths, None if cases is None else sorted(cases)])
    lasting, folder = True, root / hashlib.sha256(words.encode()).hexdigest()[:16]
    with ExitStack() as stack:
        try:
            refuse_unwritable_folder(folder / _LOCK)
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(exist_ok=True, mode=0o700)
        except (OutputError, OSError):
            lasting, folder = False, Path(stack.enter_context(tempfile.TemporaryDirectory()))
        room, held = Room(folder, lasting), False
        try:
            with alone(folder / _LOCK, f"These models are being compared on {images}"):
                held = True
                yield room
        finally:
            if held and (room.done or room.empty):
                shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Remove what was left behind, unless a process works on it. Some file systems cannot tell, and have no locks."""
    oldest = time.time() - DAYS * 24 * 3600
    with suppress(OSError):
        for entry in os.scandir(root):
            if entry.is_dir(follow_symlinks=False) and not is_locked(Path(entry, _LOCK)):
                if max(file.stat().st_mtime for file in (Path(entry), *Path(entry).rglob("*"))) < oldest:
                    shutil.rmtree(entry, ignore_errors=True)
