"""Write an RT Structure Set: the outlines of the structures on the slices of the series, for radiotherapy.

pydicom makes the object. Every contour lies in the plane of its slice, as the header of that slice has it, so no
orientation, order or gantry tilt can move or mirror it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ClassScaleError, OutputError, reason
from ...labels.label import Code, Label
from ...labels.table import LabelTable
from ...version import VERSION
from ..contours import Outlines
from ..geometry import Geometry
from ..layers import layer_counts, layer_of_values
from .contours import EncodedContours
from .frames import decimals
from .headers import STRUCTURE_SET
from .object import (
    LONGEST_TEXT,
    MAKER,
    Texts,
    check_grid,
    choose_character_set,
    coded,
    empty_object,
    instance_reference,
    instances,
    parameters,
    series_description,
    series_number,
    value_of,
    write_object,
)
from .seg import DicomSeg
from .segments import CATEGORY
from .source import SourceSeries, read_source

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

_STUDY = "1.2.840.10008.3.1.2.3.1"  # retired, and what all writers give as the class of a study
_LEARNED = Code("DCM", "123110", "Artificial Intelligence")
_ANATOMY = (CATEGORY.scheme, CATEGORY.value)
_LONGEST_DESCRIPTION, _LONGEST_PARAMETERS = 1024, 10240  # of ST and LT


def write_dicom_rtstruct(
    path: Path, layers: Sequence[np.ndarray], table: LabelTable, geometry: Geometry, choices: DicomSeg, keep_empty: bool
) -> None:
    """Write label maps, uint16 ``(z, y, x)``, as an RT Structure Set. An existing file is replaced.

    :param layers: one or more; several if classes overlap, of which each is in one.
    :param table: a label for every value but 0 that occurs.
    :param geometry: must be the grid of the series.
    :param choices: the series, the models and ``tell`` count; the kind of segmentation does not.
    :param keep_empty: list classes without voxels too. Without any class, the first one is listed, as readers expect
        one.
    :raises OutputError: if the series is not the one that was segmented, the table has no class, a package is missing,
        or the outlines have more points than a file can sensibly hold.
    :raises ImageError: as `read_source`.
    :raises OSError: if the file cannot be written.
    """
    series = choices.series if isinstance(choices.series, SourceSeries) else read_source(choices.series)
    check_grid(geometry, series)
    by_layer = layer_counts(layers)
    counts = by_layer.sum(0)
    listed = [label for label in table.foreground if keep_empty or counts[label.value]] or list(table.foreground[:1])
    if not listed:
        raise OutputError("The label table has no class besides the background; a structure set needs one.")
    of_layer = layer_of_values(by_layer)
    values = [[label.value for label in listed if of_layer[label.value] == index] for index in range(len(layers))]
    outlines: dict[int, Outlines] = {}
    for layer, own in zip(layers, values, strict=True):
        outlines |= dict.fromkeys(own, Outlines(layer, own))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on values of the series that the standard does not allow
        try:
            texts = Texts()
            write_object(path, _structure_set(outlines, listed, counts, series, choices, texts))
        except (ClassScaleError, OSError, MemoryError):
            raise
        except Exception as error:  # pydicom raises whatever a header makes it raise
            raise OutputError(
                f"The headers of {series.name} do not allow a structure set ({reason(error)}). Write .seg.nrrd."
            ) from error
    texts.tell(choices.tell)
    for notice in series.notices:
        choices.tell(notice)


def _structure_set(
    outlines: Mapping[int, Outlines],
    listed: Sequence[Label],
    counts: np.ndarray,
    series: SourceSeries,
    choices: DicomSeg,
    texts: Texts,
) -> FileDataset:
    """Return the whole object.

    :param outlines: for each label value those of its layer.
    """
    found = empty_object(STRUCTURE_SET, series.header)
    found.Modality, found.OperatorsName = "RTSTRUCT", ""
    found.SeriesNumber = series_number(series.header, 2000)
    found.SeriesDescription = series_description(choices.models)
    found.Manufacturer = found.ManufacturerModelName = MAKER
    found.DeviceSerialNumber = found.SoftwareVersions = VERSION
    found.FrameOfReferenceUID = series.frame_of_reference
    found.PositionReferenceIndicator = value_of(series.header, "PositionReferenceIndicator") or ""
    structures = sum(bool(counts[label.value]) for label in listed)
    said = f"{structures} structures found by {MAKER} {VERSION}"
    facts = ", ".join(f"{key} {value}" for key, value in parameters(choices.models).items())
    found.StructureSetLabel, found.InstanceNumber = MAKER, 1
    found.StructureSetDescription = texts.short(f"{said}; {facts}" if facts else said, _LONGEST_DESCRIPTION)
    found.StructureSetDate, found.StructureSetTime = found.InstanceCreationDate, found.InstanceCreationTime
    found.ReferencedFrameOfReferenceSequence = [_frame_of_reference(series)]
    models = ", ".join(model.name for model in choices.models)
    made = _how_it_was_made(f"{MAKER} {VERSION} {models}"[:LONGEST_TEXT].rstrip(), facts, texts)
    contours = EncodedContours(series)
    found.StructureSetROISequence, found.ROIContourSequence, found.RTROIObservationsSequence = [], [], []
    for number, (label, name) in enumerate(zip(listed, _names(listed, texts), strict=True), start=1):
        millilitres = float(counts[label.value]) * series.geometry.voxel_volume / 1000
        found.StructureSetROISequence.append(_structure(label, name, millilitres, series, made))
        found.ROIContourSequence.append(_contours(label, contours.encoded(outlines[label.value].of(label.value))))
        found.RTROIObservationsSequence.append(_observation(label, number, texts))
    codes = [code for label in listed for code in label.codes.values() if code]
    written = [*(label.name for label in listed), *(text for code in codes for text in (code.scheme, code.meaning))]
    choose_character_set(found, series.header, [*written, *(code.value for code in codes), models, facts])
    return found


def _names(listed: Sequence[Label], texts: Texts) -> list[str]:
    """Return the names of the structures, which differ: readers ask for a structure by its name."""
    names: dict[str, None] = {}
    for label in listed:
        name, count = texts.short(label.name), 1
        while name in names:
            number = f" ({label.value})" if count == 1 else f" ({label.value}, {count})"
            name, count = texts.short(label.name, LONGEST_TEXT - len(number)) + number, count + 1
        names[name] = None
    return list(names)


def _frame_of_reference(series: SourceSeries) -> Dataset:
    """Return the item that lists the images of the series."""
    from pydicom.dataset import Dataset

    frame, study, images = Dataset(), Dataset(), Dataset()
    images.SeriesInstanceUID = series.slices[0].series
    images.ContourImageSequence = [instance_reference(piece) for piece in instances(series)]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY, series.slices[0].study
    study.RTReferencedSeriesSequence = [images]
    frame.FrameOfReferenceUID = series.frame_of_reference
    frame.RTReferencedStudySequence = [study]
    return frame


def _how_it_was_made(description: str, facts: str, texts: Texts) -> Dataset:
    """Return what each structure says of the algorithm.

    :param facts: parameters of the algorithm; "" if there are none.
    """
    from pydicom.dataset import Dataset

    made, algorithm = Dataset(), Dataset()
    algorithm.AlgorithmFamilyCodeSequence = [coded(_LEARNED, texts)]
    algorithm.AlgorithmName, algorithm.AlgorithmVersion = MAKER, VERSION
    if facts:
        algorithm.AlgorithmParameters = texts.short(facts, _LONGEST_PARAMETERS)
    made.ROIGenerationAlgorithm, made.ROIGenerationDescription = "AUTOMATIC", description
    made.ROIDerivationAlgorithmIdentificationSequence = [algorithm]
    return made


def _structure(label: Label, name: str, millilitres: float, series: SourceSeries, made: Dataset) -> Dataset:
    """Return an item of StructureSetROISequence; the number of the structure is its label value."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ROINumber, item.ROIName = label.value, name
    item.ReferencedFrameOfReferenceUID = series.frame_of_reference
    (item.ROIVolume,) = decimals([millilitres])
    item.update(made)
    return item


def _observation(label: Label, number: int, texts: Texts) -> Dataset:
    """Return an item of RTROIObservationsSequence, which has the codes of a label, if there are any."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ObservationNumber, item.ReferencedROINumber = number, label.value
    if label.type:
        kind = coded(label.type, texts)
        if label.type_modifier:
            kind.SegmentedPropertyTypeModifierCodeSequence = [coded(label.type_modifier, texts)]
        item.RTROIIdentificationCodeSequence = [kind]
    if label.category:
        item.SegmentedPropertyCategoryCodeSequence = [coded(label.category, texts)]
    if label.region:
        region = coded(label.region, texts)
        if label.region_modifier:
            region.AnatomicRegionModifierSequence = [coded(label.region_modifier, texts)]
        item.AnatomicRegionSequence = [region]
    anatomy = label.category is not None and (label.category.scheme, label.category.value) == _ANATOMY
    item.RTROIInterpretedType = "ORGAN" if anatomy else ""
    item.ROIInterpreter = ""
    return item


def _contours(label: Label, encoded: bytes) -> Dataset:
    """Return an item of ROIContourSequence: the colour of a structure, and its contours."""
    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset
    from pydicom.tag import Tag

    item = Dataset()
    item.ROIDisplayColor = list(label.color)
    if encoded:
        tag = Tag("ContourSequence")
        item[tag] = RawDataElement(tag, "SQ", len(encoded), encoded, 0, True, True)
    item.ReferencedROINumber = label.value
    return item
