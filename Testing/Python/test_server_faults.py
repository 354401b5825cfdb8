"""What goes wrong on a server: each is a status and a sentence, others do not suffer, and nothing is left behind."""

import errno
import hashlib
import json
import logging
import os
import random
import shutil
import socket
import ssl
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("fastapi")
import anyio  # noqa: E402
import requests  # noqa: E402
import SimpleITK as sitk  # noqa: E402
from ClassScaleSegLib import Segmentation, errors  # noqa: E402
from ClassScaleSegLib.images.image_file import read_file  # noqa: E402
from ClassScaleSegLib.process.exit_codes import exit_code  # noqa: E402
from ClassScaleSegLib.server import app as routes  # noqa: E402
from ClassScaleSegLib.server import connections, converting, guard, jobs, responses, serving, uploads  # noqa: E402
from ClassScaleSegLib.server.limits import Limits  # noqa: E402
from ClassScaleSegLib.server.offers import Offers  # noqa: E402
from ClassScaleSegLib.server.serving import Settings, prepared  # noqa: E402
from ClassScaleSegLib.server.tokens import Tokens  # noqa: E402
from live_server import SLOT, Api, live_server  # noqa: E402
from server_child import fake_child, left, toy_offers, wait_until, without_faults  # noqa: E402
from test_server import self_signed  # noqa: E402

IMAGE = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n\n" + bytes(64)
TOY = Path(__file__).parents[2] / "Resources" / "Models" / "toy-120.zip"


@pytest.fixture
def child(tmp_path, monkeypatch):
    """What the jobs do."""
    monkeypatch.setattr(serving, "_SECONDS_BETWEEN_CLEANINGS", 0.05)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield fake_child(tmp_path / "child", monkeypatch)
    assert wait_until(lambda: not psutil.Process().children(recursive=True), 5)


@contextmanager
def a_server(folder: Path, token: str | None = None, **settings):
    """A server which logs no fault of its own, still answers in the end, and holds nothing then."""
    with live_server(folder, toy_offers(), token, **settings) as api:
        with without_faults(api, "accepted" if token else "not needed"):
            yield api
            assert wait_until(lambda: left(api) == [], 5), left(api)


@pytest.fixture
def api(tmp_path, child):
    with a_server(tmp_path / "server") as server:
        yield server


def refused(answer: requests.Response, status: int, code: str, *words: str) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert all(word in error["message"] for word in words) and error["message"].endswith("."), error


def remove(api: Api, *ids: str) -> None:
    for name in ids:
        assert api("delete", f"jobs/{name}").status_code == 204


def start(api: Api, *images: str, **more) -> str:
    answer = api.job(list(images) or [api.upload(IMAGE)], **more)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def finished(api: Api, **more) -> str:
    name = start(api, **more)
    assert api.wait(name)["state"] == "finished"
    return name


def connection(api: Api) -> socket.socket:
    host, port = api.address[7:].split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def begin(api: Api, line: str, *headers: str) -> socket.socket:
    """Send the head of a request, and keep the connection."""
    opened = connection(api)
    opened.sendall("\r\n".join((f"{line} HTTP/1.1", f"Host: {api.address[7:]}", *headers, "", "")).encode())
    return opened


def is_closed(opened: socket.socket) -> bool:
    """Read all that comes, and tell whether the connection was closed then."""
    try:
        while opened.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def nrrd(**fields: str) -> bytes:
    facts = {"type": "uint8", "dimension": "3", "sizes": "4 4 4", "encoding": "raw", **fields}
    return b"NRRD0004\n" + "".join(f"{name}: {value}\n" for name, value in facts.items()).encode() + b"\n" + bytes(64)


def mha(more: str = "", file: str = "LOCAL") -> bytes:
    head = f"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n{more}ElementDataFile = {file}\n"
    return head.encode() + bytes(64)


def nifti(folder: Path, suffix: str) -> bytes:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4, 4), np.uint8)), folder / f"image{suffix}")
    return (folder / f"image{suffix}").read_bytes()


# What is sent


@pytest.mark.parametrize(
    "kind, content, word",
    [
        (".nrrd", b"no image at all", "does not begin"),
        (".nrrd", b"NRRD0009\n\n", "does not begin"),
        (".nrrd", nrrd(sizes="4 4"), None),
        (".nrrd", nrrd(**{"data file": "/etc/passwd"}), "another file"),
        (".nrrd", nrrd(**{"Data File": "/etc/passwd"}), "another file"),
        (".nrrd", nrrd(datafile="LIST\n/etc/passwd"), "another file"),
        (".nrrd", nrrd(content="x\r\rdata file: /etc/passwd"), "another file"),
        (".nrrd", nrrd().replace(b"sizes: 4 4 4\n", b""), "how many voxels"),
        (".nrrd", nrrd().replace(b"sizes: 4 4 4\n", b"sizes: 4 4 4\nsizes: 9 9 9\n"), "how many voxels"),
        (".nrrd", nrrd(sizes="4 4 -4"), "how many voxels"),
        (".nrrd", nrrd(sizes="4 4 " + "9" * 5000), "how many voxels"),
        (".nrrd", b"NRRD0004\nsizes: 4 4 4\n", "no end"),
        (".nrrd", b"NRRD0004\n" + b"# comment\n" * 200_000 + b"sizes: 4 4 4\n\n", "no end"),
        (".mha", b"no image at all", "MetaImage"),
        (".mha", mha(file="/etc/passwd"), "LOCAL"),
        (".mha", mha(file="LIST"), "LOCAL"),
        (".mha", mha("ElementDataFile = /etc/passwd\n"), "LOCAL"),
        (".mha", mha("DimSize = 9 9 9\n"), "how many voxels"),
        (".nii", bytes(352), "NIfTI"),
        (".nii", b"no image at all", "NIfTI"),
        (".nii.gz", b"no image at all", "NIfTI"),
        (".nii.gz", b"\x1f\x8b\x08" + bytes(500), "damaged"),
        (".nii", b"\x89HDF\r\n\x1a\n" + bytes(500), "NIfTI"),
    ],
    ids=lambda given: repr(given)[:50],
)
def test_what_is_no_image_is_refused_when_it_has_arrived(api, kind, content, word):
    name = api.announce(content, kind=kind).json()["id"]
    answer = api.part(name, 0, content)
    if word is None:  # only its reader can tell
        assert answer.json()["complete"] and api("delete", f"uploads/{name}").status_code == 204
    else:
        refused(answer, 422, "no_image", word, "Export it again")
        assert str(api.folder) not in answer.text and "/etc" not in answer.text
        refused(api("get", f"uploads/{name}"), 404, "upload_unknown")


@pytest.mark.parametrize("kind", [".nrrd", ".mha", ".nii", ".nii.gz"])
def test_what_is_an_image_is_taken(api, kind, tmp_path):
    content = {".nrrd": IMAGE, ".mha": mha()}.get(kind) or nifti(tmp_path, kind)
    remove(api, start(api, api.upload(content, kind=kind)))


def test_headers_of_windows_and_of_other_programs_are_read(api, tmp_path):
    for content in (nrrd().replace(b"\n", b"\r\n"), nrrd(content="a: b").replace(b"0004", b"0005")):
        assert api("delete", f"uploads/{api.upload(content)}").status_code == 204
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6, 2), np.int16), isVector=True)
    for suffix in (".nrrd", ".mha", ".nii.gz"):
        sitk.WriteImage(image, tmp_path / f"vector{suffix}", useCompression=True)
        upload = api.upload((tmp_path / f"vector{suffix}").read_bytes(), kind=suffix)
        assert api("delete", f"uploads/{upload}").status_code == 204


@pytest.mark.parametrize(
    "kind, content", [(".nrrd", nrrd(sizes="99999 99999 99999")), (".mha", mha().replace(b"4 4 4", b"99999 99999 9"))]
)
def test_an_image_with_too_many_voxels_is_refused_by_its_header(api, kind, content):
    answer = api.part(api.announce(content, kind=kind).json()["id"], 0, content)
    refused(answer, 413, "too_large", "million voxels", "Crop it first")


def test_a_file_is_read_by_the_library_of_its_name_alone(tmp_path):
    """ITK would take HDF5, which can name other files with the voxels, whatever the file is called."""
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkUInt8), tmp_path / "image.hdf5")
    for suffix in (".nrrd", ".mha", ".nii"):
        disguised = Path(shutil.copy(tmp_path / "image.hdf5", tmp_path / f"image{suffix}"))
        with pytest.raises(errors.ImageError, match="not an image"):
            read_file(disguised)


def test_more_bytes_than_announced_are_refused(api):
    for sent in (IMAGE + b"x", IMAGE + bytes(10_000_000)):
        name = api.announce(IMAGE).json()["id"]
        refused(api.part(name, 0, sent), 413, "too_large", f"more than the {len(IMAGE)} bytes")
        refused(api("get", f"uploads/{name}"), 404, "upload_unknown")


def test_a_part_that_breaks_off_is_kept(api):
    name = api.announce(IMAGE).json()["id"]
    headers = (f"Content-Length: {len(IMAGE)}", "Upload-Offset: 0")
    with begin(api, f"PATCH /v1/uploads/{name}", *headers) as opened:
        opened.sendall(IMAGE[:50])
    assert wait_until(lambda: api("get", f"uploads/{name}").json()["offset"] == 50)
    refused(api.job([name]), 409, "upload_incomplete", f"50 of {len(IMAGE)} bytes")
    assert wait_until(lambda: api.part(name, 50, IMAGE[50:]).status_code == 200)
    remove(api, start(api, name))


def test_another_image_than_announced_is_refused(api):
    name = api.announce(IMAGE, sha256="0" * 64).json()["id"]
    refused(api.part(name, 0, IMAGE), 422, "upload_damaged", "SHA-256 differs")
    refused(api.part(name, 0, IMAGE), 404, "upload_unknown")


def test_only_one_request_writes_an_image(api, monkeypatch):
    monkeypatch.setattr(routes, "_BLOCK", 1)
    name = api.announce(IMAGE).json()["id"]
    with begin(api, f"PATCH /v1/uploads/{name}", f"Content-Length: {len(IMAGE)}", "Upload-Offset: 0") as opened:
        opened.sendall(IMAGE[:50])
        assert wait_until(lambda: api("get", f"uploads/{name}").json()["offset"] == 50)
        refused(api.part(name, 50, IMAGE), 409, "upload_busy", "Another request")
        opened.sendall(IMAGE[50:])
        assert b"200 OK" in opened.recv(1000)
    remove(api, start(api, name))


def test_an_image_that_is_removed_while_it_arrives_is_gone(api):
    name = api.announce(IMAGE).json()["id"]
    with begin(api, f"PATCH /v1/uploads/{name}", f"Content-Length: {len(IMAGE)}", "Upload-Offset: 0") as opened:
        opened.sendall(IMAGE[:50])
        time.sleep(0.2)
        assert api("delete", f"uploads/{name}").status_code == 204
        opened.sendall(IMAGE[50:])
        assert b"404 Not Found" in opened.recv(1000)


def test_a_key_that_is_announced_many_times_at_once_is_one_image(api):
    answers = []
    ask = [threading.Thread(target=lambda: answers.append(api.announce(IMAGE, key="k" * 16))) for _ in range(8)]
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join()
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]


def test_an_image_that_stalls_goes_on_later(api, monkeypatch):
    monkeypatch.setattr(routes, "SECONDS_FOR_BYTES", 0.3)
    name = api.announce(IMAGE).json()["id"]
    with begin(api, f"PATCH /v1/uploads/{name}", f"Content-Length: {len(IMAGE)}", "Upload-Offset: 0") as opened:
        opened.sendall(IMAGE[:50])
        assert b"408 Request Timeout" in opened.recv(1000)
    assert api.part(name, 50, IMAGE[50:]).json()["complete"]
    remove(api, start(api, name))


def test_a_job_for_a_model_that_is_not_there_leaves_its_image(api):
    upload = api.upload(IMAGE)
    for model in ("no-such", "../../etc/passwd", "/etc/passwd", str(TOY), "toy-120\0", ""):
        refused(api.job([upload], (model,)), 404, "model_unknown", "It has toy-120.")
    remove(api, start(api, upload))


# Clients that do not read, do not write, or are too many


def test_a_client_that_stops_reading_events_harms_nobody(api, child, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS_TO_READ", 1.0)
    child.does("for number in range(20000): say(event='progress', stage='segment', message='x' * 10000)")
    before = psutil.Process().memory_info().rss
    name = start(api)
    with begin(api, f"GET /v1/jobs/{name}/events") as deaf:
        while api.wait(name, "running", "finished")["state"] == "running":
            begun = time.monotonic()
            assert api("get", "health").status_code == 200 and time.monotonic() - begun < 1
            time.sleep(0.2)
        assert psutil.Process().memory_info().rss - before < 100 << 20
        time.sleep(1.5)
        assert is_closed(deaf)
    remove(api, name)


def test_streams_of_a_job_are_counted(api, child):
    child.waits()
    name = start(api)
    opened = [begin(api, f"GET /v1/jobs/{name}/events") for _ in range(responses.STREAMS)]
    assert all(b"200 OK" in each.recv(1000) for each in opened)
    refused(api("get", f"jobs/{name}/events"), 429, "too_many", "16 connections")
    for each in opened:
        each.close()
    assert wait_until(lambda: api("get", f"jobs/{name}/events", stream=True).status_code == 200)
    remove(api, name)


def test_a_connection_without_a_request_is_closed(api, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS_FOR_REQUEST", 0.4)
    for head in (b"", b"GET /v1/health HTTP/1.1\r\nHost: ", b"\r\n"):
        with connection(api) as opened:
            opened.sendall(head)
            begun = time.monotonic()
            assert is_closed(opened) and time.monotonic() - begun < 3
    with connection(api) as opened:  # a byte now and then does not help
        with pytest.raises(ConnectionError):
            for letter in b"GET /v1/health HTTP/1.1\r\nX: " + b"x" * 100:
                opened.sendall(bytes([letter]))
                time.sleep(0.05)
    with begin(api, "GET /v1/health") as opened:  # the second request of a connection
        opened.recv(1000)
        opened.sendall(b"GET")
        assert is_closed(opened)


def test_a_client_that_goes_on_after_its_answer_is_let_go(tmp_path, child, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS_FOR_REQUEST", 0.5)
    folder = tmp_path / "server"
    secret = Tokens(folder).make("anna")
    with a_server(folder, secret, require_token=True) as api:
        with begin(api, f"PATCH /v1/uploads/{'0' * 32}", "Transfer-Encoding: chunked", "Upload-Offset: 0") as opened:
            begun = time.monotonic()
            with pytest.raises(ConnectionError):
                while time.monotonic() - begun < 5:
                    opened.sendall(b"4\r\nabcd\r\n" * 100)
                    time.sleep(0.02)


def test_images_that_are_sent_at_the_same_moment_are_counted(api, monkeypatch):
    monkeypatch.setattr(uploads, "SENDING", 2)
    monkeypatch.setattr(routes, "_BLOCK", 1)
    names = [api.announce(IMAGE).json()["id"] for _ in range(3)]
    opened = []
    for name in names[:2]:
        opened.append(begin(api, f"PATCH /v1/uploads/{name}", f"Content-Length: {len(IMAGE)}", "Upload-Offset: 0"))
        opened[-1].sendall(IMAGE[:50])
        assert wait_until(lambda name=name: api("get", f"uploads/{name}").json()["offset"] == 50)
    refused(api.part(names[2], 0, IMAGE), 429, "too_many", "2 images")
    for each in opened:
        each.close()
    assert wait_until(lambda: api.part(names[2], 0, IMAGE).status_code == 200)
    for name in names:
        assert api("delete", f"uploads/{name}").status_code == 204


def test_connections_are_counted(api, monkeypatch):
    monkeypatch.setattr(connections, "CONNECTIONS", 6)
    opened = [connection(api) for _ in range(10)]
    time.sleep(0.3)
    assert sum(is_closed(each) for each in opened if each.settimeout(0.2) is None) >= 4
    for each in opened:
        each.close()
    assert wait_until(lambda: asks(api, "health") == 200)


def asks(api: Api, path: str) -> int | None:
    try:
        return requests.get(f"{api.address}/v1/{path}", timeout=5).status_code
    except requests.ConnectionError:
        return None


def test_a_body_that_never_ends_is_given_up(api, monkeypatch):
    monkeypatch.setattr(guard, "SECONDS_FOR_BYTES", 0.3)
    for headers in (("Content-Length: 100",), ("Transfer-Encoding: chunked",)):
        with begin(api, "POST /v1/jobs", "Content-Type: application/json", *headers) as opened:
            opened.sendall(b'2\r\n{"\r\n')
            assert b"408 Request Timeout" in opened.recv(1000)
    with begin(api, "POST /v1/jobs", "Content-Type: application/json", "Transfer-Encoding: chunked") as opened:
        try:
            for _ in range(200):
                opened.sendall(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        except ConnectionError:
            pass
        else:
            assert b"413 " in opened.recv(1000)


def test_images_of_a_token_are_counted(api, monkeypatch):
    monkeypatch.setattr(uploads, "UPLOADS", 3)
    names = [api.announce(IMAGE).json()["id"] for _ in range(3)]
    refused(api.announce(IMAGE), 429, "too_many", "3 images")
    for name in names:
        assert api("delete", f"uploads/{name}").status_code == 204


def test_results_of_a_token_are_counted_and_failed_jobs_make_room(api, child, monkeypatch):
    monkeypatch.setattr(jobs, "KEPT", 3)
    child.does("raise SystemExit(1)")
    failed = [start(api) for _ in range(2)]
    assert [api.wait(name)["state"] for name in failed] == ["failed"] * 2
    child.does("")
    kept = [finished(api) for _ in range(3)]
    assert [api("get", f"jobs/{name}").status_code for name in (*failed, *kept)] == [404, 404, 200, 200, 200]
    upload = api.upload(IMAGE)
    refused(api.job([upload]), 429, "too_many", "3 results")
    remove(api, kept[0])
    remove(api, *kept[1:], start(api, upload))


def test_images_that_wait_for_parts_hold_no_file_open(api):
    before = psutil.Process().num_fds() if hasattr(psutil.Process(), "num_fds") else None
    names = [api.announce(IMAGE).json()["id"] for _ in range(20)]
    for name in names:
        assert api.part(name, 0, IMAGE[:50]).status_code == 200
    assert before is None or psutil.Process().num_fds() < before + 10
    for name in names:
        assert api.part(name, 50, IMAGE[50:]).json()["complete"]
        assert api("delete", f"uploads/{name}").status_code == 204


def test_conversions_do_not_hold_up_images(api, monkeypatch):
    name = finished(api)
    wait = threading.Event()
    monkeypatch.setattr(converting, "_convert", lambda file, path, kind: wait.wait(20) and path.write_bytes(b""))
    asked = [begin(api, f"GET /v1/jobs/{name}/result", "Accept: application/x-nifti") for _ in range(50)]
    time.sleep(0.3)
    upload = api.upload(IMAGE)
    wait.set()
    assert all(b"200 OK" in each.recv(1000) for each in asked)
    for each in asked:
        each.close()
    remove(api, name, start(api, upload))


def test_files_that_take_long_to_remove_do_not_hold_up_others(api, child, monkeypatch):
    slow = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **more: (time.sleep(1), slow(path, **more))[1])
    child.waits()
    running, waiting = start(api), start(api)
    upload = api.upload(IMAGE)
    for path in (f"uploads/{upload}", f"jobs/{waiting}", f"jobs/{running}"):
        thread = threading.Thread(target=api, args=("delete", path))
        thread.start()
        time.sleep(0.1)
        for ask in ("health", f"uploads/{'0' * 32}", f"jobs/{'0' * 32}"):
            begun = time.monotonic()
            requests.get(f"{api.address}/v1/{ask}", timeout=5)
            assert time.monotonic() - begun < 0.8, (path, ask)
        thread.join()


def test_old_kinds_of_tls_are_refused(tmp_path):
    key, certificate = self_signed(tmp_path)
    with live_server(tmp_path / "server", toy_offers(), certificate=certificate, certificate_key=key) as api:
        host, port = api.address[8:].split(":")
        for ciphers, accepted in (("ECDHE+AESGCM", True), ("ECDHE-ECDSA-AES128-SHA", False), ("AES128-SHA", False)):
            context = ssl.create_default_context(cafile=certificate)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
            with socket.create_connection((host, int(port)), timeout=5) as opened:
                if accepted:
                    context.wrap_socket(opened, server_hostname=host).close()
                else:
                    with pytest.raises(ssl.SSLError):
                        context.wrap_socket(opened, server_hostname=host)


# The clock


@pytest.mark.parametrize("years", [-10, 10])
def test_a_clock_that_jumps_while_the_server_runs_changes_nothing(api, monkeypatch, years):
    real = time.time
    upload, kept = api.upload(IMAGE), finished(api)
    monkeypatch.setattr(time, "time", lambda: real() + years * 365 * 86400)
    time.sleep(0.3)
    assert api("get", f"uploads/{upload}").json()["complete"]
    assert api("get", f"jobs/{kept}/result").status_code == 200
    remove(api, kept, start(api, upload), finished(api))


@pytest.mark.parametrize("years, kept", [(-10, True), (10, False)])
def test_a_clock_that_jumps_between_two_starts_keeps_no_result_for_ever(tmp_path, child, monkeypatch, years, kept):
    with live_server(tmp_path / "server", toy_offers()) as api:
        name = finished(api)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + years * 365 * 86400)
    with a_server(tmp_path / "server", limits=Limits(keep_seconds=2)) as api:
        assert api("get", f"jobs/{name}").status_code == (200 if kept else 404)
        assert wait_until(lambda: left(api) == [], 4)  # by the clock that does not jump


# The disk, and the folder


class FullDisk:
    """A file of a disk that is full after some bytes."""

    def __init__(self, stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._stream.close()

    def write(self, content) -> int:
        self._stream.write(content[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_disk(monkeypatch, full) -> None:
    """Let files for which ``full`` is true not be written any more."""
    opened = Path.open

    def open_(path, mode="r", *arguments, **more):
        stream = opened(path, mode, *arguments, **more)
        return FullDisk(stream) if mode != "r" and mode != "rb" and full(path) else stream

    monkeypatch.setattr(Path, "open", open_)

    def write_text(path, text, *arguments, **more):
        with path.open("w") as stream:
            return stream.write(text)

    monkeypatch.setattr(Path, "write_text", write_text)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_child_that_crashes_takes_nothing_with_it(api, child):
    child.does("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    name = start(api)
    facts = api.wait(name)
    assert facts["state"] == "failed" and "crashed" in facts["error"] and facts["result"] is None
    child.does("")
    remove(api, name, finished(api))


def test_the_log_names_tokens_models_and_times_alone(tmp_path, child, caplog):
    folder = tmp_path / "server"
    secret = Tokens(folder).make("anna")
    with caplog.at_level(logging.INFO), a_server(folder, secret, require_token=True) as api:
        image = nrrd(content="Mustermann, Erika")
        child.does("say(event='progress', stage='segment', message='Mustermann, Erika'); raise SystemExit(1)")
        name = start(api, api.upload(image), key="Mustermann-Erika-1")
        api.wait(name)
        refused(api.part("0" * 32, 0, image), 404, "upload_unknown")
        remove(api, name)
    assert "of anna begins on cpu: toy-120" in caplog.text
    assert "Mustermann" not in caplog.text and secret not in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_only_the_user_of_the_server_reads_its_folder(tmp_path, child):
    with a_server(tmp_path / "server") as api:
        name, upload = finished(api), api.upload(IMAGE)
        assert [path.stat().st_mode & 0o077 for path in (api.folder, *api.folder.glob("*/"))] == [0] * 4
        remove(api, name, start(api, upload))


def test_what_a_job_says_is_shortened(api, child):
    said = "say(event='progress', stage='segment', message='x' * 10**6); say(event='error', message='y' * 10**6)"
    child.does(f"{said}; raise SystemExit(5)")
    name = start(api)
    facts = api.wait(name)
    assert facts["state"] == "failed" and len(facts["error"]) == len(facts["message"]) == 2000
    assert len(api("get", f"jobs/{name}/log").text) <= 64 << 10
    remove(api, name)


def test_a_disk_that_is_full_before_an_image(api, monkeypatch):
    usage = shutil.disk_usage(api.folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    refused(api.announce(IMAGE), 507, "disk_full", "no room")


def test_a_disk_that_fills_while_an_image_arrives(api, monkeypatch):
    with monkeypatch.context() as patched:
        fill_disk(patched, lambda path: path.parent.name == "uploads")
        for first in (IMAGE, IMAGE[:30]):
            name = api.announce(IMAGE).json()["id"]
            refused(api.part(name, 0, first), 507, "disk_full", "no room")
            refused(api("get", f"uploads/{name}"), 404, "upload_unknown")
    remove(api, start(api))


def test_a_disk_that_fills_while_a_result_is_written(api, child):
    path = "job['output'] + ' cannot be written (No space left on device). Choose another folder, or make room there.'"
    child.does(f"say(event='error', kind='OutputError', message={path}); raise SystemExit(5)")
    name = start(api)
    facts = api.wait(name)
    assert facts["state"] == "failed" and facts["exit_code"] == exit_code(errors.OutputError())
    refused(api("get", f"jobs/{name}/result"), 409, "job_failed", "The server cannot write the result")
    remove(api, name)


@pytest.mark.parametrize("name", [".started.json", ".json"])
def test_a_disk_that_is_full_for_notes_of_a_job(api, monkeypatch, name):
    with monkeypatch.context() as patched:
        fill_disk(patched, lambda path: path.name.endswith(name) and "unfinished" in path.parts)
        failed = start(api)
        facts = api.wait(failed)
        assert facts["state"] == "failed" and facts["exit_code"] == exit_code(errors.OutputError())
        assert "cannot" in facts["error"] and str(api.folder) not in facts["error"]
    remove(api, failed, finished(api))


@pytest.mark.parametrize("kind", ["application/x-nifti", "text/csv"])
def test_a_disk_that_fills_while_a_result_is_converted(api, monkeypatch, kind):
    name = finished(api)
    before = left(api)
    with monkeypatch.context() as patched:
        fill_disk(patched, lambda path: "results" in path.parts)
        full = errors.OutputError("It cannot be written.")
        patched.setattr(Segmentation, "write", lambda *_, **more: (_ for _ in ()).throw(full))
        refused(api("get", f"jobs/{name}/result", headers={"Accept": kind}), 507, "disk_full", "no room")
        assert left(api) == before
    assert api("get", f"jobs/{name}/result", headers={"Accept": kind}).headers["Content-Type"].startswith(kind)
    remove(api, name)


def test_a_folder_that_vanishes_is_told(tmp_path, child):
    with live_server(tmp_path / "server", toy_offers()) as api:
        with without_faults(api, "not needed"):
            child.waits()
            partly = api.announce(IMAGE).json()["id"]
            assert api.part(partly, 0, IMAGE[:50]).status_code == 200
            running, waiting = start(api), start(api)
            assert wait_until(lambda: child.began)
            shutil.rmtree(api.folder)
            refused(api.announce(IMAGE), 507, "disk_full", "cannot write to its folder")
            refused(api.part(partly, 50, IMAGE[50:]), 507, "disk_full", "cannot write to its folder")
            child.goes_on()
            for name in (running, waiting):
                facts = api.wait(name)
                assert facts["state"] == "failed" and str(tmp_path) not in facts["error"]
            remove(api, running, waiting)
    assert not api.folder.exists()


def test_an_image_that_cannot_be_removed_does_not_end_the_thread_that_runs_jobs(api, monkeypatch, caplog):
    with monkeypatch.context() as patched:
        denied = PermissionError(errno.EACCES, "denied")
        patched.setattr(Path, "unlink", lambda path, **more: (_ for _ in ()).throw(denied))
        with caplog.at_level(logging.WARNING):
            first = start(api)
            assert api.wait(first)["state"] in ("finished", "failed")
        assert "an image cannot be removed (denied)" in caplog.text
    remove(api, first, finished(api))
    for image in (api.folder / "uploads").iterdir():
        image.unlink()


def test_a_folder_with_results_of_something_else_is_not_touched(tmp_path, monkeypatch):
    (tmp_path / "study" / "results").mkdir(parents=True)
    (tmp_path / "study" / "results" / "of years.csv").write_text("1")
    for _ in range(2):
        with pytest.raises(errors.OutputError, match="is not of a server, which would remove"):
            with prepared(Settings(tmp_path / "study", ("toy-120",), port=0), toy_offers()):
                pass
    assert [path.name for path in (tmp_path / "study").rglob("*")] == ["results", "of years.csv"]


# Models and tokens that change while the server runs


def test_a_model_that_vanishes_is_told_without_its_path(tmp_path):
    model = Path(shutil.copy(TOY, tmp_path / "Mine.zip"))
    with live_server(tmp_path / "server", Offers((str(model),))) as api:
        name = start(api, models=("mine",))
        api.wait(name)
        remove(api, name)
        model.unlink()
        name = start(api, models=("mine",))
        facts = api.wait(name)
        assert facts["state"] == "failed" and "mine" in facts["error"]
        assert str(tmp_path) not in facts["error"] + api("get", f"jobs/{name}/log").text
        remove(api, name)
        assert left(api) == []


def test_what_a_child_refuses_is_told_without_paths(tmp_path):
    huge = nrrd(**{"space": "LPS", "space directions": "(1e3,0,0) (0,1e3,0) (0,0,1e3)"}).replace(bytes(64), b"\1" * 64)
    with live_server(tmp_path / "server", toy_offers()) as api:
        for options, words in (
            ({}, "million voxels at the spacing of the model; at most 1024 are allowed"),  # it would fill the memory
            ({"folds": ["../../etc"]}, "toy-120 has the folds 0; ../../etc was requested."),
            ({"configuration": "../../etc"}, "toy-120 has the configuration 3d_fullres, not ../../etc."),
        ):
            name = start(api, api.upload(huge), options=options)
            facts = api.wait(name)
            assert facts["state"] == "failed" and words in facts["error"], facts
            assert str(TOY) not in facts["error"] + api("get", f"jobs/{name}/log").text
            remove(api, name)
        assert left(api) == []


def test_a_localhost_that_leads_elsewhere_is_refused(tmp_path, monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))]
    monkeypatch.setattr(serving.socket, "getaddrinfo", lambda *_, **more: found)
    with pytest.raises(errors.ClassScaleError, match="localhost is an address that other machines reach"):
        with prepared(Settings(tmp_path, ("toy-120",), host="localhost", port=0), toy_offers()):
            pass


def test_tokens_that_are_damaged_let_nobody_in_until_they_are_mended(tmp_path, child):
    folder = tmp_path / "server"
    secret = Tokens(folder).make("anna")
    with a_server(folder, secret, require_token=True) as api:
        whole = (folder / "tokens.json").read_bytes()
        for damaged in (
            whole[:-20],
            b"[]",
            b"\xff",
            b'{"tokens": [{"name": "anna"}]}',
            b"x" * (2 << 20),
            b"[" * 100_000,
        ):
            (folder / "tokens.json").write_bytes(damaged)
            refused(api("get", "models"), 503, "stopping", "cannot read its tokens")
            stranger = Api(api.address, folder)
            refused(stranger("get", "models"), 401, "token_missing")
            assert stranger("get", "health").json()["token"] == "missing"
        (folder / "tokens.json").unlink()
        refused(api("get", "models"), 401, "token_wrong")
        (folder / "tokens.json").write_bytes(whole)
        assert api("get", "models").status_code == 200


def test_nobody_can_have_the_name_of_those_without_a_token(tmp_path):
    with pytest.raises(errors.ClassScaleError, match="without a token"):
        Tokens(tmp_path).make("local")


def test_a_known_key_does_not_remove_images_of_others(tmp_path, child):
    folder = tmp_path / "server"
    anna, ben = (Tokens(folder).make(name) for name in ("anna", "ben"))
    with a_server(folder, anna, require_token=True) as api:
        other = Api(api.address, folder, ben)
        image = api.upload(IMAGE)
        done = start(other, key="k" * 16)
        other.wait(done)
        again = other.job([image], key="k" * 16)
        assert (again.status_code, again.json()["id"]) == (200, done)
        assert api("get", f"uploads/{image}").json()["complete"]
        again = other.upload(IMAGE)  # as a client does after the server was started again
        assert other.job([again], key="k" * 16).status_code == 200
        refused(other("get", f"uploads/{again}"), 404, "upload_unknown")
        assert api("delete", f"uploads/{image}").status_code == 204
        remove(other, done)


@pytest.mark.parametrize("site, status", [("cross-site", 403), ("same-site", 403), ("none", 200), (None, 200)])
def test_pages_of_a_browser_stay_outside_also_if_they_only_show_an_answer(api, site, status):
    headers = {} if site is None else {"Sec-Fetch-Site": site}
    assert api("get", "models", headers=headers).status_code == status


@pytest.mark.parametrize(
    "host, status",
    [(host, 200) for host in ("127.0.0.1", "127.0.0.2:8471", "LOCALHOST:1", "[::1]:8471")]
    + [(host, 403) for host in ("", "::1", "10.0.0.1", "0.0.0.0", "2130706433", "[::ffff:10.0.0.1]", "localhost:80:80")]
    + [(host, 403) for host in ("localhost.evil.example", "127.0.0.1.evil.example", "evil@localhost")],
)
def test_only_names_of_this_machine_lead_to_a_server_without_tokens(api, host, status):
    assert api("get", "health", headers={"Host": host}).status_code == status


# Removing, at every moment


@pytest.mark.parametrize("stage", ["waiting", "begun", "segmenting", "finished", "failed", "converted"])
def test_a_job_can_be_removed_at_every_stage(api, child, stage):
    before = None
    if stage in ("waiting", "segmenting"):
        child.waits()
    if stage == "waiting":
        before = start(api)
    if stage == "failed":
        child.does("raise SystemExit(1)")
    name = start(api, confidence=True, statistics=True)
    if stage == "segmenting":
        assert wait_until(lambda: api("get", f"jobs/{name}").json()["stage"] == "segment")
    if stage in ("finished", "failed", "converted"):
        assert api.wait(name)["state"] == stage.replace("converted", "finished")
    if stage == "converted":
        for kind in ("application/x-nifti", "text/csv"):
            assert api("get", f"jobs/{name}/result", headers={"Accept": kind}).status_code == 200
    remove(api, name)
    for path in ("", "/result", "/events", "/log", "/confidence"):
        refused(api("get", f"jobs/{name}{path}"), 404, "job_unknown")
    refused(api("delete", f"jobs/{name}"), 404, "job_unknown")
    if before is not None:
        remove(api, before)


def test_jobs_that_are_removed_at_random_moments_leave_nothing(api):
    for number in range(12):
        name = start(api)
        time.sleep(0.04 * number)
        remove(api, name)
    remove(api, finished(api))


def large_result(api: Api, size: int = 30_000_000) -> tuple[str, bytes]:
    """Make a result large, so that sending it takes a while."""
    name = finished(api)
    content = os.urandom(1000) * (size // 1000)
    (api.folder / "results" / name / "result.seg.nrrd").write_bytes(content)
    return name, content


def test_a_result_that_is_removed_while_it_is_sent_arrives(api):
    name, content = large_result(api)
    with begin(api, f"GET /v1/jobs/{name}/result", "Connection: close") as opened:
        got = opened.recv(1000)
        remove(api, name)
        assert left(api) == []
        while part := opened.recv(1 << 20):
            got += part
    assert hashlib.sha256(got.partition(b"\r\n\r\n")[2]).digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("kind", ["application/x-nifti", "text/csv"])
def test_a_result_that_is_removed_while_it_is_converted_is_gone(api, monkeypatch, kind):
    name, read = finished(api), Segmentation.from_image

    def removing(file):
        result = read(file)
        remove(api, name)
        return result

    monkeypatch.setattr(Segmentation, "from_image", removing)
    refused(api("get", f"jobs/{name}/result", headers={"Accept": kind}), 404, "job_unknown")
    assert left(api) == []


def test_a_result_that_is_removed_before_its_first_byte_is_sent_is_gone(api, monkeypatch):
    name = finished(api)

    async def removing(path, **more):
        shutil.rmtree(path.parent)
        return await open_file(path, **more)

    open_file = anyio.open_file
    monkeypatch.setattr(anyio, "open_file", removing)
    refused(api("get", f"jobs/{name}/result"), 404, "job_unknown")
    remove(api, name)


def test_a_result_whose_sending_breaks_off_is_kept(api, monkeypatch):
    monkeypatch.setattr(jobs, "FETCHED_SECONDS", 0.1)
    name, content = large_result(api)
    for _ in range(5):
        with begin(api, f"GET /v1/jobs/{name}/result") as opened:
            opened.recv(1000)
    time.sleep(0.5)
    assert api("get", f"jobs/{name}/result").content == content
    assert wait_until(lambda: api("get", f"jobs/{name}").status_code == 404, 3)


def test_ranges_that_are_none_are_told_in_json(api):
    name = finished(api)
    size = api("get", f"jobs/{name}").json()["result"]["files"]["segmentation"]["size"]
    for header, status in (("lines=1-2", 400), (f"bytes={size}-", 416), ("bytes=9-1", 400), ("bytes=", 400)):
        refused(api("get", f"jobs/{name}/result", headers={"Range": header}), status, "range", "facts of the job")
    many = ",".join(f"{number}-{number}" for number in range(0, 90, 2))
    assert api("get", f"jobs/{name}/result", headers={"Range": f"bytes={many}"}).status_code == 206
    remove(api, name)


def test_a_server_that_stops_ends_its_jobs_and_removes_its_images(tmp_path, child):
    with live_server(tmp_path / "server", toy_offers()) as api:
        child.waits()
        api.upload(IMAGE)
        start(api)
        start(api)
        assert wait_until(lambda: child.began)
    assert left(api) == [] and list((tmp_path / "temporary").iterdir()) == []


def test_a_result_that_was_being_removed_is_none_after_a_crash(tmp_path, child):
    with live_server(tmp_path / "server", toy_offers()) as api:
        name = finished(api)
        (api.folder / "results" / name).rename(api.folder / "results" / f".{name}")
    with a_server(tmp_path / "server") as api:
        assert left(api) == [] and api("get", f"jobs/{name}").status_code == 404


@pytest.mark.parametrize("digest", ["", "0" * 63, 7, None])
def test_a_record_without_a_digest_is_none(tmp_path, child, digest):
    with live_server(tmp_path / "server", toy_offers()) as api:
        record = api.folder / "results" / finished(api) / "record.json"
        facts = json.loads(record.read_text())
        facts["result"]["files"]["segmentation"]["sha256"] = digest
        record.write_text(json.dumps(facts))
    with a_server(tmp_path / "server") as api:
        assert left(api) == []


def test_clients_that_do_everything_at_once_leave_nothing(tmp_path, child):
    """Nine clients of three tokens send, ask, break off and remove at random; all answers are documented ones."""
    folder = tmp_path / "server"
    secrets = {name: Tokens(folder).make(name) for name in ("anna", "ben", "carl")}
    known = {name: {"uploads": ["0" * 32], "jobs": ["0" * 32]} for name in secrets}
    statuses, until = set(), time.monotonic() + 8
    child.does("import random; time.sleep(random.random() / 5)\nif random.random() < 0.2: raise SystemExit(1)")

    def work(name: str, seed: int, address: str) -> None:
        chance, mine, api = random.Random(seed), known[name], Api(address, folder, secrets[name])
        while time.monotonic() < until:
            upload, job = (chance.choice(mine[kind][-8:]) for kind in ("uploads", "jobs"))
            other = chance.choice(known[chance.choice(list(known))]["jobs"][-5:])
            offset, accept = chance.choice((0, 50)), chance.choice(("*/*", "text/csv", "application/x-nifti"))
            steps = (
                lambda: api.announce(IMAGE, key=f"{chance.randrange(50):016}"),
                lambda upload=upload, offset=offset: api.part(upload, offset, IMAGE[offset : offset + 100]),
                lambda upload=upload: api.part(upload, 0, IMAGE),
                lambda upload=upload: api.job([upload], keep_images=chance.random() < 0.5),
                lambda job=job: api("get", f"jobs/{job}/events", stream=chance.random() < 0.5),
                lambda job=job, accept=accept: api("get", f"jobs/{job}/result", headers={"Accept": accept}),
                lambda job=job: api("delete", f"jobs/{job}"),
                lambda upload=upload: api("delete", f"uploads/{upload}"),
                lambda other=other: api("get", f"jobs/{other}"),
            )
            try:
                answer = chance.choice(steps)()
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):  # removed while it was sent
                continue
            statuses.add(answer.status_code)
            if answer.status_code == 201:
                kind = answer.request.path_url.rpartition("/")[2]
                mine[kind].append(answer.json()["id"])
            answer.close()
            api.session.close()

    limits = Limits(keep_seconds=2, job_seconds=1)
    with a_server(folder, secrets["anna"], require_token=True, slots=(SLOT, SLOT), limits=limits) as api:
        arguments = [(name, seed, api.address) for seed, name in enumerate(list(secrets) * 3)]
        clients = [threading.Thread(target=work, args=each) for each in arguments]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert {200, 201, 204, 404, 409} <= statuses <= {200, 201, 204, 404, 409, 422, 429}, statuses
        assert wait_until(lambda: left(api) == [], 10)  # what nobody fetches is removed after two seconds
