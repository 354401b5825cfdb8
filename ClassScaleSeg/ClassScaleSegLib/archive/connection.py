"""The connection to a DICOM archive: its address, who asks, and a sentence for everything that can go wrong there."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import ArchiveError, innermost, reason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DICOMWEB_CLIENT = "dicomweb-client>=0.60"
TIMEOUT = (15, 300)  # seconds: to connect, and to wait for the answer, before which archives store a whole batch
_JSON, _XML = ("application/dicom+json", "application/json"), ("application/dicom+xml", "application/xml", "text/xml")


class RequestTooLarge(ArchiveError):
    """The archive, or a server in front of it, refuses the request as a whole; smaller ones may be accepted."""


class LostAnswer(ArchiveError):
    """The request was sent, but no answer arrived, so nobody knows what the archive has stored."""


@dataclass(frozen=True)
class Archive:
    """A DICOM archive, and who asks it.

    :ivar address: the root of its DICOMweb service, such as ``http://localhost:8042/dicom-web``.
    :ivar user: with ``password``, for HTTP's basic authentication.
    :ivar token: a bearer token instead.
    :ivar insecure: send password or token to another machine even if the address is not one of https.
    :raises ArchiveError: if the address is not valid, a user and a token are given, or others could read them on their
        way.

    >>> Archive("https://pacs.example.org/dicom-web/", token="secret")
    Archive(address='https://pacs.example.org/dicom-web', user=None, insecure=False)
    """

    address: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    insecure: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", check_address(self.address))
        if self.user is not None and self.token is not None:
            raise ArchiveError("A user with a password and a token were both given. Give one of them.")
        secret = self.user is not None or self.token is not None
        if secret and self.address.startswith("http:") and not _is_this_machine(self.address) and not self.insecure:
            raise ArchiveError(
                f"{self.address} is not encrypted, so others could read the password or token on its way, and nothing "
                "was sent. Use the archive's https address, or allow it with --insecure in a network that you trust."
            )

    def store(self, instances: Iterable[Dataset]) -> Dataset:
        """Send instances in one request (STOW-RS), and return the archive's answer.

        :raises RequestTooLarge: if the archive refuses the request as a whole, but may accept parts of it.
        :raises LostAnswer: if the connection was lost, so that nobody knows what was stored.
        :raises ArchiveError: for everything else that keeps instances from being stored.
        """
        import requests
        from pydicom.dataset import Dataset

        with requests.Session() as session:
            session.auth = self._authorize
            session.headers.update({"User-Agent": "ClassScaleSeg", "Accept": _JSON[0]})
            session.max_redirects = 0  # a redirected POST becomes a GET, whose answer may look like success
            answers: list[requests.Response] = []
            session.hooks["response"].append(lambda answer, **_: answers.append(answer))
            client = _client_class()(self.address, session, chunk_size=1 << 62, timeout=TIMEOUT)  # bytes: no chunks
            client.set_http_retry_params(retry=False)  # the client would send an empty request the second time
            try:
                client.store_instances(instances)
            except requests.HTTPError as error:
                return self._refusal(error.response)
            except requests.JSONDecodeError:
                pass
            except requests.RequestException as error:
                raise self._unreachable(error, answers) from error
            except Exception:  # what the client raises on answers that it does not understand
                if not answers:
                    raise
        # The client passes over answers in JSON that do not say so, or name a character set.
        answer = answers[-1]
        found = _dataset(answer)
        if found is None and answer.content and _type(answer) not in _XML:
            raise self._no_answer(answer)
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
        found = _dataset(answer)
        if found is not None:
            return found
        if status in (400, 409, 413, 422):
            raise RequestTooLarge(f"{given}: {_STATUS[status]}. {_quote(answer)}".strip())
        if status == 401:
            what = "does not accept this user or token" if self.user or self.token else "asks who you are"
            raise ArchiveError(
                f"{self.address} {what} (status 401). Give --user and the password, or a token in the environment "
                "variable CLASSSCALESEG_DICOM_TOKEN."
            )
        raise ArchiveError(f"{given}: {_STATUS.get(status, _STATUS[status // 100])}. {_quote(answer)}".strip())

    def _unreachable(self, error: Exception, answers: list[Any]) -> ArchiveError:
        import requests

        said = innermost(error)
        if isinstance(error, requests.TooManyRedirects):
            target = answers[-1].headers.get("Location", "another address") if answers else "another address"
            return ArchiveError(
                f"{self.address} leads to {target[:200]}, where nothing was sent. Give the address of the archive "
                "itself; if that is it, the archive may ask for a login."
            )
        if isinstance(error, requests.exceptions.SSLError):
            return ArchiveError(
                f"{self.address}: no trusted encrypted connection ({said}). Check the address; if the archive has a "
                "certificate of your own network, name its file in the environment variable REQUESTS_CA_BUNDLE."
            )
        if isinstance(error, requests.exceptions.ProxyError):
            return ArchiveError(
                f"{self.address}: the proxy failed ({said}). Correct the environment variables HTTPS_PROXY and "
                "HTTP_PROXY, or name the archive in NO_PROXY."
            )
        if isinstance(error, requests.ConnectTimeout) or _never_connected(error):
            return ArchiveError(
                f"{self.address} cannot be reached ({said}). Check host and port, and whether the archive runs."
            )
        if isinstance(error, requests.exceptions.InvalidURL):
            return ArchiveError(f"{self.address} is not a valid address ({said}). Correct it.")
        return LostAnswer(
            f"{self.address} did not answer, or the connection was lost ({said}). Whether it has stored the files is "
            "not known. Send them again: archives keep one copy."
        )

    def _no_answer(self, answer: Any) -> ArchiveError:
        kind = _type(answer) or "no type"
        return ArchiveError(
            f"{self.address} answers with something else than a DICOM archive would (status {answer.status_code}, "
            f"{kind}). Give the root of its DICOMweb service, such as http://localhost:8042/dicom-web for Orthanc. "
            f"{_quote(answer)}".strip()
        )


_STATUS = {
    400: "it did not understand the request",
    403: "this user may not store here. Ask the administrator of the archive",
    404: "there is no DICOMweb service at this address. Give its root, such as http://localhost:8042/dicom-web",
    405: "there is no DICOMweb service that stores at this address. Give its root, without /studies",
    409: "it could not store the files, without saying why",
    411: "it does not accept the request. Try an address without a proxy in between",
    413: "it accepts no request of this size. Ask its administrator for a higher limit",
    415: "it does not take DICOM files by DICOMweb (STOW-RS). Ask its administrator",
    422: "it could not store the files, without saying why",
    507: "its disk is full. Tell its administrator",
    # by the first digit
    1: "this is no answer",
    2: "this is no answer",
    3: "it asks to look elsewhere",
    4: "it refused the request",
    5: "it has a fault. Try again later, or tell its administrator",
}


def check_address(address: str) -> str:
    """Return the address of a DICOMweb service without a slash at its end.

    :raises ArchiveError: if it is not one of http or https, or has a password or a query in it.

    >>> check_address("http://localhost:8042/dicom-web/")
    'http://localhost:8042/dicom-web'
    """
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and address.isprintable()
        valid = valid and " " not in address and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise ArchiveError(
            f"{address[:200]!r} is not an address of a DICOM archive. Give the root of its DICOMweb service, such as "
            "https://pacs.example.org/dicom-web."
        )
    if parts.username is not None or parts.password is not None:
        raise ArchiveError(
            "The address has a user or password in it, which other programs could see. Use --user, and the environment "
            "variable CLASSSCALESEG_DICOM_PASSWORD."
        )
    if parts.query or parts.fragment:
        raise ArchiveError(f"{address[:200]} has a part after ? or #. Give the root of the DICOMweb service.")
    return address.rstrip("/")


def _is_this_machine(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _never_connected(error: Exception) -> bool:
    from urllib3.exceptions import NewConnectionError

    return isinstance(getattr(error.args[0] if error.args else None, "reason", None), NewConnectionError)


def _client_class() -> Any:
    try:
        from dicomweb_client.api import DICOMwebClient
    except ImportError as error:
        raise ArchiveError(
            f"Sending to an archive needs the Python package dicomweb-client ({reason(error)}). Install it: python -m "
            f'pip install "{DICOMWEB_CLIENT}".'
        ) from error
    return DICOMwebClient


def _type(answer: Any) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _dataset(answer: Any) -> Dataset | None:
    """Return what an answer in JSON says of the instances, also if it does not say that it is JSON: Orthanc does not.

    :returns: ``None`` if it says nothing of any.
    """
    from pydicom.dataset import Dataset

    if _type(answer) not in ("", *_JSON):
        return None
    try:
        found = Dataset.from_json(answer.json())
    except Exception:  # whatever pydicom raises on what is not DICOM
        return None
    return found if "FailedSOPSequence" in found or "ReferencedSOPSequence" in found else None


def _quote(answer: Any) -> str:
    """Return the beginning of an answer that is text for people, as a sentence."""
    text = " ".join(answer.text.split()) if "html" not in answer.headers.get("Content-Type", "") else ""
    return f"It says: {text[:200]}" if text else ""
