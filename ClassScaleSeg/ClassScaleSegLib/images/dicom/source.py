"""Read from a DICOM series what a segmentation of it needs besides the labels: the patient, the study, and the places.

It is read before the long computation, so a series that cannot have a DICOM segmentation is refused at once, and its
files may be moved away meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import OutputError
from ..geometry import Geometry
from .headers import Slice, is_dicom
from .series import read_places

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_OTHER_FORMAT = "Write .seg.nrrd instead, or segment the DICOM series itself."


@dataclass(frozen=True)
class SourceSeries:
    """A DICOM series that was segmented, without its pixels.

    :ivar name: the folder or file, for messages.
    :ivar slices: in the order of the rows of the label map.
    :ivar geometry: the grid that they form.
    :ivar header: pydicom's data set of the first slice, without pixels.
    :ivar frame_of_reference: FrameOfReferenceUID. If the series has none, one that depends on the series alone, so that
        several segmentations of it agree.
    :ivar notices: sentences that the user should see.
    """

    name: str
    slices: tuple[Slice, ...]
    geometry: Geometry
    header: Dataset
    frame_of_reference: str
    notices: tuple[str, ...]


def read_source(path: str | Path, files: Sequence[Path] = ()) -> SourceSeries:
    """Read the headers of the series that is segmented.

    :param path: the folder of a DICOM series, or a DICOM file with many frames; for messages, if there are `files`.
    :param files: the files of the series, if they are known, as they are to a DICOM database.
    :raises OutputError: if it is not DICOM, or lacks what a segmentation must refer to; the message says what to do.
    :raises ImageError: if the slices are not one volume, as :func:`~.series.read_series` says.
    """
    path = Path(path)
    try:
        if not files and not path.is_dir() and not is_dicom(path):
            raise OutputError(
                f"{path} is no DICOM series, so a DICOM segmentation of it would have no patient, study and frame of "
                f"reference. {_OTHER_FORMAT}"
            )
        slices, geometry = read_places(path, files)
        header = _header(slices[0].file)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be read ({error.strerror}), and a DICOM segmentation refers to the series that was "
            "segmented. Name its folder, or write .seg.nrrd."
        ) from error
    _check_identity(path, slices)
    places, notices = {piece.frame_of_reference for piece in slices}, []
    if len(places) > 1:
        raise OutputError(
            f"{path} has {len(places)} frames of reference (FrameOfReferenceUID), so the places of its slices cannot "
            f"be compared. {_OTHER_FORMAT}"
        )
    (frame_of_reference,) = places
    if not frame_of_reference:
        from pydicom.uid import generate_uid

        frame_of_reference = generate_uid(entropy_srcs=[slices[0].series])
        notices.append(
            f"{path} has no frame of reference (FrameOfReferenceUID); the segmentation gets one of its own. Viewers "
            "that compare them may not show it over the images."
        )
    return SourceSeries(str(path), tuple(slices), geometry, header, str(frame_of_reference), tuple(notices))


def _header(file: Path) -> Dataset:
    import pydicom

    return pydicom.dcmread(file, stop_before_pixels=True, force=True)


def _check_identity(path: Path, slices: Sequence[Slice]) -> None:
    """Require the identifiers by which a segmentation refers to images, and one patient and study.

    :raises OutputError: naming a slice without them.
    """
    for what, known in (
        ("study (StudyInstanceUID)", lambda piece: piece.study),
        ("series (SeriesInstanceUID)", lambda piece: piece.series),
        ("kind (SOPClassUID)", lambda piece: piece.kind),
        ("identifier (SOPInstanceUID)", lambda piece: piece.instance != str(piece.file)),
    ):
        if missing := [piece for piece in slices if not known(piece)]:
            raise OutputError(
                f"{missing[0].file} has no {what}, to which a DICOM segmentation must refer. {_OTHER_FORMAT}"
            )
    if len({piece.study for piece in slices}) > 1:
        raise OutputError(f"{path} has slices of several studies, and a segmentation is part of one. {_OTHER_FORMAT}")
    if len({piece.patient for piece in slices if piece.patient}) > 1:
        raise OutputError(
            f"{path} has slices of several patients (PatientID), and a segmentation belongs to one. Find out whose "
            "they are, and correct it where they come from."
        )
