"""Ask a DICOM archive for something (GET): what it finds (QIDO-RS), or files (WADO-RS).

By requests, and not by dicomweb-client as files are sent: that one reads answers of any length, follows redirects with
what was asked, and gives files as data sets of pydicom, which are not always written as they were.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as percent_encoded
from urllib.parse import urlencode

from ..errors import ArchiveError, innermost, shown
from .answers import ACCEPTED, quote, read, received
from .connection import TIMEOUT, Archive

if TYPE_CHECKING:
    import requests

LARGEST_LIST = 16 << 20  # bytes of an answer that lists; a page of 1000 images has less than 2 MiB in Orthanc
Parameters = Sequence[tuple[str, "str | int"]]
_STATUS = {
    400: "it did not understand the request. If the address is not the root of its DICOMweb service, such as "
    "http://localhost:8042/dicom-web, give that",
    403: "this user may not see this. Ask the administrator of the archive",
    404: "it does not have this, or there is no DICOMweb service at this address. Give its root, such as "
    "http://localhost:8042/dicom-web",
    406: "it does not give this in the form that was asked for",
    413: "it finds more than it gives at once. Narrow the search",
    501: "it cannot do this",
    # by the first digit
    4: "it refused the request",
    5: "it has a fault. Try again later, or tell its administrator",
}


class NotGiven(ArchiveError):
    """The archive, or a server in front of it, answers that it does not give what it was asked for.

    :ivar status: of HTTP.
    """

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Asking:
    """A connection over which an archive is asked.

    :ivar session: of requests, as :meth:`.Archive.session` yields it.
    """

    archive: Archive
    session: requests.Session

    def rows(self, path: str, parameters: Parameters) -> list[dict[str, Any]]:
        """Return what an archive finds: for each thing its elements, as JSON. Nothing in them is checked.

        :param path: below the root, such as ``/studies``.
        :raises NotGiven: if the archive refuses.
        :raises ArchiveError: if it cannot be reached, or answers with something else than a list of things.
        """
        with self.answer(path, ACCEPTED, parameters) as answer:
            read(answer, LARGEST_LIST)
        if not answer.content:  # status 204, if it finds nothing
            return []
        try:
            found = json.loads(answer.content)
        except (ValueError, RecursionError):
            found = None
        rows = [found] if isinstance(found, dict) else found
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self.archive.no_answer(answer)
        return rows

    @contextmanager
    def answer(self, path: str, accept: str, parameters: Parameters = (), plain: bool = False) -> Iterator[Any]:
        """Yield the answer, of which nothing but the headers was read.

        :param accept: the types of content that are understood.
        :param plain: ask for a content that is not compressed on the way.
        :raises NotGiven: if the archive refuses.
        :raises ArchiveError: if it cannot be reached, or the connection is lost while the block reads.
        """
        import requests

        headers = {"Accept": accept, **({"Accept-Encoding": "identity"} if plain else {})}
        # Orthanc 1.10 does not know that %2A is *
        query = urlencode(list(parameters), safe="*", quote_via=percent_encoded)
        try:
            with self.session.get(
                f"{self.archive.address}{path}{'?' * bool(query)}{query}",
                headers=headers,
                timeout=TIMEOUT,
                stream=True,
                allow_redirects=False,  # the credentials and what comes back are for this archive alone
            ) as answer:
                self._refuse(answer)
                yield answer
        except requests.RequestException as error:
            raise self._failure(error) from error

    def pieces(self, answer: Any, size: int) -> Iterator[bytes]:
        """Yield the content of an answer piece by piece.

        :param size: of the pieces, bytes.
        :raises ArchiveError: if the connection is lost, or next to nothing comes.
        """
        import requests

        try:
            yield from received(answer, size)
        except requests.RequestException as error:  # an OSError, which is not one of a file
            raise self._failure(error, reached=True) from error

    def _refuse(self, answer: Any) -> None:
        """Raise an exception unless the archive gives what it was asked for."""
        status = answer.status_code
        if 300 <= status < 400:
            target = shown(answer.headers.get("Location", "another address"))
            raise NotGiven(
                f"{self.archive.address} leads to {target}, where nothing was asked. Give the address of the archive "
                "itself; if that is it, the archive may ask for a login.",
                status,
            )
        if status == 401:
            raise NotGiven(self.archive.who_asks(), status)
        if not 200 <= status < 300:
            read(answer)
            said = _STATUS.get(status, _STATUS.get(status // 100, "which means nothing"))
            raise NotGiven(
                f"{self.archive.address} answers with status {status}: {said}. {quote(answer)}".strip(), status
            )

    def _failure(self, error: Exception, reached: bool = False) -> ArchiveError:
        """Return a sentence for a question that failed otherwise than by an answer.

        :param reached: the archive had begun to answer.
        """
        import requests

        failure = None if reached else self.archive.unreached(error)
        if failure is not None:
            return failure
        if isinstance(error, (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)):
            return ArchiveError(
                f"{self.archive.address} did not answer, or the connection was lost ({shown(innermost(error))}). Try "
                "again."
            )
        if isinstance(error, requests.exceptions.ContentDecodingError):
            return ArchiveError(
                f"{self.archive.address} answers with something that cannot be decompressed "
                f"({shown(innermost(error))}). Tell its administrator."
            )
        return self.archive.unasked(error)


@contextmanager
def asking(archive: Archive) -> Iterator[Asking]:
    """Yield a connection over which an archive is asked."""
    with archive.session() as session:
        yield Asking(archive, session)
