"""Tokens and passwords of addresses, in the system's keyring; where there is none, in a file that only the user reads.

A secret belongs to an address: whoever changes an address in a list gets no secret of another one.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import ClassScaleError, reason
from .files import replacing, unwritable

_LARGEST = 1 << 20  # bytes of a file


class KeptSecrets:
    """The secrets of one kind of address.

    :param file: for those that no keyring keeps.
    :param service: what the keyring calls them.
    :param kind: of the errors.

    >>> import tempfile
    >>> secrets = KeptSecrets(Path(tempfile.mkdtemp(), "tokens.json"), "doctest of ClassScaleSeg", ClassScaleError)
    >>> secrets.find("https://lab-gpu:8471") is None
    True
    """

    def __init__(self, file: Path, service: str, kind: type[ClassScaleError]) -> None:
        self.file, self._service, self._kind = file, service, kind

    def find(self, address: str) -> str | None:
        """Return the secret of an address; ``None`` if there is none.

        :raises ClassScaleError: of the kind, if the file cannot be read.
        """
        if (keyring := _keyring()) is not None:
            with suppress(Exception):  # whatever a keyring raises, such as when it stays locked
                if found := keyring.get_password(self._service, address):
                    return found
        return self._read().get(address)

    def keep(self, address: str, secret: str) -> bool:
        """Keep the secret of an address, and return whether a keyring has it; else it is in the file.

        :raises ClassScaleError: of the kind, if the file cannot be read.
        :raises OutputError: if it cannot be written.
        """
        if (keyring := _keyring()) is not None:
            with suppress(Exception):
                keyring.set_password(self._service, address, secret)
                if keyring.get_password(self._service, address) == secret:  # there are keyrings that keep nothing
                    self._write({key: value for key, value in self._read().items() if key != address})
                    return True
        self._write({**self._read(), address: secret})
        return False

    def forget(self, address: str) -> None:
        """Forget the secret of an address, if there is one.

        :raises ClassScaleError: of the kind, if the file cannot be read.
        :raises OutputError: if it cannot be written.
        """
        if (keyring := _keyring()) is not None:
            with suppress(Exception):
                keyring.delete_password(self._service, address)
        kept = self._read()
        if kept.pop(address, None) is not None:
            self._write(kept)

    def _read(self) -> dict[str, str]:
        found = read_entries(self.file, "tokens", dict, {}, self._kind)
        if not all(isinstance(text, str) for text in found.values()):
            raise damaged(self.file, ValueError("an entry is not a token"), self._kind)
        return dict(found)

    def _write(self, kept: dict[str, str]) -> None:
        if kept or self.file.exists():
            write_privately(self.file, {"tokens": kept})


def has_keyring() -> bool:
    """Return whether the package keyring is installed; whether the system has one, only keeping something tells."""
    return _keyring() is not None


def read_entries(file: Path, key: str, kind: type, missing: Any, error: type[ClassScaleError]) -> Any:
    """Return an entry of a JSON file, or ``missing`` if there is no file. The file is not trusted.

    :param kind: of the entry.
    :raises ClassScaleError: of the kind ``error``, if it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            text = stream.read(_LARGEST + 1)
        found = json.loads(text) if len(text) <= _LARGEST else None
        found = found.get(key) if isinstance(found, dict) else None
        if not isinstance(found, kind):
            raise ValueError(f"there is no {key!r} in it")
        return found
    except FileNotFoundError:
        return missing
    except (OSError, ValueError, RecursionError) as fault:
        raise damaged(file, fault, error) from fault


def damaged(file: Path, fault: Exception, kind: type[ClassScaleError]) -> ClassScaleError:
    """Return a sentence for a file that cannot be read."""
    return kind(f"{file} cannot be read ({reason(fault)}). Remove it, and add again what it had.")


def write_privately(file: Path, facts: Any) -> None:
    """Write JSON to a file that only the user can read.

    :raises OutputError: if that fails.
    """
    with replacing(file, overwrite=True) as temporary:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as stream:
                json.dump(facts, stream, indent=1)
        except OSError as error:
            raise unwritable(file, error) from error


def _keyring() -> ModuleType | None:
    """Return the package keyring, if it is installed."""
    try:
        import keyring
    except Exception:  # not installed, or what it needs is damaged
        return None
    return keyring
