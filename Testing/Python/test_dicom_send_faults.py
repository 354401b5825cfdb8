"""Sending to a DICOM archive that answers what no archive should, or not at all: what is said of each file."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
import time

import pytest
from archive_fixtures import no_credentials, series, server  # noqa: F401  (fixtures)
from archive_server import StandIn, archive_server, make_certificate, run
from ClassScaleSegLib.archive import answers, sending

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dicomweb_client", reason="needs dicomweb-client, as the extra [dicom] installs it")


JSON = {"Content-Type": "application/dicom+json"}
TEXT = {"Content-Type": "text/plain"}


# --- what is said of files after a fault


def states(server, files, capsys, *more):
    """Send with --json, and return the exit code, the states of the files, and what standard error says."""
    code = run(files, "--to", server.address, "--json", *more)
    out, err = capsys.readouterr()
    return code, [row["state"] for row in json.loads(out)], err


@pytest.mark.parametrize(
    "answer", [(500, {}, b""), (503, TEXT, b"busy"), (504, {}, b""), (507, {}, b""), (200, TEXT, b"")]
)
def test_after_a_fault_of_the_archive_it_is_unknown_what_was_stored(server, series, capsys, monkeypatch, answer):
    monkeypatch.setattr(sending, "BATCH_FILES", 2)
    server.answer = lambda _: answer
    code, found, err = states(server, series, capsys)
    # an empty answer of success says nothing of any file, but the archive takes more
    assert code == 5 and found == ["unknown"] * 2 + (["not sent"] if answer[0] != 200 else ["unknown"]) * 2
    assert f"status {answer[0]}" in err or answer[0] == 200


@pytest.mark.parametrize("status", [401, 403, 404, 405, 415, 302])
def test_files_of_a_request_that_was_refused_are_refused(server, series, capsys, monkeypatch, status):
    monkeypatch.setattr(sending, "BATCH_FILES", 2)
    server.answer = lambda _: (status, {"Location": f"{server.address}/elsewhere"} if status == 302 else {}, b"")
    code, found, err = states(server, series, capsys)
    assert code == 5 and found == ["refused", "refused", "not sent", "not sent"]
    assert ("/elsewhere, where nothing was sent" if status == 302 else f"status {status}") in err
    assert server.methods == ["POST"]


def test_a_damaged_file_is_refused_whatever_happens_to_the_others(server, series, capsys):
    file = series / "IM0001.dcm"
    file.write_bytes(file.read_bytes()[:-10])
    server.answer = lambda _: (500, {}, b"")
    assert states(server, series, capsys)[1] == ["unknown", "refused", "unknown", "unknown"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
def test_after_ctrl_c_it_is_unknown_what_was_stored(server, series, capsys, monkeypatch):
    monkeypatch.setattr(sending, "BATCH_FILES", 2)

    def interrupt(found):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        return server.usual(found)

    server.answer = interrupt
    code, found, _ = states(server, series, capsys)
    assert code == 130 and found == ["unknown", "unknown", "not sent", "not sent"]


def test_ctrl_c_after_the_answer_does_not_make_files_unsent(server, series, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sending, "_outcome", interrupt)
    assert states(server, series, capsys)[:2] == (130, ["unknown"] * 4) and len(server.instances) == 1


def test_a_connection_that_is_lost_while_it_is_encrypted_leaves_open_what_was_stored(
    series, tmp_path, capsys, monkeypatch
):
    certificate, key = make_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with archive_server(certificate, key) as server:
        server.answer = lambda _: None
        assert states(server, series, capsys)[:2] == (5, ["unknown"] * 4)
        assert len(server.instances) == 1


def test_an_answer_that_is_cut_leaves_open_what_was_stored(server, series, capsys):
    server.answer = lambda found: (200, {**JSON, "Content-Encoding": "gzip"}, server.usual(found)[2])
    code, found, err = states(server, series, capsys)
    assert code == 5 and found == ["unknown"] * 4 and "Whether it has stored the files is not known" in err


@pytest.mark.parametrize(
    ("name", "proxy"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("HTTP_PROXY", "http://me:secret word@@:x"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_from_a_lost_connection(series, capsys, monkeypatch, name, proxy):
    if name == "ALL_PROXY" and importlib.util.find_spec("socks"):
        pytest.skip("PySocks is installed")
    for each in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, proxy)
    monkeypatch.setenv(name.lower(), proxy)
    code, found, err = states(StandIn("http://pacs.invalid/dicom-web"), series, capsys, "--insecure")
    assert code == 5 and found == ["not sent"] * 4
    assert "PROXY" in err and "secret" not in err and "lost" not in err


# --- answers that are hostile


@pytest.mark.parametrize("status", [200, 418])
def test_an_answer_is_read_up_to_a_limit(server, series, capsys, status):
    spaces = b" " * (answers.LARGEST + 1)
    for headers, content in ((JSON, spaces), ({**JSON, "Content-Encoding": "gzip"}, gzip.compress(spaces))):
        server.answer = lambda _, answer=(status, headers, content): answer
        assert run(series, "--to", server.address) == 5
        said = capsys.readouterr()
        assert "answers with more than 4 MiB" in said.err and said.out.endswith(": 4 unknown\n")


def test_a_long_answer_below_the_limit_counts(server, series, capsys):
    def padded(found):
        status, headers, content = server.usual(found)
        return status, headers, content + b" " * (answers.LARGEST - len(content))

    server.answer = padded
    assert run(series, "--to", server.address) == 0


@pytest.mark.parametrize(
    "answer",
    [
        (302, {"Location": "http://x/\x1b[2J\x9b2J\x1b]0;title\x07"}, b""),
        (418, TEXT, b"\x1b[2Jhello\x08\xc2\x9b2J"),
        (418, {"Content-Type": "text/plain; charset=no-such"}, b"\x1b[2Jhello"),
        (200, {"Content-Type": "\x1b[2J"}, b"<html>"),
    ],
)
def test_nothing_in_an_answer_controls_the_terminal(server, series, capsys, answer):
    server.answer = lambda _: answer
    assert run(series, "--to", server.address) == 5
    said = capsys.readouterr()
    assert all(line.isprintable() for line in (said.out + said.err).splitlines()) and "2j" in said.err.lower()


def test_nor_does_an_answer_that_is_not_http(series, capsys):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            client, _ = listener.accept()
            client.recv(1 << 20)
            client.sendall(b"\x1b[2Jwhat?\r\n\r\n")
            client.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert run(series / "IM0000.dcm", "--to", f"http://127.0.0.1:{listener.getsockname()[1]}/dicom-web") == 5
        thread.join(5)
    said = capsys.readouterr()
    assert "\x1b" not in said.err and "what?" in said.err and said.out.endswith(": 1 unknown\n")


@pytest.mark.parametrize(
    "content",
    [
        '{"00081199": {"vr": "UI"}}',
        '{"00081199": {"vr": "UI", "Value": ["1.2"]}}',
        '{"00081198": {"vr": "LO", "Value": ["a", "b"]}}',
        '{"00081199": {"vr": "SQ"}}',
    ],
)
def test_verdicts_that_are_no_sequences_leave_open_what_was_stored(server, series, capsys, content):
    server.answer = lambda _: (200, JSON, content.encode())
    assert run(series, "--to", server.address) == 5
    assert capsys.readouterr().out.endswith(": 4 unknown\n")


@pytest.mark.parametrize(("kind", "value"), [("FD", "Infinity"), ("FD", "NaN"), ("SL", "-1"), ("SL", "99999999")])
def test_a_reason_that_is_no_status_is_none(server, series, capsys, kind, value):
    def answer(found):
        item = {"00081155": {"vr": "UI", "Value": [found[0].SOPInstanceUID]}}
        item["00081197"] = {"vr": kind, "Value": [json.loads(value)]}
        return 409, JSON, json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()

    server.answer = answer
    assert run(series / "IM0000.dcm", "--to", server.address) == 5
    assert "The archive refuses it: it gives no reason." in capsys.readouterr().err
