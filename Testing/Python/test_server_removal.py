"""Jobs and results that are removed at any moment: who asks for them is told so, and nothing is left behind."""

import hashlib
import os
import shutil
import time

import pytest

pytest.importorskip("fastapi")
import anyio  # noqa: E402
from ClassScaleSegLib import Segmentation  # noqa: E402
from ClassScaleSegLib.server.tokens import Tokens  # noqa: E402
from live_server import Ahead, Api, live_server  # noqa: E402
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
)


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
