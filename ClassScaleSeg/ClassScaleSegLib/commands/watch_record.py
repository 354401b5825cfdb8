"""What has become of the series that ``classscaleseg dicom watch`` has seen: a small JSON file for each of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import OutputError, reason
from ..files import replacing

DONE, SEGMENTED, FAILED, LEFT_OUT = "done", "segmented", "failed", "left out"
_STATES = (DONE, SEGMENTED, FAILED, LEFT_OUT)


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
    """

    series: str
    study: str
    images: int
    state: str
    structures: int = 0
    reason: str = ""
    instances: str = ""

    @property
    def is_open(self) -> bool:
        """Whether there is something left to do, also if the series has not changed."""
        return self.state in (SEGMENTED, FAILED)


def checksum_of(instances: Iterable[str]) -> str:
    """Return a checksum of the identifiers of images, in whatever order they are.

    >>> checksum_of(["1.2.4", "1.2.3"])
    'f53566335f01a919'
    """
    return hashlib.sha256("\n".join(sorted(instances)).encode()).hexdigest()[:16]


class Records:
    """The records in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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
        """Write a record.

        :raises OutputError: if that is not possible.
        """
        with replacing(self._file(record.series), overwrite=True) as temporary:
            temporary.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")

    def _file(self, series: str) -> Path:
        return self._folder / f"{series}.json"


_KINDS = {"series": str, "study": str, "images": int, "state": str, "structures": int, "reason": str, "instances": str}
