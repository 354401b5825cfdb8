"""What a server keeps, and for how long: after fetching, after nobody has, and after a crash."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from ClassScaleSegLib.server.folder import LOCK
from ClassScaleSegLib.server.limits import Limits
from ClassScaleSegLib.server.records import write_record
from ClassScaleSegLib.server.wishes import Wish
from ClassScaleSegLib.server.workers import STARTED, described_files
from live_server import Ahead, live_server
from server_api import FAST, SAMPLE, files, image, offers, start  # noqa: F401  (fixtures)


def restored(folder: Path, name: str, key: str = "k" * 16, age: float = 0) -> None:
    """Write a result as a server that was killed has left it."""
    results = folder / "results" / name
    results.mkdir(parents=True)
    (folder / LOCK).touch()
    (results / "result.seg.nrrd").write_bytes(b"NRRD0004\n")
    wish = Wish("local", key, ("0" * 32,), ("toy-120",), FAST["options"])
    write_record(results, wish, {"structures": 3, "seconds": 1.0, "files": described_files(results, wish)})
    record = json.loads((results / "record.json").read_text())
    (results / "record.json").write_text(json.dumps({**record, "time": record["time"] - age}))


def test_what_nobody_fetches_is_removed(tmp_path, offers, image, monkeypatch):
    clock = Ahead(monkeypatch)
    restored(tmp_path, "a" * 32)
    restored(tmp_path, "b" * 32, "old " * 4, age=601)
    restored(tmp_path, "c" * 32, "damaged-" * 2)
    (tmp_path / "results" / ("c" * 32) / "result.seg.nrrd").write_bytes(b"NR")
    with live_server(tmp_path, offers, limits=Limits(keep_seconds=600)) as api:
        assert api("get", f"jobs/{'a' * 32}/result", headers={"Range": "bytes=0-8"}).content == b"NRRD0004\n"
        assert all("a" * 32 in file for file in api.files())
        api.announce(image)
        api.upload(image)
        clock.runs(300)
        assert len(api.files()) == 3
        clock.runs(301)
        assert api.files() == [] and api("get", f"jobs/{'a' * 32}").status_code == 404


def test_what_was_fetched_is_removed_soon(tmp_path, offers, monkeypatch):
    clock = Ahead(monkeypatch)
    restored(tmp_path, "a" * 32)
    with live_server(tmp_path, offers) as api:
        clock.runs(301)
        assert api("get", f"jobs/{'a' * 32}/result", headers={"Range": "bytes=0-3"}).status_code == 206
        clock.runs(301)
        assert api("get", f"jobs/{'a' * 32}/result").status_code == 200
        assert api("get", f"jobs/{'a' * 32}/result").status_code == 200  # the connection may have broken at the end
        clock.runs(301)
        assert api.files() == [] and api("get", f"jobs/{'a' * 32}").status_code == 404


def test_a_killed_server_keeps_what_it_promised_and_nothing_else(tmp_path, image):
    process, api = start(tmp_path)
    done = api.job([api.upload(image)], key="done" * 4, **FAST).json()["id"]
    api.wait(done)
    api.upload(image)
    running = api.job([api.upload(SAMPLE.read_bytes())], options={"step": 0.2}).json()["id"]
    api.wait(running, "running")
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process, api = start(tmp_path)
    try:
        assert all(file.startswith(f"results/{done}/") for file in api.files())
        assert api("get", f"jobs/{running}").status_code == 404
        again = api.job(["0" * 32], key="done" * 4, **FAST)
        assert (again.status_code, again.json()["id"], again.json()["state"]) == (200, done, "finished")
        assert api("get", f"jobs/{done}/result").content.startswith(b"NRRD")
        assert api("delete", f"jobs/{done}").status_code == 204 and api.files() == []
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
    assert process.returncode == 0


def test_a_child_that_had_finished_when_the_server_was_killed_is_not_run_again(tmp_path, offers, image):
    wish = Wish("local", "k" * 16, ("0" * 32,), ("toy-120",), FAST["options"])
    for name, finished in (("a" * 32, True), ("b" * 32, False)):
        folder = tmp_path / "unfinished" / name
        folder.mkdir(parents=True)
        (tmp_path / LOCK).touch()
        (folder / STARTED).write_text(json.dumps({"pid": 2**22 - 1, "began": 0, "wish": vars(wish)}))
        if finished:
            (folder / "result.seg.nrrd").write_bytes(b"NRRD0004\n")
    with live_server(tmp_path, offers) as api:
        again = api.job(["0" * 32], key="k" * 16, **FAST)
        assert again.json()["id"] == "a" * 32 and again.json()["state"] == "finished"
        assert again.json()["result"]["structures"] is None
        assert api("get", f"jobs/{'a' * 32}/result").content == b"NRRD0004\n"
        assert api("get", f"jobs/{'b' * 32}").status_code == 404
        assert not list((tmp_path / "unfinished").iterdir())
