"""What can go wrong with a request to a server: a sentence for each way to fail, which says what to do."""

from __future__ import annotations

import json
import socket
import ssl
from urllib.parse import urlsplit

from ..errors import ServerError, innermost, shown
from .credentials import TOKEN_HINT


class Lost(ServerError):
    """The connection was lost, or the server does not answer for now."""


class Unencrypted(ServerError):
    """The token or an image would have left this machine without encryption. Nothing was sent."""


class Refused(ServerError):
    """The server refuses a request.

    :ivar status: of HTTP.
    :ivar code: of the protocol, such as ``upload_unknown``; empty if the answer has none.
    :ivar offset: bytes that have arrived, after ``offset``.
    """

    def __init__(self, sentence: str, status: int, code: str = "", offset: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.code, self.offset = status, code, offset


def not_ours(address: str, found: str) -> ServerError:
    """Return the error for an answer that no server of ClassScaleSeg gives."""
    return ServerError(f"{address} is not a server of ClassScaleSeg ({found}). Check host and port.")


def wrong_token(address: str) -> str:
    """Return the sentence for a token that a server does not take."""
    return f"{address} does not take the token. Check it, or ask the person who runs the server for a new one."


def broken_off(address: str) -> Lost:
    """Return the error for an answer that ends too early."""
    return Lost(f"{address}: the connection was lost (the answer breaks off).")


def refusal(address: str, status: int, content: bytes) -> ServerError:
    """Return the error for an answer without success.

    :param content: of the answer.
    """
    try:
        said = json.loads(content)["error"]
        code, message, offset = str(said["code"]), shown(str(said["message"])), said.get("offset")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        code, message, offset = "", "", None
    if status in (408, 502, 503, 504):  # also of a proxy whose server is not there
        return Lost(f"{address} does not answer for now (status {status}). {message}".strip())
    if status == 413 and not code:
        said = f"A server in front of {address} takes no request of this size. Ask for a higher limit."
        return Refused(said, status)
    if not code:
        return not_ours(address, f"status {status}")
    sentences = {
        "token_missing": f"{address} asks for a token. {TOKEN_HINT}",
        "token_wrong": wrong_token(address),
        "disk_full": f"{address} has no room on its disk. {message}",
    }
    if status == 429:
        sentences[code] = f"{address} takes no more at the moment. {message}"
    return Refused(sentences.get(code, f"{address}: {message}"), status, code, offset if type(offset) is int else None)


def failure(address: str, error: Exception, reached: bool) -> ServerError:
    """Return the error for a request that failed otherwise than by an answer.

    :param reached: the server has answered before.
    """
    import requests

    said = shown(innermost(error))
    if reached:
        return Lost(f"{address}: the connection was lost ({said}).")
    if isinstance(error, requests.exceptions.ProxyError):
        return ServerError(
            f"{address}: the proxy failed ({said}). Correct the environment variables HTTPS_PROXY and "
            "HTTP_PROXY, or name the server in NO_PROXY."
        )
    host, port = _host(address)
    if isinstance(error, requests.exceptions.SSLError):
        if "mismatch" in said:  # to name its file would not help
            return ServerError(
                f"The certificate of {address} is for another name ({said}). Use the name that it is for as "
                "the address, or ask the person who runs the server. Nothing was sent."
            )
        if "has expired" in said:
            return ServerError(
                f"The certificate of {address} has expired. Ask the person who runs the server to renew it, "
                "and check the clock of this machine. Nothing was sent."
            )
        if "CERTIFICATE_VERIFY_FAILED" in said or "certificate" in said.lower():
            return ServerError(
                f"The certificate of {address} is not trusted ({said}). If it is that of your lab, name its "
                "file (--server-ca). Nothing was sent."
            )
        if _answers_http(host, port):
            return ServerError(
                f"{address} speaks http, not https. If that is right, write http://{address[8:]}; what "
                "is sent is not encrypted then."
            )
    elif "BadStatusLine" in repr(error):
        return not_ours(address, "it does not speak HTTP")
    elif address.startswith("http://") and _answers_tls(host, port):
        return ServerError(f"{address} speaks https, not http. Write https://{address[7:]}.")
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return Lost(f"{address}: the connection was lost ({said}).")
    if isinstance(error, (requests.ConnectionError, requests.Timeout)):
        return Lost(f"{address} cannot be reached ({said}). Check host and port, and whether the server runs.")
    return ServerError(f"{address} cannot be asked ({said}). Check the address.")


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
