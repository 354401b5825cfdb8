"""The folder of a server: what is in it, and one server at a time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..catalog.catalog import models_folder
from ..errors import Busy, OutputError
from ..files import unwritable
from ..locking import locked

LOCK = "server.lock"  # it stays, and tells that the folder is that of a server


def default_folder() -> Path:
    """Return the folder of the server, beside that of the models."""
    return models_folder().parent / "server"


@dataclass(frozen=True)
class ServerFolder:
    """The folders of a server.

    :ivar root: has the tokens, too.
    """

    root: Path

    @property
    def uploads(self) -> Path:
        """Images. It is emptied at each start."""
        return self.root / "uploads"

    @property
    def unfinished(self) -> Path:
        """A folder for each job that runs. It is empty after each start."""
        return self.root / "unfinished"

    @property
    def results(self) -> Path:
        """A folder for each job that is finished."""
        return self.root / "results"


@contextmanager
def opened_folder(root: Path) -> Iterator[ServerFolder]:
    """Make the folders of a server, which only this user can read, and hold them for this process.

    Images that an earlier process has left are removed.

    :raises Busy: if another process has them.
    :raises OutputError: if they cannot be written, or are folders of something else, with files that a server would
        remove.
    """
    folder = ServerFolder(root.absolute())
    lock = folder.root / LOCK
    for each in (folder.uploads, folder.unfinished, folder.results):
        if not lock.exists() and each.is_dir() and any(each.iterdir()):
            raise OutputError(f"{each} is not of a server, which would remove what is in it. Choose another --folder.")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, f"The folder {folder.root} is used as that of a server", Busy))
        except Busy as error:
            holder = re.search(r"\(id .*\)", str(error))
            raise Busy(
                f"Another server {holder[0] if holder else ''} uses the folder {folder.root}. Stop it, or give this "
                "one a folder of its own (--folder)."
            ) from error
        try:
            folder.root.chmod(0o700)
            shutil.rmtree(folder.uploads, ignore_errors=True)
            for each in (folder.uploads, folder.unfinished, folder.results):
                each.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise unwritable(folder.root, error) from error
        yield folder
