"""The servers that a user knows: names, addresses, certificates; and their tokens, in the system's keyring.

Where there is no keyring, tokens are in a file that only the user can read (:mod:`..kept_secrets`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..catalog.catalog import data_folder
from ..errors import ServerError
from ..inference.progress import CancelToken
from ..kept_secrets import KeptSecrets, damaged, has_keyring, read_entries, write_privately
from ..locking import locked
from .address import check_address
from .connection import PATIENCE
from .credentials import check_certificate, check_token
from .segmenter import RemoteSegmenter

LIST, TOKENS = "servers.json", "server-tokens.json"
_NAME = r"[\w][\w .()+-]{0,63}"
_KEYRING = "ClassScaleSeg"  # what the keyring calls the program
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
        self._tokens = KeptSecrets(self._folder / TOKENS, _KEYRING, ServerError)

    @property
    def all(self) -> tuple[KnownServer, ...]:
        """All servers, in the order of their names.

        :raises ServerError: if the list cannot be read; the message names the file.
        """
        file = self._folder / LIST
        found = []
        for entry in read_entries(file, "servers", list, [], ServerError):
            try:
                name, address, ca = entry["name"], entry["address"], entry.get("ca")
                insecure = entry.get("insecure", False)
                if not is_name(name) or not isinstance(ca, (str, type(None))) or not isinstance(insecure, bool):
                    raise ValueError("an entry is not a server")
                found.append(KnownServer(name, check_address(address), ca, insecure))
            except (TypeError, KeyError, AttributeError, ValueError, ServerError) as error:
                raise damaged(file, error, ServerError) from error
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
        return self._tokens.find(server.address)

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
        if self._tokens.keep(address, token):
            return _IN_KEYRING
        why = "This system has no keyring" if has_keyring() else "The package keyring is not installed"
        return f"{why}, so the token is in {self._tokens.file}, which only you can read."

    def _forget(self, address: str) -> None:
        """Remove a token, unless another server of the list has the address."""
        if any(server.address == address for server in self.all):
            return
        self._tokens.forget(address)

    def _changing(self) -> Any:
        return locked(self._folder / "servers.lock", "The list of servers is being changed")

    def _write_list(self, servers: Sequence[KnownServer]) -> None:
        write_privately(self._folder / LIST, {"servers": [asdict(server) for server in servers]})


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
