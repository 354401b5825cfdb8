"""Find the structures that are the left and the right one of a pair: by their codes, or by their names."""

from __future__ import annotations

from collections.abc import Iterable

from ..labels.sides import side_by_codes, side_by_name
from .facts import ClassFacts


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
        side, key = side_by_codes(one.codes) if one.codes.get("type") else side_by_name(one.name)
        if side:
            found.setdefault(key, {}).setdefault(side, []).append(one.name)
    both = [sides for sides in found.values() if len(sides.get("left", ())) == len(sides.get("right", ())) == 1]
    return [(sides["left"][0], sides["right"][0]) for sides in both]
