"""The servers that a user knows: names, addresses, certificates; and their tokens, in the system's keyring.

Where there is no keyring, tokens are in a file that only the user can read. A token belongs to an address: whoever
changes an address in the list gets no token of another one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..catalog.catalog import data_folder
from ..errors import ServerError, reason
from ..files import replacing, unwritable
from ..inference.progress import CancelToken
from ..locking import locked
from .address import check_address
from .connection import PATIENCE
from .credentials import check_certificate, check_token
from .segmenter import RemoteSegmenter

LIST, TOKENS = "servers.json", "server-tokens.json"
_NAME = r"[\w][\w .()+-]{0,63}"
_KEYRING = "ClassScaleSeg"  # what the keyring calls the program
_LARGEST = 1 << 20  # bytes of a file
_IN_KEYRING = "The token is in the keyring of the system."
_SHOWN = 20  # models


@dataclass(frozen=True)
class KnownServer:
    """A server of the list.

    :ivar name: by which the user chooses it.
    :ivar address: such as ``https://lab-gpu:8471``.
    :ivar ca: file with the certificate of the server, or of who has signed it; ``None`` if the system trusts it.
    :ivar insecure: the user allows that images and the token are sent there although others could read them.
    """

    name: str
    address: str
    ca: str | None = None
    insecure: bool = False


class Servers:
    """The servers that a user knows.

    :param folder: of the list; by default that with the data of this user.

    >>> import tempfile
    >>> servers = Servers(Path(tempfile.mkdtemp()))
    >>> servers.add("Lab", "https://lab-gpu:8471")
    >>> servers.find("lab").address, servers.find("https://lab-gpu:8471/").name
    ('https://lab-gpu:8471', 'Lab')
    >>> servers.remove("Lab")
    >>> servers.all
    ()
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = data_folder() if folder is None else folder

    @property
    def all(self) -> tuple[KnownServer, ...]:
        """All servers, in the order of their names.

        :raises ServerError: if the list cannot be read; the message names the file.
        """
        file = self._folder / LIST
        found = []
        for entry in _read(file, "servers", list, []):
            try:
                name, address, ca = entry["name"], entry["address"], entry.get("ca")
                insecure = entry.get("insecure", False)
                if not is_name(name) or not isinstance(ca, (str, type(None))) or not isinstance(insecure, bool):
                    raise ValueError("an entry is not a server")
                found.append(KnownServer(name, check_address(address), ca, insecure))
            except (TypeError, KeyError, AttributeError, ValueError, ServerError) as error:
                raise _damaged(file, error) from error
        return tuple(sorted(found, key=lambda server: server.name.casefold()))

    def find(self, text: str) -> KnownServer | None:
        """Return the server of a name or an address; ``None`` if it is not in the list.

        :raises ServerError: if the list cannot be read.
        """
        for server in self.all:
            if server.name.casefold() == text.casefold():
                return server
        with suppress(ServerError):
            address = check_address(text)
            return next((server for server in self.all if server.address == address), None)
        return None

    def named(self, name: str) -> KnownServer:
        """Return the server of a name or an address.

        :raises ServerError: if it is not in the list, which the message shows.
        """
        found = self.find(name)
        if found is None:
            known = ", ".join(server.name for server in self.all) or "none"
            raise ServerError(f"There is no server {name}. The known servers: {known}.")
        return found

    def add(
        self,
        name: str,
        address: str,
        token: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        insecure: bool = False,
    ) -> str | None:
        """Add a server to the list, or change one.

        :param token: ``None`` if it asks for none.
        :param insecure: images and the token may be sent there although others could read them. Once that was said of
            an address, it holds until the server is removed.
        :returns: a sentence that says where the token is kept; ``None`` if there is none.
        :raises ServerError: if name, address or token are not valid, or there is no such certificate.
        :raises OutputError: if the list cannot be written.
        """
        if not is_name(name):
            raise ServerError(
                f"{name!a} cannot be the name of a server. Use up to 64 letters, digits, spaces and . ( ) + - _."
            )
        address = check_address(address)
        if ca is not None:
            check_certificate(ca, address)
        token = None if token is None else check_token(token)
        with self._changing():
            before = self.find(name)
            insecure = insecure or (before is not None and before.address == address and before.insecure)
            server = KnownServer(name, address, None if ca is None else os.path.abspath(ca), insecure)
            kept = None if token is None else self._keep(address, token)
            others = [each for each in self.all if each.name.casefold() != name.casefold()]
            self._write_list([*others, server])
            if before is not None:
                self._forget(before.address)
        return kept

    def remove(self, name: str) -> None:
        """Remove a server from the list, and its token.

        :raises ServerError: if it is not in the list.
        :raises OutputError: if the list cannot be written.
        """
        with self._changing():
            server = self.named(name)
            self._write_list([each for each in self.all if each != server])
            self._forget(server.address)

    def token(self, server: KnownServer) -> str | None:
        """Return the token of a server; ``None`` if there is none.

        :raises ServerError: if the file of tokens cannot be read.
        """
        if (keyring := _keyring()) is not None:
            with suppress(Exception):  # whatever a keyring raises, such as when it stays locked
                if found := keyring.get_password(_KEYRING, server.address):
                    return found
        return self._tokens().get(server.address)

    def segmenter(self, server: KnownServer, patience: float = PATIENCE, insecure: bool = False) -> RemoteSegmenter:
        """Return what segments on a server of the list.

        :param insecure: as of :class:`.RemoteSegmenter`, if the list does not say so of the server.
        :raises ServerError: as of it, or if the file of tokens cannot be read.
        """
        return RemoteSegmenter(server.address, self.token(server), server.ca, patience, server.insecure or insecure)

    def test(self, server: KnownServer, cancel: CancelToken | None = None, insecure: bool = False) -> list[str]:
        """Ask a server what it is, and return that in sentences.

        :param insecure: as of :meth:`segmenter`.
        :raises Unencrypted: if others could read the token on its way, and that is not allowed.
        :raises ServerError: if it cannot be used; the message says why and what to do.
        :raises Cancelled: if the token is set.
        """
        with self.segmenter(server, insecure=insecure) as segmenter:
            return describe(segmenter, cancel)

    def _keep(self, address: str, token: str) -> str:
        if (keyring := _keyring()) is not None:
            with suppress(Exception):
                keyring.set_password(_KEYRING, address, token)
                if keyring.get_password(_KEYRING, address) == token:  # there are keyrings that keep nothing
                    self._write_tokens({key: value for key, value in self._tokens().items() if key != address})
                    return _IN_KEYRING
        self._write_tokens({**self._tokens(), address: token})
        why = "The package keyring is not installed" if keyring is None else "This system has no keyring"
        return f"{why}, so the token is in {self._folder / TOKENS}, which only you can read."

    def _forget(self, address: str) -> None:
        """Remove a token, unless another server of the list has the address."""
        if any(server.address == address for server in self.all):
            return
        if (keyring := _keyring()) is not None:
            with suppress(Exception):
                keyring.delete_password(_KEYRING, address)
        tokens = self._tokens()
        if tokens.pop(address, None) is not None:
            self._write_tokens(tokens)

    def _changing(self) -> Any:
        return locked(self._folder / "servers.lock", "The list of servers is being changed")

    def _tokens(self) -> dict[str, str]:
        file = self._folder / TOKENS
        found = _read(file, "tokens", dict, {})
        if not all(isinstance(text, str) for text in found.values()):
            raise _damaged(file, ValueError("an entry is not a token"))
        return dict(found)

    def _write_list(self, servers: Sequence[KnownServer]) -> None:
        _write(self._folder / LIST, {"servers": [asdict(server) for server in servers]})

    def _write_tokens(self, tokens: dict[str, str]) -> None:
        if tokens or (self._folder / TOKENS).exists():
            _write(self._folder / TOKENS, {"tokens": tokens})


def describe(segmenter: RemoteSegmenter, cancel: CancelToken | None = None) -> list[str]:
    """Return in sentences what a server is.

    :raises ServerError: if it cannot be used.
    """
    health, models = segmenter.health(cancel), segmenter.models(cancel)
    names = [model.id for model in models]
    listed = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    token = "It takes the token." if health.token == "accepted" else "It asks for no token."
    return [
        f"{segmenter.address} runs ClassScaleSeg {health.version}. {token}",
        f"Devices: {'; '.join(health.devices_with_memory) or 'not stated'}.",
        f"Models: {listed or 'none'}.",
        f"Jobs: {health.running} running, {health.waiting} waiting.",
    ]


def is_name(name: Any) -> bool:
    """Tell whether a text can be the name of a server; an address cannot, so that names and addresses differ."""
    return isinstance(name, str) and re.fullmatch(_NAME, name) is not None and name == name.strip()


def _keyring() -> ModuleType | None:
    """Return the package keyring, if it is installed."""
    try:
        import keyring
    except Exception:  # not installed, or what it needs is damaged
        return None
    return keyring


def _read(file: Path, key: str, kind: type, missing: Any) -> Any:
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
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> ServerError:
    return ServerError(f"{file} cannot be read as a list of servers ({reason(error)}). Remove it, and add them anew.")


def _write(file: Path, facts: Any) -> None:
    """Write a file that only the user can read."""
    with replacing(file, overwrite=True) as temporary:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as stream:
                json.dump(facts, stream, indent=1)
        except OSError as error:
            raise unwritable(file, error) from error
