"""DICOM segmentations: every voxel is at its place, as pydicom, highdicom and dcmqi read it, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib import (
    Code,
    DicomSeg,
    Geometry,
    ImageError,
    Label,
    LabelTable,
    OutputError,
    OutputExistsError,
    Segmentation,
    UsedModel,
)
from ClassScaleSegLib.images.dicom_seg import refuse_missing_highdicom
from ClassScaleSegLib.images.dicom_object import LONGEST_TEXT
from ClassScaleSegLib.images.dicom_source import read_source
from ClassScaleSegLib.images.reading import read_image
from ClassScaleSegLib.resources import resource
from ClassScaleSegLib.version import VERSION

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")
pytest.importorskip("highdicom", reason="needs highdicom, as the extra [dicom] installs it")

from dicom_phantom import ENHANCED_MR, Plane, but, planes, tilted, without, write_frames, write_series  # noqa: E402

REFERENCE = {"FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.7", "StudyID": "4"}
SAGITTAL = (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.9393727128, 0.3428978075, 0.0, -0.3360623883, 0.9206473254, -0.1986693308)
NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])
VOLUMES = {
    "axial": planes(),
    "negated columns": planes(directions=(1, 0, 0, 0, -1, 0)),
    "negated columns, descending": planes(step=(0, 0, -5), directions=(1, 0, 0, 0, -1, 0)),
    "negated rows": planes(directions=(-1, 0, 0, 0, 1, 0)),
    "both negated": planes(directions=(-1, 0, 0, 0, -1, 0)),
    "descending": planes(step=(0, 0, -5)),
    "sagittal": planes(step=(-1.5, 0, 0), directions=SAGITTAL),
    "oblique": planes(step=np.multiply(5, NORMAL).tolist(), directions=OBLIQUE),
    "oblique descending": planes(step=np.multiply(-0.7, NORMAL).tolist(), directions=OBLIQUE),
    "rounded positions": planes(step=(0, 0, 1.3333333), decimals=1),
    "tilted": planes(20, directions=tilted(15)),
    "tilted back, descending": planes(20, step=(0, 0, -5), directions=tilted(-7.5)),
    "two slices": planes(2),
    "one slice": planes(1, tags={"SliceThickness": "2.5"}),
    "one column": planes(shape=(7, 1)),
    "one voxel": planes(1, shape=(1, 1), tags={"SliceThickness": "2.5"}),
}
TABLE = LabelTable.from_names({0: "background", 1: "liver", 2: "kidney_left", 3: "cell 3", 4: "vertebrae_C1", 5: "x"})
TABLES = {
    "8 bit": TABLE,
    "16 bit": LabelTable(tuple(replace(label, value=label.value * 13000) for label in TABLE)),
}


def labelled(stored: np.ndarray, factor: int = 1) -> np.ndarray:
    """The label of each pixel of a slice, so that any slice tells what its labels must be."""
    return ((stored.astype(int) % 6) * factor).astype(np.uint16)


def segmented(source: Path, table: LabelTable = TABLE) -> Segmentation:
    image = read_image(source, 1)
    factor = max(label.value for label in table) // 5
    assert image.voxels is not None
    return Segmentation(labelled(image.voxels[0], factor), table, image.geometry)


def series(folder: Path, volume: list[Plane] | None = None, **tags) -> Path:
    return write_series(folder / "series", planes() if volume is None else volume, **(REFERENCE | tags))


def written(folder: Path, name: str = "result.seg.dcm", volume: list[Plane] | None = None, **tags):
    """Write a series and a segmentation of it; return the segmentation, its path, and its pydicom data set."""
    source = series(folder, volume, **tags)
    ours = segmented(source)
    ours.write(folder / name, source=source)
    return ours, folder / name, pydicom.dcmread(folder / name)


def comparable(table: LabelTable) -> list[tuple]:
    return [(label.value, label.name, label.color, label.codes) for label in table.foreground]


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


# --- patient and study


NAMES = {
    "Japanese": ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Cyrillic": ("ISO_IR 144", "Люкceмбypг"),
    "Latin": ("ISO_IR 100", "Äneas^Rüdiger"),
    "Korean": ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
    "UTF-8": ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
    "ASCII": (None, "Doe^John"),
}


@pytest.mark.parametrize("language", NAMES)
def test_the_patients_name_is_kept_in_its_character_set(tmp_path, language):
    characters, name = NAMES[language]
    facts = {"PatientName": name, "PatientID": "12", "PatientBirthDate": "19700102", "PatientSex": "F"}
    study = {"StudyDate": "20260102", "StudyTime": "101112", "AccessionNumber": "7", "StudyDescription": "CT abdomen"}
    _, _, found = written(tmp_path, SpecificCharacterSet=characters, **facts, **study)
    given = pydicom.dcmread(tmp_path / "series" / "IM0000.dcm")
    assert found.get("SpecificCharacterSet") == given.get("SpecificCharacterSet")
    for keyword in (*facts, *study, "StudyInstanceUID", "StudyID"):
        assert found[keyword].value == given[keyword].value, keyword
    assert str(found.PatientName) == name


@pytest.mark.parametrize("language", NAMES)
def test_class_names_that_the_character_set_lacks_make_it_utf_8(tmp_path, language):
    characters, name = NAMES[language]
    source = series(tmp_path, SpecificCharacterSet=characters, PatientName=name)
    table = LabelTable.from_names({**TABLE.names, 5: "肝臓 größe печень"})
    Segmentation(segmented(source).labels, table, segmented(source).geometry).write(
        tmp_path / "a.seg.dcm", source=source
    )
    found = pydicom.dcmread(tmp_path / "a.seg.dcm")
    assert found.SpecificCharacterSet == "ISO_IR 192" and str(found.PatientName) == name
    assert Segmentation.from_image(tmp_path / "a.seg.dcm").table[5].name == "肝臓 größe печень"


def test_what_the_series_lacks_is_empty(tmp_path):
    lacking = dict.fromkeys(("PatientID", "PatientName", "StudyID", "SeriesNumber", "SeriesDescription"))
    _, _, found = written(tmp_path, **lacking, StudyDate="", AccessionNumber="")
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        assert keyword in found and not found[keyword].value, keyword
    assert found.SeriesNumber == 1000


def test_values_that_the_standard_does_not_allow_are_no_obstacle(tmp_path):
    source = series(tmp_path)
    for file in source.iterdir():
        dataset = pydicom.dcmread(file)
        with pydicom.config.disable_value_validation():
            dataset.PatientSex, dataset.PatientBirthDate, dataset.StudyTime = "unknown", "before 1970", "noon"
            dataset.PatientID, dataset.StudyID = "a" * 80, "a study of more than sixteen letters"
            dataset.add_new("PatientAge", "AS", "old")
            dataset.save_as(file)
    segmented(source).write(tmp_path / "a.seg.dcm", source=source)
    found = pydicom.dcmread(tmp_path / "a.seg.dcm")
    assert (found.PatientSex, found.PatientID) == ("unknown", "a" * 80)


def test_an_unknown_character_set_is_no_obstacle(tmp_path):
    source = series(tmp_path)
    for file in source.iterdir():
        file.write_bytes(file.read_bytes())
        dataset = pydicom.dcmread(file)
        dataset.SpecificCharacterSet = "ISO_IR 999"
        dataset.save_as(file)
    segmented(source).write(tmp_path / "a.seg.dcm", source=source)
    assert str(pydicom.dcmread(tmp_path / "a.seg.dcm").PatientName) == "Phantom"


def test_a_series_without_a_frame_of_reference_gets_one_that_all_its_segmentations_share(tmp_path):
    source, said = series(tmp_path, FrameOfReferenceUID=None), []
    for name in "ab":
        segmented(source).write(tmp_path / f"{name}.seg.dcm", source=DicomSeg(source, tell=said.append))
    first, second = (pydicom.dcmread(tmp_path / f"{name}.seg.dcm") for name in "ab")
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID and first.SeriesInstanceUID != second.SeriesInstanceUID
    assert "no frame of reference" in said[0]


# --- refusals, and what is left behind


def test_a_series_that_a_segmentation_cannot_refer_to_is_refused(tmp_path):
    for number, (tags, sentence) in enumerate(
        [
            ({"StudyInstanceUID": None}, r"has no study \(StudyInstanceUID\)"),
            ({"SOPInstanceUID": None}, r"has no identifier \(SOPInstanceUID\)"),
        ]
    ):
        volume = [replace(plane, tags=tags) for plane in planes()]
        source = write_series(tmp_path / str(number), volume, **REFERENCE)
        with pytest.raises(OutputError, match=sentence):
            read_source(source)
    with pytest.raises(OutputError, match="2 frames of reference"):
        read_source(series(tmp_path, but(planes(), 2, tags={"FrameOfReferenceUID": "1.2.3"})))
    with pytest.raises(ImageError, match="some are missing"):
        read_source(write_series(tmp_path / "gap", without(planes(), 2)))


def test_an_unknown_kind_is_refused():
    with pytest.raises(OutputError, match="'Binary' is no kind of DICOM segmentation. Choose labelmap or binary"):
        DicomSeg("series", kind="Binary")


def test_without_a_series_it_is_refused(tmp_path):
    import SimpleITK as sitk

    source = series(tmp_path)
    ours = segmented(source)
    with pytest.raises(OutputError, match="needs the DICOM series that was segmented"):
        ours.write(tmp_path / "a.seg.dcm")
    sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkInt16), str(tmp_path / "ct.nii.gz"))
    with pytest.raises(OutputError, match="ct.nii.gz is no DICOM series, so .* no patient"):
        ours.write(tmp_path / "a.seg.dcm", source=tmp_path / "ct.nii.gz")
    with pytest.raises(OutputError, match="gone cannot be read"):
        ours.write(tmp_path / "a.seg.dcm", source=tmp_path / "gone")
    with pytest.raises(ImageError, match="has no DICOM series"):
        (tmp_path / "empty").mkdir()
        ours.write(tmp_path / "a.seg.dcm", source=tmp_path / "empty")
    assert not list(tmp_path.glob("*.dcm"))


def test_another_series_is_refused(tmp_path):
    ours = segmented(series(tmp_path))
    other = write_series(tmp_path / "other", planes(origin=(-40.0, 15.0, 7.0)), **REFERENCE)
    with pytest.raises(OutputError, match="not on the grid of .*other: it has voxels up to 3 mm away"):
        ours.write(tmp_path / "a.seg.dcm", source=other)
    smaller = write_series(tmp_path / "smaller", planes(5), **REFERENCE)
    with pytest.raises(OutputError, match=r"it has \(4, 5, 6\) voxels instead of \(4, 5, 5\)"):
        ours.write(tmp_path / "a.seg.dcm", source=smaller)


def test_the_series_may_be_removed_once_it_has_been_read(tmp_path):
    source = series(tmp_path)
    ours, known = segmented(source), read_source(source)
    shutil.rmtree(source)
    ours.write(tmp_path / "a.seg.dcm", source=DicomSeg(known))
    assert np.array_equal(Segmentation.from_image(tmp_path / "a.seg.dcm").labels, ours.labels)


def test_a_missing_package_is_a_sentence_with_the_command_that_installs_it(tmp_path, monkeypatch):
    ours, file, _ = written(tmp_path)
    monkeypatch.setitem(sys.modules, "highdicom", None)  # importing it fails
    with pytest.raises(OutputError, match=r'python -m pip install "highdicom>=[0-9.]+".*slicer.util.pip_install'):
        refuse_missing_highdicom()
    with pytest.raises(OutputError, match="need the Python package highdicom"):
        ours.write(tmp_path / "b.seg.dcm", source=tmp_path / "series")
    with pytest.raises(ImageError, match="need the Python package highdicom"):
        Segmentation.from_image(file)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device"), MemoryError])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch, failure):
    ours, file, _ = written(tmp_path)
    before = file.read_bytes()

    def fail(*_):
        raise failure

    compressor = type("Compressor", (), {"compress": fail})()
    monkeypatch.setattr("ClassScaleSegLib.images.dicom_deflate.zlib.compressobj", lambda **_: compressor)
    with pytest.raises(OutputError if isinstance(failure, OSError) else failure):
        ours.write(file, overwrite=True, source=tmp_path / "series")
    assert sorted(os.listdir(tmp_path)) == [file.name, "series"] and file.read_bytes() == before


def test_an_existing_file_is_kept_unless_overwritten(tmp_path):
    ours, file, _ = written(tmp_path)
    file.write_text("precious")
    with pytest.raises(OutputExistsError, match="already exists"):
        ours.write(file, source=tmp_path / "series")
    assert file.read_text() == "precious"
    ours.write(file, overwrite=True, source=tmp_path / "series")
    assert Segmentation.from_image(file).labels.max() == 5


FULL_DISK = """
import resource, signal, sys, numpy as np
from pathlib import Path
import highdicom
from ClassScaleSegLib import LabelTable, OutputError, Segmentation
from ClassScaleSegLib.images.dicom_source import read_source
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
source = read_source(sys.argv[1])
noise = np.random.default_rng(0).integers(0, 3000, source.geometry.size[::-1]).astype(np.uint16)
table = LabelTable.from_names({value: f"a long name of class {value}" for value in range(3000)})
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    from ClassScaleSegLib import DicomSeg
    Segmentation(noise, table, source.geometry).write(sys.argv[2], source=DicomSeg(source))
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits file sizes in place of filling a disk")
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    source = series(tmp_path, planes(shape=(40, 40)))
    command = [sys.executable, "-c", FULL_DISK, str(source), str(tmp_path / "a.seg.dcm")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "a.seg.dcm cannot be written (" in said and "make room" in said
    assert os.listdir(tmp_path) == ["series"]


def test_a_segmentation_without_any_structure_can_be_written(tmp_path):
    source = series(tmp_path)
    grid = read_source(source).geometry
    nothing = Segmentation(np.zeros(grid.size[::-1], np.uint16), TABLE, grid)
    for kind in ("labelmap", "binary"):
        nothing.write(tmp_path / f"{kind}.seg.dcm", source=DicomSeg(source, kind))
        theirs = Segmentation.from_image(tmp_path / f"{kind}.seg.dcm")
        assert not theirs.labels.any() and theirs.table.names == {1: "liver"}
        assert theirs.geometry.size == (grid.size if kind == "labelmap" else (4, 5, 1))
    only_background = Segmentation(nothing.labels, LabelTable.from_names({0: "background"}), grid)
    with pytest.raises(OutputError, match="no class besides the background"):
        only_background.write(tmp_path / "none.seg.dcm", source=source)


def test_a_binary_segmentation_larger_than_dicom_allows_is_refused(tmp_path, monkeypatch):
    source = series(tmp_path, planes(shape=(40, 40)))
    monkeypatch.setattr("ClassScaleSegLib.images.dicom_seg._LARGEST_PIXELS", 5999)
    with pytest.raises(OutputError, match="5 classes would have 30 frames, .* DICOM holds 4 GiB. Write a label map"):
        segmented(source).write(tmp_path / "a.seg.dcm", source=DicomSeg(source, "binary"))


# --- segmentations of others, and damaged ones


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        ("LABELMAP", "JPEGLSLossless"),
        ("LABELMAP", "RLELossless"),
        ("LABELMAP", "ExplicitVRLittleEndian"),
        ("BINARY", "ExplicitVRLittleEndian"),
    ],
)
def test_what_highdicom_writes_is_read(tmp_path, kind, syntax):
    import highdicom
    from pydicom.sr.codedict import codes

    facts = ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate", "StudyTime", "SliceThickness")
    source = series(tmp_path, **dict.fromkeys(facts[:-1], ""), SliceThickness="5")
    ours = segmented(source)
    volume = highdicom.Volume(
        ours.labels[::-1],  # frames in another order, and axes as highdicom has them
        affine=np.array([[0, 0, 2, -40], [0, 3, 0, 12], [-5, 0, 0, 32], [0, 0, 0, 1.0]]),
        coordinate_system="PATIENT",
        frame_of_reference_uid=REFERENCE["FrameOfReferenceUID"],
    )
    segments = [
        highdicom.seg.SegmentDescription(
            label.value, label.name, codes.SCT.Organ, codes.SCT.Liver, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for label in TABLE.foreground
    ]
    uids = [highdicom.UID() for _ in range(2)]
    images = [pydicom.dcmread(file) for file in sorted(source.iterdir())]
    highdicom.seg.Segmentation(
        images,
        volume,
        kind,
        segments,
        uids[0],
        1,
        uids[1],
        1,
        "maker",
        "model",
        "1",
        "2",
        transfer_syntax_uid=getattr(pydicom.uid, syntax),
    ).save_as(tmp_path / "theirs.dcm")
    theirs = Segmentation.from_image(tmp_path / "theirs.dcm")
    assert np.array_equal(theirs.labels, ours.labels) and theirs.geometry.distance(ours.geometry) < 1e-9
    assert {label.name for label in theirs.table} == {label.name for label in TABLE.foreground}
    assert theirs.table[1].type == Code("SCT", "10200004", "Liver")


def test_overlapping_fractional_and_incomplete_segments_are_refused(tmp_path):
    source = series(tmp_path)
    ours = segmented(source)
    ours.write(tmp_path / "a.seg.dcm", source=DicomSeg(source, "binary"))
    found = pydicom.dcmread(tmp_path / "a.seg.dcm")
    found.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    found.PixelData = b"\xff" * len(found.PixelData)
    found.save_as(tmp_path / "overlap.seg.dcm")
    with pytest.raises(ImageError, match="overlap.seg.dcm has segments that overlap"):
        Segmentation.from_image(tmp_path / "overlap.seg.dcm")
    found.PixelData = found.PixelData[:-10]
    found.save_as(tmp_path / "short.seg.dcm")
    with pytest.raises(ImageError, match="short.seg.dcm has fewer pixels than its header says"):
        Segmentation.from_image(tmp_path / "short.seg.dcm")
    found.SegmentationType = "FRACTIONAL"
    found.save_as(tmp_path / "fractional.seg.dcm")
    with pytest.raises(ImageError, match="of the kind FRACTIONAL"):
        Segmentation.from_image(tmp_path / "fractional.seg.dcm")


def changed(file: Path, change) -> Segmentation:
    """Read a segmentation after ``change`` was made to its pydicom data set, which is stored without compression."""
    found = pydicom.dcmread(file)
    found.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    change(found)
    found.save_as(file.with_name("changed.seg.dcm"))
    return Segmentation.from_image(file.with_name("changed.seg.dcm"))


def measures(found):
    return found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


@pytest.mark.parametrize("kind", ["labelmap", "binary"])
def test_the_thickness_of_slices_is_not_taken_for_their_distance(tmp_path, kind):
    source = series(tmp_path)
    ours = segmented(source)
    ours.write(tmp_path / "a.seg.dcm", source=DicomSeg(source, kind))

    def thin(found):
        measures(found).SliceThickness = "1"
        del measures(found).SpacingBetweenSlices

    theirs = changed(tmp_path / "a.seg.dcm", thin)
    assert np.array_equal(theirs.labels, ours.labels) and theirs.geometry.distance(ours.geometry) < 1e-6


def test_frames_that_form_no_grid_are_refused(tmp_path):
    source = series(tmp_path)
    ours = segmented(source)
    for kind in ("labelmap", "binary"):
        ours.write(tmp_path / f"{kind}.seg.dcm", source=DicomSeg(source, kind))

    def place(found, index):
        return found.PerFrameFunctionalGroupsSequence[index].PlanePositionSequence[0]

    def twice(found):
        place(found, 1).ImagePositionPatient = place(found, 0).ImagePositionPatient

    def shifted(found):
        x, y, z = place(found, -1).ImagePositionPatient
        place(found, -1).ImagePositionPatient = [x + 100, y, z]

    def endless(found):
        measures(found).SpacingBetweenSlices = "0.000001"

    label_map, binary = tmp_path / "labelmap.seg.dcm", tmp_path / "binary.seg.dcm"
    with pytest.raises(ImageError, match="changed.seg.dcm has several frames at one place"):
        changed(label_map, twice)
    with pytest.raises(ImageError, match="frames are shifted in their planes, by up to 100 mm"):
        changed(binary, shifted)
    for file in (label_map, binary):
        with pytest.raises(ImageError, match="slices apart, by the distance in its header"):
            changed(file, endless)


def test_a_segment_with_the_number_0_is_refused_unless_it_is_the_background(tmp_path):
    source = series(tmp_path)
    ours = segmented(source)
    for kind in ("labelmap", "binary"):
        ours.write(tmp_path / f"{kind}.seg.dcm", source=DicomSeg(source, kind))

    def zero(found):
        found.SegmentSequence[0].SegmentNumber = 0
        found.add_new("PixelPaddingValue", "US", 255)

    for kind in ("labelmap", "binary"):
        with pytest.raises(ImageError, match="has a segment with the number 0"):
            changed(tmp_path / f"{kind}.seg.dcm", lambda found: (zero(found), swap_numbers(found)))


def swap_numbers(found):
    for item in found.SegmentSequence:
        for tag in [element.tag for element in item if element.tag.is_private]:
            del item[tag]


def test_letters_of_codes_and_licences_that_the_character_set_lacks_make_it_utf_8(tmp_path):
    source = series(tmp_path)
    label = replace(TABLE[1], type=Code("99X", "1", "Ménisque Ω"))
    table = LabelTable((label, *(other for other in TABLE if other.value != 1)))
    segmented(source, table).write(tmp_path / "a.seg.dcm", source=source)
    assert Segmentation.from_image(tmp_path / "a.seg.dcm").table[1].type.meaning == "Ménisque Ω"
    models = (UsedModel("Organs", licence="Lizenz für Ω"),)
    segmented(source).write(tmp_path / "b.seg.dcm", source=DicomSeg(source, models=models))
    item = pydicom.dcmread(tmp_path / "b.seg.dcm").SegmentSequence[-1]
    assert "Lizenz für Ω" in str(item.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters)


def test_a_damaged_file_is_a_sentence(tmp_path):
    _, file, found = written(tmp_path)
    whole = file.read_bytes()
    for length in (len(whole) // 2, len(whole) - 100, 500):
        file.write_bytes(whole[:length])
        with pytest.raises(ImageError, match="cannot be read"):
            Segmentation.from_image(file)
    del found.SegmentSequence
    found.save_as(file)
    with pytest.raises(ImageError, match="result.seg.dcm cannot be read as a DICOM segmentation"):
        Segmentation.from_image(file)


def test_a_segmentation_in_the_folder_of_its_series_does_not_disturb_it(tmp_path):
    source = series(tmp_path)
    ours = segmented(source)
    ours.write(source / "result.seg.dcm", source=source)
    again = read_image(source, 1)
    assert again.geometry == ours.geometry and again.notices == ()
    ours.write(source / "result.seg.dcm", overwrite=True, source=source)


def test_another_table_may_name_the_labels(tmp_path):
    _, file, _ = written(tmp_path)
    table = LabelTable.from_names({value: f"class {value}" for value in range(6)})
    assert Segmentation.from_image(file, table).table is table


def test_geometry_of_a_single_slice_has_its_thickness(tmp_path):
    _, file, _ = written(tmp_path, volume=planes(1, tags={"SliceThickness": "2.5"}))
    assert Segmentation.from_image(file).geometry == Geometry((4, 5, 1), (2.0, 3.0, 2.5), (-40.0, 12.0, 7.0))
