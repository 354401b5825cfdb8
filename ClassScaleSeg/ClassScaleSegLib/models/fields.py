"""Questions asked of values in JSON files from anywhere, and of nothing else."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError

MAX_ENTRIES = 48  # three sizes for each of 16 stages


def flat(value: Any) -> list[Any]:
    """The entries of a value, a list, or a list of lists."""
    items = value if isinstance(value, list) else [value]
    return [entry for item in items for entry in (item if isinstance(item, list) else [item])]


def integers(value: Any, largest: int, key: str, where: str) -> None:
    """A number, or a list or list of lists of numbers, each from 1 to ``largest``; one to three for each stage."""
    entries = flat(value)
    if len(entries) > MAX_ENTRIES or not all(type(entry) is int and 1 <= entry <= largest for entry in entries):
        raise ModelError(f"{where}: {key} {short(value)} must be whole numbers from 1 to {largest}.")


def numbers(value: Any, count: int) -> bool:
    """Whether ``value`` is a list of ``count`` finite numbers."""
    return (
        isinstance(value, list)
        and len(value) == count
        and all(type(v) in (int, float) and abs(v) < 1e12 for v in value)
    )


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
