"""What RT Structure Sets say besides their contours: names, codes, colours, volumes, patient and study."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib import Code, DicomSeg, Label, LabelTable, Segmentation, UsedModel
from ClassScaleSegLib.images.dicom.source import read_source
from ClassScaleSegLib.version import VERSION

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")
pytest.importorskip("contourpy")

from dicom_results import TABLE, segmented, series  # noqa: E402

NAME = "result.rtstruct.dcm"


def test_names_that_are_alike_are_told_apart(tmp_path):
    source = series(tmp_path)
    names = ["a (3)", "a", "a", "b" * 70, "b" * 80, "a (3, 2)"]
    table = LabelTable(tuple(Label(value, f"Segment_{value}", name, (1, 2, 3)) for value, name in enumerate(names, 1)))
    geometry = segmented(source).geometry
    labels = np.zeros(geometry.size[::-1], np.uint16)
    labels.flat[:6] = range(1, 7)
    told = []
    Segmentation(labels, table, geometry).write(tmp_path / NAME, source=DicomSeg(source, tell=told.append))
    found = [item.ROIName for item in pydicom.dcmread(tmp_path / NAME).StructureSetROISequence]
    assert found[:3] == ["a (3)", "a", "a (3, 2)"] and len(set(found)) == 6 and max(map(len, found)) <= 64
    assert len(told) == 1


def test_names_codes_colours_and_volumes(tmp_path):
    odd = Label(
        900,
        "Segment_900",
        "Größe 'f' / 肝臓",
        (1, 254, 128),
        category=Code("SCT", "49755003", "Morphologically Abnormal Structure"),
        type=Code("99LOCAL", "a code of more than sixteen characters", "Something"),
        region=Code("SCT", "39607008", "Lung"),
        region_modifier=Code("SCT", "24028007", "Right"),
    )
    source, table = (
        series(tmp_path),
        LabelTable((*TABLE, odd, replace(odd, value=901, id="Segment_901", name="absent"))),
    )
    ours = Segmentation(segmented(source).labels, table, segmented(source).geometry)
    ours.labels[0, 0] = 900
    models = (UsedModel("Organs", "CC-BY-4.0", "ab" * 32),)
    ours.write(tmp_path / NAME, source=DicomSeg(source, models=models), keep_empty=True)
    found = pydicom.dcmread(tmp_path / NAME)
    listed = found.StructureSetROISequence
    volumes = {row.value: row.volume_ml for row in ours.statistics()}
    assert [(item.ROINumber, item.ROIName) for item in listed] == [(row.value, row.name) for row in table.foreground]
    assert all(item.ROIVolume == pytest.approx(volumes[item.ROINumber]) for item in listed)
    assert [tuple(item.ROIDisplayColor) for item in found.ROIContourSequence] == [row.color for row in table.foreground]
    assert ["ContourSequence" in item for item in found.ROIContourSequence] == [True] * 6 + [False]
    for item in listed:
        assert item.ROIGenerationAlgorithm == "AUTOMATIC"
        assert item.ROIGenerationDescription == f"ClassScaleSeg {VERSION} Organs"
        (algorithm,) = item.ROIDerivationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("ClassScaleSeg", VERSION)
        assert "".join(algorithm.AlgorithmParameters) == f"model Organs, licence CC-BY-4.0, sha256 {'ab' * 32}"
    assert found.StructureSetDescription.startswith(f"6 structures found by ClassScaleSeg {VERSION}; model Organs")
    by_number = {item.ReferencedROINumber: item for item in found.RTROIObservationsSequence}
    kidney, plain, other = by_number[2], by_number[3], by_number[900]
    assert kidney.RTROIIdentificationCodeSequence[0].CodeMeaning == "Kidney" and kidney.RTROIInterpretedType == "ORGAN"
    (side,) = kidney.RTROIIdentificationCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert side.CodeMeaning == "Left"
    assert "RTROIIdentificationCodeSequence" not in plain and plain.RTROIInterpretedType == ""
    assert other.RTROIIdentificationCodeSequence[0].LongCodeValue == "a code of more than sixteen characters"
    assert other.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003" and other.RTROIInterpretedType == ""
    assert other.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeMeaning == "Right"


def test_long_names_are_shortened_with_a_word_and_stay_different(tmp_path):
    long, said = "a" * 60 + " class with a long name", []
    names = {1: long, 2: long + " 2", 3: "same", 4: "same"}
    source = series(tmp_path)
    ours = Segmentation(segmented(source).labels % 5, LabelTable.from_names(names), segmented(source).geometry)
    models = (UsedModel("m" * 20000),)
    ours.write(tmp_path / NAME, source=DicomSeg(source, models=models, tell=said.append))
    found = pydicom.dcmread(tmp_path / NAME)
    assert [item.ROIName for item in found.StructureSetROISequence] == [
        *("a" * 60 + " cla", "a" * 60 + " (2)", "same", "same (4)"),
    ]
    assert len(said) == 1 and "were shortened: " in said[0] and long in said[0]
    assert len(found.StructureSetDescription) <= 1024 and len(found.SeriesDescription) <= 64


@pytest.mark.parametrize(("characters", "name"), [("ISO_IR 100", "Äneas^Rüdiger"), (None, "Doe^John")])
def test_patient_and_study_are_those_of_the_series(tmp_path, characters, name):
    facts = {"PatientName": name, "PatientBirthDate": "19700102", "AccessionNumber": "7", "StudyDescription": "abdomen"}
    source = series(tmp_path, SpecificCharacterSet=characters, SeriesNumber=3, **facts)
    segmented(source).write(tmp_path / NAME, source=source)
    given, found = pydicom.dcmread(source / "IM0000.dcm"), pydicom.dcmread(tmp_path / NAME)
    for keyword in (*facts, "PatientID", "StudyInstanceUID", "StudyID", "SpecificCharacterSet"):
        assert found.get(keyword) == given.get(keyword), keyword
    assert found.SeriesInstanceUID != given.SeriesInstanceUID and found.SeriesNumber == 2003
    table = LabelTable.from_names({**TABLE.names, 5: "печень"})
    Segmentation(segmented(source).labels, table, segmented(source).geometry).write(
        tmp_path / "b.rtstruct.dcm", source=source
    )
    found = pydicom.dcmread(tmp_path / "b.rtstruct.dcm")
    assert found.SpecificCharacterSet == "ISO_IR 192" and str(found.PatientName) == name
    assert found.StructureSetROISequence[-1].ROIName == "печень"


def test_a_series_that_lacks_most_things_is_enough(tmp_path):
    lacking = dict.fromkeys(("PatientID", "PatientName", "StudyID", "SeriesNumber", "FrameOfReferenceUID", "Modality"))
    source, said = series(tmp_path, **lacking), []
    segmented(source).write(tmp_path / NAME, source=DicomSeg(source, tell=said.append))
    found = pydicom.dcmread(tmp_path / NAME)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyID"):
        assert keyword in found and not found[keyword].value, keyword
    assert found.StructureSetROISequence[0].ReferencedFrameOfReferenceUID == read_source(source).frame_of_reference
    assert "no frame of reference" in said[0] and found.SeriesNumber == 2000


def test_without_any_structure_it_lists_one_without_contours(tmp_path):
    source = series(tmp_path)
    grid = read_source(source).geometry
    Segmentation(np.zeros(grid.size[::-1], np.uint16), TABLE, grid).write(tmp_path / NAME, source=source)
    found = pydicom.dcmread(tmp_path / NAME)
    assert [item.ROIName for item in found.StructureSetROISequence] == ["liver"]
    assert "ContourSequence" not in found.ROIContourSequence[0]
