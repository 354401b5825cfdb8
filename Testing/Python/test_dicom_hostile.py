"""Bad input and circumstances for DICOM results: hostile files, full disks, damaged names, texts that are too long."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest
from ClassScaleSegLib import Code, DicomSeg, ImageError, Label, LabelTable, OutputError, Segmentation, UsedModel
from ClassScaleSegLib.images.dicom.source import read_source

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")
pytest.importorskip("highdicom", reason="needs highdicom, as the extra [dicom] installs it")

from dicom_phantom import planes  # noqa: E402
from dicom_results import TABLE, segmented, series, written  # noqa: E402
from test_dicom_seg_reading import changed  # noqa: E402

# --- what a file inflates to


def deflated(file: Path, content: bytes) -> Path:
    """Write a file whose compressed part is ``content``."""
    start = 144 + pydicom.dcmread(file).file_meta.FileMetaInformationGroupLength
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    changed_file = file.with_name("changed.seg.dcm")
    changed_file.write_bytes(file.read_bytes()[:start] + compressor.compress(content) + compressor.flush())
    return changed_file


def test_a_small_file_that_inflates_to_more_than_memory_holds_is_refused(tmp_path, monkeypatch):
    _, file, _ = written(tmp_path)
    bomb = deflated(file, bytes(30 << 20))
    assert bomb.stat().st_size < 60_000
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 8 << 20})())
    tracemalloc.start()
    with pytest.raises(
        ImageError, match="changed.seg.dcm has .* bytes, which are compressed and become more than half"
    ):
        Segmentation.from_image(bomb)
    assert tracemalloc.get_traced_memory()[1] < 12 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["labelmap", "binary"])
@pytest.mark.parametrize(("keyword", "value"), [("Rows", 60000), ("Columns", 3), ("NumberOfFrames", 1), ("Rows", 4)])
def test_a_header_that_declares_other_sizes_than_the_pixels_have_is_refused(tmp_path, kind, keyword, value):
    source = series(tmp_path)
    segmented(source).write(tmp_path / "a.seg.dcm", source=DicomSeg(source, kind))

    def change(found):
        setattr(found, keyword, value)
        found.PerFrameFunctionalGroupsSequence = found.PerFrameFunctionalGroupsSequence[: int(found.NumberOfFrames)]

    few = "fewer" if value == 60000 else "more"
    with pytest.raises(ImageError, match=f"changed.seg.dcm has {few} pixels than its header says: [0-9,]+ bytes, not"):
        changed(tmp_path / "a.seg.dcm", change)


# --- places that cannot be written to

STAGES = """
import resource, signal, sys
from pathlib import Path
from ClassScaleSegLib import DicomSeg, OutputError
from dicom_results import segmented
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
source, target = Path(sys.argv[1]), Path(sys.argv[2])
ours = segmented(source)
for kind in ("labelmap", "binary"):
    ours.write(target, source=DicomSeg(source, kind))
    size = target.stat().st_size
    target.unlink()
    for limit in (0, 100, 200, 500, size // 2, size * 9 // 10):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            ours.write(target, source=DicomSeg(source, kind))
        except OutputError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert "a.seg.dcm cannot be written (" in str(error) and "make room" in str(error), error
            assert list(target.parent.iterdir()) == [], list(target.parent.iterdir())
            print(kind, limit)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits file sizes in place of filling a disk")
def test_a_disk_that_is_full_at_any_stage_leaves_nothing(tmp_path):
    source, target = series(tmp_path, planes(shape=(40, 40))), tmp_path / "results" / "a.seg.dcm"
    command = [sys.executable, "-c", STAGES, str(source), str(target)]
    here = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": here})
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 12


def test_a_folder_that_takes_no_file_is_a_sentence(tmp_path):
    """Permissions do not bind root, so the folder is a file here, and one in which nobody can create files."""
    source = series(tmp_path)
    (tmp_path / "file").write_text("no folder")
    places = [tmp_path / "file" / "a.seg.dcm", *([Path("/proc/a.seg.dcm")] if sys.platform == "linux" else [])]
    for place in places:
        with pytest.raises(OutputError, match="a.seg.dcm cannot be written"):
            segmented(source).write(place, source=source)


# --- names of patients, as bytes: character set, name, and what it is in UTF-8 if a class name needs that

JAPANESE = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"
LATIN, UTF_8 = "Müller^Jörg".encode("latin-1"), "Müller^王".encode()
NAMES = {
    "right, Latin": ("ISO_IR 100", LATIN, "Müller^Jörg"),
    "right, Japanese": ("\\ISO 2022 IR 87", JAPANESE, "Yamada^Tarou=山田^太郎"),
    "right, half-width Japanese": ("ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    "right, Chinese": ("GBK", "Wang^XiaoDong=王^小东".encode("gbk"), "Wang^XiaoDong=王^小东"),
    "right, Korean": ("\\ISO 2022 IR 149", b"Hong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong=洪^吉洞"),
    "missing, Latin": (None, LATIN, "Müller^Jörg"),
    "missing, UTF-8": (None, UTF_8, "Müller^王"),
    "missing, Japanese": (None, JAPANESE, None),
    "UTF-8 said, Latin": ("ISO_IR 192", LATIN, None),
    "Latin said, UTF-8": ("ISO_IR 100", UTF_8, "Müller^王".encode().decode("latin-1")),
    "ASCII said, Latin": ("ISO_IR 6", LATIN, "Müller^Jörg"),
    "Korean said, Latin": ("\\ISO 2022 IR 149", LATIN, "Müller^Jörg"),
    "Chinese said, broken": ("GB18030", b"Wang^\xff\xfe\x80", None),
    "unknown": ("ISO_IR 999", LATIN, "Müller^Jörg"),
    "mistyped": ("ISO-IR 100", LATIN, "Müller^Jörg"),
}


def with_name(source: Path, characters: str | None, name: bytes) -> None:
    """Put the bytes of a name, also as study description, and a character set into all files of a series."""
    filled = name + b" " * (len(name) % 2)
    for file in source.iterdir():
        data = pydicom.dcmread(file)
        data.PatientName, data.StudyDescription = "P" * len(filled), "Q" * len(filled)
        data.save_as(file)
        content = file.read_bytes().replace(b"P" * len(filled), filled).replace(b"Q" * len(filled), filled)
        if characters is not None:
            value = characters.encode() + b" " * (len(characters) % 2)
            element = b"\x08\x00\x05\x00CS" + struct.pack("<H", len(value)) + value
            content = content.replace(b"\x08\x00\x08\x00CS", element + b"\x08\x00\x08\x00CS", 1)
        file.write_bytes(content)


def raw(file: Path, keyword: str) -> bytes:
    return pydicom.dcmread(file).get_item(pydicom.datadict.tag_for_keyword(keyword)).value.rstrip(b" ")


@pytest.mark.parametrize("case", NAMES)
def test_a_name_has_the_bytes_of_the_series_whatever_its_character_set_is(tmp_path, case):
    characters, name, _ = NAMES[case]
    source = series(tmp_path)
    with_name(source, characters, name)
    ours, known = segmented(source), read_source(source)
    for file in ("a.seg.dcm", "b.seg.dcm"):  # the second time, all has been asked for once
        ours.write(tmp_path / file, source=DicomSeg(known))
        assert raw(tmp_path / file, "PatientName") == raw(tmp_path / file, "StudyDescription") == name
        given = pydicom.dcmread(source / "IM0000.dcm").get("SpecificCharacterSet")
        assert pydicom.dcmread(tmp_path / file).get("SpecificCharacterSet") == given


@pytest.mark.parametrize("case", [case for case in NAMES if NAMES[case][2]])
def test_a_name_has_its_most_likely_letters_if_a_class_needs_utf_8(tmp_path, case):
    characters, name, letters = NAMES[case]
    source = series(tmp_path)
    with_name(source, characters, name)
    ours = segmented(source, LabelTable.from_names({**TABLE.names, 5: "肝臓 größe печень"}))
    ours.write(tmp_path / "a.seg.dcm", source=source)
    found = pydicom.dcmread(tmp_path / "a.seg.dcm")
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert raw(tmp_path / "a.seg.dcm", "PatientName").decode() == letters
    assert Segmentation.from_image(tmp_path / "a.seg.dcm").table[5].name == "肝臓 größe печень"


def test_odd_names_of_models_and_codes_are_no_obstacle(tmp_path):
    source = series(tmp_path)
    code = Code("99\\X", "c" * 70, "one\\two\n" + "m" * 70)
    table = LabelTable((*TABLE.labels[:5], Label(5, "Segment_5", "n" * 200, (1, 2, 3), category=code, type=code)))
    models = (UsedModel("a\\b\n" + "x" * 200, "licence, with=signs\\" + "y" * 200, "ab" * 32),)
    for kind in ("labelmap", "binary"):
        file, said = tmp_path / f"{kind}.seg.dcm", []
        segmented(source, table).write(file, source=DicomSeg(source, kind, models, said.append))
        found = pydicom.dcmread(file)
        assert isinstance(found.SeriesDescription, str) and len(found.SeriesDescription) <= 64
        label = Segmentation.from_image(file).table[5]
        assert label.name == "n" * 64 and label.type.value == "c" * 70 and len(label.type.meaning) <= 64
        assert "n" * 200 in said[0] and isinstance(found.SegmentSequence[-1].SegmentLabel, str)
        assert isinstance(found.SegmentSequence[-1].SegmentedPropertyTypeCodeSequence[0].CodeMeaning, str)
