"""Statistics as a DICOM structured report: every number and code comes back, and every group names its segment."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib import Code, DicomSeg, LabelTable, OutputError, OutputExistsError, Segmentation, UsedModel
from ClassScaleSegLib.images.dicom.deflate import read_header
from ClassScaleSegLib.images.reading import read_image
from ClassScaleSegLib.version import VERSION

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")
highdicom = pytest.importorskip("highdicom", reason="needs highdicom, as the extra [dicom] installs it")

from dicom_phantom import ENHANCED_MR, MR, PET, planes, write_frames  # noqa: E402
from dicom_results import REFERENCE, TABLE, TABLES, labelled, segmented, series  # noqa: E402

STATISTICS = {
    "Mean": "mean",
    "Median": "median",
    "Standard Deviation": "standard_deviation",
    "Minimum": "minimum",
    "Maximum": "maximum",
}


def reported(folder, source, table: LabelTable = TABLE, image: bool = True, kind: str = "labelmap", **choices):
    """Write a segmentation and its report; return the result, the segmentation's data set, and highdicom's report."""
    result = segmented(source, table)
    result.write(folder / "a.seg.dcm", source=DicomSeg(source, kind, **choices))
    result.write_statistics(folder / "a.sr.dcm", image=source if image else None, segmentation=folder / "a.seg.dcm")
    return result, pydicom.dcmread(folder / "a.seg.dcm"), highdicom.sr.srread(folder / "a.sr.dcm")


def groups(report) -> list:
    return report.content.get_volumetric_roi_measurement_groups()


def numbers(group) -> dict[tuple[str, str | None], tuple[float, str]]:
    """Return value and unit of each measurement, by its name and derivation."""
    found = {}
    for measurement in group.get_measurements():
        derivation = measurement.derivation
        key = measurement.name.meaning, derivation.meaning if derivation is not None else None
        assert key not in found
        found[key] = measurement.value, measurement.unit.value
    return found


@pytest.mark.parametrize("kind", ["labelmap", "binary"])
@pytest.mark.parametrize("bits", TABLES)
def test_every_measure_comes_back_beside_its_segment(tmp_path, bits, kind):
    source = series(tmp_path)
    result, segmentation, report = reported(tmp_path, source, TABLES[bits], kind=kind)
    measures, names = result.measures(source), {}
    assert len(groups(report)) == len(measures) == 5
    for (value, expected), group in zip(measures.items(), groups(report), strict=True):
        found = numbers(group)
        assert found.pop(("Volume", None)) == (expected.volume_ml, "cm3")
        assert found.pop(("Surface area", None)) == (expected.surface_mm2, "mm2")
        for derivation, field in STATISTICS.items():
            given = found.pop(("Attenuation Coefficient", derivation))
            assert given == (getattr(expected.intensities, field), "[hnsf'U]")
        assert not found
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        assert reference.referenced_sop_class_uid == segmentation.SOPClassUID
        (number,) = reference.referenced_segment_numbers
        (segment,) = (item for item in segmentation.SegmentSequence if item.SegmentNumber == number)
        assert segment.SegmentLabel == group.tracking_identifier == result.table[value].name
        names[group.tracking_uid] = value
    assert len(names) == 5


def test_the_report_belongs_to_patient_study_and_images(tmp_path):
    facts = {"PatientName": "Äneas^Rüdiger", "PatientSex": "F", "AccessionNumber": "7", "StudyDescription": "abdomen"}
    source = series(tmp_path, SpecificCharacterSet="ISO_IR 100", SeriesNumber=3, **facts)
    models = (UsedModel("Organs", "CC-BY-4.0", "ab" * 32),)
    _, segmentation, report = reported(tmp_path, source, models=models)
    for keyword in (*facts, "PatientID", "StudyInstanceUID", "StudyID", "SpecificCharacterSet"):
        assert report[keyword].value == segmentation[keyword].value, keyword
    assert str(report.PatientName) == facts["PatientName"]
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34" and report.Modality == "SR"
    assert report.SeriesInstanceUID != segmentation.SeriesInstanceUID and report.Manufacturer == "ClassScaleSeg"
    evidence = {instance for *_, instance, _ in report.get_evidence()}
    images = {pydicom.dcmread(file).SOPInstanceUID for file in source.iterdir()}
    assert evidence == images | {segmentation.SOPInstanceUID}
    texts = [str(item.get("TextValue")) for item in report.ContentSequence]
    assert "ClassScaleSeg" in texts and VERSION in texts  # the observer is a device
    for group in groups(report):
        items = {item.name.meaning: item for item in group[0].ContentSequence}
        assert items["Algorithm Name"].value == "ClassScaleSeg" and items["Algorithm Version"].value == VERSION
        parameters = items["Algorithm Parameters"].value
        assert parameters == f"model=Organs,licence=CC-BY-4.0,sha256={'ab' * 32}"


def test_findings_and_sites_have_the_codes_of_the_classes(tmp_path):
    lung = replace(
        TABLE[5],
        name="печень",
        category=Code("SCT", "49755003", "Morphologically Abnormal Structure"),
        type=Code("SCT", "4147007", "Mass"),
        region=Code("SCT", "39607008", "Lung"),
        region_modifier=Code("SCT", "261183002", "Upper"),
    )
    source = series(tmp_path)
    _, _, report = reported(tmp_path, source, LabelTable((*(label for label in TABLE if label.value < 5), lung)))
    by_name = {group.tracking_identifier: group for group in groups(report)}
    assert report.SpecificCharacterSet == "ISO_IR 192"
    kidney, plain, mass = by_name["kidney_left"], by_name["cell 3"], by_name["печень"]
    assert (kidney.finding_type.meaning, kidney.finding_category.meaning) == ("Kidney", "Anatomical Structure")
    (site,) = kidney.finding_sites
    assert (site.value.meaning, site.laterality.meaning) == ("Kidney", "Left")
    assert plain.finding_type.value == "123037004" and not plain.finding_sites
    assert (mass.finding_type.meaning, mass.finding_category.value) == ("Mass", "49755003")
    (site,) = mass.finding_sites
    assert (site.value.meaning, site.topographical_modifier.meaning) == ("Lung", "Upper")


@pytest.mark.parametrize(("kind", "name"), [(MR, "MR Signal Intensity"), (PET, "Intensity")])
def test_intensities_of_other_images_have_no_unit(tmp_path, kind, name):
    source = series(tmp_path, SOPClassUID=kind, Modality="MR" if kind == MR else "PT")
    _, _, report = reported(tmp_path, source)
    found = numbers(groups(report)[0])
    assert {unit for (known, _), (_, unit) in found.items() if known.lower() == name.lower()} == {"1"}
    assert len(found) == 7


def test_of_a_multiframe_object(tmp_path):
    source = write_frames(tmp_path / "mr.dcm", planes(), ENHANCED_MR, **REFERENCE)
    _, segmentation, report = reported(tmp_path, source)
    instance = pydicom.dcmread(source).SOPInstanceUID
    assert {uid for *_, uid, _ in report.get_evidence()} == {instance, segmentation.SOPInstanceUID}


def test_without_an_image_or_without_a_structure(tmp_path):
    source = series(tmp_path)
    _, _, report = reported(tmp_path, source, image=False)
    assert set(numbers(groups(report)[0])) == {("Volume", None), ("Surface area", None)}
    image = read_image(source, 1)
    nothing = Segmentation(np.zeros_like(labelled(image.voxels[0])), TABLE, image.geometry)
    nothing.write(tmp_path / "b.seg.dcm", source=source)
    nothing.write_statistics(tmp_path / "b.sr.dcm", segmentation=tmp_path / "b.seg.dcm")
    (group,) = groups(highdicom.sr.srread(tmp_path / "b.sr.dcm"))
    assert group.tracking_identifier == "liver" and numbers(group)["Volume", None] == (0, "cm3")


def test_a_wrong_or_missing_segmentation_is_refused(tmp_path):
    source = series(tmp_path)
    result = segmented(source)
    with pytest.raises(
        OutputError, match="a report in DICOM refers to a DICOM segmentation. Write one .* or write .csv"
    ):
        result.write_statistics(tmp_path / "a.sr.dcm")
    for wrong in (tmp_path / "gone.seg.dcm", source / "IM0000.dcm", source):
        with pytest.raises(OutputError, match="cannot be read as a DICOM segmentation"):
            result.write_statistics(tmp_path / "a.sr.dcm", segmentation=wrong)
    other = LabelTable.from_names({0: "background", 7: "other"})
    Segmentation(np.where(result.labels > 0, 7, 0), other, result.geometry).write(tmp_path / "b.seg.dcm", source=source)
    with pytest.raises(OutputError, match=r"b.seg.dcm has no segment for liver \(label value 1\)"):
        result.write_statistics(tmp_path / "a.sr.dcm", segmentation=tmp_path / "b.seg.dcm")
    found = pydicom.dcmread(tmp_path / "b.seg.dcm")
    del found.ReferencedSeriesSequence
    found.save_as(tmp_path / "b.seg.dcm")
    with pytest.raises(OutputError, match="does not say which images it belongs to"):
        result.write_statistics(tmp_path / "a.sr.dcm", segmentation=tmp_path / "b.seg.dcm")
    assert sorted(os.listdir(tmp_path)) == ["b.seg.dcm", "series"]


def test_an_existing_report_is_kept_and_a_missing_package_is_named(tmp_path, monkeypatch):
    source = series(tmp_path)
    result, _, _ = reported(tmp_path, source)
    before = (tmp_path / "a.sr.dcm").read_bytes()
    with pytest.raises(OutputExistsError, match="already exists"):
        result.write_statistics(tmp_path / "a.sr.dcm", segmentation=tmp_path / "a.seg.dcm")
    monkeypatch.setitem(sys.modules, "highdicom", None)  # importing it fails
    with pytest.raises(OutputError, match="need the Python package highdicom"):
        result.write_statistics(tmp_path / "a.sr.dcm", overwrite=True, segmentation=tmp_path / "a.seg.dcm")
    assert (tmp_path / "a.sr.dcm").read_bytes() == before


def test_only_the_header_of_a_segmentation_is_decompressed(tmp_path):
    source = series(tmp_path, planes(shape=(200, 200)))
    result = segmented(source)
    result.write(tmp_path / "a.seg.dcm", source=source)
    whole = (tmp_path / "a.seg.dcm").read_bytes()
    expected = pydicom.dcmread(tmp_path / "a.seg.dcm")
    del expected.PixelData
    assert read_header(tmp_path / "a.seg.dcm") == expected
    (tmp_path / "a.seg.dcm").write_bytes(whole[: len(whole) - 5000])
    assert read_header(tmp_path / "a.seg.dcm") == expected
