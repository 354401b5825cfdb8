"""The frames of a DICOM segmentation: their pixels, and the place and the source of each.

highdicom could make them too, but compares every slice with every class for a binary segmentation, and copies a label
map several times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .headers import Slice
from .source import SourceSeries

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class Frames(NamedTuple):
    """All frames of a segmentation.

    :ivar groups: items of PerFrameFunctionalGroupsSequence.
    :ivar pixels: of all frames in parts, made as they are asked for, uncompressed: little endian, or bits without gaps
        between frames.
    :ivar size: of all parts together, bytes.
    """

    groups: list[Dataset]
    pixels: Iterator[bytes]
    size: int


def label_map_frames(labels: np.ndarray, series: SourceSeries, dtype: np.dtype) -> Frames:
    """Return a frame for each row of a label map, in their order.

    :param labels: uint16 ``(z, y, x)``.
    :param dtype: of the pixels: uint8 or uint16, which must hold all values.
    """
    groups = [_group([row + 1], *_place(piece)) for row, piece in enumerate(series.slices)]
    pixels = (row.astype(dtype.newbyteorder("<"), copy=False).tobytes() for row in labels)
    return Frames(groups, pixels, labels.size * dtype.itemsize)


def binary_frames(layers: Sequence[np.ndarray], values: Sequence[int], series: SourceSeries) -> Frames:
    """Return a frame for each class and row where both meet; the first row, if no class occurs.

    :param layers: label maps, uint16 ``(z, y, x)``, of which each class is in one.
    :param values: label values of the segments 1, 2, 3...
    """
    from pydicom.dataset import Dataset

    places = [_place(piece) for piece in series.slices]
    groups, meetings = [], binary_places(layers, values) or [(1, 0, 0)]
    for number, row, _layer in meetings:
        group, segment = _group([number, row + 1], *places[row]), Dataset()
        _add(segment, "ReferencedSegmentNumber", "US", number)
        _add(group, "SegmentIdentificationSequence", "SQ", [segment])
        groups.append(group)
    masks = (layers[layer][row] == values[number - 1] for number, row, layer in meetings)
    return Frames(groups, _packed(masks), (len(meetings) * layers[0][0].size + 7) // 8)


def binary_places(layers: Sequence[np.ndarray], values: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return the number of a segment, from 1, a row of the label maps, and a layer, wherever they meet; sorted."""
    numbers = {value: number for number, value in enumerate(values, start=1)}
    return sorted(
        (numbers[value], row, index)
        for index, layer in enumerate(layers)
        for row, labels in enumerate(layer)
        for value in _present(labels)
        if value in numbers
    )


def _present(row: np.ndarray) -> list[int]:
    return np.flatnonzero(np.bincount(row.ravel())).tolist()


def _packed(masks: Iterable[np.ndarray]) -> Iterator[bytes]:
    """Yield the bits of one mask after the other, eight to a byte, the first one in the lowest bit."""
    rest = np.empty(0, bool)
    for mask in masks:
        bits = np.concatenate([rest, mask.ravel()]) if len(rest) else mask.ravel()
        whole = len(bits) // 8 * 8
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
        rest = bits[whole:]
    yield np.packbits(rest, bitorder="little").tobytes()


def _place(piece: Slice) -> tuple[Dataset, Dataset]:
    """Return the items that say where a slice is, and that a frame is made from it."""
    from pydicom.dataset import Dataset

    position, derivation, reference = Dataset(), Dataset(), Dataset()
    _add(position, "ImagePositionPatient", "DS", decimals(piece.position or ()))
    _add(reference, "ReferencedSOPClassUID", "UI", piece.kind)
    _add(reference, "ReferencedSOPInstanceUID", "UI", piece.instance)
    if piece.frames > 1:
        _add(reference, "ReferencedFrameNumber", "IS", piece.frame + 1)
    _add(reference, "SpatialLocationsPreserved", "CS", "YES")
    purpose = _code("121322", "Source image for image processing operation")
    _add(reference, "PurposeOfReferenceCodeSequence", "SQ", [purpose])
    _add(derivation, "SourceImageSequence", "SQ", [reference])
    _add(derivation, "DerivationCodeSequence", "SQ", [_code("113076", "Segmentation")])
    return position, derivation


def _group(indices: list[int], position: Dataset, derivation: Dataset) -> Dataset:
    from pydicom.dataset import Dataset

    group, content = Dataset(), Dataset()
    _add(content, "DimensionIndexValues", "UL", indices)
    _add(group, "FrameContentSequence", "SQ", [content])
    _add(group, "PlanePositionSequence", "SQ", [position])
    _add(group, "DerivationImageSequence", "SQ", [derivation])
    return group


def _code(value: str, meaning: str) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _add(item: Dataset, keyword: str, kind: str, value: Any) -> None:
    """Add an element; attributes of pydicom, which would do the same, take several times as long."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import DataElement

    tag = tag_for_keyword(keyword)
    assert tag is not None  # the keywords above are the standard's
    item.add(DataElement(tag, kind, value))


def decimals(numbers: Sequence[float]) -> list[Any]:
    """Return numbers as DICOM's decimal strings, which have at most 16 characters."""
    from pydicom.valuerep import DSfloat

    return [DSfloat(number, auto_format=True) for number in numbers]
