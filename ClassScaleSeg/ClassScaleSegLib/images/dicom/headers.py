"""Read the headers of DICOM files into one `Slice` for each image plane, whether a file holds one or many.

Positions, orientations, spacings and rescaling are read here with pydicom; the pixels are not read.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, MutableSequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from ...errors import DamagedImageError, ImageError, named, reason
from .letters import decoded

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

# What tells volumes of one series apart, in the words of the DICOM standard.
_DISTINGUISHING = (
    "EchoNumbers",
    "EchoTime",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "DiffusionBValue",
    "AcquisitionNumber",
    "ContentTime",
    "ImageType",
)
_PIXELS = ("Rows", "Columns", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")  # all images have them
_TAGS = (
    *_PIXELS,
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "Modality"),
    *("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("NumberOfFrames", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "SamplesPerPixel", "BitsAllocated"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    "ImageType",
)
# In objects of these classes ITK takes one rescaling for all frames: the shared one, or else that of the first frame.
# In all others it takes the one outside of the functional groups.
_RESCALED_BY_GROUPS = {
    f"1.2.840.10008.5.1.4.1.1.{number}"
    for number in ("2.1", "2.2", "4.1", "4.4", "130", "128.1", "13.1.1", "13.1.2", "13.1.3")
}


STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_PIXEL_DATA, _UNDEFINED = (0x7FE00008, 0x7FE00009, 0x7FE00010), 0xFFFFFFFF  # elements, and a length
_SHORTEST_ELEMENT = 8  # bytes before its content: tag and length
_DEFLATED = "1.2.840.10008.1.2.1.99"  # the transfer syntax of a file whose elements are compressed together
# those of pixels that are not compressed; the last one is GE's
_PLAIN = ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", _DEFLATED, "1.2.840.113619.5.2")
_NOTHING = SimpleNamespace(value=None)  # an element that is missing


@dataclass(frozen=True)
class Rescale:
    """From stored to real values: ``slope * stored + intercept``."""

    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True)
class Slice:
    """One plane of an image, as its header describes it. Coordinates are LPS, in mm.

    :ivar file: the file that holds it.
    :ivar frame: its index among the frames of the file.
    :ivar frames: number of frames of the file.
    :ivar kind: SOPClassUID of the file; "" if not given.
    :ivar instance: SOPInstanceUID of the file.
    :ivar series: SeriesInstanceUID.
    :ivar patient: PatientID; "" if not given.
    :ivar study: StudyInstanceUID; "" if not given.
    :ivar frame_of_reference: FrameOfReferenceUID; "" if not given.
    :ivar description: SeriesDescription.
    :ivar modality: such as ``CT``.
    :ivar image_type: such as ``("ORIGINAL", "PRIMARY", "AXIAL")``.
    :ivar size: rows and columns.
    :ivar samples: values in a pixel: 3 for colour images.
    :ivar spacing: between rows, and between columns; ``None`` if not given.
    :ivar directions: along a row, and along a column: six numbers; ``None`` if not given.
    :ivar position: of the centre of the first pixel; ``None`` if not given.
    :ivar distance: to the next slice, or else the thickness, as the header of this slice has it; ``None`` if not given.
    :ivar rescale: from stored to real values.
    :ivar itk_rescale: the rescaling that ITK applies.
    :ivar stored: smallest and largest value that a pixel can store.
    :ivar inverted: the photometric interpretation is MONOCHROME1, for which ITK turns the stored values upside down.
    :ivar grey: the photometric interpretation is neither of colours nor of a palette.
    :ivar looked_up: real values are found in a lookup table, which ITK ignores.
    :ivar missing: bytes of the pixels that the file declares and does not have; ITK takes zeros for them.
    """

    file: Path
    frame: int
    frames: int
    kind: str
    instance: str
    series: str
    patient: str
    study: str
    frame_of_reference: str
    description: str
    modality: str
    image_type: tuple[str, ...]
    size: tuple[int, int]
    samples: int
    spacing: tuple[float, ...] | None
    directions: tuple[float, ...] | None
    position: tuple[float, ...] | None
    distance: float | None
    rescale: Rescale
    itk_rescale: Rescale
    stored: tuple[int, int]
    inverted: bool
    grey: bool
    looked_up: bool
    missing: int = 0

    @property
    def localizer(self) -> bool:
        """Whether the image type says so."""
        return "LOCALIZER" in self.image_type

    @property
    def name(self) -> str:
        """The file, with the number of the frame if it has several."""
        return self.file.name if self.frames == 1 else f"frame {self.frame + 1} of {self.file.name}"


def visible_files(folder: Path) -> list[Path]:
    """Return what is in a folder but hidden files: those that a killed process left are not whole.

    :raises OSError: if it cannot be read.
    """
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def is_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM files do, with or without the preamble of 128 bytes.

    :raises OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or start[:2] == b"\x08\x00" and start[3:4] == b"\x00" and len(start) == 132


def is_dicom_seg(path: Path) -> bool:
    """Return whether a file can be read and says at its beginning that it is a DICOM segmentation."""
    return _class_of(path) in _SEGMENTATIONS


def is_structure_set(path: Path) -> bool:
    """Return whether a file can be read and says at its beginning that it is an RT Structure Set."""
    return (_class_of(path) or _class_without_preamble(path)) == STRUCTURE_SET


def _class_of(path: Path) -> str | None:
    """Return the SOP class that a DICOM file has at its beginning; ``None`` if it has none, or cannot be read."""
    try:
        if not (path.is_file() and is_dicom(path)):
            return None
        from pydicom.filereader import read_file_meta_info

        return read_file_meta_info(path).get("MediaStorageSOPClassUID")
    except Exception:  # pydicom raises whatever a damaged value makes Python raise
        return None


def _class_without_preamble(path: Path) -> str | None:
    """Return the SOP class of a DICOM file that lacks the preamble, as old ones do; ``None`` if there is none."""
    try:
        if not (path.is_file() and is_dicom(path)):
            return None
        from pydicom.filereader import read_partial

        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_partial(file, stop_when=lambda tag, *_: tag > 0x00080016, force=True).get("SOPClassUID")
    except Exception:  # pydicom raises whatever a damaged value makes Python raise
        return None


def read_slices(path: Path) -> list[Slice]:
    """Read the header of a DICOM file.

    :param path: a file for which `is_dicom` is true.
    :returns: a slice for each frame; none if the file is not an image, such as a structure set.
    :raises ImageError: if the header is damaged; the message names the file.
    """
    from pydicom.filereader import read_partial

    if is_dicom_seg(path):  # of a compressed one, pydicom would hold all pixels
        return []
    with named(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on values that it accepts in spite of the standard
        try:
            wanted: list[BaseTag | int] = [_tag(keyword) for keyword in _TAGS]
            lengths: list[int] = []
            with path.open("rb") as file:
                dataset = read_partial(file, partial(_at_pixels, lengths), force=True, specific_tags=wanted)
                syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "").strip(" \0")
                if lengths and lengths[0] != _UNDEFINED and syntax != _DEFLATED:
                    # reading has stopped before the element
                    lengths[0] = min(lengths[0], os.fstat(file.fileno()).st_size - file.tell() - _SHORTEST_ELEMENT)
            if not any(_tag(keyword) in dataset for keyword in _PIXELS):
                return []
            missing = _missing_bytes(dataset, lengths) if syntax in _PLAIN else 0
            return [replace(each, missing=missing) if missing else each for each in slices_in(path, dataset)]
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # pydicom raises whatever a damaged value makes Python raise
            raise DamagedImageError(
                f"Its DICOM header is damaged ({reason(error)}). Export the series again."
            ) from error


def _at_pixels(lengths: list[int], tag: BaseTag, vr: str | None, length: int) -> bool:
    """Return whether an element has the pixels, and note its length in bytes if it does."""
    if int(tag) in _PIXEL_DATA:
        lengths.append(length)
        return True
    return False


def _missing_bytes(dataset: Dataset, lengths: list[int]) -> int:
    """Return how many bytes of pixels that are not compressed an image lacks of those that it declares.

    :param lengths: that of the element with the pixels in bytes, if there is one; no more than the file has.
    """
    file = _Header(dataset, ())
    if not lengths or lengths[0] == _UNDEFINED or file.integer("SamplesPerPixel", 1) != 1:
        return 0
    pixels = file.integer("NumberOfFrames", 1) * file.integer("Rows", 0) * file.integer("Columns", 0)
    return max(0, pixels * file.integer("BitsAllocated", 0) // 8 - lengths[0])


def slices_in(path: Path, dataset: Dataset) -> Iterator[Slice]:
    """Yield a slice for each frame of an image that pydicom has read.

    :param path: its file.
    :raises ImageError: as `read_slices`.
    """
    file = _Header(dataset, ())
    frames = file.integer("NumberOfFrames", 1)
    shared = next(iter(dataset.get(_tag("SharedFunctionalGroupsSequence"), _NOTHING).value or ()), None)
    each = list(dataset.get(_tag("PerFrameFunctionalGroupsSequence"), _NOTHING).value or ())
    if each and len(each) != frames:
        raise ImageError(f"It declares {frames} frames and describes {len(each)}. Export it again.")
    rows, columns = file.integer("Rows", 0), file.integer("Columns", 0)
    if not (rows and columns):
        raise ImageError("Its DICOM header has no size of the image (Rows, Columns). Export the series again.")
    kind = file.text("SOPClassUID")
    by_groups = kind in _RESCALED_BY_GROUPS
    itk_rescale = _Header(dataset, (shared, each[0] if each else None) if by_groups else ()).rescale()
    bits, signed = file.integer("BitsStored", 16), file.integer("PixelRepresentation", 0)
    photometric = file.text("PhotometricInterpretation")
    for index in range(len(each) or 1):
        header = _Header(dataset, (each[index] if each else None, shared))
        place = header.numbers("ImagePositionPatient", 3, "PlanePositionSequence")
        distance = header.numbers("SpacingBetweenSlices", 1, "PixelMeasuresSequence")
        distance = distance or header.numbers("SliceThickness", 1, "PixelMeasuresSequence")
        yield Slice(
            file=path,
            frame=index,
            frames=frames,
            kind=kind,
            instance=file.text("SOPInstanceUID") or str(path),
            series=file.text("SeriesInstanceUID"),
            patient=file.letters("PatientID"),
            study=file.text("StudyInstanceUID"),
            frame_of_reference=file.text("FrameOfReferenceUID"),
            description=file.letters("SeriesDescription"),
            modality=file.text("Modality"),
            image_type=tuple(file.text("ImageType").upper().split("\\")),
            size=(rows, columns),
            samples=file.integer("SamplesPerPixel", 1),
            spacing=header.numbers("PixelSpacing", 2, "PixelMeasuresSequence"),
            directions=header.numbers("ImageOrientationPatient", 6, "PlaneOrientationSequence"),
            position=place if frames == (len(each) or 1) else None,  # one place is not that of many frames
            distance=abs(distance[0]) if distance else None,
            rescale=header.rescale() if each or shared else itk_rescale,
            itk_rescale=itk_rescale,
            stored=(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1),
            inverted=photometric == "MONOCHROME1",
            grey=photometric in ("", "MONOCHROME1", "MONOCHROME2"),
            looked_up=bool(dataset.get(_tag("ModalityLUTSequence"), _NOTHING).value),
        )


def distinguishing(path: Path, other: Path) -> list[str]:
    """Return which of the elements differ between two files that tell volumes of one series apart.

    :returns: their keywords in the DICOM standard.
    """
    import pydicom

    one, two = (pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in (path, other))
    return [keyword for keyword in _DISTINGUISHING if one.get(keyword) != two.get(keyword)]


@cache
def _tag(keyword: str) -> BaseTag:
    from pydicom.tag import Tag

    return Tag(keyword)


@dataclass(frozen=True)
class _Header:
    """The values that hold for one frame: from the first of its functional groups that has them, or from the file."""

    dataset: Dataset
    groups: tuple[Dataset | None, ...]

    def values(self, keyword: str, sequence: str | None = None) -> list[str]:
        """Return the values of an element as they are written; none if it is missing or empty."""
        tag = _tag(keyword)
        items: list[Dataset] = []
        for group in self.groups if sequence is not None else ():
            found = group.get(_tag(sequence)) if group is not None else None
            items += found.value[:1] if found else []
        for holder in (*items, self.dataset):
            element = holder.get_item(tag) if tag in holder else None
            if element is None or element.value is None:
                continue
            if isinstance(element.value, bytes):  # as in the file: pydicom converts it when it is asked to, slowly
                texts = element.value.decode("utf-8", "replace").split("\\")
            else:
                many = element.value if isinstance(element.value, MutableSequence) else [element.value]
                texts = [str(getattr(one, "original_string", one)) for one in many]
            if texts := [text.strip(" \0") for text in texts if text.strip(" \0")]:
                return texts
        return []

    def text(self, keyword: str) -> str:
        """Return the values of an element of the file, joined; "" if it is missing."""
        return "\\".join(self.values(keyword))

    def letters(self, keyword: str) -> str:
        """Return the text in an element of the file, by its character set; "" if it is missing."""
        element = self.dataset.get_item(_tag(keyword)) if _tag(keyword) in self.dataset else None
        if element is None or not isinstance(element.value, bytes) or element.value.isascii():
            return self.text(keyword)
        return decoded(element.value, self.text("SpecificCharacterSet")).strip(" \0")

    def integer(self, keyword: str, default: int) -> int:
        """Return the number in an element of the file; ``default`` if it is missing or empty."""
        element = self.dataset.get(_tag(keyword), _NOTHING)
        return default if element.value in (None, "") else int(element.value)

    def numbers(self, keyword: str, count: int, sequence: str | None = None) -> tuple[float, ...] | None:
        """Return the numbers of an element; ``None`` if it is missing or empty.

        :raises ImageError: if it has not ``count`` finite numbers.
        """
        texts = self.values(keyword, sequence)
        try:
            found = tuple(map(float, texts))
        except ValueError:
            found = ()
        if texts and not (len(found) == count and all(map(math.isfinite, found))):
            raise ImageError(f"{keyword} must be {count} number(s), not {' '.join(texts)[:80]!r}. Export it again.")
        return found or None

    def rescale(self) -> Rescale:
        """Return the rescaling, which does nothing where none is given."""
        slope = self.numbers("RescaleSlope", 1, "PixelValueTransformationSequence") or (1.0,)
        intercept = self.numbers("RescaleIntercept", 1, "PixelValueTransformationSequence") or (0.0,)
        if slope[0] == 0:
            raise ImageError("RescaleSlope is 0, which makes all voxels equal. Export it again.")
        return Rescale(slope[0], intercept[0])


def modality_of(path: Path) -> str | None:
    """Return the modality in the header of a DICOM file, or of the first image in a DICOM folder, such as "CT".

    :returns: ``None`` if it is not DICOM, cannot be read, or does not say.
    """
    try:
        for file in visible_files(path) if path.is_dir() else [path]:
            if file.is_file() and is_dicom(file):
                for piece in read_slices(file):
                    return piece.modality or None
    except (OSError, ImageError):
        return None
    return None
