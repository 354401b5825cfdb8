"""Read a DICOM segmentation, a label map or a map of each segment, as label maps on the grid that its frames form."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...errors import ClassScaleError, ImageError, named, reason
from ...labels.table import LabelTable
from ..geometry import Geometry
from ..image_file import check_memory
from ..layers import LayerBuilder, as_uint16
from .deflate import inflated
from .headers import Slice, slices_in
from .seg import refuse_missing_highdicom
from .seg_steps import SliceHeader, find_steps
from .segments import label_value, read_label
from .series import WORTH_A_WORD, arrange, rounded_places

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SAME_PLACE = 0.001  # mm
_IN_PLACE = 0.1  # mm
_MOST_SLICES = 1 << 16


class ReadSeg(NamedTuple):
    """A DICOM segmentation.

    :ivar layers: of labels, uint16 ``(z, y, x)``, several if segments overlap.
    :ivar table: their labels, without the background.
    :ivar geometry: their grid.
    :ivar notices: sentences that the user should see: a distance of slices that is guessed, places that are rounded.
    """

    layers: tuple[np.ndarray, ...]
    table: LabelTable
    geometry: Geometry
    notices: tuple[str, ...]


def read_dicom_seg(path: Path, image: Geometry | None = None, other: Geometry | None = None) -> ReadSeg:
    """Read a DICOM segmentation.

    A binary one may leave out slices without a class. The grid then begins and ends with the first and the last slice
    that is there.

    :param image: the grid of the image that was segmented; it tells the distance of slices where the segmentation does
        not.
    :param other: the grid of another segmentation of the same patient, which may tell it too.
    :raises ImageError: if it cannot be read, has segments that fill voxels in part, or its frames form no grid; or if
        highdicom is not installed, which has the decoders.
    """
    refuse_missing_highdicom(ImageError)
    import pydicom

    with named(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on values that it accepts in spite of the standard
        try:
            dataset = pydicom.dcmread(inflated(path))
            return _read(path, dataset, image, other)
        except (ClassScaleError, MemoryError):
            raise
        except Exception as error:  # pydicom raises whatever a damaged value makes Python raise
            raise ImageError(
                f"It cannot be read as a DICOM segmentation ({reason(error)}). Export it again."
            ) from error


def _read(path: Path, dataset: Dataset, image: Geometry | None, other: Geometry | None) -> ReadSeg:
    kind = dataset.get("SegmentationType")
    if kind not in ("LABELMAP", "BINARY", "FRACTIONAL"):
        raise ImageError(f"It is a segmentation of the kind {kind}; LABELMAP or BINARY is needed.")
    numbers = Counter(int(item.SegmentNumber) for item in dataset.SegmentSequence)
    if twice := [number for number, times in numbers.items() if times > 1]:
        raise ImageError(f"It describes several segments with the number {twice[0]} (SegmentNumber). Export it again.")
    _check_pixels(dataset)
    frames = list(slices_in(path, dataset))
    rows, geometry, notices = _grid(frames, SliceHeader.of(dataset), image, other)
    columns, height, count = geometry.size
    label_map = kind == "LABELMAP"
    values = {int(item.SegmentNumber): label_value(item) for item in dataset.SegmentSequence}
    if label_map or len(set(values.values())) < len(values):
        values = {number: number for number in values}
    padding = int(dataset.get("PixelPaddingValue") or 0) if label_map else 0
    if 0 in values.values() and (padding or not label_map):
        raise ImageError("It has a segment with the number 0, which is the background here. Export it with others.")
    if label_map and len(set(rows.tolist())) < len(rows):
        raise ImageError("It has several frames at one place, so it is no single volume. Export one of them.")
    shape = (count, height, columns)
    if label_map:
        layers: Sequence[np.ndarray] = [_label_map(dataset, rows, shape, padding)]
    else:
        layers = _binary_layers(dataset, rows, shape, values)
    items = ((values[int(item.SegmentNumber)], item) for item in dataset.SegmentSequence)
    # a label map describes its background too, as the segment whose number pads the pixels
    table = LabelTable(
        tuple(read_label(item, value) for value, item in items if not (label_map and value in (0, padding)))
    )
    return ReadSeg(tuple(layers), table, geometry, tuple(notices))


def _label_map(dataset: Dataset, rows: np.ndarray, shape: tuple[int, int, int], padding: int) -> np.ndarray:
    """Return the labels of a label map, whose pixels of the value ``padding`` are background."""
    from pydicom.pixels import iter_pixels

    labels = np.zeros(shape, np.uint16)
    for row, frame in zip(rows, iter_pixels(dataset, raw=True), strict=True):
        labels[row] = as_uint16(frame)
    if padding:
        labels[labels == padding] = 0
    return labels


def _binary_layers(
    dataset: Dataset, rows: np.ndarray, shape: tuple[int, int, int], values: Mapping[int, int]
) -> list[np.ndarray]:
    """Return the layers of a binary segmentation, one if no segments overlap.

    :param rows: where each frame belongs.
    :param values: the label value of each segment, by its number.
    """
    frames: dict[int, list[int]] = {}
    for index in range(len(rows)):
        frames.setdefault(_segment_number(dataset, index), []).append(index)
    for number, own in frames.items():
        if number not in values:
            raise ImageError(f"It has frames of a segment {number}, which it does not describe. Export it again.")
        if len(np.unique(rows[own])) < len(own):
            raise ImageError(
                f"It has several frames of its segment {number} at one place, so it is no single volume. Export one of "
                "them."
            )
    depth, height, width = shape
    builder = LayerBuilder(shape, lambda: check_memory("It", f"{width}x{height}x{depth}", 2 * depth * height * width))
    for number, own in sorted(frames.items()):
        parts = [(int(rows[frame]), inside) for frame, inside in zip(own, _insides(dataset, own), strict=True)]
        builder.add(parts, values[number])
    return builder.layers


def _check_pixels(dataset: Dataset) -> None:
    """Refuse pixels that are not as many as the header says, unless their frames are compressed.

    :raises ImageError: naming both numbers.
    """
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    frames = int(dataset.get("NumberOfFrames") or 1)
    bits = frames * int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated)
    held, declared = len(dataset.PixelData), (bits + 7) // 8
    if held not in (declared, declared + declared % 2):
        few = "fewer" if held < declared else "more"
        raise ImageError(
            f"It has {few} pixels than its header says: {held:,} bytes, not {declared:,}. Export it again."
        )


def _insides(dataset: Dataset, frames: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield which pixels of some frames of a binary segmentation are inside, as indices into the flat frame."""
    from pydicom.pixels import iter_pixels

    # some programs store a byte for each pixel, or a binary segmentation as a fractional one
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated or dataset.BitsAllocated != 1:
        whole = dataset.get("MaximumFractionalValue") if dataset.SegmentationType == "FRACTIONAL" else None
        for frame in iter_pixels(dataset, raw=True, indices=frames):
            if whole is not None and ((frame > 0) & (frame != whole)).any():
                raise ImageError(
                    "Its segments fill voxels in part (FRACTIONAL); labels fill whole ones. Export it as BINARY."
                )
            yield np.flatnonzero(frame)
        return
    # Bits follow each other without gaps between frames, which pydicom 3.0 mistakes in small frames. Only bytes with a
    # bit are unpacked: hundreds of classes have tens of thousands of frames, which are nearly empty.
    packed, count = np.frombuffer(dataset.PixelData, np.uint8), dataset.Rows * dataset.Columns
    for start in (frame * count for frame in frames):
        part = packed[start // 8 : (start + count + 7) // 8]
        filled = np.flatnonzero(part)
        bits = np.flatnonzero(np.unpackbits(part[filled], bitorder="little"))
        inside = filled[bits // 8] * 8 + bits % 8 - start % 8
        yield inside[(inside >= 0) & (inside < count)]


def _segment_number(dataset: Dataset, frame: int) -> int:
    """Return the segment of a frame of a binary segmentation."""
    groups = (dataset.PerFrameFunctionalGroupsSequence[frame], dataset.SharedFunctionalGroupsSequence[0])
    group = next((group for group in groups if group.get("SegmentIdentificationSequence")), None)
    if group is None:
        raise ImageError(f"It does not say of which segment its frame {frame + 1} is. Export it again.")
    return int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _grid(
    frames: Sequence[Slice], header: SliceHeader, image: Geometry | None, other: Geometry | None
) -> tuple[np.ndarray, Geometry, list[str]]:
    """Return the row of the label map to which each frame belongs, the grid, and sentences on what is doubtful of it.

    :raises ImageError: if a frame has no place, the frames are not parallel and at equal steps, or they do not fit into
        memory.
    """
    first = frames[0]
    if not all(frame.position and frame.directions and frame.spacing for frame in frames):
        raise ImageError("It has frames without a place (ImagePositionPatient). Export it again.")
    for known in ("directions", "spacing"):
        if np.ptp([getattr(frame, known) for frame in frames], axis=0).max() > 5e-5:
            raise ImageError("Its frames have several orientations or spacings, so they form no volume.")
    row, column = np.reshape(np.array(first.directions), (2, 3))
    places, normal = np.array([frame.position for frame in frames]), np.cross(row, column)
    heights = places @ normal
    order = np.argsort(heights, kind="stable")
    starts = np.diff(heights[order], prepend=-np.inf) > _SAME_PLACE  # of the slices, each with one or more frames
    slices = [frames[index] for index in order[starts]]
    steps, doubt = find_steps(places[order[starts]], normal, header, image, other)
    (height, width), count = first.size, 1 + sum(steps)
    check_memory("It", f"{width}x{height}x{count}", width * height * count * 2)
    if count > _MOST_SLICES:
        raise ImageError(f"Its frames are {count:,} slices apart, by the distance in its header. Export it again.")
    filled, geometry = arrange(_with_missing(slices, steps), [])
    rows = np.empty(len(frames), int)
    rows[order] = np.cumsum([0, *steps])[np.cumsum(starts) - 1]
    assert len(filled) == rows.max() + 1
    expected = np.array(geometry.origin) + rows[:, None] * geometry.axes[:, 2]
    apart = np.linalg.norm(places - expected, axis=1)
    if (apart > _IN_PLACE).any():
        raise ImageError(
            f"Its frames are shifted in their planes, by up to {apart.max():.3g} mm, so they form no grid. Export it "
            "with whole slices."
        )
    notices = [doubt + " Name the image on which it was drawn (--grid)." * (image is None)] if doubt else []
    if apart.max() > WORTH_A_WORD:
        notices.append(rounded_places(float(apart.max())))
    return rows, geometry, notices


def _with_missing(slices: Sequence[Slice], steps: Sequence[int]) -> list[Slice]:
    """Return the slices with those in between that have no frame."""
    found = [slices[0]]
    for before, after, step in zip(slices, slices[1:], steps, strict=False):
        places = np.linspace(before.position or (), after.position or (), step + 1)[1:-1]
        found += [replace(before, position=tuple(place.tolist())) for place in places]
        found.append(after)
    return found
