"""Sending to a DICOM archive: what arrives, what the archive says of each file, and everything that can go wrong."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path

import pytest
from archive_fixtures import no_credentials, series, server  # noqa: F401  (fixtures)
from archive_server import run
from ClassScaleSegLib.archive import connection, sending
from ClassScaleSegLib.archive.connection import Archive
from ClassScaleSegLib.archive.files import find_dicom_files
from ClassScaleSegLib.archive.sending import send
from ClassScaleSegLib.errors import ImageError

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dicomweb_client", reason="needs dicomweb-client, as the extra [dicom] installs it")

from dicom_phantom import planes, write_series  # noqa: E402

HTML = {"Content-Type": "text/html"}
JSON = {"Content-Type": "application/dicom+json"}


def instances(folder: Path) -> list[str]:
    return [pydicom.dcmread(file).SOPInstanceUID for file in sorted(folder.iterdir())]


def test_every_element_of_a_series_arrives_in_one_request(server, series, capsys):
    (series / "notes.txt").write_text("no image")
    (series / ".hidden.dcm").write_bytes((series / "IM0000.dcm").read_bytes()[:300])
    (series / "deeper").mkdir()
    (series / "IM0003.dcm").rename(series / "deeper" / "IM0003.dcm")
    assert run(series, "--to", server.address + "/") == 0
    (arrived,) = server.instances
    files = [*sorted(series.glob("IM*.dcm")), series / "deeper" / "IM0003.dcm"]
    sent = {data.SOPInstanceUID: data for data in arrived}
    assert len(sent) == 4
    for file in files:
        data = pydicom.dcmread(file)
        assert sent[data.SOPInstanceUID] == data and sent[data.SOPInstanceUID].file_meta == data.file_meta
    (headers,) = server.headers
    assert headers["Host"] == server.address.split("/")[2] and "Transfer-Encoding" not in headers
    assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"')
    assert "Authorization" not in headers
    assert capsys.readouterr().out == f"{server.address}: 4 stored\n"


def test_names_in_other_character_sets_and_private_elements_arrive_as_they_are(server, tmp_path):
    facts = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    series = write_series(tmp_path / "series", planes(1, tags={"SliceThickness": "2"}), **facts)
    (file,) = series.iterdir()
    data = pydicom.dcmread(file)
    data.private_block(0x0063, "somebody", create=True).add_new(1, "OB", b"\x00\x01\x02\x03")
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(file)
    assert run(file, "--to", server.address) == 0
    ((arrived,),) = server.instances
    assert arrived == pydicom.dcmread(file) and str(arrived.PatientName) == facts["PatientName"]
    assert arrived.file_meta.TransferSyntaxUID.is_deflated


def test_what_the_archive_says_of_each_file_is_said_with_its_name(server, series, capsys):
    known = instances(series)
    server.verdicts = {
        known[0]: ("FailedSOPSequence", 0x0122),
        known[1]: ("ReferencedSOPSequence", 0xB000),
        known[2]: None,
    }
    assert run(series, "--to", server.address) == 1
    out, err = capsys.readouterr()
    said = dict(line.split(": ", 1) for line in err.splitlines())
    assert said == {
        f"{series}/IM0000.dcm": "refused. The archive refuses it: it does not store this kind of object (SOP class) "
        "(status 0122).",
        f"{series}/IM0001.dcm": "changed. The archive warns: it changed values (status B000).",
        f"{series}/IM0002.dcm": "refused. The archive does not list it among the files that it has stored.",
    }
    assert out == f"{server.address}: 2 refused, 1 changed, 1 stored\n"
    assert run(series, "--to", server.address, "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in rows] == ["refused", "changed", "refused", "stored"]
    assert [row["instance"] for row in rows] == known and rows[3]["reason"] is None
    assert rows[0]["file"] == f"{series}/IM0000.dcm" and "status 0122" in rows[0]["reason"]


def test_if_all_are_refused_the_result_was_not_written(server, series, capsys):
    server.verdicts = {one: ("FailedSOPSequence", 0xA700) for one in instances(series)}
    assert run(series, "--to", server.address) == 5
    assert "out of resources, such as disk space (status A700)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((401, {"WWW-Authenticate": "Basic"}, b""), r"asks who you are \(status 401\). Give --user"),
        ((403, HTML, b"<h1>no</h1>"), "status 403: this user may not store here"),
        ((404, HTML, b""), "status 404: there is no DICOMweb service at this address. Give its root"),
        ((405, {}, b""), "without /studies"),
        ((415, {}, b""), "does not take DICOM files by DICOMweb"),
        ((418, {"Content-Type": "text/plain"}, b"I am a teapot"), "it refused the request. It says: I am a teapot"),
        ((500, JSON, b'{"Message": "broken"}'), 'it has a fault. Try again later.*It says: {"Message": "broken"}'),
        ((507, {}, b""), "its disk is full"),
        ((200, HTML, b"<html>Please log in</html>"), r"than a DICOM archive would \(status 200, text/html"),
        ((200, JSON, b"<html>"), "something else than a DICOM archive would"),
        ((200, JSON, b"[1, 2]"), "something else than a DICOM archive would"),
        ((302, {"Location": "https://login.example.org/"}, b""), "leads to https://login.example.org/, where nothing"),
        ((409, HTML, b"<html>"), "it could not store the files, without saying why"),
    ],
)
def test_an_archive_that_stores_nothing_is_a_sentence(server, series, capsys, answer, sentence):
    import re

    server.answer = lambda _: answer
    assert run(series / "IM0000.dcm", "--to", server.address) == 5
    said = capsys.readouterr()
    assert re.search(sentence, said.err) and "stored" not in said.out
    assert server.methods == ["POST"]


@pytest.mark.parametrize(
    ("status", "kind"), [(200, None), (200, "application/json; charset=utf-8"), (400, None), (202, None)]
)
def test_the_verdicts_count_whatever_type_the_answer_has(server, series, capsys, status, kind):
    known = instances(series)
    server.verdicts = {known[0]: ("FailedSOPSequence", 0xC000)}
    headers = {"Content-Type": kind} if kind else {}
    server.answer = lambda found: (status, headers, server.usual(found)[2])
    assert run(series, "--to", server.address) == 1
    said = capsys.readouterr()
    assert said.out == f"{server.address}: 1 refused, 3 stored\n" and "cannot understand it (status C000)" in said.err


def test_an_answer_in_xml_which_was_not_asked_for_leaves_open_what_was_stored(server, series, capsys):
    server.answer = lambda _: (
        200,
        {"Content-Type": "application/dicom+xml"},
        b'<NativeDicomModel xmlns="http://a/b"/>',
    )
    assert run(series, "--to", server.address) == 5
    assert capsys.readouterr().out == f"{server.address}: 4 unknown\n"
    assert {headers["Accept"] for headers in server.headers} == {"application/dicom+json"}


def test_an_empty_answer_leaves_open_what_was_stored(server, series, capsys):
    server.answer = lambda _: (200, {}, b"")
    assert run(series, "--to", server.address) == 5
    said = capsys.readouterr()
    assert said.out == f"{server.address}: 4 unknown\n" and said.err.count("did not say whether") == 4


def test_a_lost_connection_keeps_what_is_known_of_the_rest(server, series, capsys, monkeypatch):
    monkeypatch.setattr(sending, "BATCH_FILES", 1)
    usual = server.usual
    server.answer = lambda found: usual(found) if len(server.instances) < 3 else None
    assert run(series, "--to", server.address, "--json") == 1
    out, err = capsys.readouterr()
    assert [row["state"] for row in json.loads(out)] == ["stored", "stored", "unknown", "not sent"]
    assert "did not answer, or the connection was lost" in err and "Whether it has stored the files is not known" in err
    assert len(server.instances) == 3  # not again by itself


def test_an_archive_that_never_answers_is_given_up(server, series, capsys, monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(connection, "TIMEOUT", (0.2, 0.2))
    server.answer = lambda found: done.wait(5) and None
    try:
        assert run(series, "--to", server.address) == 5
    finally:
        done.set()
    assert "timed out" in capsys.readouterr().err


def test_nobody_there(series, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert run(series, "--to", f"http://127.0.0.1:{port}/dicom-web") == 5
    said = capsys.readouterr()
    assert "cannot be reached" in said.err and "refused" in said.err.lower() and said.out.endswith("4 not sent\n")
    assert run(series, "--to", "http://no-such-host.invalid/dicom-web", "--insecure") == 5
    assert "cannot be reached" in capsys.readouterr().err


def test_a_proxy_that_fails(series, capsys, monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert run(series, "--to", "http://pacs.invalid/dicom-web", "--insecure") == 5
    assert "the proxy failed (" in (said := capsys.readouterr().err) and "NO_PROXY" in said


# --- batches


def test_a_request_that_is_too_large_is_divided(server, series, capsys):
    big = pydicom.dcmread(series / "IM0002.dcm")
    big.add_new("ImageComments", "LT", "x" * 9000)
    big.save_as(series / "IM0002.dcm")
    server.limit = 5000
    assert run(series, "--to", server.address) == 1
    out, err = capsys.readouterr()
    assert out == f"{server.address}: 3 stored, 1 refused\n"
    assert "IM0002.dcm: refused." in err and "accepts no request of this size. Ask its administrator" in err


def test_what_understands_no_request_is_not_asked_for_each_file(server, tmp_path, capsys):
    series = write_series(tmp_path / "long", planes(64))
    server.answer = lambda _: (400, HTML, b"")
    assert run(series, "--to", server.address) == 5
    said = capsys.readouterr()
    assert [len(request) for request in server.instances] == [64, 32, 16, 8, 4, 2, 1, 1]
    assert said.out == f"{server.address}: 2 refused, 62 not sent\n" and "it did not understand the request" in said.err


def test_a_file_that_is_not_understood_does_not_keep_the_others(server, series, capsys):
    bad = instances(series)[::3]
    server.answer = lambda found: (
        (400, HTML, b"") if any(data.SOPInstanceUID in bad for data in found) else server.usual(found)
    )
    assert run(series, "--to", server.address) == 1
    assert capsys.readouterr().out == f"{server.address}: 2 refused, 2 stored\n"


def test_batches_are_limited_in_bytes_and_files(server, series, monkeypatch):
    size = (series / "IM0000.dcm").stat().st_size
    monkeypatch.setattr(sending, "BATCH_BYTES", 2 * size + 20)
    assert run(series, "--to", server.address) == 0
    assert [len(request) for request in server.instances] == [2, 2]
    monkeypatch.setattr(sending, "BATCH_FILES", 3)
    monkeypatch.setattr(sending, "BATCH_BYTES", 10)
    results = list(send(find_dicom_files([series]), Archive(server.address)))
    assert [len(request) for request in server.instances[2:]] == [1, 1, 1, 1] and all(one.arrived for one in results)


def test_a_file_that_does_not_fit_into_memory_is_a_sentence(server, series, capsys, monkeypatch):
    free_memory(monkeypatch, 100)
    assert run(series, "--to", server.address) == 6
    assert "IM0000.dcm is too large: to send it takes" in capsys.readouterr().err and not server.instances


def deflate(file: Path, pixels: int) -> pydicom.Dataset:
    """Compress a file, and let it have so many bytes of zeros, which become a thousandth."""
    data = pydicom.dcmread(file)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.PixelData = bytes(pixels)
    data.save_as(file)
    assert file.stat().st_size < 3000 + pixels / 500
    return pydicom.dcmread(file)


def free_memory(monkeypatch, free: int) -> None:
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": free})())


def test_a_compressed_file_arrives_as_it_is(server, series):
    given = deflate(series / "IM0001.dcm", 1 << 20)
    assert run(series, "--to", server.address) == 0
    ((_, found, *_),) = server.instances
    assert found == given and found.file_meta == given.file_meta


def test_compressed_files_count_as_what_they_become(server, series, monkeypatch, capsys):
    for name in ("IM0001.dcm", "IM0002.dcm"):
        deflate(series / name, 1 << 20)
    free_memory(monkeypatch, 5 << 20)  # each takes three copies
    assert run(series, "--to", server.address) == 0
    assert [len(request) for request in server.instances] == [2, 2]
    free_memory(monkeypatch, 5 << 19)
    assert run(series / "IM0001.dcm", "--to", server.address) == 6
    assert "IM0001.dcm is too large: to send it takes" in capsys.readouterr().err and len(server.instances) == 2


def test_a_compressed_file_that_would_fill_the_memory_does_not_keep_the_others(server, series, monkeypatch, capsys):
    deflate(series / "IM0001.dcm", 1 << 23)
    free_memory(monkeypatch, 1 << 23)
    assert run(series, "--to", server.address) == 1
    out, err = capsys.readouterr()
    assert out == f"{server.address}: 3 stored, 1 refused\n"
    assert "IM0001.dcm: refused. It has" in err and "become more than half of the free memory" in err


# --- files


def test_files_that_are_no_dicom_are_refused_before_anything_is_sent(server, series, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no image " * 50)
    (tmp_path / "empty").mkdir()
    for path, sentence in (
        (tmp_path / "notes.txt", "notes.txt is not a DICOM file"),
        (tmp_path / "empty", "empty has no DICOM files"),
        (tmp_path / "gone.dcm", "gone.dcm cannot be read (No such file"),
    ):
        assert run(series, path, "--to", server.address) == 4
        assert sentence in capsys.readouterr().err
    assert not server.instances


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that can be opened but not read")
def test_a_file_that_cannot_be_read_is_named(server, series, capsys):
    (series / "IM0005.dcm").symlink_to("/proc/self/mem")
    assert run(series, "--to", server.address) == 4
    assert f"{series}/IM0005.dcm cannot be read (" in capsys.readouterr().err and not server.instances


def test_a_damaged_file_does_not_keep_the_others_from_arriving(server, series, capsys):
    file = series / "IM0001.dcm"
    file.write_bytes(file.read_bytes()[:-10])
    nameless = pydicom.dcmread(series / "IM0002.dcm")
    del nameless.SOPInstanceUID
    nameless.save_as(series / "IM0002.dcm")
    assert run(series, "--to", server.address) == 1
    out, err = capsys.readouterr()
    assert out == f"{server.address}: 2 stored, 2 refused\n"
    assert err.count("It is damaged or gone (") == 2 and "IM0001.dcm: refused" in err and "no SOPInstanceUID" in err
    assert run(file, "--to", server.address) == 5 and len(server.instances) == 1


def test_the_same_file_is_sent_once_and_two_files_of_one_identifier_are_refused(server, series, tmp_path, capsys):
    first = series / "IM0000.dcm"
    (tmp_path / "copy.dcm").write_bytes(first.read_bytes())
    assert run(series, first, tmp_path / "copy.dcm", "--to", server.address) == 0
    assert sorted(len(request) for request in server.instances) == [4]
    data = pydicom.dcmread(first)
    data.PatientName = "Somebody^Else"
    data.save_as(tmp_path / "copy.dcm")
    assert run(series, tmp_path / "copy.dcm", "--to", server.address) == 4
    assert "differ, but have the same identifier (SOPInstanceUID)" in capsys.readouterr().err


def test_a_missing_package_is_a_sentence_with_the_command_that_installs_it(server, series, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "dicomweb_client.api", None)
    assert run(series, "--to", server.address) == 5
    assert 'python -m pip install "dicomweb-client>=' in capsys.readouterr().err


def test_find_dicom_files_tells_identifier_and_size(series):
    files = find_dicom_files([series])
    assert [file.instance for file in files] == instances(series)
    assert all(file.size == file.path.stat().st_size for file in files)
    with pytest.raises(ImageError, match="gone"):
        find_dicom_files([series / "gone"])
