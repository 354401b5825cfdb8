"""The address of a server: whether it is one."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from ..addresses import is_this_machine
from ..errors import ServerError

DEVICE = "server:"  # a device that begins so is a server, by its address
_EXAMPLE = "https://lab-gpu:8471"


def server_of(device: str) -> str | None:
    """Return the address, not checked yet, if a device is a server.

    >>> server_of("server:https://lab-gpu:8471"), server_of("cuda:1")
    ('https://lab-gpu:8471', None)
    """
    return device.removeprefix(DEVICE) if device.startswith(DEVICE) else None


def check_address(address: str) -> str:
    """Return the address of a server in its usual form; ``localhost:8471`` gets the ``http://`` that it lacks.

    :raises ServerError: if it is not the address of a server, or has a password, a path or a query in it. The sentence
        does not show what may be secret.

    >>> check_address("HTTPS://lab-gpu:8471/"), check_address("localhost:8471")
    ('https://lab-gpu:8471', 'http://localhost:8471')
    >>> check_address("lab-gpu:8471")
    Traceback (most recent call last):
        ...
    ClassScaleSegLib.errors.ServerError: The address lab-gpu:8471 lacks its beginning. Write https://lab-gpu:8471, or \
http://lab-gpu:8471 if the server has no certificate.
    """
    given = address.strip()
    if "@" in given:
        raise ServerError(
            "The address of the server has a user or password in it (what is before @), which other programs could "
            "see. Leave that out; the server asks for a token instead."
        )
    if "://" not in given and re.match(r"[\w.\-]+(:\d+)?/?$|\[[\da-fA-F:.]+\](:\d+)?/?$", given):
        if not is_this_machine(f"http://{given}"):
            bare = given.rstrip("/")
            raise ServerError(
                f"The address {bare} lacks its beginning. Write https://{bare}, or http://{bare} if the server has no "
                "certificate."
            )
        given = f"http://{given}"
    try:
        parts = urlsplit(given)
        valid = parts.scheme in ("http", "https") and given.isprintable() and " " not in given
        host = parts.hostname or ""
        valid = valid and bool(host.encode("idna")) and (parts.port is None or parts.port > 0) and _is_host(host)
    except ValueError:  # also that of a name that no machine can have
        valid = False
    if not valid:
        raise ServerError(f"{address[:200]!r} is not the address of a server. Write it as {_EXAMPLE}.")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ServerError(
            f"The address has more than host and port. Leave out what follows: {parts.scheme}://{parts.netloc}."
        )
    # not as given: a port such as 08471, or what follows a bracket, would make another address of the same server
    place = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{place}" + (f":{parts.port}" if parts.port is not None else "")


def _is_host(host: str) -> bool:
    """Tell whether a text is a name or an address of a machine, in which all programs see the same one.

    Of ``evil.org\\.lab.org``, a user reads the end, and the connection goes to the beginning.
    """
    if ":" not in host:
        return re.fullmatch(r"[\w.\-]+", host) is not None
    ipaddress.IPv6Address(host)  # a ValueError, if it is none
    return True
