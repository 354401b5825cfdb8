"""Find the structures that are the left and the right one of a pair: by their codes, or by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .facts import ClassFacts

_SIDES = {"7771000": "left", "24028007": "right"}  # SNOMED CT, as modifiers
_WORDS = {"left": "left", "right": "right", "l": "left", "r": "right", "lh": "left", "rh": "right"}


def pairs(classes: Iterable[ClassFacts]) -> list[tuple[str, str]]:
    """Return the names of left and right structures that belong together, in the order of the left ones.

    Codes decide where a structure has any: the left atrium is a structure of its own, not one of a pair. Otherwise the
    name decides, by a word such as left, R or lh.

    >>> pairs([ClassFacts(1, "kidney_left", "#000000"), ClassFacts(2, "kidney_right", "#000000")])
    [('kidney_left', 'kidney_right')]
    >>> pairs([ClassFacts(1, "Right-Putamen", "#000000"), ClassFacts(2, "Left-Putamen", "#000000")])
    [('Left-Putamen', 'Right-Putamen')]
    """
    found: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for one in classes:
        side, key = _by_codes(one) if one.codes.get("type") else _by_name(one.name)
        if side:
            found.setdefault(key, {}).setdefault(side, []).append(one.name)
    both = [sides for sides in found.values() if len(sides.get("left", ())) == len(sides.get("right", ())) == 1]
    return [(sides["left"][0], sides["right"][0]) for sides in both]


def _by_codes(one: ClassFacts) -> tuple[str | None, tuple[str, ...]]:
    sides = [side for part, code in one.codes.items() if part.endswith("modifier") and (side := _SIDES.get(code.value))]
    rest = [
        f"{part} {code.scheme} {code.value}" for part, code in sorted(one.codes.items()) if code.value not in _SIDES
    ]
    return (sides[0] if len(sides) == 1 else None), ("codes", *rest)


def _by_name(name: str) -> tuple[str | None, tuple[str, ...]]:
    words = [word for word in re.split(r"[\W_]+", name.casefold()) if word]
    sides = [_WORDS[word] for word in words if word in _WORDS]
    rest = [word for word in words if word not in _WORDS]
    return (sides[0] if len(sides) == 1 and rest else None), ("name", *rest)
