"""Read elements of what an archive finds, which are JSON (PS3.18, annex F) and may be anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MOST_LETTERS = 1000  # of a text; the longest that is asked for has 64 in the standard
_MOST_VALUES = 100  # of one element
_LONGEST_UID = 64


def is_uid(text: str) -> bool:
    """Return whether a text is a unique identifier, also if its numbers begin with 0, as some do that are in use.

    It is then also the name of a file on any system.

    >>> [is_uid(text) for text in ("1.2.840.01", "1.2..3", "../1.2", "1.2\\n", "")]
    [True, False, False, False, False]
    """
    return len(text) <= _LONGEST_UID and re.fullmatch(r"[0-9]+(\.[0-9]+)*", text) is not None


def text_of(row: Mapping[str, Any], tag: str) -> str | None:
    """Return the values of an element, joined by a backslash; ``None`` if the archive does not tell the element.

    :param tag: eight hexadecimal digits.

    >>> text_of({"00080061": {"vr": "CS", "Value": ["CT", "SEG"]}, "00081030": {"vr": "LO"}}, "00080061")
    'CT\\\\SEG'
    """
    element = row.get(tag)
    if not isinstance(element, dict):
        return None
    values = element.get("Value")
    if not isinstance(values, list):
        return ""
    return "\\".join(map(_plain, values[:_MOST_VALUES]))[:_MOST_LETTERS].strip(" \0")


def _plain(value: Any) -> str:
    if isinstance(value, dict):  # a name of a person
        groups = (value.get(group) for group in ("Alphabetic", "Ideographic", "Phonetic"))
        return "=".join(group[:_MOST_LETTERS] if isinstance(group, str) else "" for group in groups).rstrip("=^")
    return value[:_MOST_LETTERS] if isinstance(value, str) else str(value) if type(value) in (int, float) else ""


def number_of(row: Mapping[str, Any], tag: str) -> int | None:
    """Return the whole number in an element; ``None`` if there is none, or less than 0."""
    text = text_of(row, tag) or ""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def uid_of(row: Mapping[str, Any], tag: str) -> str | None:
    """Return the unique identifier in an element; ``None`` if there is none, or it is not valid."""
    text = text_of(row, tag) or ""
    return text if is_uid(text) else None
