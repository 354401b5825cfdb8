"""The address of a DICOM archive: whether it is one, and whether it is this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from ..errors import ArchiveError


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


def is_this_machine(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
