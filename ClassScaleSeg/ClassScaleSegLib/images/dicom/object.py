"""What all DICOM objects made from a segmentation have in common: patient, study, models, character set, grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import OutputError
from ...labels.label import Code
from ..geometry import Geometry
from .headers import Slice
from .letters import keep_letters, one_value
from .source import SourceSeries

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

MAKER = "ClassScaleSeg"
# The longest texts of the value representations LO (names, meanings) and SH (coding schemes), in characters. Codes with
# more than 16 characters have an element of their own (Long Code Value).
LONGEST_TEXT, LONGEST_SCHEME = 64, 16
_LONGEST_CODE = 16
_WHOLE_GROUPS = (0x0010, 0x0012)  # the patient, the clinical trial
_OF_A_SERIES = (0x00120071, 0x00120072)  # of the clinical trial
EMPTY = (  # elements that must be there, if only without a value
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"),
)
_OF_THE_STUDY = (
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "ReferencedStudySequence"),
    *("AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferencedPatientSequence", "ProcedureCodeSequence"),
    *("ReferringPhysicianName", "ReferringPhysicianIdentificationSequence"),
    *("ConsultingPhysicianName", "ConsultingPhysicianIdentificationSequence"),
    *("PhysiciansOfRecord", "PhysiciansOfRecordIdentificationSequence"),
    *("NameOfPhysiciansReadingStudy", "PhysiciansReadingStudyIdentificationSequence"),
    *("RequestingService", "RequestingServiceCodeSequence", "ReasonForPerformedProcedureCodeSequence"),
    *("AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence"),
    *("ReasonForVisit", "ReasonForVisitCodeSequence", "AdmissionID", "IssuerOfAdmissionIDSequence", "PatientState"),
    *("ServiceEpisodeID", "ServiceEpisodeDescription", "IssuerOfServiceEpisodeIDSequence"),
)


@dataclass(frozen=True)
class UsedModel:
    """A model, as the DICOM objects of a segmentation name it.

    :ivar sha256: of its file; ``None`` if it is not known.

    >>> UsedModel("Organs", licence="CC0-1.0").name
    'Organs'
    """

    name: str
    licence: str | None = None
    sha256: str | None = None


class Texts:
    """Shortens texts to the length that DICOM allows, so that they still differ, and remembers which."""

    def __init__(self) -> None:
        self._shortened: dict[tuple[str, int], str] = {}
        self._begun: dict[str, int] = {}  # how many texts begin so

    def short(self, text: str, longest: int = LONGEST_TEXT) -> str:
        """Return the beginning of ``text``, at most ``longest`` characters.

        It gets a number if that of another text was the same, such as that of two names of models behind one class.

        >>> texts = Texts()
        >>> texts.short("a name of many words", longest=10), texts.short("a name of many letters", longest=10)
        ('a name of', 'a name (2)')
        """
        text = one_value(text)
        if len(text) <= longest:
            return text.rstrip()
        if (text, longest) not in self._shortened:
            short = text[:longest].rstrip()
            count = self._begun[short] = self._begun.get(short, 0) + 1
            if count > 1:
                number = f" ({count})"
                short = text[: longest - len(number)].rstrip() + number
            self._shortened[text, longest] = short
        return self._shortened[text, longest]

    def tell(self, tell: Callable[[str], object]) -> None:
        """Call ``tell`` with a sentence on what was shortened, if anything was."""
        if self._shortened:
            texts = list(dict.fromkeys(text for text, _longest in self._shortened))
            listing = ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
            tell(f"Texts that are longer than DICOM allows were shortened: {listing}.")


def parameters(models: Sequence[UsedModel]) -> dict[str, str]:
    """Return what the algorithm's parameters say of the models; of several, with their numbers.

    >>> parameters([UsedModel("Organs", licence="CC0-1.0")])
    {'model': 'Organs', 'licence': 'CC0-1.0'}
    """
    found: dict[str, str] = {}
    for number, model in enumerate(models, start=1):
        suffix = f"_{number}" if len(models) > 1 else ""
        facts = {"model": model.name, "licence": model.licence, "sha256": model.sha256}
        found |= {f"{key}{suffix}": one_value(value) for key, value in facts.items() if value}
    return found


def series_description(models: Sequence[UsedModel]) -> str:
    """Return the description of a series of results, of at most 64 characters."""
    return one_value(f"{MAKER} {', '.join(model.name for model in models)}")[:LONGEST_TEXT].rstrip()


def series_number(header: Dataset, shift: int) -> int:
    """Return the number of a series of results, which follows from that of the images, if they have one."""
    number = value_of(header, "SeriesNumber")
    return shift + number if number and 0 < number < 2**31 - shift else shift


def value_of(header: Dataset, keyword: str) -> Any:
    """Return a value of a header; ``None`` if it is missing, empty or damaged."""
    try:
        value = header.get(keyword)
        return None if value in (None, "") else value
    except Exception:  # pydicom raises whatever a damaged value makes Python raise
        return None


def check_grid(geometry: Geometry, series: SourceSeries) -> None:
    """Refuse a segmentation that is not on the grid of a series.

    :raises OutputError: if sizes differ, or voxels are more than half of the smallest spacing apart.
    """
    own, other = geometry, series.geometry
    if own.size != other.size or own.distance(other) > min(own.spacing) / 2:
        found = f"{own.size} voxels instead of {other.size}"
        if own.size == other.size:
            found = f"voxels up to {own.distance(other):.3g} mm away"
        raise OutputError(
            f"The segmentation is not on the grid of {series.name}: it has {found}. Give the series that was segmented."
        )


def instance_reference(piece: Slice) -> Dataset:
    """Return the item that names the object of a slice."""
    from pydicom.dataset import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = piece.kind, piece.instance
    return reference


def instances(series: SourceSeries) -> list[Slice]:
    """Return one slice of each object of a series, in their order."""
    return list({piece.instance: piece for piece in series.slices}.values())


def coded(code: Code, texts: Texts) -> Dataset:
    """Return the item of a code sequence. A code without a meaning is its own meaning, as DICOM wants one."""
    from pydicom.dataset import Dataset

    code = replace(code, value=one_value(code.value))
    item, address = Dataset(), code.value.startswith("urn") or "://" in code.value
    long = "URNCodeValue" if address else "LongCodeValue"
    setattr(item, "CodeValue" if len(code.value) <= _LONGEST_CODE else long, code.value)
    item.CodingSchemeDesignator = texts.short(code.scheme, LONGEST_SCHEME)
    item.CodeMeaning = texts.short(code.meaning) or texts.short(code.value)
    return item


def empty_object(kind: str, header: Dataset) -> FileDataset:
    """Return an object of a new series with the patient and the study of ``header``, in Implicit VR Little Endian.

    :param kind: its SOPClassUID.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ImplicitVRLittleEndian, generate_uid

    meta, now = FileMetaDataset(), datetime.now()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(kind), generate_uid()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    found = FileDataset("", {}, preamble=bytes(128), file_meta=meta)
    copy_patient_and_study(found, header)
    found.SOPClassUID, found.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    found.SeriesInstanceUID = generate_uid()
    found.InstanceCreationDate, found.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    return found


def write_object(path: Path, found: FileDataset) -> None:
    """Write an object in Implicit VR Little Endian, which allows contours of any length.

    :raises OSError: if the file cannot be written.
    """
    from pydicom.filebase import DicomFileLike
    from pydicom.filewriter import write_dataset, write_file_meta_info

    with path.open("wb") as file:
        writer = DicomFileLike(file)
        writer.is_implicit_VR, writer.is_little_endian = True, True
        writer.write(bytes(128) + b"DICM")
        write_file_meta_info(writer, found.file_meta)
        write_dataset(writer, found)


def copy_patient_and_study(target: Dataset, header: Dataset) -> None:
    """Copy what a series says of the patient and the study, as it is; leave out elements that cannot be read."""
    from pydicom.datadict import tag_for_keyword

    for keyword in EMPTY:
        setattr(target, keyword, "")
    study = set(map(tag_for_keyword, _OF_THE_STUDY))
    as_read = {tag: header.get_item(tag) for tag in header.keys()}  # noqa: SIM118
    for tag in header.keys():  # noqa: SIM118 - the items of a data set are its elements
        if tag in study or tag.group in _WHOLE_GROUPS and tag not in _OF_A_SERIES:
            try:
                target.add(header[tag])
            except Exception:  # pydicom raises whatever a damaged value makes Python raise
                continue
    for tag, element in as_read.items():  # pydicom replaces the bytes of what is asked for
        header[tag] = element


def choose_character_set(target: Dataset, header: Dataset, texts: Iterable[str]) -> None:
    """Keep the character set of the series if it has all letters of the texts; otherwise take UTF-8.

    What was copied from the series keeps its letters.
    """
    from pydicom.charset import convert_encodings

    given = value_of(header, "SpecificCharacterSet")
    try:
        encodings = convert_encodings(given) if given else ["ascii"]
    except LookupError:  # pydicom does not know it
        encodings = ["ascii"]
    kept = all(_encodable(text, encodings) for text in texts)
    if kept and given:
        target.SpecificCharacterSet = given
    elif not kept:
        target.SpecificCharacterSet = "ISO_IR 192"
    keep_letters(target, header)


def _encodable(text: str, encodings: Sequence[str]) -> bool:
    for encoding in encodings:
        try:
            text.encode(encoding)
        except (UnicodeError, LookupError):
            continue
        return True
    return False
