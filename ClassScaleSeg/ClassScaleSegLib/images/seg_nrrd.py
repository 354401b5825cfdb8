"""Write and read 3D Slicer's segmentation file `.seg.nrrd`: the header from the label table, the voxels slab by slab.

Slicer's own writer resamples the shared label map once per segment, which takes 10 s and more for 1000 segments. Here
one pass finds the extents of all segments and a second pass compresses. The fields are described at
https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import ImageError, LabelTableError
from ..labels.label import CODE_FIELDS, MAX_VALUE, Code, Label
from ..labels.table import LabelTable
from .case_notes import UNCHECKED, VOXELS, checksum_in
from .counts import voxel_counts
from .geometry import Geometry
from .layers import fresh_values, renumbered
from .nrrd import vector

if TYPE_CHECKING:
    import SimpleITK as sitk


# Label maps of 312 to 1000 classes at 256^3 on one core: level 3 takes 0.07 to 0.27 s; level 6 takes 0.15 to 0.67 s for
# files a sixth to a half smaller; level 1 is hardly faster than level 3.
COMPRESSION_LEVEL = 3
SLAB_BYTES = 4 << 20
# Slicer up to 5.8 treats a terminology entry without context as empty. From 5.10 the context only says where to search
# first.
CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
# tags of a segment: how sure the model was of it, and Slicer's own status, by which somebody has checked it
CONFIDENCE_TAG, STATUS_TAG = "ClassScaleSeg.Confidence", "Segmentation.Status"
CHECKED, NOT_CHECKED = "completed", "notstarted"
_NO_CHECKSUM = "0" * 8  # until the voxels are written
REGION_CONTEXT = "Anatomic codes - DICOM master list"


def write_seg_nrrd(
    path: Path,
    layers: Sequence[np.ndarray],
    table: LabelTable,
    geometry: Geometry,
    dtype: np.dtype,
    keep_empty: bool,
    notes: Mapping[str, str] = MappingProxyType({}),
    tags: Mapping[int, Mapping[str, str]] = MappingProxyType({}),
) -> None:
    """Write label maps, uint16 ``(z, y, x)``, as the layers of a segmentation. An existing file is replaced.

    :param table: a label for every value but 0 that occurs.
    :param dtype: uint8 or uint16, the type in the file; it must hold all values of ``layers``.
    :param keep_empty: list classes without voxels as segments too.
    :param notes: further fields of the header, each of one line, which other programs pass over. With that of what
        nobody has looked at comes a checksum of the voxels: see :mod:`.case_notes`.
    :param tags: further tags of segments by their label values, names and texts of one line, without ``|``.
    :raises OSError: if the file cannot be written.
    """
    dtype = np.dtype(dtype).newbyteorder("<")
    rows = max(1, SLAB_BYTES // max(1, layers[0][0].nbytes * len(layers)))
    compressor = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, 31)  # 31: with the header and checksum of gzip
    if UNCHECKED in notes:
        notes = {**notes, VOXELS: _NO_CHECKSUM}
    text = header(layers, table, geometry, dtype, keep_empty, notes, tags).encode()
    with path.open("wb") as file:
        file.write(text)
        for start in range(0, len(layers[0]), rows):
            slabs = [np.ascontiguousarray(layer[start : start + rows], dtype) for layer in layers]
            # the labels of all layers follow each other voxel by voxel
            file.write(compressor.compress(slabs[0].data if len(slabs) == 1 else np.stack(slabs, -1).data))
        end = compressor.flush()
        file.write(end)
        if UNCHECKED in notes:
            field = f"\n{VOXELS}:=".encode()
            file.seek(text.index(field) + len(field))
            file.write(checksum_in(end).encode())


def header(
    layers: Sequence[np.ndarray],
    table: LabelTable,
    geometry: Geometry,
    dtype: np.dtype,
    keep_empty: bool,
    notes: Mapping[str, str] = MappingProxyType({}),
    tags: Mapping[int, Mapping[str, str]] = MappingProxyType({}),
) -> str:
    """Return the text before the voxels, including the blank line at its end; parameters as in `write_seg_nrrd`."""
    several = len(layers) > 1  # then Slicer writes a list of the layers as the first of four axes
    lines = [
        "NRRD0004",
        f"type: {'uint8' if dtype.itemsize == 1 else 'uint16'}",
        f"dimension: {4 if several else 3}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, (*([len(layers)] if several else []), *geometry.size)))}",
        f"space directions: {'none ' * several}{' '.join(vector(axis) for axis in geometry.axes.T)}",
        f"kinds: {'list ' * several}domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {vector(geometry.origin)}",
        *(f"{key}:={value}" for key, value in notes.items()),
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        f"Segmentation_ConversionParameters:=Reference image geometry|{_reference_geometry(geometry)}|&",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
    ]
    found = {value: (extent, n) for n, layer in enumerate(layers) for value, extent in segment_extents(layer).items()}
    listed = [label for label in table.foreground if keep_empty or label.value in found]
    for index, label in enumerate(listed):
        place = found.get(label.value, ((0, -1, 0, -1, 0, -1), 0))
        fields = _fields(label, *place, tags.get(label.value, {}))
        lines.extend(f"Segment{index}_{key}:={value}" for key, value in fields)
    return "\n".join(lines) + "\n\n"


def confidence_text(confidence: float) -> str:
    """Return the tag ``CONFIDENCE_TAG`` of a segment for the mean confidence in it, 0 to 1.

    >>> confidence_text(0.98765432)
    '0.9877'
    """
    return f"{confidence:.4f}"


def stored_type(table: LabelTable) -> np.dtype:
    """Return uint8 if all label values of a table fit, else uint16.

    Then readers need half the memory, and older tools expect it. The table decides, not the classes found, so that all
    results of a model have the same type.
    """
    return np.dtype(np.uint8 if max((label.value for label in table), default=0) < 256 else np.uint16)


def segment_extents(labels: np.ndarray) -> dict[int, tuple[int, ...]]:
    """Return, for each value but 0 in ``labels`` ``(z, y, x)``, the first and last voxel along x, along y, along z.

    >>> segment_extents(np.array([[[0, 0, 7], [0, 7, 7]]], np.uint16))
    {7: (1, 2, 0, 1, 0, 0)}
    """
    from scipy.ndimage import find_objects

    return {
        value: tuple(bound for axis in reversed(box) for bound in (axis.start, axis.stop - 1))
        for value, box in enumerate(find_objects(labels), start=1)
        if box is not None
    }


def _fields(label: Label, extent: tuple[int, ...], layer: int, tags: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield "ID", label.id
    yield "Name", label.name
    yield "NameAutoGenerated", "0"
    yield "Color", " ".join(f"{part / 255:.6g}" for part in label.color)
    yield "ColorAutoGenerated", "0"
    yield "Extent", " ".join(map(str, extent))
    yield "Layer", str(layer)
    yield "LabelValue", str(label.value)
    all_tags = dict(tags) if label.category is None else {"TerminologyEntry": terminology_entry(label), **tags}
    if all_tags:
        yield "Tags", "".join(f"{name}:{text}|" for name, text in all_tags.items())


def terminology_entry(label: Label) -> str:
    """Return the codes of a label in the form that Slicer's terminology logic and slicerio parse."""
    triplets = ["^".join(astuple(code)) if code else "^^" for code in label.codes.values()]
    return "~".join((CONTEXT, *triplets[:3], REGION_CONTEXT, *triplets[3:]))


def _reference_geometry(geometry: Geometry) -> str:
    """Return `index_to_ras` row by row, then the extent in voxels.

    Slicer crops the label map to its segments when it reads the file, so only this field tells it the image's grid.
    """
    extent = [bound for size in geometry.size for bound in (0, size - 1)]
    return "".join(f"{number!r};" for number in [*index_to_ras(geometry).ravel().tolist(), *extent])


def index_to_ras(geometry: Geometry) -> np.ndarray:
    """Return the ``(4, 4)`` matrix from voxel index i, j, k to right-anterior-superior, in mm."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = geometry.axes, geometry.origin
    matrix[:2] *= -1
    return matrix


class FileSegment(NamedTuple):
    """A segment in the header of a file.

    :ivar layer: index of the component of the image that holds it.
    :ivar label: its value in that component, name, colour and codes.
    """

    layer: int
    label: Label


def read_segments(image: sitk.Image) -> list[FileSegment]:
    """Return the segments in the header of a `.seg.nrrd`; none if the image has no segments there.

    :raises LabelTableError: if a segment has no valid layer, label value or colour.
    """
    keys, components = set(image.GetMetaDataKeys()), image.GetNumberOfComponentsPerPixel()
    found: list[FileSegment] = []
    while f"Segment{len(found)}_ID" in keys:
        prefix = f"Segment{len(found)}_"
        names = ("ID", "Name", "LabelValue", "Layer", "Color", "Tags")
        fields = {name: image.GetMetaData(prefix + name) for name in names if prefix + name in keys}
        try:
            value = int(fields.get("LabelValue", "1"))
            # before Slicer 4.11 each segment had a component of its own, and files did not say so
            layer = int(fields.get("Layer", str(len(found)))) if components > 1 else 0
            red, green, blue = (round(255 * min(1.0, max(0.0, float(x)))) for x in fields["Color"].split())
        except (ValueError, KeyError, OverflowError) as error:
            raise LabelTableError(f"Segment {fields['ID']} has no valid label value and colour ({error}).") from error
        if not 0 <= layer < components:
            raise LabelTableError(f"Segment {fields['ID']} is in layer {layer}, and the file has {components} layers.")
        name = fields.get("Name") or fields["ID"]
        codes = parse_codes(fields.get("Tags", ""))
        found.append(FileSegment(layer, Label(value, fields["ID"], name, (red, green, blue), **codes, group=None)))
    return found


def layered(
    layers: Sequence[np.ndarray], segments: Sequence[FileSegment]
) -> tuple[tuple[np.ndarray, ...], list[FileSegment]]:
    """Give segments that have the same label value in several layers values of their own.

    :param layers: uint16 ``(z, y, x)``.
    :returns: the layers with segments, and the segments, with the new values.
    :raises ImageError: if a layer has a value that is no segment's, or there are too many segments.
    :raises LabelTableError: if two segments of one layer have the same value, or one has that of the background.
    """
    values = fresh_values([segment.label.value for segment in segments])
    renumbering: dict[int, dict[int, int]] = {}
    for segment, value in zip(segments, values, strict=True):
        own = renumbering.setdefault(segment.layer, {})
        if not 0 < segment.label.value <= MAX_VALUE:
            raise LabelTableError(
                f"Segment {segment.label.id} has the label value {segment.label.value}; 1 to {MAX_VALUE} are possible."
            )
        if segment.label.value in own:
            raise LabelTableError(
                f"Segment {segment.label.id} has the label value {segment.label.value} of another one in its layer."
            )
        own[segment.label.value] = value
    for index, layer in enumerate(layers):
        known = renumbering.get(index, {})
        others = sorted(set(np.flatnonzero(voxel_counts(layer)).tolist()) - {0, *known})
        if others:
            raise ImageError(f"Layer {index} has the label value {others[0]}, which is that of no segment.")
    kept = sorted(renumbering)
    places = {index: place for place, index in enumerate(kept)}
    named = [
        FileSegment(places[segment.layer], replace(segment.label, value=value))
        for segment, value in zip(segments, values, strict=True)
    ]
    same = all(old == new for own in renumbering.values() for old, new in own.items())
    return tuple(layers[index] if same else renumbered(layers[index], renumbering[index]) for index in kept), named


def parse_codes(tags: str) -> dict[str, Code]:
    """Return the codes in the field ``Tags`` of a segment, by the names in ``CODE_FIELDS``; without missing codes."""
    entries = [tag.split(":", 1)[1] for tag in tags.split("|") if tag.startswith("TerminologyEntry:")]
    parts = entries[0].split("~") if entries else []
    if len(parts) != 7:
        return {}
    triplets = zip(CODE_FIELDS, (parts[index].split("^") for index in (1, 2, 3, 5, 6)), strict=True)
    return {field: Code(*three) for field, three in triplets if len(three) == 3 and all(three[:2])}
