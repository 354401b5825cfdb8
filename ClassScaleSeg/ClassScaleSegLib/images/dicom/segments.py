"""Turn labels into the items of a DICOM segmentation's SegmentSequence, and back.

Where a label has no code, the segment gets the most general ones, which DICOM requires: the category "Anatomical
Structure" and the type "Anatomical structure". Reading takes them for what they are: no code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...labels.label import Code, Label, segment_color, segment_id
from .object import Texts, coded

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CATEGORY = Code("SCT", "123037004", "Anatomical Structure")
TYPE = Code("SCT", "91723000", "Anatomical structure")
# Binary segments must be numbered from 1. A private element keeps the label values, so that reading restores them.
_PRIVATE_GROUP, _PRIVATE_CREATOR, _LABEL_VALUE = 0x0063, "ClassScaleSeg", 0x01


def describe(label: Label, number: int, algorithm: Any, texts: Texts, edited: bool = False) -> Any:
    """Return the item that describes a label, highdicom's ``SegmentDescription``.

    :param number: SegmentNumber; if it is not the value of the label, the value is kept in a private element.
    :param algorithm: highdicom's ``AlgorithmIdentificationSequence``.
    :param texts: remembers which texts are longer than DICOM allows.
    :param edited: whether somebody has changed what the algorithm found.
    """
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept

    def concept(code: Code) -> Any:
        return CodedConcept.from_dataset(coded(code, texts), copy=False)

    item = SegmentDescription(
        segment_number=number,
        segment_label=texts.short(label.name),
        segmented_property_category=concept(label.category or CATEGORY),
        segmented_property_type=concept(label.type or TYPE),
        algorithm_type="SEMIAUTOMATIC" if edited else "AUTOMATIC",
        algorithm_identification=algorithm,
        anatomic_regions=[concept(label.region)] if label.region else None,
        display_color=CIELabColor.from_rgb(*label.color),
    )
    if label.type_modifier:
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(label.type_modifier)]
    if label.region and label.region_modifier:
        item.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [concept(label.region_modifier)]
    if number != label.value:
        block = item.private_block(_PRIVATE_GROUP, _PRIVATE_CREATOR, create=True)
        block.add_new(_LABEL_VALUE, "US", label.value)
    return item


def label_value(item: Dataset) -> int:
    """Return the label value of a segment: its number, unless `describe` kept another one."""
    try:
        return int(item.private_block(_PRIVATE_GROUP, _PRIVATE_CREATOR)[_LABEL_VALUE].value)
    except KeyError:
        return int(item.SegmentNumber)


def read_label(item: Dataset, value: int) -> Label:
    """Return the label that an item of any writer's SegmentSequence describes; its colour, if it has none, is ours.

    :param value: value of the label.
    """
    kind, region = _first(item, "SegmentedPropertyTypeCodeSequence"), _first(item, "AnatomicRegionSequence")
    codes: dict[str, Any] = {
        "category": _code(_first(item, "SegmentedPropertyCategoryCodeSequence")),
        "type": _code(kind),
        "type_modifier": _code(_first(kind, "SegmentedPropertyTypeModifierCodeSequence")),
        "region": _code(region),
        "region_modifier": _code(_first(region, "AnatomicRegionModifierSequence")),
    }
    if codes["type"] == TYPE:
        codes["type"] = None
        codes["category"] = None if codes["category"] == CATEGORY else codes["category"]
    return Label(value, segment_id(value), str(item.get("SegmentLabel") or ""), _color(item, value), **codes)


def _first(item: Dataset | None, sequence: str) -> Dataset | None:
    return next(iter((item.get(sequence) if item is not None else None) or ()), None)


def _code(item: Dataset | None) -> Code | None:
    if item is None:
        return None
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue")
    scheme, meaning = (str(item.get(keyword) or "") for keyword in ("CodingSchemeDesignator", "CodeMeaning"))
    return Code(scheme, str(value), meaning) if value else None


def _color(item: Dataset, value: int) -> tuple[int, int, int]:
    from highdicom.color import CIELabColor

    numbers = item.get("RecommendedDisplayCIELabValue")
    if numbers is None or len(numbers) != 3:
        return segment_color(value)
    red, green, blue = (round(part) for part in CIELabColor.from_dicom_value(list(numbers)).to_rgb(clip=True))
    return red, green, blue
