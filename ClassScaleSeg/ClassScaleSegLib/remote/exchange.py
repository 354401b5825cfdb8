"""One request to a server, and its answer, which is read up to a limit."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..addresses import ask_directly, is_this_machine, refuse_unencrypted
from ..errors import ServerError, shown
from ..version import VERSION
from .address import check_address
from .credentials import check_certificate, check_token
from .faults import Lost, Unencrypted, broken_off, failure, not_ours, refusal

if TYPE_CHECKING:
    import requests

TIMEOUT = (10, 30)  # seconds: to connect, and between two pieces of an answer; the server is never silent for longer
LARGEST_JSON = 1 << 20  # bytes of an answer
_LARGEST_REFUSAL = 1 << 20  # bytes


class Body(Protocol):
    """What is sent: bytes of a known number, read piece by piece."""

    def __len__(self) -> int: ...

    def read(self, size: int = -1) -> bytes: ...


@dataclass
class Exchange:
    """Sends requests to a server, each once, from one thread at a time.

    :ivar address: such as ``https://lab-gpu:8471``; :func:`.check_address` says what is allowed.
    :ivar token: for a server that asks for one.
    :ivar ca: file with the certificate of the server, or of who has signed it, if the system does not trust it.
    :ivar insecure: send the token and images to another machine even if the address is not one of https.
    :raises Unencrypted: if others could read the token on its way.
    :raises ServerError: if address, token or certificate are not valid, or there is no such file.
    """

    address: str
    token: str | None = field(default=None, repr=False)
    ca: str | os.PathLike[str] | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        self.address = check_address(self.address)
        self.token = None if self.token is None else check_token(self.token)
        if self.token is not None:
            self.refuse_open_way("the token")
        if self.ca is not None:
            check_certificate(self.ca, self.address)
        self._session: requests.Session | None = None
        self._reached = False  # it has answered as it should; what fails from then on is the connection
        self._contact = self._moved = time.monotonic()  # the last time that something arrived; that it was sent

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._session is not None:
            self._session.close()
        self._session = None

    def refuse_open_way(self, what: str) -> None:
        """Refuse to send something on a way on which others could read it, unless that is allowed.

        :param what: is sent.
        :raises Unencrypted: if so.
        """
        refuse_unencrypted(self.address, what, self.insecure, Unencrypted)

    def touch(self) -> None:
        """Note that something has arrived from the server."""
        self._contact = time.monotonic()

    def moved(self) -> None:
        """Note that something was sent to the server, which need not have arrived."""
        self._moved = time.monotonic()

    def odd(self, what: str) -> ServerError:
        """Return the error for an answer that does not say what it should."""
        return ServerError(
            f"{self.address} does not describe {what} as it should. Update ClassScaleSeg there and here."
        )

    def once(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, most: int | None = None
    ) -> dict[str, Any]:
        """Send a request once, in the calling thread, and return the JSON of the answer, empty if it is empty.

        :param body: sent as JSON.
        :param most: bytes that the answer may have; by default ``LARGEST_JSON``.
        :raises Lost: if there is no answer, or not the whole one.
        :raises Refused: if the server refuses the request.
        """
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        return self._whole(method, path, content, headers, most)

    def _whole(
        self,
        method: str,
        path: str,
        content: bytes | Body | None,
        headers: Mapping[str, str],
        most: int | None = None,
    ) -> dict[str, Any]:
        with self.request(method, path, headers, content) as answer:
            text = b"".join(self.pieces(answer, LARGEST_JSON if most is None else most))
        if not text and answer.status_code != 204:  # the answer has broken off in its headers
            raise broken_off(self.address)
        try:
            found = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise not_ours(self.address, f"status {answer.status_code} without JSON")
        return found

    def part(self, path: str, body: Body, offset: int) -> dict[str, Any]:
        """Send a part of an image, in the calling thread, and return the JSON of the answer.

        :raises Lost: if it did not arrive as a whole.
        :raises Refused: if it is refused.
        """
        headers = {"Content-Type": "application/octet-stream", "Upload-Offset": str(offset)}
        return self._whole("PATCH", path, body, headers)

    def request(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes | Body | None = None
    ) -> requests.Response:
        """Send a request, in the calling thread; the content of the answer is not read yet.

        :raises Lost: if there is no answer.
        :raises Refused: if the status is none of success.
        :raises ServerError: if it would never come, as from another kind of server.
        """
        import requests

        data: Any = content
        try:
            answer = self._open().request(
                method,
                self.address + path,
                data=data,
                headers=dict(headers),
                timeout=TIMEOUT,
                stream=True,
                allow_redirects=False,
                # said here too: requests prefers REQUESTS_CA_BUNDLE to what its session says
                verify=None if self.ca is None else os.fspath(self.ca),
            )
        except requests.RequestException as error:
            raise failure(self.address, error, self._reached) from error
        if not 200 <= answer.status_code < 300:
            with closing(answer):
                raise self._refusal(answer)
        if packed := _packed(answer):
            answer.close()
            raise ServerError(
                f"{self.address} packs its answer ({packed}), which was not asked for. If there is a proxy in between, "
                "let it pass on answers as they are."
            )
        return answer

    def pieces(self, answer: requests.Response, most: int, size: int = 1 << 14) -> Iterator[bytes]:
        """Yield the content of an answer, piece by piece.

        :param size: bytes of a piece. Of one that breaks off, what has arrived is lost.
        :raises Lost: if it breaks off.
        :raises ServerError: if there are more than ``most`` bytes.
        """
        import requests

        count = 0
        try:
            for piece in answer.iter_content(size):
                count += len(piece)
                if count > most:
                    raise ServerError(f"{self.address} sends more than the {most} bytes that were expected.")
                self.touch()
                yield piece
        except requests.RequestException as error:
            raise failure(self.address, error, self._reached) from error

    def _open(self) -> requests.Session:
        if self._session is None:
            import requests
            import urllib3
            from requests.adapters import HTTPAdapter

            class Adapter(HTTPAdapter):
                """Reads what is sent in larger pieces than 16 KiB: 500 MB take 0.3 s of one core instead of 0.5 s."""

                def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool: Any) -> None:
                    if not urllib3.__version__.startswith("1."):
                        pool["blocksize"] = 1 << 18
                    super().init_poolmanager(connections, maxsize, block, **pool)

            session = requests.Session()
            session.mount("http://", Adapter())
            session.mount("https://", Adapter())
            if is_this_machine(self.address):
                ask_directly(session)
            session.auth = self._authorize
            session.headers.update({"User-Agent": f"ClassScaleSeg/{VERSION}", "Accept-Encoding": "identity"})
            self._session = session
        return self._session

    def _authorize(self, request: Any) -> Any:
        """Add the token to a request. Without one, this keeps requests from taking a password from ``.netrc``."""
        if self.token is not None:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request

    def _refusal(self, answer: requests.Response) -> ServerError:
        """Return the error for an answer without success."""
        if 300 <= answer.status_code < 400:
            target = shown(answer.headers.get("Location", "another address"))
            return ServerError(
                f"{self.address} leads to {target}, where nothing was sent. Give the address of the server itself."
            )
        contact = self._contact
        try:
            content = b"..." if _packed(answer) else b"".join(self.pieces(answer, _LARGEST_REFUSAL))
        except Lost as error:
            return error
        except ServerError:  # too long to be ours
            content = b"..."
        self._contact = contact  # the answer may be of a proxy whose server is away
        if not content and self._reached:
            return broken_off(self.address)
        return refusal(self.address, answer.status_code, content)


def _packed(answer: requests.Response) -> str:
    """Return how an answer is packed, of which a few bytes could become more than fits into memory; empty if not."""
    packing = answer.headers.get("Content-Encoding", "identity").lower()
    return "" if packing == "identity" else shown(packing)
