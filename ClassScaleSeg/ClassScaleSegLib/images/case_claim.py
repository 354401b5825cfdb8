"""Who has a case open, so that two readers of one folder do not correct the same one: a small file beside it.

A file, not a lock of the operating system: not every network drive passes locks on. It forbids nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from ..errors import OutputError, shown
from ..files import replacing

MOST_LETTERS = 60  # of the name of a reader, and of a computer
_MOST_BYTES = 4096  # of the file


class Claim(NamedTuple):
    """Somebody has a case open.

    :ivar reader: the name that this somebody has given; "" if none.
    :ivar machine: name of the computer.
    :ivar since: with the time zone of this computer.
    """

    reader: str
    machine: str
    since: datetime


def claim_file(case: Path) -> Path:
    """Return the file that says who has a case open. Its name begins with a dot, so no list of cases has it."""
    return case.with_name(f".{case.name}.open")


def claimed_by(case: Path) -> Claim | None:
    """Return who else has a case open; ``None`` if nobody has, or a program of this user that has crashed here since.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     case = Path(folder, "a.seg.nrrd")
    ...     claim(case, "Anna")
    ...     claimed_by(case) is None  # it is this program
    True
    """
    facts = _facts(case)
    if facts is None or _is_own(facts) or _has_ended(facts):
        return None
    try:
        since = datetime.fromisoformat(str(facts.get("since"))).astimezone()
    except (ValueError, OverflowError, OSError):
        return None  # not written by this program
    return Claim(_shown(facts.get("reader")), _shown(facts.get("machine")), since)


def claim(case: Path, reader: str = "") -> None:
    """Note that this program has a case open, in place of whoever had it.

    In a folder that cannot be written, nothing is noted: there, nobody can save a case either. One that is gone, such
    as that of a drive which is not connected, is not made.

    :param reader: the name of its user; "" if it is not to be told.
    """
    if not os.path.isdir(case.parent):
        return
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    facts = {"reader": reader, "machine": platform.node(), "home": _home(), "process": os.getpid(), "since": now}
    with suppress(OutputError), replacing(claim_file(case), overwrite=True) as partial:
        partial.write_text(json.dumps(facts), "utf-8")


def release(case: Path) -> None:
    """Remove the note of this program on a case. That of another one stays."""
    facts = _facts(case)
    if facts is not None and _is_own(facts):
        with suppress(OSError):
            claim_file(case).unlink(missing_ok=True)


def _facts(case: Path) -> dict[str, object] | None:
    try:
        with claim_file(case).open("rb") as opened:
            found = json.loads(opened.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _home() -> str:
    """Return what differs for other users and other computers: many a computer is called "Mac", as the next one is.

    It does not tell the name of the user.
    """
    return hashlib.sha256(f"{platform.node()}\n{os.path.expanduser('~')}".encode(errors="replace")).hexdigest()[:16]


def _is_own(facts: dict[str, object]) -> bool:
    return facts.get("home") == _home() and facts.get("process") == os.getpid()


def _has_ended(facts: dict[str, object]) -> bool:
    process = facts.get("process")
    if facts.get("home") != _home() or not isinstance(process, int) or not 0 < process < 1 << 31:
        return False
    try:
        import psutil
    except ModuleNotFoundError:  # it comes with the first Apply; until then nobody can tell
        return False
    return not psutil.pid_exists(process)


def _shown(text: object) -> str:
    return shown(text)[:MOST_LETTERS] if isinstance(text, str) else ""
