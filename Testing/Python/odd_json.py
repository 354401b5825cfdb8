"""JSON files with something odd in one entry, for readers that must answer with a sentence."""

from __future__ import annotations

WEIRD = [None, [], {}, "x", -1, 0, 1.5, 10**400, float("nan"), True, [[[1]]], [None], ["1"], {"a": 1}, [1] * 100, 2**40]


def entries(node, path=()):
    """The paths of all entries of a JSON object, at any depth."""
    if path:
        yield path
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from entries(child, (*path, key))
