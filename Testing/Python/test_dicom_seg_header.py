"""DICOM segmentations: patient and study, what is refused, and what is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib import DicomSeg, ImageError, LabelTable, OutputError, OutputExistsError, Segmentation
from ClassScaleSegLib.images.dicom.seg import refuse_missing_highdicom
from ClassScaleSegLib.images.dicom.source import read_source

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")
pytest.importorskip("highdicom", reason="needs highdicom, as the extra [dicom] installs it")

from dicom_phantom import but, planes, without, write_series  # noqa: E402
from dicom_results import REFERENCE, TABLE, segmented, series, written  # noqa: E402

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
    with pytest.raises(OutputError, match="several patients"):
        read_source(series(tmp_path / "patients", but(planes(), 2, tags={"PatientID": "another"}), PatientID="one"))
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
    monkeypatch.setattr("ClassScaleSegLib.images.dicom.deflate.zlib.compressobj", lambda **_: compressor)
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
from ClassScaleSegLib.images.dicom.source import read_source
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
    monkeypatch.setattr("ClassScaleSegLib.images.dicom.seg._LARGEST_PIXELS", 5999)
    with pytest.raises(OutputError, match="5 classes would have 30 frames, .* DICOM holds 4 GiB. Write a label map"):
        segmented(source).write(tmp_path / "a.seg.dcm", source=DicomSeg(source, "binary"))
