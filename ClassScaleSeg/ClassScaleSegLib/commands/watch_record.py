"""What ``classscaleseg dicom watch`` notes in its folder: a small JSON file for each series, and one for the last look.

``classscaleseg dicom status`` reads them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import OutputError, reason
from ..files import replacing

DONE, SEGMENTED, FAILED, LEFT_OUT = "done", "segmented", "failed", "left out"
_STATES = (DONE, SEGMENTED, FAILED, LEFT_OUT)
LOCK = ".lock"  # file in the folder that a running command holds


@dataclass(frozen=True)
class SeriesRecord:
    """What has become of a series.

    :ivar series: SeriesInstanceUID.
    :ivar study: StudyInstanceUID.
    :ivar images: that the series had then.
    :ivar state: ``DONE``; ``SEGMENTED``, if the result was not sent yet; ``FAILED``; or ``LEFT_OUT``, because it is
        nothing that can be segmented.
    :ivar structures: that were found.
    :ivar reason: a sentence, unless it is done.
    :ivar instances: checksum of the identifiers of its images; empty if it was not segmented.
    :ivar time: when this was written, in the time of this computer.
    """

    series: str
    study: str
    images: int
    state: str
    structures: int = 0
    reason: str = ""
    instances: str = ""
    time: str = ""

    @property
    def is_open(self) -> bool:
        """Whether there is something left to do, also if the series has not changed."""
        return self.state in (SEGMENTED, FAILED)


def now() -> str:
    """Return the time of this computer, as it is noted and said."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def checksum_of(instances: Iterable[str]) -> str:
    """Return a checksum of the identifiers of images, in whatever order they are.

    >>> checksum_of(["1.2.4", "1.2.3"])
    'f53566335f01a919'
    """
    return hashlib.sha256("\n".join(sorted(instances)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Look:
    """What there was at the last look at the archive.

    :ivar time: of the look, in the time of this computer.
    :ivar fault: a sentence, if the archive could not be asked, or the folder not be written.
    :ivar arriving: series of which more images may come.
    :ivar due: series to work on.
    :ivar series: SeriesInstanceUID of that which is worked on; empty if none is.
    :ivar since: when that was begun.
    """

    time: str
    fault: str = ""
    arriving: int = 0
    due: int = 0
    series: str = ""
    since: str = ""


class Records:
    """The records in the folder of ``classscaleseg dicom watch``.

    :ivar folder: of those of series.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._look, self._lock = folder / "records", folder / "look.json", folder / LOCK

    @property
    def are_there(self) -> bool:
        """Whether the folder is that which the running command holds. While a network drive is away, it is not."""
        return os.path.exists(self._lock)

    def refuse_lost(self) -> None:
        """Refuse to work without the records: all series would be segmented and sent again.

        :raises OutputError: if they are not there.
        """
        if not self.are_there:
            raise OutputError(
                f"{self._lock.parent} is gone, perhaps because a network drive is not connected. Connect it. If the "
                "folder was deleted, start again."
            )

    def read_look(self) -> Look | None:
        """Return what there was at the last look; ``None`` if that is not known."""
        try:
            look = Look(**json.loads(self._look.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        texts, counts = (look.time, look.fault, look.series, look.since), (look.arriving, look.due)
        fitting = all(isinstance(text, str) for text in texts) and all(isinstance(count, int) for count in counts)
        return look if fitting else None

    def write_look(self, look: Look) -> None:
        """Note what there is at a look, if that is possible: nothing but ``classscaleseg dicom status`` needs it."""
        with suppress(OutputError), replacing(self._look, overwrite=True) as temporary:
            temporary.write_text(json.dumps(asdict(look), indent=1) + "\n", encoding="utf-8")

    def read_all(self) -> tuple[list[SeriesRecord], list[str]]:
        """Return all records, and a sentence for each that cannot be read."""
        found, faults = [], []
        try:
            files = sorted(self.folder.glob("[0-9]*.json"))
        except OSError as error:  # as of a network drive that is away
            return [], [
                f"{self.folder} cannot be read ({reason(error)}). Connect its drive, or correct its permissions."
            ]
        for file in files:
            try:
                record = self.read(file.stem)
            except OutputError as error:
                faults.append(str(error))
                continue
            found += [record] if record is not None else []
        return found, faults

    def read(self, series: str) -> SeriesRecord | None:
        """Return the record of a series; ``None`` if there is none.

        :raises OutputError: if it cannot be read, or is something else.
        """
        file = self._file(series)
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            record = SeriesRecord(**facts)
            fitting = all(isinstance(getattr(record, name), kind) for name, kind in _KINDS.items())
            if not fitting or record.state not in _STATES or record.series != series:
                raise ValueError("it is of something else")
            return record
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise OutputError(
                f"{file} cannot be read ({reason(error)}). Delete it, and the series is segmented again."
            ) from error

    def write(self, record: SeriesRecord) -> None:
        """Write a record, with the time.

        :raises OutputError: if that is not possible.
        """
        with replacing(self._file(record.series), overwrite=True) as temporary:
            temporary.write_text(json.dumps(asdict(record) | {"time": now()}, indent=1) + "\n", encoding="utf-8")

    def _file(self, series: str) -> Path:
        return self.folder / f"{series}.json"


_KINDS: dict[str, type] = dict.fromkeys(("series", "study", "state", "reason", "instances", "time"), str)
_KINDS |= dict.fromkeys(("images", "structures"), int)
