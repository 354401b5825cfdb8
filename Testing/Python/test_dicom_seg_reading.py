"""Read DICOM segmentations of others, odd ones and damaged ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib import Code, DicomSeg, Geometry, ImageError, LabelTable, Segmentation, UsedModel
from ClassScaleSegLib.images.reading import read_image

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")
pytest.importorskip("highdicom", reason="needs highdicom, as the extra [dicom] installs it")

from dicom_phantom import planes  # noqa: E402
from dicom_results import REFERENCE, TABLE, segmented, series, written  # noqa: E402


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


def test_overlapping_segments_come_in_layers(tmp_path):
    source = series(tmp_path)
    segmented(source).write(tmp_path / "a.seg.dcm", source=DicomSeg(source, "binary"))
    found = pydicom.dcmread(tmp_path / "a.seg.dcm")
    found.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    found.PixelData = b"\xff" * len(found.PixelData)  # every segment fills all of its frames
    found.save_as(tmp_path / "overlap.seg.dcm")
    ours, theirs = (Segmentation.from_image(tmp_path / name) for name in ("a.seg.dcm", "overlap.seg.dcm"))
    assert len(ours.layers) == 1 and len(theirs.layers) == len(TABLE.foreground)
    assert theirs.table.names == ours.table.names
    for layer, label in zip(theirs.layers, TABLE.foreground, strict=True):
        rows = (ours.labels == label.value).any((1, 2))
        assert (layer[rows] == label.value).all() and not layer[~rows].any()


def test_incomplete_segments_are_refused(tmp_path):
    source = series(tmp_path)
    ours = segmented(source)
    ours.write(tmp_path / "a.seg.dcm", source=DicomSeg(source, "binary"))
    found = pydicom.dcmread(tmp_path / "a.seg.dcm")
    found.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    found.PixelData = found.PixelData[:-10]
    found.save_as(tmp_path / "short.seg.dcm")
    with pytest.raises(ImageError, match="short.seg.dcm has fewer pixels than its header says"):
        Segmentation.from_image(tmp_path / "short.seg.dcm")
    found.SegmentationType = "OTHER"
    found.save_as(tmp_path / "other.seg.dcm")
    with pytest.raises(ImageError, match="of the kind OTHER"):
        Segmentation.from_image(tmp_path / "other.seg.dcm")


def changed(file: Path, change) -> Segmentation:
    """Read a segmentation after ``change`` was made to its pydicom data set, which is stored without compression."""
    found = pydicom.dcmread(file)
    found.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    change(found)
    found.save_as(file.with_name("changed.seg.dcm"))
    return Segmentation.from_image(file.with_name("changed.seg.dcm"))


def bytes_of_pixels(found, full: int) -> np.ndarray:
    """Store a byte for each pixel of a binary segmentation, which is `full` inside; return the bytes."""
    count = found.NumberOfFrames * found.Rows * found.Columns
    bits = np.unpackbits(np.frombuffer(found.PixelData, np.uint8), bitorder="little")[:count] * np.uint8(full)
    found.BitsAllocated = found.BitsStored = 8
    found.HighBit, found.PixelData = 7, bits.tobytes() + bytes(count % 2)
    return bits


@pytest.mark.parametrize(("kind", "full"), [("BINARY", 1), ("BINARY", 255), ("FRACTIONAL", 255), ("FRACTIONAL", 100)])
def test_a_byte_for_each_pixel_is_read_if_no_voxel_is_filled_in_part(tmp_path, kind, full):
    source = series(tmp_path)
    ours = segmented(source)
    ours.write(tmp_path / "a.seg.dcm", source=DicomSeg(source, "binary"))

    def stored(found):
        found.SegmentationType, found.MaximumFractionalValue = kind, full
        bytes_of_pixels(found, full)

    def part(found):
        stored(found)
        found.PixelData = found.PixelData[:-1] + bytes([full - 1])

    assert np.array_equal(changed(tmp_path / "a.seg.dcm", stored).labels, ours.labels)
    if kind == "FRACTIONAL":
        with pytest.raises(ImageError, match=r"changed.seg.dcm: Its segments fill voxels in part \(FRACTIONAL\)"):
            changed(tmp_path / "a.seg.dcm", part)


def test_segments_that_are_not_clear_are_refused(tmp_path):
    source = series(tmp_path)
    for kind in ("labelmap", "binary"):
        segmented(source).write(tmp_path / f"{kind}.seg.dcm", source=DicomSeg(source, kind))
    label_map, binary = tmp_path / "labelmap.seg.dcm", tmp_path / "binary.seg.dcm"

    def large(found):
        pixels = np.frombuffer(found.PixelData, np.uint8).astype(np.uint32)
        found.BitsAllocated = found.BitsStored = 32
        found.HighBit, found.PixelData = 31, np.where(pixels == 1, 65537, pixels).astype("<u4").tobytes()

    def several(found):
        groups = found.PerFrameFunctionalGroupsSequence
        groups[1].PlanePositionSequence = groups[0].PlanePositionSequence

    def unnamed(found):
        del found.PerFrameFunctionalGroupsSequence[2].SegmentIdentificationSequence

    def unknown(found):
        found.PerFrameFunctionalGroupsSequence[2].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 77

    def alike(found):
        found.SegmentSequence[1].SegmentNumber = found.SegmentSequence[0].SegmentNumber

    for file, change, said in (
        (label_map, large, "Labels must lie between 0 and 65535"),
        (binary, several, "has several frames of its segment 1 at one place"),
        (binary, unnamed, "does not say of which segment its frame 3 is"),
        (binary, unknown, "has frames of a segment 77, which it does not describe"),
        (binary, alike, "describes several segments with the number 1"),
        (label_map, alike, "describes several segments with the number"),
    ):
        with pytest.raises(ImageError, match=f"changed.seg.dcm.*{said}"):
            changed(file, change)


def test_segments_may_be_numbered_with_gaps_and_a_label_map_need_not_describe_its_background(tmp_path):
    source = series(tmp_path)
    ours = segmented(source)
    for kind in ("labelmap", "binary"):
        ours.write(tmp_path / f"{kind}.seg.dcm", source=DicomSeg(source, kind))

    def tripled(found):
        swap_numbers(found)
        for item in found.SegmentSequence:
            item.SegmentNumber *= 3
        for group in found.PerFrameFunctionalGroupsSequence:
            group.SegmentIdentificationSequence[0].ReferencedSegmentNumber *= 3

    def foreground(found):
        found.SegmentSequence = [item for item in found.SegmentSequence if item.SegmentNumber]
        del found.PixelPaddingValue

    theirs = changed(tmp_path / "binary.seg.dcm", tripled)
    assert np.array_equal(theirs.labels, 3 * ours.labels)
    assert theirs.table.names == {3 * value: name for value, name in ours.table.names.items() if value}
    theirs = changed(tmp_path / "labelmap.seg.dcm", foreground)
    assert np.array_equal(theirs.labels, ours.labels)


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
