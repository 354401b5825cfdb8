"""The connection to a server: who asks, one request at a time, and a sentence for everything that can go wrong.

A connection that is lost is made again, and what was lost is asked again: requests that change something have a key or
an offset, by which the server knows them. Only a server that stays away for long ends that.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from ..addresses import ask_directly, is_private, is_this_machine
from ..errors import ServerError, innermost, shown
from ..inference.progress import Monitor
from ..version import VERSION
from .address import check_address

if TYPE_CHECKING:
    import requests

API = 1  # version of the protocol
PATIENCE = 600.0  # seconds without any contact, after which the server is given up
TOKEN = "CLASSSCALESEG_TOKEN"  # environment variable with the token
TIMEOUT = (10, 30)  # seconds: to connect, and between two pieces of an answer; the server is never silent for longer
LARGEST_JSON = 1 << 20  # bytes of an answer
LARGEST_MODELS = 64 << 20  # of one that describes models: one of 1000 classes with codes takes about 0.3 MiB
LARGEST_JOB = 16 << 20  # of one that describes a job: what was cleaned up in 65535 classes takes 8 MiB
_LARGEST_REFUSAL = 1 << 20  # bytes
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 5.0)  # seconds before each new attempt; then always the last one
_FIRST_ATTEMPTS = 2  # more, to reach a server that was never reached: 0.7 s
_SILENT_SECONDS = 5.0  # after which a user is told that the server is away; a restart takes no longer
_BUSY_SECONDS = 60.0  # for which a server that takes no more at the moment is asked again
TOKEN_HINT = (
    "Put it into the environment variable CLASSSCALESEG_TOKEN, or name a file that holds it (--server-token-file)."
)
_T = TypeVar("_T")


class Lost(ServerError):
    """The connection was lost, or the server does not answer for now."""


class Unencrypted(ServerError):
    """The token would have left this machine without encryption. Nothing was sent."""


class Refused(ServerError):
    """The server refuses a request.

    :ivar status: of HTTP.
    :ivar code: of the protocol, such as ``upload_unknown``; empty if the answer has none.
    :ivar offset: bytes that have arrived, after ``offset``.
    """

    def __init__(self, sentence: str, status: int, code: str = "", offset: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.code, self.offset = status, code, offset


class Body(Protocol):
    """What is sent: bytes of a known number, read piece by piece."""

    def __len__(self) -> int: ...

    def read(self, size: int = -1) -> bytes: ...


@dataclass(frozen=True)
class Health:
    """What a server says of itself.

    :ivar version: of ClassScaleSeg there.
    :ivar instance: differs after each start.
    :ivar token: "accepted", or "not needed".
    :ivar devices: what computes there, such as ``("cuda:0 (NVIDIA H100 PCIe)",)``.
    :ivar waiting: jobs that wait.
    :ivar running: jobs that run.
    """

    version: str
    instance: str
    token: str
    devices: tuple[str, ...]
    waiting: int
    running: int


@dataclass
class Connection:
    """A connection to a server, for one thread.

    :ivar address: such as ``https://lab-gpu:8471``; :func:`.check_address` says what is allowed.
    :ivar token: for a server that asks for one.
    :ivar ca: file with the certificate of the server, or of who has signed it, if the system does not trust it.
    :ivar patience: seconds without any contact after which the server is given up.
    :ivar insecure: send the token to another machine even if the address is not one of https.
    :raises Unencrypted: if others could read the token on its way.
    :raises ServerError: if address, token or certificate are not valid, or there is no such file.

    >>> Connection("localhost:8471", token="secret")
    Connection(address='http://localhost:8471', ca=None, patience=600.0, insecure=True)
    """

    address: str
    token: str | None = field(default=None, repr=False)
    ca: str | os.PathLike[str] | None = None
    patience: float = PATIENCE
    insecure: bool = True

    def __post_init__(self) -> None:
        self.address = check_address(self.address)
        self.token = None if self.token is None else check_token(self.token)
        if self.token is not None and not self.insecure and not is_private(self.address):
            raise Unencrypted(
                f"The connection to {self.address} is not encrypted, so others in the network could read the token. "
                "Nothing was sent."
            )
        if self.ca is not None:
            check_certificate(self.ca, self.address)
        self._session: requests.Session | None = None
        self._health: Health | None = None
        self._contact = self._moved = time.monotonic()  # the last time that something arrived; that it was sent

    def another(self) -> Connection:
        """Return a connection to the same server, for another thread."""
        found = Connection(self.address, self.token, self.ca, self.patience, self.insecure)
        found._health = self._health
        return found

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._session is not None:
            self._session.close()
        self._session = None

    def health(self, monitor: Monitor = Monitor()) -> Health:
        """Ask what the server is, and whether it takes the token.

        :raises ServerError: if it cannot be reached, is none of ClassScaleSeg or of another version, or does not take
            the token.
        """
        facts = self.ask("GET", "/v1/health", monitor, greet=False)
        self._health = _health(facts, self.address, self.token)
        return self._health

    def ask(
        self,
        method: str,
        path: str,
        monitor: Monitor,
        body: Mapping[str, Any] | None = None,
        greet: bool = True,
        most: int | None = None,
    ) -> dict[str, Any]:
        """Send a request, again if the connection is lost, and return the JSON of the answer, empty if it is empty.

        :param body: sent as JSON.
        :param greet: ask first what the server is, unless that is known.
        :param most: bytes that the answer may have; by default ``LARGEST_JSON``.
        :raises Refused: if the server refuses the request.
        :raises ServerError: if it cannot be reached, stays away, or its answer has no end.
        :raises Cancelled: if the monitor's token is set.
        """
        since: float | None = None
        while True:
            try:
                return self.patiently(lambda: self.once(method, path, body, most), monitor, greet, at_once=True)
            except Refused as error:  # it takes no more at the moment
                since = time.monotonic() if since is None else since
                if error.status != 429 or time.monotonic() - since > _BUSY_SECONDS:
                    raise
                self.pause(monitor, _PAUSES[3])

    def patiently(
        self,
        work: Callable[[], _T],
        monitor: Monitor,
        greet: bool = True,
        meanwhile: Callable[[], object] = lambda: None,
        at_once: bool = False,
    ) -> _T:
        """Return ``work()``, which a thread does; do it again after :class:`Lost`, until patience ends.

        Work in which nothing moves for as long is lost, too: its thread is left alone.

        :param meanwhile: called every tenth of a second.
        :param at_once: the work is a single answer, which may not take longer than twice the patience in all, however
            often it begins.
        :raises ServerError: if the server was never reached, or stays away.
        :raises Cancelled: if the monitor's token is set.
        """
        if greet and self._health is None:
            self.health(monitor)
        attempt, begin, told = 0, time.monotonic(), False

        def look() -> None:
            meanwhile()
            now = time.monotonic()
            if at_once and now - begin > 2 * self.patience:
                raise ServerError(
                    f"{self.address} has not sent a whole answer for {now - begin:.0f} s. Ask the person who runs the "
                    "server."
                )
            if now - max(self._moved, self._contact, tried) > self.patience:
                raise Lost(f"{self.address}: the connection was lost (nothing arrives).")

        while True:
            before, tried = self._contact, time.monotonic()
            try:
                look()
                found = monitor.wait_for(work, look)
                self._contact = time.monotonic()
                return found
            except Lost as error:
                self.close()
                if self._health is None and attempt >= _FIRST_ATTEMPTS:
                    raise
                if self._contact > before:  # something has arrived
                    attempt, told = 0, False
                away = time.monotonic() - max(self._contact, begin)  # while nothing was asked, it was not away
                if away > self.patience:
                    raise ServerError(
                        f"{self.address} has not answered for {self.patience:.0f} s. Its last fault: {error} Ask the "
                        "person who runs the server."
                    ) from error
                if away > _SILENT_SECONDS and not told:
                    told = True
                    minutes = self.patience / 60
                    monitor.tell(f"{self.address} does not answer. It is asked again, for {minutes:g} minutes at most.")
            except Refused:
                self._contact = time.monotonic()
                raise
            self.pause(monitor, _PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    def touch(self) -> None:
        """Note that something has arrived from the server."""
        self._contact = time.monotonic()

    def moved(self) -> None:
        """Note that something was sent to the server, which need not have arrived."""
        self._moved = time.monotonic()

    def pause(self, monitor: Monitor, seconds: float = _PAUSES[1]) -> None:
        """Wait, unless the job is stopped.

        :raises Cancelled: if the monitor's token is set.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            monitor.check()
            time.sleep(min(0.1, left))

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
        :param most: as of :meth:`ask`.
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
            raise self._broken_off()
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
            raise self._failure(error) from error
        packed = shown(answer.headers.get("Content-Encoding", "identity").lower())
        if packed != "identity":  # a few bytes could become more than fits into memory
            answer.close()
            raise ServerError(
                f"{self.address} packs its answer ({packed}), which was not asked for. If there is a proxy in between, "
                "let it pass on answers as they are."
            )
        if 200 <= answer.status_code < 300:
            return answer
        with closing(answer):
            raise self._refusal(answer)

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
            raise self._failure(error) from error

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
        status = answer.status_code
        if 300 <= status < 400:
            target = shown(answer.headers.get("Location", "another address"))
            return ServerError(
                f"{self.address} leads to {target}, where nothing was sent. Give the address of the server itself."
            )
        contact = self._contact
        try:
            content = b"".join(self.pieces(answer, _LARGEST_REFUSAL))
        except Lost as error:
            return error
        except ServerError:  # too long to be ours
            content = b"..."
        self._contact = contact  # the answer may be of a proxy whose server is away
        if not content and self._health is not None:
            return self._broken_off()
        try:
            said = json.loads(content)["error"]
            code, message, offset = str(said["code"]), shown(str(said["message"])), said.get("offset")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            code, message, offset = "", "", None
        if status in (408, 502, 503, 504):  # also of a proxy whose server is not there
            return Lost(f"{self.address} does not answer for now (status {status}). {message}".strip())
        if status == 413 and not code:
            said = f"A server in front of {self.address} takes no request of this size. Ask for a higher limit."
            return Refused(said, status)
        if not code:
            return not_ours(self.address, f"status {status}")
        sentences = {
            "token_missing": f"{self.address} asks for a token. {TOKEN_HINT}",
            "token_wrong": _wrong_token(self.address),
            "disk_full": f"{self.address} has no room on its disk. {message}",
        }
        if status == 429:
            sentences[code] = f"{self.address} takes no more at the moment. {message}"
        return Refused(
            sentences.get(code, f"{self.address}: {message}"), status, code, offset if type(offset) is int else None
        )

    def _broken_off(self) -> Lost:
        return Lost(f"{self.address}: the connection was lost (the answer breaks off).")

    def _failure(self, error: Exception) -> ServerError:
        """Return the error for a request that failed otherwise than by an answer."""
        import requests

        said = shown(innermost(error))
        if self._health is not None:
            return Lost(f"{self.address}: the connection was lost ({said}).")
        if isinstance(error, requests.exceptions.ProxyError):
            return ServerError(
                f"{self.address}: the proxy failed ({said}). Correct the environment variables HTTPS_PROXY and "
                "HTTP_PROXY, or name the server in NO_PROXY."
            )
        host, port = _host(self.address)
        if isinstance(error, requests.exceptions.SSLError):
            if "mismatch" in said:  # to name its file would not help
                return ServerError(
                    f"The certificate of {self.address} is for another name ({said}). Use the name that it is for as "
                    "the address, or ask the person who runs the server. Nothing was sent."
                )
            if "has expired" in said:
                return ServerError(
                    f"The certificate of {self.address} has expired. Ask the person who runs the server to renew it, "
                    "and check the clock of this machine. Nothing was sent."
                )
            if "CERTIFICATE_VERIFY_FAILED" in said or "certificate" in said.lower():
                return ServerError(
                    f"The certificate of {self.address} is not trusted ({said}). If it is that of your lab, name its "
                    "file (--server-ca). Nothing was sent."
                )
            if _answers_http(host, port):
                return ServerError(
                    f"{self.address} speaks http, not https. If that is right, write http://{self.address[8:]}; what "
                    "is sent is not encrypted then."
                )
        elif "BadStatusLine" in repr(error):
            return not_ours(self.address, "it does not speak HTTP")
        elif self.address.startswith("http://") and _answers_tls(host, port):
            return ServerError(f"{self.address} speaks https, not http. Write https://{self.address[7:]}.")
        if isinstance(error, requests.exceptions.ChunkedEncodingError):
            return Lost(f"{self.address}: the connection was lost ({said}).")
        if isinstance(error, (requests.ConnectionError, requests.Timeout)):
            return Lost(f"{self.address} cannot be reached ({said}). Check host and port, and whether the server runs.")
        return ServerError(f"{self.address} cannot be asked ({said}). Check the address.")


def check_token(token: str) -> str:
    """Return a token without white space around it.

    :raises ServerError: if it cannot be sent. The sentence does not show it.
    """
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token or len(token) > 1000:
        raise ServerError(
            "The token of the server is not one: it must be a single word of ASCII letters. Copy it again from the "
            "person who runs the server."
        )
    return token


def check_certificate(file: str | os.PathLike[str], address: str) -> None:
    """Refuse a file without a certificate, with which a connection would only say that the server is not trusted.

    :raises ServerError: if it is none, or does not exist.
    """
    if not os.path.isfile(file):
        raise ServerError(f"{file} does not exist. Name the file with the certificate of {address}.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise ServerError(
            f"{file} is not a certificate in PEM ({error}). Ask the person who runs {address} for its file."
        ) from error


def not_ours(address: str, found: str) -> ServerError:
    """Return the error for an answer that no server of ClassScaleSeg gives."""
    return ServerError(f"{address} is not a server of ClassScaleSeg ({found}). Check host and port.")


def _wrong_token(address: str) -> str:
    return f"{address} does not take the token. Check it, or ask the person who runs the server for a new one."


def _health(facts: Mapping[str, Any], address: str, token: str | None) -> Health:
    """Check what a server says of itself.

    :raises ServerError: as of :meth:`Connection.health`.
    """
    api, version = facts.get("api"), shown(str(facts.get("version")))
    if facts.get("service") != "ClassScaleSeg" or type(api) is not int:
        raise not_ours(address, "it says that it is something else")
    if api != API:
        which = "here" if api > API else "there"
        raise ServerError(
            f"{address} runs ClassScaleSeg {version} (protocol {api}), and here is {VERSION} (protocol {API}). Update "
            f"ClassScaleSeg {which}."
        )
    state = facts.get("token")
    if state in ("missing", "wrong"):
        asks = state == "missing" or token is None
        raise Refused(f"{address} asks for a token. {TOKEN_HINT}" if asks else _wrong_token(address), 401, "token")
    listed: Any = facts.get("devices")
    devices = [each for each in listed if isinstance(each, dict)][:64] if isinstance(listed, list) else []
    queue = facts.get("queue")
    counts = [queue.get(name) if isinstance(queue, dict) else None for name in ("waiting", "running")]
    waiting, running = (count if type(count) is int and 0 <= count < 10**9 else 0 for count in counts)
    return Health(
        version,
        shown(str(facts.get("instance"))),
        shown(str(state)),
        tuple(_device(each) for each in devices),
        waiting,
        running,
    )


def _device(facts: Mapping[str, Any]) -> str:
    name, about = (shown(str(facts.get(key) or "")) for key in ("name", "about"))
    return f"{name} ({about})" if about else name


def _host(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _answers_tls(host: str, port: int) -> bool:
    """Tell whether a port speaks TLS, whatever its certificate is. Nothing is sent."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), 3) as plain, context.wrap_socket(plain, server_hostname=host):
            return True
    except (OSError, ValueError):
        return False


def _answers_http(host: str, port: int) -> bool:
    """Tell whether a port speaks HTTP without encryption."""
    try:
        with socket.create_connection((host, port), 3) as plain:
            plain.settimeout(3)
            plain.sendall(f"GET /v1/health HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
            return plain.recv(5) == b"HTTP/"
    except (OSError, ValueError):
        return False
