"""DICOM segmentations: every voxel is at its place, as pydicom, highdicom and dcmqi read it, and nothing is lost."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib import Code, DicomSeg, Label, LabelTable, Segmentation, UsedModel
from ClassScaleSegLib.images.dicom.object import LONGEST_TEXT
from ClassScaleSegLib.resources import resource
from ClassScaleSegLib.version import VERSION

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")
pytest.importorskip("highdicom", reason="needs highdicom, as the extra [dicom] installs it")

from dicom_phantom import ENHANCED_MR, planes, write_frames  # noqa: E402
from dicom_results import REFERENCE, TABLE, TABLES, VOLUMES, comparable, labelled, segmented, series  # noqa: E402


@pytest.mark.parametrize("bits", TABLES)
@pytest.mark.parametrize("name", VOLUMES)
def test_every_pixel_of_a_label_map_is_where_the_slice_has_it(tmp_path, name, bits):
    volume, table = VOLUMES[name], TABLES[bits]
    source = series(tmp_path, volume)
    ours = segmented(source, table)
    ours.write(tmp_path / "result.seg.dcm", source=source, keep_empty=True)
    found = pydicom.dcmread(tmp_path / "result.seg.dcm")
    assert found.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7" and found.SegmentationType == "LABELMAP"
    assert found.BitsAllocated == int(bits.split()[0]) and found.FrameOfReferenceUID == REFERENCE["FrameOfReferenceUID"]
    files = [pydicom.dcmread(file) for file in sorted(source.iterdir())]
    slices = {file.SOPInstanceUID: (file, plane) for file, plane in zip(files, volume, strict=True)}
    shared = found.SharedFunctionalGroupsSequence[0]
    pixels = found.pixel_array.reshape(-1, *volume[0].stored.shape)
    assert found.NumberOfFrames == len(volume) == len(pixels)
    for frame, pixel in zip(found.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        file, plane = slices.pop(reference.ReferencedSOPInstanceUID)
        assert reference.ReferencedSOPClassUID == file.SOPClassUID and "ReferencedFrameNumber" not in reference
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(place, file.ImagePositionPatient, rtol=0, atol=1e-9)
        directions = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        assert np.allclose(directions, file.ImageOrientationPatient, rtol=0, atol=1e-9)
        assert np.allclose(shared.PixelMeasuresSequence[0].PixelSpacing, file.PixelSpacing, rtol=0, atol=1e-9)
        assert np.array_equal(pixel, labelled(plane.stored, max(label.value for label in table) // 5))
    assert not slices


@pytest.mark.parametrize("kind", ["labelmap", "binary"])
@pytest.mark.parametrize("name", VOLUMES)
def test_what_was_written_is_read_again(tmp_path, name, kind):
    source = series(tmp_path, VOLUMES[name])
    ours = segmented(source, TABLES["16 bit"])
    ours.write(tmp_path / "result.seg.dcm", source=DicomSeg(source, kind))
    theirs = Segmentation.from_image(tmp_path / "result.seg.dcm")
    present = [label for label in TABLES["16 bit"].foreground if (ours.labels == label.value).any()]
    if not present:
        pytest.skip("the only voxel is background")
    assert comparable(theirs.table) == comparable(LabelTable(tuple(present)))
    if kind == "labelmap" or ours.labels.any((1, 2)).all():
        assert theirs.geometry.size == ours.geometry.size and theirs.geometry.distance(ours.geometry) < 1e-6
        assert theirs.geometry.axes == pytest.approx(ours.geometry.axes, abs=1e-6)
        assert np.array_equal(theirs.labels, ours.labels)


@pytest.mark.parametrize("kind", ["labelmap", "binary"])
@pytest.mark.parametrize("name", [name for name in VOLUMES if "tilted" not in name and "rounded" not in name])
def test_highdicom_finds_each_voxel_at_its_place(tmp_path, name, kind):
    import highdicom

    source = series(tmp_path, VOLUMES[name])
    ours = segmented(source)
    ours.labels[:, :, :1] = 1  # no slice is left out
    ours.write(tmp_path / "result.seg.dcm", source=DicomSeg(source, kind), keep_empty=True)
    volume = highdicom.seg.segread(tmp_path / "result.seg.dcm").get_volume(combine_segments=True)
    indices = np.stack(np.nonzero(ours.labels), -1)
    places = indices[:, ::-1] @ ours.geometry.axes.T + ours.geometry.origin
    their = np.rint((places - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T).astype(int)
    assert (their >= 0).all() and (their < volume.array.shape).all()
    assert np.array_equal(volume.array[tuple(their.T)], ours.labels[ours.labels > 0])
    assert np.count_nonzero(volume.array) == len(indices)


@pytest.mark.skipif(find_spec("dcmqi") is None, reason="needs dcmqi")
@pytest.mark.parametrize("kind", ["labelmap", "binary"])
@pytest.mark.parametrize("name", ["axial", "negated columns", "descending", "sagittal", "oblique descending"])
def test_dcmqi_finds_each_voxel_at_its_place(tmp_path, name, kind):
    """dcmqi is what 3D Slicer reads DICOM segmentations with; it is built on DCMTK and ITK."""
    import dcmqi
    import SimpleITK as sitk

    source = series(tmp_path, VOLUMES[name])
    ours = segmented(source)
    ours.labels[:, :, :1] = 1
    ours.write(tmp_path / "result.seg.dcm", source=DicomSeg(source, kind))
    program = next(Path(dcmqi.__file__).parent.glob("bin/segimage2itkimage*"))
    command = [program, "--inputDICOM", tmp_path / "result.seg.dcm", "--outputDirectory", tmp_path, "-t", "nrrd"]
    run = subprocess.run([*map(str, command), "-p", "q"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    found = np.zeros_like(ours.labels)
    for file in tmp_path.glob("q-*.nrrd"):
        image = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(image)
        for index in np.argwhere(array).tolist():
            place = image.TransformIndexToPhysicalPoint(index[::-1])
            own = np.linalg.solve(ours.geometry.axes, np.subtract(place, ours.geometry.origin))
            assert np.allclose(own, np.rint(own), atol=1e-3)
            found[tuple(np.rint(own[::-1]).astype(int))] = array[tuple(index)]
    numbers = sorted(set(np.unique(ours.labels).tolist()) - {0})
    expected = np.searchsorted(numbers, ours.labels) + 1 if kind == "binary" else ours.labels
    assert np.array_equal(found, np.where(ours.labels > 0, expected, 0))


@pytest.mark.parametrize("kind", ["labelmap", "binary"])
@pytest.mark.parametrize("shared", [(), ("orientation", "measures")])
def test_frames_of_a_multiframe_object_are_referred_to_by_their_numbers(tmp_path, kind, shared):
    volume = [planes()[index] for index in (3, 0, 5, 1, 4, 2)]
    source = write_frames(tmp_path / "mr.dcm", volume, ENHANCED_MR, shared, **REFERENCE)
    ours = segmented(source)
    ours.write(tmp_path / "result.seg.dcm", source=DicomSeg(source, kind))
    found, original = pydicom.dcmread(tmp_path / "result.seg.dcm"), pydicom.dcmread(source)
    assert len(found.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1
    pixels = found.pixel_array
    for frame, pixel in zip(found.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID) == (
            ENHANCED_MR,
            original.SOPInstanceUID,
        )
        plane = volume[reference.ReferencedFrameNumber - 1]
        assert np.allclose(frame.PlanePositionSequence[0].ImagePositionPatient, plane.position, atol=1e-9)
        expected = labelled(plane.stored)
        if kind == "binary":
            number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            expected = expected == number
        assert np.array_equal(pixel, expected)
    assert np.array_equal(Segmentation.from_image(tmp_path / "result.seg.dcm").labels, ours.labels)


@pytest.mark.parametrize("slices", [(1, 2, 5), (1, 3, 5), (2,), (0, 3)])
def test_a_binary_segmentation_leaves_out_what_is_empty(tmp_path, slices):
    source = series(tmp_path, SpacingBetweenSlices="5")
    ours = segmented(source)
    ours.labels[[index for index in range(6) if index not in slices]] = 0
    ours.labels[ours.labels == 2] = 0
    ours.write(tmp_path / "result.seg.dcm", source=DicomSeg(source, "binary"))
    found = pydicom.dcmread(tmp_path / "result.seg.dcm")
    assert [item.SegmentNumber for item in found.SegmentSequence] == [1, 2, 3, 4]
    assert found.NumberOfFrames == sum(len(np.unique(row[row > 0])) for row in ours.labels)
    theirs, first = Segmentation.from_image(tmp_path / "result.seg.dcm"), slices[0]
    assert np.array_equal(theirs.labels, ours.labels[first : slices[-1] + 1])
    origin = np.add(ours.geometry.origin, first * ours.geometry.axes[:, 2])
    assert theirs.geometry.origin == pytest.approx(origin.tolist())
    assert theirs.geometry.spacing == pytest.approx(ours.geometry.spacing)
    assert list(theirs.table.names) == [1, 3, 4, 5]


def test_names_codes_and_colours_of_every_class_come_back(tmp_path):
    known = LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv"))
    odd = Label(
        900,
        "Segment_900",
        "strange := a|b~c^d&e 'f' / ü",
        (1, 254, 128),
        category=Code("SCT", "49755003", "Morphologically Abnormal Structure"),
        type=Code("99LOCAL", "a code of more than sixteen characters", "Something"),
        type_modifier=Code("SCT", "7771000", "Left"),
        region=Code("SCT", "39607008", "Lung"),
        region_modifier=Code("SCT", "24028007", "Right"),
    )
    table = LabelTable((*known, odd, Label(901, "Segment_901", "no codes", (0, 0, 0))))
    source = series(tmp_path)
    ours = segmented(source)
    Segmentation(ours.labels, table, ours.geometry).write(tmp_path / "a.seg.dcm", keep_empty=True, source=source)
    assert comparable(Segmentation.from_image(tmp_path / "a.seg.dcm").table) == comparable(table)
    found = pydicom.dcmread(tmp_path / "a.seg.dcm").SegmentSequence[-1]
    assert found.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
    assert found.SegmentedPropertyTypeCodeSequence[0].CodeValue == "91723000"


def test_texts_longer_than_dicom_allows_are_shortened_with_a_word(tmp_path):
    long = "a" * 60 + " class with a long name"
    code = Code("A CODING SCHEME WITH A LONG NAME", "1", "m" * 70)
    table = LabelTable((*TABLE.labels[:5], Label(5, "Segment_5", long, (1, 2, 3), category=code, type=code)))
    source, said = series(tmp_path), []
    ours = Segmentation(segmented(source).labels, table, segmented(source).geometry)
    ours.write(tmp_path / "a.seg.dcm", source=DicomSeg(source, tell=said.append))
    label = Segmentation.from_image(tmp_path / "a.seg.dcm").table[5]
    assert label.name == long[:LONGEST_TEXT].rstrip() and label.type.scheme == "A CODING SCHEME"
    assert len(said) == 1 and long in said[0] and "were shortened: " in said[0]


@pytest.mark.parametrize("suffix", [".seg.dcm", ".rtstruct.dcm"])
def test_names_that_differ_in_their_model_alone_still_differ_when_they_are_shortened(tmp_path, suffix):
    models = [f"Auto3DSeg Brain and intracranial hemorrhage (ICrH) Segmentation {n}" for n in (1, 2)]
    names = {value: f"hemorrhage ({model})" for value, model in enumerate(models, start=1)}
    source, whole = series(tmp_path), segmented(series(tmp_path))
    ours = Segmentation(whole.labels.clip(0, 2), LabelTable.from_names({0: "background", **names}), whole.geometry)
    ours.write(tmp_path / f"a{suffix}", source=DicomSeg(source))
    found = pydicom.dcmread(tmp_path / f"a{suffix}")
    items = found.SegmentSequence if suffix == ".seg.dcm" else found.StructureSetROISequence
    written = [str(item.get("SegmentLabel") or item.get("ROIName")) for item in items][-2:]
    assert written == [names[1][:LONGEST_TEXT].rstrip(), names[1][: LONGEST_TEXT - 4].rstrip() + " (2)"]


def test_the_file_says_what_made_it(tmp_path):
    source = series(tmp_path, SeriesNumber=3)
    models = (UsedModel("Organs", "CC-BY-4.0", "ab" * 32),)
    segmented(source).write(tmp_path / "a.seg.dcm", source=DicomSeg(source, models=models))
    found = pydicom.dcmread(tmp_path / "a.seg.dcm")
    assert (found.Manufacturer, found.SoftwareVersions, found.Modality) == ("ClassScaleSeg", VERSION, "SEG")
    assert found.SeriesDescription == "ClassScaleSeg Organs" and found.SeriesNumber == 1003
    assert found.ContentDescription == "5 structures found by ClassScaleSeg" and found.ContentLabel == "SEGMENTATION"
    for item in found.SegmentSequence[1:]:
        assert item.SegmentAlgorithmType == "AUTOMATIC" and item.SegmentAlgorithmName == "ClassScaleSeg"
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmVersion == VERSION
        assert algorithm.AlgorithmParameters == f"model=Organs,licence=CC-BY-4.0,sha256={'ab' * 32}"


def test_the_version_is_that_of_the_project():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{VERSION}"\n' in text
