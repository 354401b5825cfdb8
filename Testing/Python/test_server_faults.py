"""What goes wrong on a server: each is a status and a sentence, and nothing is left behind."""

import copy
import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
import anyio  # noqa: E402
from ClassScaleSegLib import Segmentation, errors  # noqa: E402
from ClassScaleSegLib.process.exit_codes import exit_code  # noqa: E402
from ClassScaleSegLib.server import jobs, serving  # noqa: E402
from ClassScaleSegLib.server.limits import Limits  # noqa: E402
from ClassScaleSegLib.server.offers import Offers  # noqa: E402
from ClassScaleSegLib.server.schemas import JobFacts  # noqa: E402
from ClassScaleSegLib.server.serving import Settings, prepared  # noqa: E402
from ClassScaleSegLib.server.tokens import Tokens  # noqa: E402
from ClassScaleSegLib.server.workers import adopt_unfinished  # noqa: E402
from live_server import Ahead, Api, live_server  # noqa: E402
from odd_json import WEIRD, entries  # noqa: E402
from server_child import (  # noqa: E402, F401  (fixtures)
    IMAGE,
    a_server,
    begin,
    controlled_child,
    finished,
    left,
    nrrd,
    refused,
    remove,
    server_without_tokens,
    start,
    toy_offers,
    wait_until,
    without_faults,
)

TOY = Path(__file__).parents[2] / "Resources" / "Models" / "toy-120.zip"


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
    clock = Ahead(monkeypatch)
    with a_server(tmp_path / "server") as api:
        assert api("get", f"jobs/{name}").status_code == (200 if kept else 404)
        clock.runs(3601)
        assert left(api) == []  # by the clock that does not jump


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
    clock = Ahead(monkeypatch)
    name, content = large_result(api)
    for _ in range(5):
        with begin(api, f"GET /v1/jobs/{name}/result") as opened:
            opened.recv(1000)
    clock.runs(301)
    assert api("get", f"jobs/{name}/result").content == content
    assert wait_until(lambda: clock.runs(301) or api("get", f"jobs/{name}").status_code == 404)


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


def odd_variants(facts):
    """Yield a JSON object with something odd in each of its entries, in turn."""
    for path in entries(facts):
        for weird in WEIRD:
            odd = copy.deepcopy(facts)
            place = odd
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = weird
            yield odd


def test_odd_records_of_results_are_none_or_can_be_answered(tmp_path, child):
    """A server that could not start because of one file would lose all other results."""
    with live_server(tmp_path / "server", toy_offers()) as api:
        record = api.folder / "results" / finished(api, confidence=True) / "record.json"
    kept, whole = 0, json.loads(record.read_text())
    texts = [json.dumps(odd) for odd in odd_variants(whole)]
    for text in (*texts, "[" * 100_000, "", "[]", "\0", json.dumps(whole)[:-1]):
        folder = tmp_path / "results" / record.parent.name
        shutil.copytree(record.parent, folder)
        (folder / "record.json").write_text(text)
        found = jobs.Jobs(tmp_path, folder.parent, None, Limits())
        if found.restore():
            kept += 1
            (job,) = found._all.values()
            facts = found.facts(job.wish.owner, job.id)
            JobFacts.model_validate(json.loads(json.dumps(facts, allow_nan=False)), strict=True)
            assert 0 <= time.monotonic() - job.ended <= 3600
            shutil.rmtree(folder)
        assert not folder.exists()
    assert 5 < kept < len(texts) / 2


def test_odd_notes_of_jobs_that_were_running_are_removed(tmp_path):
    wish = {"owner": "local", "key": "k" * 16, "images": ["0" * 32], "models": ["toy-120"], "options": {}}
    whole = {"pid": 2**22 - 1, "began": 0.0, "wish": {**wish, "confidence": False}}
    (tmp_path / "results").mkdir()
    for text in (*map(json.dumps, odd_variants(whole)), "[" * 100_000, "", "7"):
        folder = tmp_path / "unfinished" / ("a" * 32)
        folder.mkdir(parents=True)
        (folder / "started.json").write_text(text)
        (folder / "result.seg.nrrd").write_bytes(b"NRRD")
        adopt_unfinished(folder.parent, tmp_path / "results")
        assert list(folder.parent.iterdir()) == []
        shutil.rmtree(tmp_path / "results" / folder.name, ignore_errors=True)
