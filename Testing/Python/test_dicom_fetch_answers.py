"""Fetching from an archive whose answers are cut, refused, wrong or of another form."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import pytest
import urllib3
from archive_fixtures import no_credentials, series, shelf  # noqa: F401  (fixtures)
from archive_server import make_certificate, serving
from ClassScaleSegLib.archive import adapter, answers, fetching
from fetching_fixtures import STUDY, answering, fetch, fetched, files, given, of_series, uid  # noqa: F401  (fixtures)
from reading_server import JSON, MULTIPART, multipart

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")

from dicom_phantom import planes, write_series  # noqa: E402


@pytest.mark.parametrize("lengths", [False, True])
def test_after_a_cut_answer_the_rest_comes_one_by_one(shelf, given, uid, tmp_path, capsys, monkeypatch, lengths):
    monkeypatch.setattr(fetching, "_PIECE", 100)
    whole = multipart(given.values())
    length = {"Content-Length": str(len(whole))} if lengths else {}
    answering(shelf, of_series, (200, MULTIPART | length, iter([whole[: len(whole) * 2 // 3]])))
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    assert fetched(tmp_path / uid) == given
    assert len(shelf.asked(files=True)) == 3  # of four images, two came whole
    said = capsys.readouterr().err
    assert ("the connection was lost" if lengths else "The end of the archive's answer is missing.") in said


@pytest.mark.skipif(not hasattr(urllib3.HTTPResponse, "shutdown"), reason="needs urllib3 2.3")
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("which", [of_series, lambda path: path.endswith("/instances")])
def test_an_archive_that_gives_byte_by_byte_is_given_up(
    shelf, given, uid, tmp_path, capsys, monkeypatch, lengths, which
):
    monkeypatch.setattr(answers, "SECONDS", 0.5)
    ended = threading.Event()

    def byte_by_byte():
        while not ended.wait(0.05):
            yield b"\r"

    kind = MULTIPART if which is of_series else JSON
    answering(shelf, which, (200, kind | ({"Content-Length": "1000000"} if lengths else {}), byte_by_byte()))
    assert fetch(shelf, tmp_path, "--series", uid) == (0 if which is of_series else 5)
    ended.set()
    assert "is too slow: less than 64 KiB came in 0.5 s." in capsys.readouterr().err
    for thread in threading.enumerate():
        if thread.name == "received":
            thread.join(0.3)  # it watches nothing any more, and does not wait for its next look
            assert not thread.is_alive()


class Dripping(BaseHTTPRequestHandler):
    """Gives headers without an end, byte by byte."""

    def do_GET(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not self.server.archive.ended.wait(0.05):
            self.wfile.write(b"x")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("encrypted", [False, True])
def test_headers_that_come_byte_by_byte_are_given_up(uid, tmp_path, capsys, monkeypatch, encrypted):
    monkeypatch.setattr(adapter, "SECONDS", 0.5)
    pair = make_certificate(tmp_path) if encrypted else ()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pair[0]) if encrypted else "")
    archive, begin = SimpleNamespace(ended=threading.Event()), time.monotonic()
    with serving(archive, Dripping, *pair):
        assert fetch(archive, tmp_path, "--series", uid) == 5
        assert time.monotonic() - begin < 20
        archive.ended.set()
    assert "did not answer, or the connection was lost (" in capsys.readouterr().err


def test_of_an_archive_that_lists_no_images_the_rest_comes_with_the_next_run(shelf, given, uid, tmp_path, capsys):
    whole = multipart(given.values())
    shelf.answer = lambda path, *_: (
        (200, MULTIPART, iter([whole[: len(whole) * 2 // 3]])) if of_series(path) else
        (501, {}, b"") if path.endswith("/instances") else None
    )  # fmt: skip
    assert fetch(shelf, tmp_path, "--series", uid) == 1
    assert len(fetched(tmp_path / uid)) == 2
    said = capsys.readouterr()
    assert "end of the archive's answer is missing" in said.err and "2 of 4 images are there" in said.err
    assert "2 images fetched" in said.out
    answering(shelf, lambda path: path.endswith("/instances"), (501, {}, b""))
    assert fetch(shelf, tmp_path, "--series", uid) == 0 and fetched(tmp_path / uid) == given
    assert "2 images fetched, 2 there already" in capsys.readouterr().out


@pytest.mark.parametrize("status", [400, 404, 405, 406, 413, 500, 501, 503])
def test_if_a_series_is_refused_its_images_come_one_by_one(shelf, given, uid, tmp_path, status):
    answering(shelf, of_series, (status, {}, b""))
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    assert fetched(tmp_path / uid) == given


@pytest.mark.parametrize("status", [400, 406, 415])
def test_an_archive_that_does_not_give_files_as_stored_decompresses_them(shelf, given, uid, tmp_path, capsys, status):
    shelf.answer = lambda path, _, headers: (status, {}, b"") if "transfer-syntax" in headers["Accept"] else None
    assert fetch(shelf, tmp_path, "--series", uid) == 0
    assert fetched(tmp_path / uid) == given
    assert "does not give files as they are stored, and decompresses them" in capsys.readouterr().err


def test_images_one_by_one_may_come_without_parts(shelf, given, uid, tmp_path):
    def answer(path, *_):
        if path.count("/") == 6:
            return 200, {"Content-Type": "application/dicom"}, given[path.rpartition("/")[2]]
        return (501, {}, b"") if of_series(path) else None

    shelf.answer = answer
    assert fetch(shelf, tmp_path, "--series", uid) == 0 and fetched(tmp_path / uid) == given


WRONG = [
    ((200, {"Content-Type": "text/html"}, b"<html>log in</html>"), "something else than a DICOM archive would"),
    ((200, {"Content-Type": "multipart/related"}, b"--x"), "does not say by what it separates the files"),
    ((200, MULTIPART | {"Content-Type": "multipart/related; boundary=x"}, b"--y\r\n\r\n" * 20_000), "not separate the"),
    ((200, MULTIPART, b""), "The end of the archive's answer is missing."),
    ((200, MULTIPART, multipart([])), "0 of 4 images are there."),
    ((200, MULTIPART, multipart([b"<html>"])), "left out: it is damaged, or not DICOM"),
    ((200, MULTIPART, multipart([b""])), "left out: it is damaged, or not DICOM"),
    ((204, {}, b""), "something else than a DICOM archive would"),
    ((302, {"Location": "https://elsewhere/"}, b""), "leads to https://elsewhere/, where nothing was asked"),
    ((500, {"Content-Type": "text/plain"}, b"\x1b[2Jbroken"), "It says: [2Jbroken"),
    ((403, {}, b""), "status 403: this user may not see this"),
    ((200, MULTIPART | {"Content-Encoding": "gzip"}, b"no gzip"), "cannot be decompressed"),
]


@pytest.mark.parametrize(("answer", "sentence"), WRONG)
def test_an_archive_that_gives_nothing_is_a_sentence_and_leaves_nothing(
    shelf, given, uid, tmp_path, capsys, answer, sentence
):
    answering(shelf, files, answer)
    assert fetch(shelf, tmp_path / "got", "--series", uid) == 5
    said = capsys.readouterr()
    assert sentence in said.err and "\x1b" not in said.err and "0 images fetched" in said.out
    assert not list((tmp_path / "got").iterdir())
    assert len(shelf.asked(files=True)) <= 5  # not all of many images


def test_after_three_images_that_do_not_come_the_others_are_not_tried(shelf, tmp_path, capsys):
    shelf.add(write_series(tmp_path / "series", planes(9), "1.2.5"))
    answering(shelf, files, (500, {}, b""))
    assert fetch(shelf, tmp_path / "got", "--series", "1.2.5", "--study", STUDY) == 5
    assert len(shelf.asked(files=True)) == 4 and "The other images were not tried: 6." in capsys.readouterr().err


def test_who_is_not_let_in_is_told_once(shelf, given, uid, tmp_path, capsys):
    answering(shelf, files, (401, {}, b""))
    assert fetch(shelf, tmp_path, "--study", STUDY) == 5
    assert capsys.readouterr().err.count("asks who you are") == 1 and len(shelf.asked(files=True)) == 1


def test_an_archive_that_is_gone_ends_the_command(shelf, given, uid, tmp_path, capsys):
    shelf.add(write_series(tmp_path / "more", planes(2), "1.2.5"))
    import requests

    get, left = requests.Session.get, [5]

    def fails(self, *arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            return get(self, "http://127.0.0.1:9/", **options)
        return get(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "get", fails)
        assert fetch(shelf, tmp_path / "got", "--study", STUDY, "--json") == 1
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert "cannot be reached" in err and {row["state"] for row in rows} == {"whole", "incomplete"}


def test_images_that_the_archive_promises_and_does_not_give_are_named(shelf, given, uid, tmp_path, capsys):
    lost = sorted(given)[1]
    usual = shelf.usual

    def answer(path, query, headers):
        if of_series(path):
            return 200, MULTIPART, multipart(content for name, content in given.items() if name != lost)
        return (404, {}, b"") if path.endswith(lost) else usual(path, query, headers)

    shelf.answer = answer
    assert fetch(shelf, tmp_path, "--series", uid, "--json") == 1
    out, err = capsys.readouterr()
    (row,) = json.loads(out)
    assert row["missing"] == [lost] and row["state"] == "incomplete" and row["expected"] == 4 and row["fetched"] == 3
    assert "3 of 4 images are there." in err and "status 404" in err
    assert lost not in fetched(tmp_path / uid)


def test_fewer_images_than_the_archive_counts(shelf, given, uid, tmp_path, capsys):
    def answer(path, query, headers):
        status, kind, content = shelf.usual(path, query, headers)
        if path.endswith("/series") and content:
            rows = json.loads(content)
            rows[0]["00201209"] = {"vr": "IS", "Value": ["7"]}
            content = json.dumps(rows).encode()
        return status, kind, content

    shelf.answer = answer
    assert fetch(shelf, tmp_path, "--series", uid) == 1
    assert "4 of 7 images are there." in capsys.readouterr().err and fetched(tmp_path / uid) == given


def test_an_archive_that_counts_more_images_than_it_lists_gives_all_at_once(shelf, given, uid, tmp_path, capsys):
    usual = shelf.usual

    def answer(path, query, headers):
        if not path.endswith("/instances"):
            return None
        status, kind, content = usual(path, query, headers)
        return (status, kind, json.dumps(json.loads(content)[:1]).encode()) if content else (204, {}, b"")

    shelf.answer = answer
    for there in ("4 images fetched", "0 images fetched, 4 there already"):
        assert fetch(shelf, tmp_path, "--series", uid) == 0 and fetched(tmp_path / uid) == given
        assert there in capsys.readouterr().out
    assert len(shelf.asked(files=True)) == 1
