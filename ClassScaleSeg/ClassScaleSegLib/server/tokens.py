"""Tokens by which the server knows its clients. It keeps their SHA-256 alone, so the file lets nobody in.

A token is 32 random bytes, so that guessing is hopeless, and no slow hash is needed against it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ClassScaleError, reason
from ..files import replacing, unwritable
from ..locking import locked

FILE = "tokens.json"
NOBODY = "local"  # owner of what comes without a token
PREFIX = "css_"  # so that people and scanners for secrets know what it is
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = 1 << 20  # bytes of the file


@dataclass(frozen=True)
class Token:
    """What is kept of a token.

    :ivar name: of the person or machine that has it; the jobs of one name are of one owner.
    :ivar sha256: 64 hexadecimal digits.
    :ivar created: date and time, UTC, ISO 8601.
    """

    name: str
    sha256: str
    created: str


class Tokens:
    """The tokens of a server, in a file that other processes may change.

    >>> import tempfile
    >>> tokens = Tokens(Path(tempfile.mkdtemp()))
    >>> secret = tokens.make("anna")
    >>> tokens.owner(secret), tokens.owner("css_guess")
    ('anna', None)
    >>> tokens.revoke("anna")
    >>> tokens.owner(secret) is None
    True
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._seen: tuple[int, int, int] | None = None  # of the file, when it was read last
        self._known: tuple[Token, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.all)

    @property
    def all(self) -> tuple[Token, ...]:
        """The tokens that are valid, as the file says now.

        :raises ClassScaleError: if the file cannot be read.
        """
        try:
            about = self._file.stat()
        except FileNotFoundError:
            self._seen, self._known = None, ()
            return ()
        except OSError as error:
            raise ClassScaleError(f"{self._file} cannot be read ({error.strerror or error}).") from error
        seen = (about.st_mtime_ns, about.st_size, about.st_ino)
        if seen != self._seen:
            self._known = self._read()
            self._seen = seen
        return self._known

    def owner(self, secret: str) -> str | None:
        """Return the name of a token, ``None`` if it is not valid. Takes as long for each of the tokens.

        :raises ClassScaleError: if the file cannot be read.
        """
        digest, name = _digest(secret), None
        for token in self.all:
            if hmac.compare_digest(token.sha256, digest):
                name = token.name
        return name

    def make(self, name: str) -> str:
        """Make a token, and return it; it cannot be read again.

        :raises ClassScaleError: if the name is taken or not one.
        :raises OutputError: if the file cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise ClassScaleError(
                f"{name!a} cannot be the name of a token. Use up to 64 letters of ASCII, digits, '.', '_', '@' and '-'."
            )
        if name == NOBODY:
            raise ClassScaleError(f"{name} stands for those who come without a token. Choose another name.")
        with self._changing():
            if any(token.name == name for token in self.all):
                raise ClassScaleError(f"There is a token {name} already. Revoke it first, or choose another name.")
            secret = PREFIX + secrets.token_urlsafe(32)
            created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._write((*self.all, Token(name, _digest(secret), created)))
        return secret

    def revoke(self, name: str) -> None:
        """Make a token invalid, at once, also for a server that runs.

        :raises ClassScaleError: if there is none of this name.
        :raises OutputError: if the file cannot be written.
        """
        with self._changing():
            if all(token.name != name for token in self.all):
                known = ", ".join(token.name for token in self.all) or "none"
                raise ClassScaleError(f"There is no token {name}. The tokens: {known}.")
            self._write([token for token in self.all if token.name != name])

    def _changing(self) -> Any:
        return locked(self._file.with_suffix(".lock"), "The tokens are being changed")

    def _read(self) -> tuple[Token, ...]:
        try:
            with self._file.open("rb") as stream:
                text = stream.read(_LARGEST + 1)
            if len(text) > _LARGEST:
                raise ValueError("it is too large")
            return tuple(_token(entry) for entry in json.loads(text)["tokens"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            said = f"{self._file} cannot be read as the tokens of a server ({reason(error)})."
            raise ClassScaleError(f"{said} Remove it, and make the tokens anew.") from error

    def _write(self, tokens: Any) -> None:
        facts = {"tokens": [vars(token) for token in tokens]}
        with replacing(self._file, overwrite=True) as temporary:
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with open(descriptor, "w", encoding="utf-8") as stream:
                    json.dump(facts, stream, indent=1)
                temporary.chmod(0o600)
            except OSError as error:
                raise unwritable(self._file, error) from error


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _token(entry: Any) -> Token:
    token = Token(entry["name"], entry["sha256"], entry["created"])
    texts = all(isinstance(text, str) for text in vars(token).values())
    if not texts or not _NAME.fullmatch(token.name) or not _SHA256.fullmatch(token.sha256):
        raise ValueError("an entry is not a token")
    return token
