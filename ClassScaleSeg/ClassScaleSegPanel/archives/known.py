"""The archives that a user has asked: their addresses in Slicer's settings; their secrets as those of servers are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import slicer
from ClassScaleSegLib.addresses import is_private
from ClassScaleSegLib.catalog.catalog import data_folder
from ClassScaleSegLib.errors import ArchiveError
from ClassScaleSegLib.kept_secrets import KeptSecrets
from slicer.i18n import tr as _

from ..widgets.texts import ask_yes

_ARCHIVES, _AGREED = "ClassScaleSeg/Archives", "ClassScaleSeg/ArchivesAgreed"
_MOST = 20  # archives that are remembered
_LONGEST = 300  # characters
_KEYRING, _SECRETS = "ClassScaleSeg archives", "archive-secrets.json"


@dataclass(frozen=True)
class KnownArchive:
    """An archive, and who asks it.

    :ivar address: the root of its DICOMweb service.
    :ivar user: empty: a token, or nobody in particular.
    :ivar certificate: file with its certificate; empty: the system trusts it.
    """

    address: str
    user: str = ""
    certificate: str = ""


def known_archives() -> list[KnownArchive]:
    """Return the archives that were asked, the last one first. What is damaged in the settings is left out."""
    names = set(asdict(KnownArchive("")))
    found = []
    for entry in _read(_ARCHIVES):
        fine = isinstance(entry, dict) and "address" in entry and set(entry) <= names
        if fine and all(map(_is_text, entry.values())):
            found.append(KnownArchive(**entry))
    return found


def remember(archive: KnownArchive) -> None:
    """Put an archive in front of those that are remembered."""
    others = [each for each in known_archives() if each.address != archive.address]
    _write(_ARCHIVES, [asdict(each) for each in (archive, *others)])


def forget(address: str) -> None:
    """Forget an archive, all its secrets, and that its connection may be one that is not encrypted.

    :raises ArchiveError: if the file with secrets cannot be read.
    :raises OutputError: if it cannot be written.
    """
    for archive in known_archives():
        if archive.address == address:
            forget_secret(archive)
    _write(_ARCHIVES, [asdict(each) for each in known_archives() if each.address != address])
    _write(_AGREED, [each for each in _read(_AGREED) if each != address])


def secret_of(archive: KnownArchive) -> str:
    """Return the password or token that is kept for this user of an archive; empty if there is none.

    :raises ArchiveError: if the file with secrets cannot be read.
    """
    return _secrets().find(_key(archive)) or ""


def keep_secret(archive: KnownArchive, secret: str) -> None:
    """Keep a password or token.

    :raises ArchiveError: if the file with secrets cannot be read.
    :raises OutputError: if it cannot be written.
    """
    _secrets().keep(_key(archive), secret)


def forget_secret(archive: KnownArchive) -> None:
    """Forget the password or token that is kept, if there is one.

    :raises ArchiveError: if the file with secrets cannot be read.
    :raises OutputError: if it cannot be written.
    """
    _secrets().forget(_key(archive))


def may_be_asked(archive: KnownArchive) -> bool:
    """Return whether an archive may be asked; ask the user, once for each address, if others could read that."""
    # what is no address is refused before anything is sent there
    encrypted = urlsplit(archive.address).scheme != "http" or is_private(archive.address)
    if encrypted or archive.address in _read(_AGREED):
        return True
    lines = [
        _("What you search for, images and the password or token are sent between this computer and:"),
        archive.address,
        "",
        _("The connection is NOT encrypted: others in the network could read all of it, and use the password."),
        "",
        _("Use this address, now and in future?"),
    ]
    if not ask_yes("\n".join(lines), _("Connection that is not encrypted")):
        return False
    _write(_AGREED, [archive.address, *_read(_AGREED)])
    return True


def same_address(text: str) -> str:
    """Return an address as it is remembered, however it was typed."""
    return text.strip().rstrip("/")


def _secrets() -> KeptSecrets:
    return KeptSecrets(data_folder() / _SECRETS, _KEYRING, ArchiveError)


def _key(archive: KnownArchive) -> str:
    """Return what a secret belongs to: it is never sent to another address, or for another user."""
    return f"{archive.address} {archive.user}".strip()


def _is_text(found: object) -> bool:
    return isinstance(found, str) and len(found) <= _LONGEST


def _read(setting: str) -> list:
    """Return a list of the settings, which are not trusted."""
    try:
        found = json.loads(slicer.app.userSettings().value(setting) or "[]")
    except (TypeError, ValueError, RecursionError):
        return []
    return found[:_MOST] if isinstance(found, list) else []


def _write(setting: str, entries: Sequence[object]) -> None:
    slicer.app.userSettings().setValue(setting, json.dumps(list(entries)[:_MOST]))
