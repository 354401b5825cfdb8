"""Find how far apart the slices of a DICOM segmentation are, of which those without a segment may be missing.

Only SpacingBetweenSlices says it, which not every program writes. SliceThickness may be less, where the slices of the
series do not touch: frames of 1 mm that are 3 mm apart are such slices, or every third one of those that touch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..geometry import Geometry
from .deflate import read_header
from .headers import is_dicom_seg
from .series import rounding

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FITS = 0.1  # slices: gaps are whole numbers of slices but for this, and for rounding
_FITS_WELL = 0.03  # slices: the same, without rounding, where the distance is only guessed
_ONE_STEP = 1.4  # times the smallest gap: rounding makes no larger differences between gaps of one step
_PARALLEL = 1e-3  # between directions
_MOST_PARTS = 4  # of the smallest gap, where gaps are no multiples of it
_TOUCHING = 1.9  # times the thickness: as far apart, another slice may lie between
_NONE_BETWEEN = "It is taken to have no slices between."
_UNKNOWN = "It does not say how far apart its slices are (SpacingBetweenSlices)."


class SliceHeader(NamedTuple):
    """What a header says of the slices of a segmentation.

    :ivar distance: SpacingBetweenSlices, mm; ``None`` if not given.
    :ivar thickness: SliceThickness, mm, of all frames; ``None`` if not given, or if they differ.
    :ivar images: how many images of a series it refers to.
    """

    distance: float | None
    thickness: float | None
    images: int

    @classmethod
    def of(cls, dataset: Dataset) -> SliceHeader:
        """Read it from a segmentation that pydicom has read."""
        shared = dataset.get("SharedFunctionalGroupsSequence", ())
        if not any("PixelMeasuresSequence" in group for group in shared):
            shared = dataset.get("PerFrameFunctionalGroupsSequence", ())
        measures = [*(item for group in shared for item in group.get("PixelMeasuresSequence", ())), dataset]
        distances, thicknesses = (
            [abs(float(item.get(keyword))) for item in measures if item.get(keyword)]
            for keyword in ("SpacingBetweenSlices", "SliceThickness")
        )
        alike = bool(thicknesses) and max(thicknesses) - min(thicknesses) <= 0.01 * max(thicknesses)
        referred = [
            len({image.get("ReferencedSOPInstanceUID") for image in series.get("ReferencedInstanceSequence", ())})
            for series in dataset.get("ReferencedSeriesSequence", ())
        ]
        return cls(distances[0] if distances else None, thicknesses[0] if alike else None, max(referred, default=0))


class Steps(NamedTuple):
    """How many slices of the grid lie between each slice with a frame and the next one, from 1.

    :ivar doubt: a sentence, if it is guessed; "" otherwise.
    """

    steps: list[int]
    doubt: str = ""


def says_distance(path: Path) -> bool:
    """Return whether the distance of slices is in the header of a file; true if it is no DICOM segmentation."""
    return not is_dicom_seg(path) or SliceHeader.of(read_header(path)).distance is not None


def find_steps(
    places: np.ndarray,
    normal: np.ndarray,
    header: SliceHeader,
    image: Geometry | None = None,
    other: Geometry | None = None,
) -> Steps:
    """Find the slices between those that have frames.

    SpacingBetweenSlices counts where it fits all gaps; else the slices of the image, if the frames lie in them, or
    those of the other segmentation, unless the frames are thicker and can touch; else SliceThickness, if slices of it
    can touch. Where they can only if some between have no frame, they do if the segmentation refers to as many images;
    otherwise the largest distance that fits all gaps counts. It is a doubt if frames lie in every third slice of the
    image or of the other segmentation, and are three times as thick: they may be of another series.

    :param places: of the slices with frames, ``(n, 3)``, mm, in their order along ``normal``.
    :param image: the grid of the image that was segmented.
    :param other: the grid of another segmentation of the same patient.
    """
    gaps = np.diff(places @ normal)
    if not len(gaps):
        return Steps([])
    if header.distance and (steps := _whole(gaps, header.distance, _tolerance(header.distance))):
        return Steps(steps)
    thickness = header.thickness or 0.0
    if image is not None and (steps := _steps_in(image, places, normal)):
        return Steps(steps, _doubt_of_image(steps, float(gaps.sum()) / sum(steps), thickness))
    if other is not None and (steps := _steps_in(other, places, normal)):
        return _steps_beside(steps, gaps, thickness)
    if steps := _whole(gaps, thickness, _FITS_WELL):
        common = int(np.gcd.reduce(steps))
        if common == 1:
            return Steps(steps)
        what = f"Its frames are {common * thickness:.4g} mm apart, or a multiple of it, and {thickness:.4g} mm thick."
        if header.images > sum(steps):
            refers = f"As it refers to {header.images:,} images, it is taken to have empty slices between."
            return Steps(steps, f"{what} {refers} {_UNKNOWN}")
        return Steps([step // common for step in steps], f"{what} {_NONE_BETWEEN} {_UNKNOWN}")
    smallest = float(gaps[gaps <= _ONE_STEP * gaps.min()].mean())
    mean = float(gaps.sum() / np.rint(gaps / smallest).sum())  # rounded by less of a slice than the smallest gaps
    further = [] if header.distance else [smallest / parts for parts in range(2, _MOST_PARTS + 1)]
    for parts, distance in enumerate([mean, *further], 1):
        if steps := _whole(gaps, distance, _tolerance(distance) if parts == 1 else _FITS_WELL):
            if parts == 1 and distance < _TOUCHING * thickness:
                return Steps(steps)
            return Steps(
                steps, f"Its frames are {distance:.4g} mm apart, or a multiple of it. {_NONE_BETWEEN} {_UNKNOWN}"
            )
    return Steps([1] * len(gaps))  # which form no grid


def _steps_beside(steps: list[int], gaps: np.ndarray, thickness: float) -> Steps:
    """Return the steps between frames that lie in slices of another segmentation.

    :param steps: counted in those slices.
    """
    distance = float(gaps.sum()) / sum(steps)
    touching = _whole(gaps, thickness, _FITS_WELL)
    # Thick slices beside a finer drawing are common. Frames in every third slice of a series whose slices overlap, so
    # that three steps are one thickness, are not; either mistake makes volumes three times wrong.
    if not touching or thickness < _TOUCHING * distance:
        return Steps(steps)
    return Steps(
        touching,
        f"Its frames are {thickness:.4g} mm thick, and as far apart or a multiple of it, so they are taken to touch, "
        f"although slices are {distance:.4g} mm apart in the other segmentation. {_UNKNOWN}",
    )


def _doubt_of_image(steps: list[int], distance: float, thickness: float) -> str:
    """Return a sentence if frames that lie in slices of an image may also be those of a series with thicker ones.

    :param distance: between slices of the image, mm.
    """
    common = int(np.gcd.reduce(steps))
    if common == 1 or abs(thickness / distance - common) >= _FITS_WELL * common:
        return ""
    return (
        f"Its frames are {common * distance:.4g} mm apart, or a multiple of it, and as thick, so they may touch. As "
        f"they lie in slices that are {distance:.4g} mm apart in the image, it is taken to have empty slices between. "
        f"{_UNKNOWN}"
    )


def _tolerance(distance: float) -> float:
    """Return how far gaps between slices may be from whole numbers of them, as a part of their distance, mm."""
    return _FITS + rounding(distance) / distance


def _whole(gaps: np.ndarray, distance: float, tolerance: float) -> list[int]:
    """Return how many times a distance fits into each gap; nothing if it does not.

    :param tolerance: of what is left, as a part of the distance.
    """
    if distance <= 0:
        return []
    times = gaps / distance
    fits = np.abs(times - np.rint(times)).max() < tolerance and times.min() > 0.5
    return np.rint(times).astype(int).tolist() if fits else []


def _steps_in(image: Geometry, places: np.ndarray, normal: np.ndarray) -> list[int]:
    """Return how many slices of an image lie between each place and the next; nothing if the places are not in them."""
    along = image.axes.T @ normal  # what a step along each axis goes along the normal
    axis = int(np.abs(along).argmax())
    if np.delete(np.abs(along), axis).max() > _PARALLEL * abs(along[axis]):
        return []
    slices = (places - image.origin) @ normal / along[axis]
    if np.abs(slices - np.rint(slices)).max() >= _tolerance(abs(along[axis])):
        return []
    steps = np.abs(np.diff(np.rint(slices))).astype(int)
    return steps.tolist() if steps.min() > 0 else []
