"""Check single values in untrusted JSON files."""

from __future__ import annotations

import re
from typing import Any, TypeGuard

from ..errors import ModelError

MAX_ENTRIES = 48  # three sizes for each of 16 stages
MAX_TEXT = 2000


def flat(value: Any) -> list[Any]:
    """Return the entries of a list or of a list of lists as one list; any other value as its only entry."""
    items = value if isinstance(value, list) else [value]
    return [entry for item in items for entry in (item if isinstance(item, list) else [item])]


def integers(value: Any, largest: int, key: str) -> None:
    """Check that a value is a whole number from 1 to ``largest``, or a list or list of lists of such numbers.

    :raises ModelError: if it is anything else, or more than ``MAX_ENTRIES``; the message names the entry, ``key``.
    """
    entries = flat(value)
    if len(entries) > MAX_ENTRIES or not all(type(entry) is int and 1 <= entry <= largest for entry in entries):
        raise ModelError(f"{key} {short(value)} must be whole numbers from 1 to {largest}.")


def whole(value: Any) -> Any:
    """Return a value with the whole floats in it as integers, in lists at any depth.

    >>> whole([32.0, [16, 1.5]])
    [32, [16, 1.5]]
    """
    if isinstance(value, list):
        return [whole(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def numbers(value: Any, count: int) -> TypeGuard[list[float]]:
    """Tell whether ``value`` is a list of ``count`` finite numbers."""
    return isinstance(value, list) and len(value) == count and all(map(is_number, value))


def is_number(value: Any) -> bool:
    """Tell whether ``value`` is a finite number; true and false are none."""
    return type(value) in (int, float) and abs(value) < 1e12


def is_text(value: Any) -> bool:
    """Tell whether ``value`` is one line of 1 to ``MAX_TEXT`` characters."""
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()


def is_sha256(value: Any) -> bool:
    """Tell whether ``value`` is 64 hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def short(value: Any) -> str:
    """Return the ``repr`` of a value, cut to 80 characters for messages."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
