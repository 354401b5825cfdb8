"""dciodvfy and DCMTK, which are independent of the library that writes our DICOM files, find no error in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ClassScaleSegLib import DicomSeg, LabelTable, UsedModel
from ClassScaleSegLib.images.suffixes import SEGMENTATION_SUFFIXES

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")
pytest.importorskip("highdicom", reason="needs highdicom, as the extra [dicom] installs it")

from dicom_phantom import ENHANCED_MR, planes, tilted, write_frames, write_series  # noqa: E402
from dicom_results import REFERENCE, TABLE, TABLES, segmented  # noqa: E402
from test_dicom_seg_header import NAMES  # noqa: E402
from validate import errors_of, missing_programs  # noqa: E402

pytestmark = pytest.mark.skipif(
    bool(missing_programs()), reason=f"needs {', '.join(missing_programs())}; Testing/Dicom/validate.py --install"
)
LACKING = dict.fromkeys(("PatientID", "PatientName", "StudyID", "SeriesNumber", "FrameOfReferenceUID"))
SERIES = {
    "Japanese": (
        planes(),
        {**REFERENCE, "SpecificCharacterSet": NAMES["Japanese"][0], "PatientName": NAMES["Japanese"][1]},
    ),
    "tilted, descending": (planes(9, step=(0, 0, -5), directions=tilted(-7.5)), REFERENCE),
    "one slice": (planes(1, tags={"SliceThickness": "2.5"}), REFERENCE),
    "without patient": (planes(), LACKING),
}
MODELS = (UsedModel("Organs", "CC-BY-4.0", "ab" * 32), UsedModel("Vessels"))


def written(name: str, kind: str = "labelmap"):
    def write(source: Path, table: LabelTable, folder: Path) -> Path:
        segmented(source, table).write(folder / name, source=DicomSeg(source, kind, MODELS), keep_empty=True)
        return folder / name

    return write


# how each kind of result is written: into a folder; returns the file
WRITERS = {"label map": written("a.seg.dcm"), "binary": written("a.seg.dcm", "binary")}
if ".rtstruct.dcm" in SEGMENTATION_SUFFIXES:
    WRITERS["structure set"] = written("a.rtstruct.dcm")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", SERIES)
def test_no_error_is_found_in_a_result_of_a_series(tmp_path, name, kind):
    volume, facts = SERIES[name]
    source = write_series(tmp_path / "series", volume, **facts)
    assert errors_of(WRITERS[kind](source, TABLES["16 bit"], tmp_path)) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_no_error_is_found_in_a_result_of_an_object_with_many_frames(tmp_path, kind):
    source = write_frames(tmp_path / "mr.dcm", planes(), ENHANCED_MR, ("orientation", "measures"), **REFERENCE)
    assert errors_of(WRITERS[kind](source, TABLE, tmp_path)) == []


def test_errors_are_found(tmp_path):
    """Otherwise the tests above would show nothing."""
    source = write_series(tmp_path / "series", planes(), **REFERENCE)
    data = pydicom.dcmread(WRITERS["label map"](source, TABLE, tmp_path))
    del data.SegmentSequence[1].SegmentedPropertyTypeCodeSequence, data.DimensionIndexSequence
    data.save_as(tmp_path / "b.dcm")
    found = errors_of(tmp_path / "b.dcm")
    assert any("SegmentedPropertyTypeCodeSequence" in line for line in found)
    assert any("DimensionIndexSequence" in line for line in found)
