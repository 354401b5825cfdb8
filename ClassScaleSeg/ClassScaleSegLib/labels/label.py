"""Describe one label: value, segment id, name, colour and terminology codes.

The default name, segment id and colour of a label depend on its value alone, so they do not change when other labels
are added.
"""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

MAX_VALUE = 65535  # label maps are uint16
CODE_FIELDS = ("category", "type", "type_modifier", "region", "region_modifier")


def one_line(text: str) -> str:
    """Return ``text`` in a form that file headers and tables can hold.

    Control characters and runs of white space become one space. A double quote becomes a single quote, because Slicer's
    reader of colour tables loses the rest of the table at a double quote. A backslash becomes a slash, because Slicer,
    slicerio and NRRD each interpret a backslash as a different escape.

    >>> one_line(' left\\n "kidney" ')
    "left 'kidney'"
    """
    printable = text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.replace("\\", "/").replace('"', "'").split())


@dataclass(frozen=True)
class Code:
    """One coded concept as in DICOM.

    The characters ``~ ^ | &`` become spaces: Slicer separates codes with them and has no escape for them.

    :ivar scheme: coding scheme designator, such as ``SCT`` for SNOMED CT.
    :ivar value: code value.
    :ivar meaning: code meaning, a readable name.

    >>> Code("SCT", "10200004", "Liver").meaning
    'Liver'
    """

    scheme: str
    value: str
    meaning: str

    def __post_init__(self) -> None:
        for field in ("scheme", "value", "meaning"):
            object.__setattr__(self, field, one_line(re.sub(r"[~^|&]", " ", getattr(self, field))))


@dataclass(frozen=True)
class Label:
    """One class of a segmentation.

    Id, name and group are passed through `one_line`. An empty name becomes ``label 12`` for the value 12, an empty
    group becomes ``None``.

    :ivar value: value in the label map, 0..65535; 0 is the background.
    :ivar id: id of the segment in Slicer, such as ``Segment_12``.
    :ivar name: name shown to users.
    :ivar color: red, green, blue, 0..255 each.
    :ivar category: terminology code of the category, such as "Anatomical Structure".
    :ivar type: terminology code of the structure.
    :ivar type_modifier: terminology code of its side or part, such as "Left".
    :ivar region: terminology code of the anatomic region.
    :ivar region_modifier: terminology code of the region's side or part.
    :ivar group: heading under which lists show the class, such as "Ribs".

    >>> liver = Label(5, segment_id(5), "liver", segment_color(5), type=Code("SCT", "10200004", "Liver"))
    >>> liver.id, liver.type.value, liver.group
    ('Segment_5', '10200004', None)
    """

    value: int
    id: str
    name: str
    color: tuple[int, int, int]
    category: Code | None = None
    type: Code | None = None
    type_modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", one_line(self.id))
        object.__setattr__(self, "name", one_line(self.name) or f"label {self.value}")
        object.__setattr__(self, "group", one_line(self.group or "") or None)

    @property
    def codes(self) -> dict[str, Code | None]:
        """The five terminology codes by the names in ``CODE_FIELDS``; ``None`` for a missing code."""
        return {field: getattr(self, field) for field in CODE_FIELDS}


def unique_names(labels: Iterable[Label]) -> dict[int, str]:
    """Return the name of each label value; the value is part of it where several labels have the same.

    >>> unique_names([Label(value, segment_id(value), "rib", segment_color(value)) for value in (3, 4)])
    {3: 'rib (3)', 4: 'rib (4)'}
    """
    rows = tuple(labels)
    times = Counter(label.name for label in rows)
    taken, names = {name for name in times if times[name] == 1}, {}
    for label in rows:
        name = label.name
        while times[label.name] > 1 and (name == label.name or name in taken):
            name += f" ({label.value})"
        taken.add(name)
        names[label.value] = name
    return names


def segment_id(value: int) -> str:
    """Return the segment id of a label value.

    The id has the form that Slicer gives its own segments. Letters, digits and underscore pass unchanged through NRRD
    headers, MRML and slicerio. The id depends on the value alone, so scripts can rely on it, and results of the same
    model can be compared segment by segment.

    >>> segment_id(12)
    'Segment_12'
    """
    return f"Segment_{value}"


def segment_color(value: int) -> tuple[int, int, int]:
    """Return the default colour of a label value: red, green, blue, 0..255 each; black for 0.

    The hue advances by the golden ratio. Saturation and brightness advance by the two ratios that spread points most
    evenly in two dimensions (powers of the plastic number). Neighbouring values therefore have distant colours: at
    least 49 CIELAB units between a value and the next. The first 4000 colours are all different. Dark hues (blue) are
    lightened to stand out against a black background.

    >>> segment_color(1)
    (52, 103, 228)
    """
    if value == 0:
        return 0, 0, 0
    hue, saturation, brightness = (value * ratio % 1 for ratio in (0.6180339887498949, 0.7548776662466927, 0.569840291))
    rgb = colorsys.hsv_to_rgb(hue, 0.35 + 0.6 * saturation, 0.75 + 0.25 * brightness)
    luma = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    lift = max(0.0, (0.4 - luma) / (1 - luma))
    red, green, blue = (round(255 * (part + (1 - part) * lift)) for part in rgb)
    return red, green, blue
