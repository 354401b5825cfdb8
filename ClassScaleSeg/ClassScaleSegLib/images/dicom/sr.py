"""Write the measures of all classes as a DICOM structured report, which refers to a DICOM segmentation.

highdicom makes the report: Comprehensive 3D SR with the template TID 1500, in which every class is a group of
measurements (TID 1411) that names its segment. The template has no place for a centroid or a box of voxels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ClassScaleError, OutputError, reason
from ...labels.label import Code, Label
from ...labels.table import LabelTable
from ...version import VERSION
from ..measures import LabelMeasures
from .deflate import read_header
from .headers import is_dicom_seg
from .object import (
    EMPTY,
    MAKER,
    Texts,
    choose_character_set,
    coded,
    copy_patient_and_study,
    series_number,
    value_of,
)
from .seg import refuse_missing_highdicom
from .segments import CATEGORY, label_value

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CT = frozenset(f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("2", "2.1", "2.2"))
_MR = frozenset(f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("4", "4.1", "4.4"))
_SIDES = {"7771000", "24028007", "51440002", "66459002"}  # left, right, both, one: of SNOMED CT
# No standard scheme has these two in this meaning: the area of a surface, and an intensity of any image
_SURFACE = Code("99CSS", "SURFACE", "Surface area")
_INTENSITY = Code("99CSS", "INTENSITY", "Intensity")
_NOTHING = LabelMeasures(0, 0.0, 0.0, (0.0, 0.0, 0.0), (0, 0, 0), (0, 0, 0), touches_edge=False)
_DERIVED = {
    "mean": Code("SCT", "373098007", "Mean"),
    "median": Code("SCT", "373099004", "Median"),
    "standard_deviation": Code("SCT", "386136009", "Standard Deviation"),
    "minimum": Code("SCT", "255605001", "Minimum"),
    "maximum": Code("SCT", "56851009", "Maximum"),
}


def write_dicom_sr(path: Path, measures: Mapping[int, LabelMeasures], table: LabelTable, segmentation: Path) -> None:
    """Write the measures of the classes that occur as a structured report. An existing file is replaced.

    :param measures: as from `Segmentation.measures`. If there are none, the first class of the segmentation is reported
        with a volume of 0, as a report needs one.
    :param table: has a label for each of them.
    :param segmentation: the DICOM segmentation of the same result. Patient, study and references come from its header.
    :raises OutputError: if highdicom is missing, or ``segmentation`` cannot be read, is no DICOM segmentation, or lacks
        a class.
    :raises OSError: if the file cannot be written.
    """
    refuse_missing_highdicom()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on values of the series that the standard does not allow
        try:
            report = _Report(segmentation, table, Texts()).document(measures)
            report.save_as(path, enforce_file_format=True)
        except (ClassScaleError, OSError, MemoryError):
            raise
        except Exception as error:  # highdicom and pydicom raise whatever a header makes them raise
            raise OutputError(
                f"{segmentation} does not allow a report that refers to it ({reason(error)}). Write .csv."
            ) from error


class _Report:
    """Makes the report on one segmentation."""

    def __init__(self, segmentation: Path, table: LabelTable, texts: Texts) -> None:
        self._name, self._table, self._texts = str(segmentation), table, texts
        self._header = _header(segmentation)
        self._segments = {label_value(item): item for item in self._header.SegmentSequence}
        self._images = [
            (str(series.SeriesInstanceUID), str(image.ReferencedSOPClassUID), str(image.ReferencedSOPInstanceUID))
            for series in self._header.get("ReferencedSeriesSequence") or ()
            for image in series.get("ReferencedInstanceSequence") or ()
        ]
        if not self._images:
            raise OutputError(
                f"{segmentation} does not say which images it belongs to, so a report cannot refer to it."
            )
        self._kind = self._images[0][1]
        self._made, self._algorithm = _algorithm(self._header.SegmentSequence)

    def document(self, measures: Mapping[int, LabelMeasures]) -> Any:
        """Return the whole report."""
        from highdicom import sr
        from pydicom.sr.codedict import codes
        from pydicom.uid import ExplicitVRLittleEndian, generate_uid

        device = sr.DeviceObserverIdentifyingAttributes(
            uid=generate_uid(entropy_srcs=[MAKER, VERSION]),
            name=MAKER,
            manufacturer_name=MAKER,
            model_name=MAKER,
            serial_number=VERSION,
        )
        observer = sr.ObserverContext(codes.DCM.Device, device)
        measures = measures or {next(value for value in self._segments if value): _NOTHING}
        groups = [self._group(self._table[value], found) for value, found in measures.items()]
        procedures = {_CT: codes.LN.CTUnspecifiedBodyRegion, _MR: codes.LN.MRIUnspecifiedBodyRegion}
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=observer),
            procedure_reported=next(
                (code for kinds, code in procedures.items() if self._kind in kinds), codes.SCT.ImagingProcedure
            ),
            imaging_measurements=groups[:1],
            title=codes.DCM.ImagingMeasurementReport,
        )
        report = sr.Comprehensive3DSR(
            evidence=self._evidence(),
            content=content[0],
            series_instance_uid=generate_uid(),
            series_number=series_number(self._header, 2000),
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=MAKER,
            software_versions=VERSION,
            device_serial_number=VERSION,
            series_description=f"{MAKER} measurements",
            is_complete=True,
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        if (
            groups
        ):  # highdicom copies and checks the whole tree several times: it gets the first group, which they are like
            *_, last = report.ContentSequence
            last.ContentSequence.extend(group[0] for group in groups[1:])
        copy_patient_and_study(report, self._header)
        labels = [self._table[value] for value in measures]
        known = [code for label in labels for code in label.codes.values() if code]
        written = [text for code in known for text in (code.scheme, code.value, code.meaning)]
        choose_character_set(report, self._header, [*(label.name for label in labels), *written, *map(str, self._made)])
        return report

    def _evidence(self) -> list[Dataset]:
        """Return the identities of the segmentation and of its images, as highdicom wants them."""
        from pydicom.dataset import Dataset

        evidence, header = [], self._header
        own = (str(header.SeriesInstanceUID), str(header.SOPClassUID), str(header.SOPInstanceUID))
        for series, kind, instance in (own, *self._images):
            fact = Dataset()
            for keyword in EMPTY:
                setattr(fact, keyword, "")
            fact.StudyInstanceUID, fact.SeriesInstanceUID = header.StudyInstanceUID, series
            fact.SOPClassUID, fact.SOPInstanceUID = kind, instance
            evidence.append(fact)
        return evidence

    def _group(self, label: Label, found: LabelMeasures) -> Any:
        """Return the measurements of one class.

        :raises OutputError: if the segmentation has no segment for it.
        """
        from highdicom import sr

        segment = self._segments.get(label.value)
        if segment is None:
            raise OutputError(
                f"{self._name} has no segment for {label.name} (label value {label.value}). Give the DICOM "
                "segmentation of the same result."
            )
        series = sr.SourceSeriesForSegmentation(self._images[0][0])
        kind = label.type or label.category or CATEGORY
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(identifier=label.name),
            referenced_segment=sr.ReferencedSegment(
                self._header.SOPClassUID, self._header.SOPInstanceUID, int(segment.SegmentNumber), source_series=series
            ),
            finding_type=self._concept(kind),
            finding_category=self._concept(label.category or CATEGORY),
            finding_sites=self._sites(label),
            algorithm_id=self._algorithm,
            measurements=list(self._measurements(found)),
        )

    def _sites(self, label: Label) -> list[Any] | None:
        """Return where a class is: its region, or else the structure itself, with its side or part."""
        from highdicom import sr

        place, part = (label.region, label.region_modifier) if label.region else (label.type, label.type_modifier)
        if place is None:
            return None
        side = part is not None and part.value in _SIDES
        known = self._concept(part) if part else None
        return [sr.FindingSite(self._concept(place), known if side else None, None if side else known)]

    def _measurements(self, found: LabelMeasures) -> Iterator[Any]:
        from highdicom.sr import Measurement
        from pydicom.sr.codedict import codes

        yield Measurement(codes.SCT.Volume, found.volume_ml, codes.UCUM.CubicCentimeter)
        yield Measurement(self._concept(_SURFACE), found.surface_mm2, codes.UCUM.SquareMillimeter)
        name, unit = self._concept(_INTENSITY), codes.UCUM.NoUnits
        if self._kind in _CT:
            name, unit = codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit
        elif self._kind in _MR:
            name = codes.DCM.MRSignalIntensity
        for statistic, derivation in _DERIVED.items() if found.intensities else ():
            value = getattr(found.intensities, statistic)
            yield Measurement(name, value, unit, derivation=self._concept(derivation))

    def _concept(self, code: Code) -> Any:
        from highdicom.sr import CodedConcept

        return CodedConcept.from_dataset(coded(code, self._texts), copy=False)


def _header(path: Path) -> Dataset:
    """Return the header of a DICOM segmentation.

    :raises OutputError: if it cannot be read, or is something else.
    """
    if not is_dicom_seg(path):
        raise OutputError(
            f"{path} cannot be read as a DICOM segmentation, to which the report would refer. Give the .seg.dcm that "
            "was written from this result."
        )
    try:
        return read_header(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror}).") from error


def _algorithm(segments: Sequence[Dataset]) -> tuple[list[str], Any]:
    """Return what the segments say of the algorithm that found them: its texts, and the item of a report."""
    from highdicom.sr import AlgorithmIdentification

    for segment in segments:
        for known in segment.get("SegmentationAlgorithmIdentificationSequence") or ():
            name, version = (str(known.get(keyword) or "") for keyword in ("AlgorithmName", "AlgorithmVersion"))
            parameters = str(value_of(known, "AlgorithmParameters") or "")
            if name and version:
                item = AlgorithmIdentification(name, version, [parameters] if parameters else None)
                return [name, version, parameters], item
    return [], None
