"""Walking through DICOM files: what pydicom finds; ends that are missing; files that are made to take memory."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from ClassScaleSegLib.archive import outline
from ClassScaleSegLib.archive.outline import Damaged, read_outline
from hypothesis import example, given, settings
from hypothesis import strategies as some

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

TAGS = {0x00080018: "SOPInstanceUID", 0x0020000D: "StudyInstanceUID", 0x0020000E: "SeriesInstanceUID"}
SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
]
uids = some.from_regex(r"[1-9](\.[1-9][0-9]{0,5}){1,4}", fullmatch=True)


@some.composite
def datasets(draw, depth: int = 2) -> Dataset:
    """A data set with some of the wanted elements, which also occur in its sequences, and others between them."""
    data = Dataset()
    for keyword in TAGS.values():
        if draw(some.booleans()):
            setattr(data, keyword, draw(uids))
    if draw(some.booleans()):
        data.PatientName = draw(some.text("ab^ ", max_size=9))
    if draw(some.booleans()):
        data.add_new(0x00091001, "UN", draw(some.binary(max_size=6).filter(lambda value: len(value) % 2 == 0)))
    if draw(some.booleans()):
        data.add_new(0x00420011, "OB", draw(some.binary(max_size=70).filter(lambda value: len(value) % 2 == 0)))
    for keyword in ("ReferencedImageSequence", "PerFrameFunctionalGroupsSequence") if depth else ():
        if draw(some.booleans()):
            items = draw(some.lists(datasets(depth=depth - 1), max_size=3))
            for item in items:
                item.is_undefined_length_sequence_item = draw(some.booleans())
            setattr(data, keyword, items)
            data[keyword].is_undefined_length = draw(some.booleans())
    return data


def written(data: Dataset, syntax: str, pixels: bytes = b"") -> bytes:
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = "1.2", "1.3"
    data.file_meta.TransferSyntaxUID = syntax
    if pixels:
        data.add_new(0x7FE00010, "OW", pixels)
        if syntax == RLELossless:
            data["PixelData"].VR = "OB"
            data.PixelData = encapsulate([pixels, pixels])
            data["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outline") / "a.dcm"


def read(file: Path, content: bytes) -> dict[int, str]:
    file.write_bytes(content)
    return read_outline(file, TAGS)


@settings(deadline=None)
@given(datasets(), some.sampled_from(SYNTAXES), some.sampled_from([b"", bytes(3000)]))
def test_the_elements_that_pydicom_finds_are_found(file, data, syntax, pixels):
    found = read(file, written(data, syntax, pixels))
    expected = {tag: data.get(keyword) for tag, keyword in TAGS.items() if keyword in data}
    assert found == {outline.TRANSFER_SYNTAX: syntax} | expected


@settings(deadline=None)
@given(datasets(), some.sampled_from(SYNTAXES), some.data())
@example(Dataset(), RLELossless, None)
def test_a_file_whose_pixels_are_cut_is_damaged(file, data, syntax, drawn):
    content = written(data, syntax, b"\1\2\3\4" * 30)
    cuts = range(1, 100) if drawn is None else [drawn.draw(some.integers(1, 100))]
    for cut in cuts:
        if syntax == DeflatedExplicitVRLittleEndian:
            cut = 2 + cut % 4  # the last byte may only make their number even
        with pytest.raises(Damaged):
            read(file, content[:-cut])


@settings(deadline=None)
@given(datasets(), some.sampled_from(SYNTAXES), some.data())
def test_whatever_is_changed_it_is_read_or_damaged(file, data, syntax, drawn):
    content = bytearray(written(data, syntax, bytes(20)))
    for place in drawn.draw(some.lists(some.integers(0, len(content) - 1), max_size=5)):
        content[place] = drawn.draw(some.integers(0, 255))
    try:
        found = read(file, bytes(content[: drawn.draw(some.integers(0, len(content)))]))
    except Damaged as error:
        assert str(error)
    else:
        assert all(isinstance(text, str) for text in found.values())


def sequence(content: bytes) -> bytes:
    return struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + content


ITEM, END = struct.pack("<HHL", 0xFFFE, 0xE000, 0), struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
OPEN_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)


def with_first(content: bytes, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A file whose first element is this."""
    data = Dataset()
    data.SOPInstanceUID = "1.2.3"
    plain = written(data, ExplicitVRLittleEndian)
    start = plain.index(b"\x08\x00\x18\x00UI")
    head, rest = plain[:start], content + plain[start:]
    if syntax != ExplicitVRLittleEndian:
        other = written(data, syntax)
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        length = 144 + struct.unpack_from("<L", other, 140)[0]
        return other[:length] + compressor.compress(rest) + compressor.flush()
    return head + rest


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_many_empty_items_take_no_memory(file, syntax):
    """Ten times as many take pydicom 20 s and 660 MB."""
    content = with_first(sequence(ITEM * 100_000 + END), syntax)
    file.write_bytes(content)
    tracemalloc.start()
    try:
        found = read_outline(file, TAGS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found[0x00080018] == "1.2.3" and peak < 1 << 20


def test_a_file_of_too_many_elements_is_damaged(file, monkeypatch):
    monkeypatch.setattr(outline, "MOST_ELEMENTS", 5000)
    with pytest.raises(Damaged, match="too many elements"):
        read(file, with_first(sequence(ITEM * 10_000 + END)))


@pytest.mark.parametrize(("depth", "valid"), [(50, True), (5000, False)])
def test_sequences_within_each_other(file, depth, valid):
    content = b""
    for _ in range(depth):
        content = sequence(OPEN_ITEM + content + struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + END)
    if valid:
        assert read(file, with_first(content))[0x00080018] == "1.2.3"
    else:
        with pytest.raises(Damaged, match="too deep"):
            read(file, with_first(content))


def test_what_becomes_too_large_is_damaged(file, monkeypatch):
    monkeypatch.setattr(outline, "LARGEST", 1 << 20)
    element = struct.pack("<HH2sHL", 0x0008, 0x0001, b"OB", 0, 3 << 20) + bytes(3 << 20)
    with pytest.raises(Damaged, match="it becomes more than"):
        read(file, with_first(element, DeflatedExplicitVRLittleEndian))


@pytest.mark.parametrize("explicit", [False, True])
def test_sequences_of_unknown_kind_may_be_implicit_or_not(file, explicit):
    inner = struct.pack("<HH2sH", 8, 0x18, b"UI", 4) if explicit else struct.pack("<HHL", 8, 0x18, 4)
    item = OPEN_ITEM + inner + b"9.9\0" + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    unknown = struct.pack("<HH2sHL", 0x0007, 0x1001, b"UN", 0, 0xFFFFFFFF) + item + END
    assert read(file, with_first(unknown))[0x00080018] == "1.2.3"


def test_a_long_value_is_not_kept(file):
    long = struct.pack("<HH2sHL", 0x0008, 0x0018, b"UC", 0, 4000) + b"1" * 4000
    assert read(file, with_first(long))[0x00080018] == "1.2.3"


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(128) + b"DICN", bytes(200), b"<html>" * 100])
def test_what_is_no_dicom_file_is_damaged(file, content):
    with pytest.raises(Damaged, match="does not begin like one"):
        read(file, content)
