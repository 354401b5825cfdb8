"""The address of a DICOM archive: whether it is one."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..errors import ArchiveError
from .credentials import Names


def check_address(address: str, names: Names) -> str:
    """Return the address of a DICOMweb service without a slash at its end.

    :param names: of the credentials, which do not belong into it.
    :raises ArchiveError: if it is not one of http or https, or has a password or a query in it. The sentence does not
        show what may be secret.

    >>> check_address("HTTP://localhost:8042/dicom-web/", Names())
    'http://localhost:8042/dicom-web'
    """
    if "@" in address:  # also where it seems to belong to the path, as after a password that has a slash
        sentence = (
            "The address has a user or password in it (what is before @), which other programs could see. Use --user, "
            "and the environment variable CLASSSCALESEG_DICOM_PASSWORD. If the @ belongs to a path, write %40."
        )
        raise ArchiveError(names.put_into(sentence))
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and address.isprintable() and " " not in address
        valid = valid and bool((parts.hostname or "").encode("idna")) and (parts.port is None or parts.port > 0)
    except ValueError:  # also that of a name that no machine can have
        valid = False
    if not valid:
        raise ArchiveError(
            f"{address[:200]!r} is not an address of a DICOM archive. Give the root of its DICOMweb service, such as "
            "https://pacs.example.org/dicom-web."
        )
    if parts.query or parts.fragment:
        raise ArchiveError("The address has a part after ? or #. Give the root of the DICOMweb service.")
    return (parts.scheme + address[len(parts.scheme) :]).rstrip("/")
