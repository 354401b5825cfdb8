"""What goes wrong on a server: each is a status and a sentence, and nothing is left behind."""

import errno
import logging
import os
import shutil
import socket
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
from ClassScaleSegLib import Segmentation, errors  # noqa: E402
from ClassScaleSegLib.process.exit_codes import exit_code  # noqa: E402
from ClassScaleSegLib.server import serving  # noqa: E402
from ClassScaleSegLib.server.offers import Offers  # noqa: E402
from ClassScaleSegLib.server.serving import Settings, prepared  # noqa: E402
from ClassScaleSegLib.server.tokens import Tokens  # noqa: E402
from live_server import Api, live_server  # noqa: E402
from server_child import (  # noqa: E402, F401  (fixtures)
    IMAGE,
    a_server,
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
