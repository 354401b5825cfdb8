"""Structure sets that are damaged, contradict themselves or are made to harm get a sentence, in little memory."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from ClassScaleSegLib import Geometry, ImageError
from ClassScaleSegLib.images import structures_on_grid
from ClassScaleSegLib.images.dicom import rtstruct_reader
from ClassScaleSegLib.images.dicom.rtstruct_reader import read_structure_set

pydicom = pytest.importorskip("pydicom")

from dicom_phantom import planes, write_series  # noqa: E402
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian  # noqa: E402
from structure_sets import Contour, Drawn, rectangle, write_structures  # noqa: E402

NAME = "a.rtstruct.dcm"
GRID = Geometry((20, 16, 12), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
SQUARE = rectangle(4, (1.5, 5.5), (2.5, 8.5))


def refused(path, sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence) as caught:
        read_structure_set(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_wherever_a_file_ends_its_contours_are_whole_or_it_is_refused(tmp_path, syntax):
    whole = write_structures(tmp_path / "whole.dcm", [Drawn("a", [SQUARE] * 2), Drawn("b", [SQUARE])], syntax)
    content, part, read = whole.read_bytes(), tmp_path / NAME, 0
    for length in range(0, len(content), 3):
        part.write_bytes(content[:length])
        try:
            found = read_structure_set(part)
        except ImageError:
            continue
        assert [len(structure.contours) for structure in found.structures] == [1, 1], length
        read += 1
    assert read <= 1  # if it ends before the last sequence, which has no contours


def test_contours_that_contradict_themselves(tmp_path):
    for contour, sentence in (
        (
            Contour("1\\2\\3\\4\\5", declared=2),
            "A contour of liver has 5 coordinates instead of three for each of its 2",
        ),
        (Contour("1\\2\\3" * 3, declared=7), "has 7 coordinates instead of three for each of its 7 points"),
        (Contour("1\\2\\4\\1\\x\\4\\3\\3\\4"), "A contour of liver has coordinates that are no numbers"),
        (Contour("1\\2\\4\\1,5\\3\\4\\3\\3\\4"), "has coordinates that are no numbers"),
        (Contour("1\\2\\4\\nan\\3\\4\\3\\3\\4"), "has coordinates that are not finite, or kilometres away"),
        (Contour("1\\2\\4\\1e300\\3\\4\\3\\3\\4"), "has coordinates that are not finite, or kilometres away"),
        (Contour("1\\2\\4\\inf\\3\\4\\3\\3\\4"), "has coordinates that are not finite"),
        (Contour("1" * 5000 + "\\2\\4\\1\\3\\4\\3\\3\\4"), "has coordinates that are not finite"),
        (Contour(SQUARE.points, "CLOSED_CURVE"), r"has the kind 'CLOSED_CURVE' \(ContourGeometricType\)"),
        (Contour(SQUARE.points, ""), r"has the kind '' \(ContourGeometricType\)"),
    ):
        refused(write_structures(tmp_path / NAME, [Drawn("liver", [SQUARE, contour])]), sentence)
    path = write_structures(tmp_path / NAME, [Drawn("liver", [SQUARE])])
    dataset = pydicom.dcmread(path)
    del dataset.ROIContourSequence[0].ContourSequence[0].NumberOfContourPoints
    del dataset.ROIContourSequence[0].ContourSequence[0].ContourData
    dataset.save_as(path)
    assert "less than three points; left out: 1" in read_structure_set(path).notices[0]


def test_lists_that_contradict_each_other(tmp_path):
    twice = write_structures(tmp_path / NAME, [Drawn("a", [SQUARE], number=3), Drawn("b", number=3)])
    refused(twice, r"It has 2 structures with the number 3 \(ROINumber\)".replace("It", str(twice)))
    found = read_structure_set(write_structures(tmp_path / NAME, [Drawn("a", [SQUARE], references=9), Drawn("b")]))
    assert not any(structure.contours for structure in found.structures)
    assert found.notices == ("It has contours of structures that it does not list; left out: 1.",)
    for keyword in ("StructureSetROISequence", "ROIContourSequence"):
        path = write_structures(tmp_path / NAME, [Drawn("a", [SQUARE])], **{keyword: None})
        refused(path, f"has no {keyword}, so it is no complete structure set")
    dataset = pydicom.dcmread(write_structures(tmp_path / NAME, [Drawn("a", [SQUARE])]))
    del dataset.StructureSetROISequence[0].ROINumber
    dataset.save_as(tmp_path / NAME)
    refused(tmp_path / NAME, r"has '' in the place of a whole number \(ROINumber\)")
    assert read_structure_set(write_structures(tmp_path / NAME, [])).structures == ()


def test_other_files(tmp_path):
    source = write_series(tmp_path / "series", planes(1))
    refused(source / "IM0000.dcm", "is no RT Structure Set")
    for content, sentence in (
        (b"", "is no RT Structure Set"),
        (b"x" * 1000, "part of it is missing|no RT Structure Set"),
    ):
        (tmp_path / NAME).write_bytes(content)
        refused(tmp_path / NAME, sentence)
    refused(tmp_path / "gone.dcm", r"cannot be read \(No such file")
    path = write_structures(tmp_path / NAME, [Drawn("a", [SQUARE])], ExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"))
    refused(path, "is in Explicit VR Big Endian, which DICOM has retired")


def test_without_the_preamble_it_is_read_too(tmp_path):
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        path = write_structures(tmp_path / NAME, [Drawn("a", [SQUARE])], syntax)
        dataset = pydicom.dcmread(path)
        dataset.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True, enforce_file_format=False)
        content = path.read_bytes()
        start = content.index(struct.pack("<HH", 0x0008, 0x0005))
        path.write_bytes(content[start:])
        assert [len(structure.contours) for structure in read_structure_set(path).structures] == [1]
        path.write_bytes(content[start:] + bytes(500))  # filled up to a whole block
        assert [len(structure.contours) for structure in read_structure_set(path).structures] == [1]


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def item(value: bytes) -> bytes:
    return element(0xFFFEE000, value)


def with_contours(path, contours: bytes, more: bytes = b""):
    """Write a structure set whose only structure has these encoded contours, and more elements before them."""
    write_structures(path, [Drawn("a")], ROIContourSequence=None, RTROIObservationsSequence=None)
    entry = item(element(0x30060040, contours) + element(0x30060084, b"1 "))
    path.write_bytes(path.read_bytes() + more + element(0x30060039, entry))
    return path


def test_a_sequence_of_unknown_representation_is_in_implicit_vr(tmp_path):
    """As systems forward it that do not know its element (PS3.5, 6.2.2)."""
    empty = {"ROIContourSequence": None, "RTROIObservationsSequence": None}
    path = write_structures(tmp_path / NAME, [Drawn("a")], ExplicitVRLittleEndian, **empty)
    points = element(0x30060042, b"CLOSED_PLANAR ") + element(0x30060050, b"1\\1\\4\\5\\1\\4\\5\\5\\4 ")
    entry = item(element(0x30060040, item(points)) + element(0x30060084, b"1 "))
    path.write_bytes(path.read_bytes() + struct.pack("<HH2sHL", 0x3006, 0x0039, b"UN", 0, len(entry)) + entry)
    assert [len(structure.contours) for structure in read_structure_set(path).structures] == [1]


def test_a_small_file_cannot_fill_the_memory_or_last_for_ever(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    path = tmp_path / NAME
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(with_contours(path, item(b"") * 3_000_000), "has the kind ''")
    found = read_structure_set(with_contours(path, item(element(0x30060042, b"POINT ")) * 100_000))
    assert "left out: 100000" in found.notices[0]
    read_structure_set(with_contours(path, b"", b"".join(element(0x10200000 + i, b"") for i in range(200_000))))
    nested = struct.pack("<HHLHHL", 0x3006, 0x0039, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) * 100_000
    refused(with_contours(path, b"", nested), "has more than 16 sequences in each other")
    points = (b"1\\" * 9_000_000)[:-1]
    refused(
        with_contours(path, item(element(0x30060042, b"CLOSED_PLANAR ") + element(0x30060050, points))),
        "has 3,000,000 points, more than 2,000,000",
    )
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 400e6  # pydicom takes 5 GB for the first one
    write_structures(path, [Drawn("a", [SQUARE] * 2 + [rectangle(5, (1, 2), (1, 2))])])
    monkeypatch.setattr(rtstruct_reader, "_MOST_CONTOURS", 2)
    refused(path, "has 3 contours and more, too many for the free memory")
    monkeypatch.setattr(structures_on_grid, "_MOST_STEPS", 10)
    with pytest.raises(ImageError, match="filling them would take minutes"):
        monkeypatch.setattr(rtstruct_reader, "_MOST_CONTOURS", 3)
        structures_on_grid.structures_on_grid(read_structure_set(path), GRID, "ct")


def test_more_structures_than_label_values(tmp_path, monkeypatch):
    monkeypatch.setattr(rtstruct_reader, "MAX_VALUE", 2)
    refused(write_structures(tmp_path / NAME, [Drawn(name) for name in "abc"]), "lists more than 2 structures")


def test_a_line_that_runs_through_every_row_takes_little_memory(tmp_path):
    """More than two million crossings of lines and rows are counted in parts."""
    zigzag = np.zeros((20_000, 2))
    zigzag[:, 0], zigzag[1::2, 1] = np.linspace(0, 300, len(zigzag)), 299.5
    from ClassScaleSegLib.images.contour_filling import inside

    found = inside(zigzag, (0, 0), (300, 301))
    assert found.shape == (300, 301) and np.array_equal(found[:, :150], inside(zigzag, (0, 0), (300, 150)))
