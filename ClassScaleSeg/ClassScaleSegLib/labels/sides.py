"""Which structures are the left and the right one of a pair: by their codes, or by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..errors import LabelTableError
from .label import Code, Label

LEFT, RIGHT = "left", "right"
_CODES = {"7771000": LEFT, "24028007": RIGHT}  # SNOMED CT, as modifiers
_WORDS = {LEFT: LEFT, RIGHT: RIGHT}
_SHORT = {"l": LEFT, "r": RIGHT, "lh": LEFT, "rh": RIGHT}

Side = tuple[str | None, tuple[str, ...]]


def side_by_codes(codes: Mapping[str, Code | None]) -> Side:
    """Return the side that the modifiers of a structure state, or ``None``, and what its other side has in common.

    :param codes: by the names in ``CODE_FIELDS``.
    """
    given = {part: code for part, code in sorted(codes.items()) if code is not None}
    sides = [_CODES[code.value] for part, code in given.items() if part.endswith("modifier") and code.value in _CODES]
    rest = [f"{part} {code.scheme} {code.value}" for part, code in given.items() if code.value not in _CODES]
    return (sides[0] if len(set(sides)) == 1 else None), ("codes", *rest)


def side_by_name(name: str) -> Side:
    """Return the side that a name states, or ``None``, and what the name of its other side has in common.

    Single letters count only in names without left and right: in "left cerebellum V l", the last letter means lateral.

    >>> side_by_name("kidney_left"), side_by_name("Kidney R")[0], side_by_name("left cerebellum V l")[0]
    (('left', ('name', 'kidney')), 'right', 'left')
    """
    words = [word for word in re.split(r"[\W_]+", name.casefold()) if word]
    for known in (_WORDS, _SHORT):
        sides = [known[word] for word in words if word in known]
        if sides:
            rest = [word for word in words if word not in known]
            return (sides[0] if len(set(sides)) == 1 and rest else None), ("name", *rest)
    return None, ("name", *words)


def pair_of_sides(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names that are the left and the right one of a pair, None if there is no pair.

    >>> pair_of_sides(["liver", "kidney_right", "kidney_left"]), pair_of_sides(["left kidney", "right lung"])
    (('kidney_left', 'kidney_right'), None)
    """
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        side, key = side_by_name(name)
        if side is not None:
            pair = found.setdefault(key, {})
            pair.setdefault(side, name)
            if len(pair) == 2:
                return pair[LEFT], pair[RIGHT]
    return None


def other_sides(labels: Iterable[Label]) -> dict[int, int]:
    """Return the value of the other side of each label that has one: left to right, and right to left.

    Modifiers that state a side decide, and otherwise the name.

    :raises LabelTableError: if a structure has a side, but the table does not have exactly one other side of it.

    >>> names = {3: "left kidney", 4: "right kidney", 5: "liver"}
    >>> other_sides([Label(value, f"Segment_{value}", name, (0, 0, 0)) for value, name in names.items()])
    {3: 4, 4: 3}
    """
    found: dict[tuple[str, ...], dict[str, list[Label]]] = {}
    for label in labels:
        side, key = side_by_codes(label.codes)
        if side is None:
            side, key = side_by_name(label.name)
        if side is not None:
            found.setdefault(key, {}).setdefault(side, []).append(label)
    others: dict[int, int] = {}
    for sides in found.values():
        for side, opposite in ((LEFT, RIGHT), (RIGHT, LEFT)):
            for label in sides.get(side, ()):
                partners = sides.get(opposite, ())
                if len(partners) != 1 or len(sides[side]) != 1:
                    raise LabelTableError(
                        f"{label.name!r} (label {label.value}) does not have exactly one counterpart on the other side."
                    )
                others[label.value] = partners[0].value
    return dict(sorted(others.items()))
