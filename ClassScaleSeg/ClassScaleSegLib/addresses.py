"""Addresses in a network: who could listen on the way to one.

One rule holds for servers and for archives: images, tokens and passwords leave this machine encrypted, unless the user
says otherwise (``--insecure``).
"""

from __future__ import annotations

import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit

from .errors import ClassScaleError

INSECURE_HINT = (
    "Use an address of https, or allow it in a network that you trust: --insecure, or insecure=True in Python."
)


def is_loopback(host: str) -> bool:
    """Tell whether only programs of the same machine can reach a host, by its name or address.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "lab-gpu")]
    [True, True, True, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_this_machine(address: str) -> bool:
    """Tell whether what answers at an address such as ``http://localhost:8471`` runs on this machine, by its name."""
    return is_loopback(urlsplit(address).hostname or "")


def is_encrypted(address: str) -> bool:
    """Tell whether nobody on the way to an address can read what is sent."""
    return urlsplit(address).scheme == "https"


def is_private(address: str) -> bool:
    """Tell whether nobody in the network can read what is sent: it is encrypted, or does not leave this machine.

    >>> [is_private(address) for address in ("https://lab-gpu:8471", "http://[::1]:8471", "http://lab-gpu:8471")]
    [True, True, False]
    """
    return is_encrypted(address) or is_this_machine(address)


def refuse_unencrypted(address: str, what: str, insecure: bool, kind: type[ClassScaleError]) -> None:
    """Refuse to send something to another machine on a way on which others could read it, unless the user allows it.

    :param what: is sent, such as "the token".
    :param insecure: the user allows it.
    :param kind: of the error.
    :raises ClassScaleError: of this kind, before anything is sent.

    >>> refuse_unencrypted("https://lab-gpu:8471", "the image", False, ClassScaleError)
    >>> refuse_unencrypted("http://lab-gpu:8471", "the image", True, ClassScaleError)
    >>> refuse_unencrypted("http://lab-gpu:8471", "the image", False, ClassScaleError)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ClassScaleSegLib.errors.ClassScaleError: The connection to http://lab-gpu:8471 is not encrypted, so others in ...
    """
    if not insecure and not is_private(address):
        raise kind(
            f"The connection to {address} is not encrypted, so others in the network could read {what}. Nothing was "
            f"sent. {INSECURE_HINT}"
        )


def ask_directly(session: Any) -> None:
    """Let a session of requests ask no proxy, as for this machine: a proxy would look for it on its own."""
    session.trust_env = False
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
