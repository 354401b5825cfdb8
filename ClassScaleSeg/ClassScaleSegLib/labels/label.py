"""One label: its value, segment id, name, colour and terminology codes.

Whatever a model or a file calls its classes, every class has a name, a stable segment id and a colour that do not
change when other classes are added.
"""

from __future__ import annotations

import colorsys
import re
from dataclasses import dataclass

MAX_VALUE = 65535
CODE_FIELDS = ("category", "type", "type_modifier", "region", "region_modifier")


def one_line(text: str) -> str:
    """``text`` as headers and tables can hold it: control characters and runs of white space become one space.

    A backslash becomes a slash and a double quote a single one: Slicer's reader of colour tables loses the rest of the
    table at a quote, and Slicer, slicerio and NRRD each take a backslash for another escape.
    """
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.replace("\\", "/").replace('"', "'").split())


@dataclass(frozen=True)
class Code:
    """One coded concept as DICOM writes it, for example ``Code("SCT", "10200004", "Liver")``.

    The characters ``~ ^ | &``, with which Slicer joins codes and cannot escape, become spaces.
    """

    scheme: str
    value: str
    meaning: str

    def __post_init__(self) -> None:
        for field in ("scheme", "value", "meaning"):
            object.__setattr__(self, field, one_line(re.sub(r"[~^|&]", " ", getattr(self, field))))


@dataclass(frozen=True)
class Label:
    """One class: ``value`` in the label map, ``id`` of its segment, ``color`` red, green, blue 0..255, and codes.

    The name is put on one line as `one_line` does it; without any it is ``label 12``. ``group`` is the heading under
    which people look for the class ("Ribs"), for lists alone; an empty one is none.
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
        return {field: getattr(self, field) for field in CODE_FIELDS}


def segment_id(value: int) -> str:
    """Identifier of the segment with this label value.

    The form that Slicer gives its own segments: letters, digits and an underscore pass unchanged through NRRD headers,
    MRML and slicerio. It depends on nothing but the value, so that scripts can rely on it and results of the same model
    can be compared segment by segment.
    """
    return f"Segment_{value}"


def segment_color(value: int) -> tuple[int, int, int]:
    """Red, green, blue 0..255 of a label value; black for 0.

    The hue walks by the golden ratio, saturation and brightness by the two ratios that spread best in two dimensions
    (powers of the plastic number), so near values are far apart in colour: at least 49 CIELAB units between a value and
    the next. The first 4000 are all different. Dark hues (blue) are lifted to stand out against a black background.
    """
    if value == 0:
        return 0, 0, 0
    hue, saturation, brightness = (value * ratio % 1 for ratio in (0.6180339887498949, 0.7548776662466927, 0.569840291))
    rgb = colorsys.hsv_to_rgb(hue, 0.35 + 0.6 * saturation, 0.75 + 0.25 * brightness)
    luma = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    lift = max(0.0, (0.4 - luma) / (1 - luma))
    red, green, blue = (round(255 * (part + (1 - part) * lift)) for part in rgb)
    return red, green, blue
