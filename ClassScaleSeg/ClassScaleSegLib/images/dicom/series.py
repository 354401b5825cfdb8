"""Read a DICOM series, or an object with many frames, as one volume whose geometry every slice confirms.

ITK decodes the pixels. It takes the geometry from the first two slices and the pixel type from the first one, without
a word on the others; so order, geometry, rescaling and type come from the headers of all slices.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ImageError, named
from ..geometry import Geometry
from ..image_file import ReadVolume
from .headers import Slice, distinguishing, is_dicom, read_slices, visible_files
from .pixels import decode

# Objects that accompany images and have rows and columns too.
_NO_IMAGES = {"SEG", "RTDOSE", "PR", "SR", "KO", "RWV", "REG"}
_NEEDLESS: tuple[tuple[Callable[[Slice], bool], str], ...] = (
    (lambda piece: piece.modality in _NO_IMAGES, "it is no image"),
    (lambda piece: piece.localizer, "it is a localizer"),
    (lambda piece: piece.position is None, "its images have no position"),
)
_LARGEST_TILT = 60  # degrees
_DISTANCE_TOLERANCE = 0.005  # of the distance between slices
# Positions may be rounded to 0.1 mm, whether or not zeros follow. What is farther from equal steps is no rounding.
_ROUNDED = (0.1, 0.25)  # mm, and slices
WORTH_A_WORD = 0.01  # mm
# What every slice must have, and what all slices must have alike, with tolerances: 0.02 mm at the end of 400 mm.
_PLACE = {
    "position (ImagePositionPatient)": "position",
    "orientation (ImageOrientationPatient)": "directions",
    "pixel spacing (PixelSpacing)": "spacing",
}
_ALIKE = {
    "size": ("size", 0),
    "number of values in a pixel": ("samples", 0),
    "pixel spacing": ("spacing", 5e-5),
    "orientation": ("directions", 5e-5),
}


def read_series(folder: Path) -> ReadVolume:
    """Read the DICOM series in a folder, which may also hold localizers, structure sets, segmentations and other files.

    :raises ImageError: if there is no series or more than one, or its slices do not form a regular grid.
    """
    notices: list[str] = []
    return _volume(folder, _only_series(folder, notices), notices)


def read_places(path: Path, files: Sequence[Path] = ()) -> tuple[list[Slice], Geometry]:
    """Return the slices of a volume in its order, and its grid, as `read_series` reads it, without the pixels.

    :param path: the folder of a series, or one DICOM file with one or many frames; for messages, if there are `files`.
    :param files: the files of the series, if they are known.
    :raises ImageError: as `read_series`.
    """
    notices: list[str] = []
    if files:
        slices = [piece for file in files for piece in read_slices(file)]
    else:
        slices = _only_series(path, notices) if path.is_dir() else read_slices(path)
    if not slices:
        raise ImageError(f"{path} is a DICOM file without an image. Name the folder of the series.")
    with named(path):
        return _placed(slices, notices)


def _only_series(folder: Path, notices: list[str]) -> list[Slice]:
    """Return the slices of the only series in a folder that is a volume."""
    series: dict[str, list[Slice]] = {}
    for file in visible_files(folder):
        if file.is_symlink() and not file.exists():
            raise ImageError(f"{file} is a link whose target is missing. Fetch the files of the series first.")
        for piece in read_slices(file) if file.is_file() and is_dicom(file) else []:
            series.setdefault(piece.series, []).append(piece)
    if not series:
        raise ImageError(f"{folder} has no DICOM series. {_where_they_are(folder)}")
    for needless, what in _NEEDLESS:
        kept = {uid: pieces for uid, pieces in series.items() if not all(map(needless, pieces))}
        if kept and len(series) > 1:
            notices += [f"{_title(pieces)} is left out: {what}." for uid, pieces in series.items() if uid not in kept]
            series = kept
    if all(any(all(map(needless, pieces)) for needless, _ in _NEEDLESS[:2]) for pieces in series.values()):
        found = "; ".join(f"{_title(pieces)}: {not_a_volume(pieces)}" for pieces in series.values())
        raise ImageError(f"{folder} has no volume to segment, only {found}. {_where_they_are(folder)}")
    if len(series) > 1:
        found = "; ".join(map(_title, series.values()))
        raise ImageError(
            f"{folder} has {len(series)} DICOM series: {found}. Name a folder with one of them: classscaleseg dicom "
            "sort makes a folder of each."
        )
    (slices,) = series.values()
    return slices


def not_a_volume(slices: Sequence[Slice]) -> str | None:
    """Return why nobody would segment a series, such as "it is a localizer"; ``None`` if somebody may."""
    return next((what for needless, what in _NEEDLESS if all(map(needless, slices))), None)


def read_object(file: Path) -> ReadVolume:
    """Read one DICOM file that holds a volume in many frames.

    :raises ImageError: if it is one slice of a series or not an image, or its frames do not form a regular grid.
    """
    slices, doubts = _named_by_itself(file)
    if slices[0].frames == 1:
        remedy = "Name the folder that holds all of its slices."
        if slices[0].localizer:
            remedy = "The header calls it a localizer, which is no volume: name the folder of the series itself."
        raise ImageError(f"{file} is one slice of a DICOM series. {remedy}")
    return _volume(file, slices, doubts)


def doubts_of_slice(file: Path) -> tuple[str, ...]:
    """Return sentences on a single slice, which a 2D model may be asked to segment.

    :raises ImageError: if its header is damaged, or it is no image, as a segmentation.
    """
    return tuple(f"{file}: {doubt}" for doubt in _named_by_itself(file)[1])


def _named_by_itself(file: Path) -> tuple[list[Slice], list[str]]:
    """Return the slices of a file, and sentences on what would be left out if it was in a folder.

    :raises ImageError: as `doubts_of_slice`.
    """
    slices = read_slices(file)
    if not slices:
        raise ImageError(f"{file} is a DICOM file without an image. Name the folder of the series.")
    if slices[0].modality in _NO_IMAGES:
        raise ImageError(
            f"{file} accompanies images and is none (Modality {slices[0].modality}). Name the folder of the series."
        )
    if all(piece.localizer for piece in slices):
        return slices, [
            "The header calls it a localizer, of which a folder would be refused. It is segmented as named."
        ]
    return slices, []


def same_series(files: Sequence[Path]) -> bool:
    """Return whether the files are slices of one DICOM series, as ``*.dcm`` gives them.

    :raises ImageError: if a header is damaged.
    :raises OSError: if a file cannot be read.
    """
    if len(files) < 2 or not all(is_dicom(file) for file in files[:2]):
        return False
    first, second = (read_slices(file) for file in files[:2])
    return bool(first and second) and first[0].series == second[0].series and first[0].frames == second[0].frames == 1


def _where_they_are(folder: Path) -> str:
    """Say what to do about a folder without slices: as on a CD, they may be further down."""
    for file in sorted(itertools.islice(folder.rglob("*"), 1000)):
        slices = read_slices(file) if file.is_file() and is_dicom(file) else []
        if slices and not_a_volume(slices) is None:
            return (
                f"Give the folder with the slices, such as {file.parent}. If there are several: classscaleseg dicom "
                "sort makes a folder of each series."
            )
    return "Give the folder with the slices, or an image file."


def _title(slices: Sequence[Slice]) -> str:
    first = slices[0]
    description = f"{first.description!r} " if first.description else ""
    return f"series {description}{first.series} ({first.modality or 'no modality'}, {len(slices)} images)"


def _volume(path: Path, slices: list[Slice], notices: list[str]) -> ReadVolume:
    """Check the slices, put them in order, and decode them."""
    with named(path):
        ordered, geometry = _placed(slices, notices)
        image = decode(ordered)
        geometry.apply(image)
    return ReadVolume.of_image(image, tuple(f"{path}: {notice}" for notice in notices))


def _placed(slices: list[Slice], notices: list[str]) -> tuple[list[Slice], Geometry]:
    """Check the slices, leave out those that are none of the volume, and put the others in order."""
    slices = _without_copies(slices, notices)
    slices = _without_localizers(slices, notices)
    _check_alike(slices)
    if (places := len({piece.frame_of_reference for piece in slices})) > 1:
        notices.append(
            f"Its slices have {places} frames of reference (FrameOfReferenceUID), as after the patient has moved, so "
            "they may not lie where the volume has them."
        )
    return arrange(slices, notices)


def _without_copies(slices: list[Slice], notices: list[str]) -> list[Slice]:
    """Leave out objects that are there twice, known by their unique identifier."""
    first: dict[tuple, Slice] = {}
    copies = [
        piece for piece in slices if first.setdefault((piece.instance, piece.frame, piece.position), piece) is not piece
    ]
    if copies:
        notices.append(f"{_listed(copies)} left out: the same slices are there twice.")
    return list(first.values())


def _without_localizers(slices: list[Slice], notices: list[str]) -> list[Slice]:
    localizers = [piece for piece in slices if piece.localizer]
    if localizers and len(localizers) < len(slices):
        notices.append(f"{_listed(localizers)} left out: the header calls it a localizer.")
        return [piece for piece in slices if not piece.localizer]
    return slices


def _listed(slices: Sequence[Slice]) -> str:
    names = ", ".join(piece.name for piece in slices[:3])
    return names if len(slices) <= 3 else f"{names} and {len(slices) - 3} more"


def _check_alike(slices: list[Slice]) -> None:
    """Require of all slices what makes a volume: a place, and the same size, spacing and orientation.

    :raises ImageError: naming the slices that differ from most.
    """
    for what, known in _PLACE.items():
        without = [piece for piece in slices if getattr(piece, known) is None]
        if without:
            raise ImageError(
                f"{len(without)} of {len(slices)} slices have no {what}, so the place of the voxels is unknown: "
                f"{_listed(without)}. Export the original series."
            )
    for what, (field, tolerance) in _ALIKE.items():
        values = np.array([np.atleast_1d(getattr(piece, field)) for piece in slices], float)
        usual = Counter(map(tuple, values.tolist())).most_common(1)[0][0]
        differ = (np.abs(values - usual) > tolerance).any(1)
        if differ.any():
            odd = [slices[index] for index in np.flatnonzero(differ)]
            raise ImageError(
                f"{len(odd)} of {len(slices)} slices ({_listed(odd)}) have another {what} than the others: "
                f"{_plain(getattr(odd[0], field))} instead of {_plain(usual)}. Move them to a separate folder."
            )
    if slices[0].samples > 1 or not all(piece.grey for piece in slices):
        raise ImageError("It has colours, and the model needs grey values. Export the original series.")
    if any(piece.looked_up for piece in slices):
        raise ImageError("It stores its values by a lookup table (Modality LUT), which cannot be read. Convert it.")
    if any("MOSAIC" in piece.image_type for piece in slices):
        raise ImageError(
            "It is a mosaic: one picture with all slices of a volume. Convert it to NIfTI, as by dcm2niix."
        )


def _plain(numbers: Any) -> str:
    return ", ".join(f"{number:.6g}" for number in np.atleast_1d(numbers))


def arrange(slices: list[Slice], notices: list[str]) -> tuple[list[Slice], Geometry]:
    """Put the slices in the order of their places along the normal, and fit the grid that they form.

    :param notices: gets sentences that the user should see.
    :raises ImageError: if they do not form a regular grid.
    """
    row, column = np.reshape(np.array(slices[0].directions), (2, 3))
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3):
        raise ImageError(
            f"The orientation {_plain(slices[0].directions)} is not two perpendicular directions. Export it again."
        )
    row = row / np.linalg.norm(row)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    column = np.cross(normal, row)
    slices = sorted(slices, key=lambda piece: float(normal @ np.array(piece.position)))
    origin, step = _regular_steps(slices, normal, notices)
    across = step - (step @ normal) * normal  # of a tilted gantry: the steps are not perpendicular to the slices
    drift, length = float(np.linalg.norm(across)) * (len(slices) - 1), float(np.linalg.norm(step))
    if drift <= WORTH_A_WORD:
        step, length = step @ normal * normal, float(step @ normal)
    elif drift > _ROUNDED[0]:
        angle = np.degrees(np.arccos(step @ normal / length))
        if angle > _LARGEST_TILT:
            raise ImageError(f"The steps between slices lie {angle:.0f} degrees from their normal: this is no volume.")
        notices.append(f"The slices are tilted by {angle:.1f} degrees (gantry tilt). The result has the same geometry.")
    (rows, columns), (between_rows, between_columns) = slices[0].size, slices[0].spacing or (1.0, 1.0)
    geometry = Geometry(
        size=(columns, rows, len(slices)),
        spacing=(between_columns, between_rows, length),
        origin=tuple(origin.tolist()),
        direction=tuple(np.stack([row, column, step / length], 1).ravel().tolist()),
    )
    return slices, geometry


def _regular_steps(slices: list[Slice], normal: np.ndarray, notices: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of the first slice and the step to the next one, which fit the places of all slices best.

    :param slices: in the order of their places along ``normal``.
    :raises ImageError: if a slice is away from its place on this grid by more than rounding explains.
    """
    places = np.array([piece.position for piece in slices])
    if len(slices) == 1:
        if not slices[0].distance:
            raise ImageError("It has a single slice without a thickness. Name the folder that holds all slices.")
        notices.append("There is only one slice.")
        return places[0], slices[0].distance * normal
    gaps = np.diff(places @ normal)
    same = int(gaps.argmin())
    if gaps[same] <= 0.01 * gaps.max():
        first, second = slices[same : same + 2]
        differences = distinguishing(first.file, second.file)
        hint = f" They differ in {', '.join(differences)}." if differences else ""
        raise ImageError(
            f"{first.name} and {second.name} are at the same place: there are several volumes.{hint} Move the slices "
            "of one volume to a separate folder."
        )
    index = np.arange(len(slices)) - (len(slices) - 1) / 2
    step = index @ places / (index @ index)
    origin = places.mean(0) + index[0] * step
    away = np.linalg.norm(places - places.mean(0) - index[:, None] * step, axis=1).max()
    length = float(np.linalg.norm(step))
    if gaps.max() > 1.5 * gaps.min() + 1e-6 or away > _DISTANCE_TOLERANCE * length + rounding(length):
        widest = int(gaps.argmax())
        raise ImageError(
            f"Its slices are {gaps.min():.2f} to {gaps.max():.2f} mm apart: some are missing, such as between "
            f"{slices[widest].name} and {slices[widest + 1].name}, or several volumes are mixed. They are up to "
            f"{away:.2f} mm away from equal steps. Export the series again, or resample it to equal distances."
        )
    if away > WORTH_A_WORD:
        notices.append(rounded_places(away))
    return origin, step


def rounding(distance: float) -> float:
    """Return how far slices may be from their places by rounding, mm: so far that it is clear which place is meant.

    :param distance: between slices, mm.
    """
    return min(_ROUNDED[0], _ROUNDED[1] * distance)


def rounded_places(away: float) -> str:
    """Return a sentence on slices that are up to so many mm away from their places."""
    return f"The places of the slices are rounded: up to {away:.2f} mm away from a regular grid."
