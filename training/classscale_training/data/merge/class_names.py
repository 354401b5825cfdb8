"""Find which labels of different datasets are the same class, by their names, or by their terminology codes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from ClassScaleSegLib.labels.label import Label
from ClassScaleSegLib.labels.table import name_words

SIDES = ("left", "right")
_ANYTHING = {"85756007"}  # SNOMED CT's "Tissue", which Slicer gives every segment to begin with


def words(name: str) -> tuple[str, ...]:
    """Return the words of a name, by which names are compared."""
    return tuple(name_words(name))


def sides_and_rest(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split the words of a name into its sides and the rest.

    >>> sides_and_rest("Kidney_left"), sides_and_rest("spleen")
    ((('left',), ('kidney',)), ((), ('spleen',)))
    """
    found = words(name)
    return tuple(word for word in found if word in SIDES), tuple(word for word in found if word not in SIDES)


def _without_spaces(name: str) -> tuple[tuple[str, ...], str]:
    """Return the sides of a name, and the rest in one word; only between two numbers a space remains.

    >>> _without_spaces("Gall-Bladder"), _without_spaces("left lobe 1 2")
    (((), 'gallbladder'), (('left',), 'lobe1 2'))
    """
    sides, rest = sides_and_rest(name)
    return sides, re.sub(r"(?<!\d) | (?!\d)", "", " ".join(rest))


def code_key(label: Label, with_side: bool = True) -> tuple[tuple[str, str] | None, ...] | None:
    """Return type, modifiers and region of a label as they are compared; ``None`` if its codes are not complete.

    :param with_side: keep the codes for left and right.
    """
    if label.category is None or label.type is None or label.type.value in _ANYTHING:
        return None
    codes = [code for field, code in label.codes.items() if field != "category"]
    if not with_side:
        codes = [code if code is None or code.meaning.casefold() not in SIDES else None for code in codes]
    return tuple(None if code is None else (code.scheme, code.value) for code in codes)


_LEVELS: tuple[tuple[str, Callable[[Label], Hashable]], ...] = (  # the first that finds a class decides
    ("exact", lambda label: label.name),
    ("words", lambda label: words(label.name)),
    ("side", lambda label: sides_and_rest(label.name)),
    ("spaces", lambda label: _without_spaces(label.name)),
    ("codes", code_key),
)


class ClassNames:
    """The names of classes by their numbers.

    >>> from ClassScaleSegLib.labels.table import LabelTable
    >>> classes = ClassNames()
    >>> first = LabelTable.from_names({1: "left kidney", 2: "liver"})
    >>> second = LabelTable.from_names({1: "Liver", 2: "kidney_left", 3: "spleen"})
    >>> classes.match(first), classes.match(second), classes.names
    ({1: 0, 2: 1}, {1: 1, 2: 0, 3: 2}, ['left kidney', 'liver', 'spleen'])
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._found: dict[str, dict[Hashable, list[int]]] = {level: {} for level, _ in _LEVELS}

    def add(self, name: str, label: Label | None = None) -> int:
        """Add a class, and return its number.

        :param label: from which it comes; its codes are compared too.
        """
        number = len(self.names)
        self.names.append(name)
        named = label or Label(0, "", name, (0, 0, 0))
        for level, key_of in _LEVELS:
            key = key_of(named)
            if key is not None:
                self._found[level].setdefault(key, []).append(number)
        return number

    def exactly(self, name: str) -> list[int]:
        """Return the class with exactly this name, or no class."""
        return self._found["exact"].get(name, [])

    def with_words_of(self, name: str) -> list[int]:
        """Return the classes whose names have the same words."""
        return self._found["words"].get(words(name), [])

    def match(self, labels: Sequence[Label]) -> dict[int, int]:
        """Return the class of each label value of one dataset, and add the classes that are new.

        Two labels of the dataset are never one class. If several classes fit a label equally well, or several labels a
        class, none is taken.
        """
        rest = list(labels)
        classes: dict[int, int] = {}
        for level, key_of in _LEVELS:
            keys = {label.value: key_of(label) for label in rest}
            times = Counter(keys.values())
            taken = set(classes.values())
            for label in rest:
                key = keys[label.value]
                free = [number for number in self._found[level].get(key, ()) if number not in taken]
                if key is not None and times[key] == len(free) == 1:
                    classes[label.value] = free[0]
            rest = [label for label in rest if label.value not in classes]
        classes |= {label.value: self.add(label.name, label) for label in rest}
        return classes
