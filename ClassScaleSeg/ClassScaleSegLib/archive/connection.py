"""The connection to a DICOM archive: its address, who asks, and a sentence for everything that can go wrong there."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..addresses import ask_directly, is_encrypted, is_this_machine, refuse_unencrypted
from ..errors import ArchiveError, innermost, reason, shown
from .adapter import archive_adapter
from .address import check_address
from .answers import ACCEPTED, STATUS, XML, content_type, quote, read, verdicts
from .credentials import Names, check_token

if TYPE_CHECKING:
    import requests
    from pydicom.dataset import Dataset

DICOMWEB_CLIENT = "dicomweb-client>=0.60"
TIMEOUT = (15, 300)  # seconds: to connect, and to wait for the answer, before which archives store a whole batch


class NotReached(ArchiveError):
    """The archive was not reached, and so nothing was sent."""


class RequestRefused(ArchiveError):
    """The archive, or a server in front of it, refuses the request as a whole."""


class UserRefused(RequestRefused):
    """The archive does not accept who asks."""


class RequestTooLarge(RequestRefused):
    """Smaller requests may be accepted."""


class NotUnderstood(RequestTooLarge):
    """The archive did not understand one of the files, or understands no request."""


@dataclass(frozen=True)
class Archive:
    """A DICOM archive, and who asks it.

    :ivar address: the root of its DICOMweb service, such as ``http://localhost:8042/dicom-web``.
    :ivar user: with ``password``, for HTTP's basic authentication.
    :ivar token: a bearer token instead.
    :ivar insecure: send images, password and token to another machine even if the address is not one of https.
    :ivar names: how users give their credentials for this archive.
    :raises ArchiveError: if address or token are not valid, a user and a token are given, or others could read on the
        way what is sent.

    >>> Archive("https://pacs.example.org/dicom-web/", token="secret")
    Archive(address='https://pacs.example.org/dicom-web', user=None, insecure=False)
    """

    address: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    insecure: bool = False
    names: Names = field(default=Names(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", check_address(self.address, self.names))
        if self.user is not None and self.token is not None:
            raise ArchiveError("A user with a password and a token were both given. Give one of them.")
        if self.token is not None:
            object.__setattr__(self, "token", check_token(self.token, self.names))
        secret = " and the token" if self.token is not None else " and the password" if self.user is not None else ""
        refuse_unencrypted(self.address, f"the images{secret}", self.insecure, ArchiveError)

    @contextmanager
    def session(self) -> Iterator[requests.Session]:
        """Yield a session with the credentials, which takes none from ``.netrc``. Proxies of the environment count.

        :raises NotReached: if the certificate that the environment names is none.
        """
        import requests

        _check_certificate(self.address)
        with requests.Session() as session:
            if is_this_machine(self.address):
                ask_directly(session)
            for scheme in ("http://", "https://"):
                session.mount(scheme, archive_adapter())
            session.auth = self._authorize
            session.headers["User-Agent"] = "ClassScaleSeg"
            yield session

    def store(self, instances: Iterable[Dataset]) -> Dataset:
        """Send instances in one request (STOW-RS), and return the archive's answer.

        :raises NotReached: if the archive was not reached.
        :raises RequestRefused: if it refuses the request as a whole; ``RequestTooLarge`` if it may accept parts of it.
        :raises ArchiveError: if nobody knows what was stored, as after a lost connection or a fault of the archive.
        """
        import requests
        from pydicom.dataset import Dataset

        with self.session() as session:
            session.headers["Accept"] = ACCEPTED
            session.max_redirects = 0  # a redirected POST becomes a GET, whose answer may look like success
            answers: list[requests.Response] = []
            session.stream = True  # so that an answer can be read up to a limit
            session.hooks["response"] += [lambda answer, **_: answers.append(answer), lambda answer, **_: read(answer)]
            client = _client_class()(self.address, session, chunk_size=1 << 62, timeout=TIMEOUT)  # bytes: no chunks
            client.set_http_retry_params(retry=False)  # the client would send an empty request the second time
            try:
                client.store_instances(instances)
            except requests.HTTPError as error:
                return self._refusal(error.response)
            except (requests.JSONDecodeError, requests.TooManyRedirects):
                pass
            except requests.RequestException as error:
                raise self._failure(error, answers) from error
            except ArchiveError:
                raise
            except Exception:  # what the client raises on answers that it does not understand
                if not answers:
                    raise
        # The client passes over answers in JSON that do not say so, or name a character set.
        answer = answers[-1]
        if 300 <= answer.status_code < 400:
            target = shown(answer.headers.get("Location", "another address"))
            raise RequestRefused(
                f"{self.address} leads to {target}, where nothing was sent. Give the address of the archive "
                "itself; if that is it, the archive may ask for a login."
            )
        found = verdicts(answer)
        if found is None and answer.content and content_type(answer) not in XML:
            raise self.no_answer(answer)
        return Dataset() if found is None else found

    def _authorize(self, request: Any) -> Any:
        """Add the credentials to a request. Without any, this keeps requests from taking some from ``.netrc``."""
        request.headers.pop("Host", None)  # the client leaves out the port; http.client adds the right one
        if self.token is not None:
            request.headers["Authorization"] = f"Bearer {self.token}"
        elif self.user is not None:
            pair = base64.b64encode(f"{self.user}:{self.password or ''}".encode()).decode()
            request.headers["Authorization"] = f"Basic {pair}"
        return request

    def _refusal(self, answer: Any) -> Dataset:
        """Return what an answer with an error says of each instance, if it does.

        :raises ArchiveError: if it does not.
        """
        status, given = answer.status_code, f"{self.address} answers with status {answer.status_code}"
        found = verdicts(answer)
        if found is not None:
            return found
        if status in (400, 409, 413, 422):
            refusal = NotUnderstood if status == 400 else RequestTooLarge
            raise refusal(f"{given}: {STATUS[status]}. {quote(answer)}".strip())
        if status == 401:
            raise UserRefused(self.who_asks())
        kind = RequestRefused if status < 500 else ArchiveError
        raise kind(f"{given}: {STATUS.get(status, STATUS[status // 100])}. {quote(answer)}".strip())

    def who_asks(self) -> str:
        """Return a sentence for status 401."""
        what = "does not accept this user or token" if self.user or self.token else "asks who you are"
        sentence = (
            f"{self.address} {what} (status 401). Give --user and the password, or a token in the environment variable "
            "CLASSSCALESEG_DICOM_TOKEN."
        )
        return self.names.put_into(sentence)

    def _failure(self, error: Exception, answers: list[Any]) -> ArchiveError:
        """Return a sentence for a request to store that failed otherwise than by an answer."""
        import requests

        failure = self.unreached(error)
        if failure is not None:
            return failure
        said = shown(innermost(error))
        if answers or isinstance(error, (requests.ConnectionError, requests.Timeout)):
            return ArchiveError(
                f"{self.address} did not answer, or the connection was lost ({said}). Whether it has stored the files "
                "is not known. Send them again: archives keep one copy."
            )
        return self.unasked(error)

    def unreached(self, error: Exception) -> NotReached | None:
        """Return a sentence for a request that did not reach the archive; ``None`` if it may have."""
        import requests

        said = shown(innermost(error))
        if isinstance(error, requests.exceptions.SSLError):
            return NotReached(
                f"{self.address}: no trusted encrypted connection ({said}). Check the address; if the archive has a "
                "certificate of your own network, name its file in the environment variable REQUESTS_CA_BUNDLE."
            )
        if isinstance(error, requests.exceptions.ProxyError):
            return NotReached(
                f"{self.address}: the proxy failed ({said}). Correct the environment variables HTTPS_PROXY and "
                "HTTP_PROXY, or name the archive in NO_PROXY."
            )
        if isinstance(error, requests.ConnectTimeout) or _never_connected(error):
            return NotReached(
                f"{self.address} cannot be reached ({said}). Check host and port, and whether the archive runs."
            )
        return None

    def unasked(self, error: Exception) -> NotReached:
        """Return a sentence for a request that could not even be made, such as for a wrong proxy."""
        return NotReached(
            f"{self.address} cannot be asked ({shown(innermost(error))}). Check the address, and the proxy in the "
            "environment variables HTTPS_PROXY, HTTP_PROXY and ALL_PROXY."
        )

    def no_answer(self, answer: Any) -> ArchiveError:
        kind = shown(content_type(answer)) or "no type"
        return ArchiveError(
            f"{self.address} answers with something else than a DICOM archive would (status {answer.status_code}, "
            f"{kind}). Give the root of its DICOMweb service, such as http://localhost:8042/dicom-web for Orthanc. "
            f"{quote(answer)}".strip()
        )


def _check_certificate(address: str) -> None:
    """Look at the file of certificates that the environment names, of which requests would raise an OSError.

    :raises NotReached: if it has none, or cannot be read.
    """
    file = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if not file or not is_encrypted(address) or os.path.isdir(file):
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ValueError) as error:  # of ssl, too
        raise NotReached(
            f"{file} is not a file of certificates in PEM that can be read ({reason(error)}). Correct the environment "
            "variable REQUESTS_CA_BUNDLE."
        ) from error


def _never_connected(error: Exception) -> bool:
    from urllib3.exceptions import NewConnectionError

    return isinstance(getattr(error.args[0] if error.args else None, "reason", None), NewConnectionError)


def _client_class() -> Any:
    try:
        from dicomweb_client.api import DICOMwebClient
    except ImportError as error:
        raise NotReached(
            f"Sending to an archive needs the Python package dicomweb-client ({reason(error)}). Install it: python -m "
            f'pip install "{DICOMWEB_CLIENT}".'
        ) from error
    return DICOMwebClient
