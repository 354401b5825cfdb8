"""Segmenting on a server whose network breaks, that restarts, is full or busy; and what is cancelled leaves nothing."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from ClassScaleSegLib import RemoteSegmenter, Segmentation
from ClassScaleSegLib.errors import Cancelled, ServerError
from ClassScaleSegLib.remote import connection, sending
from ClassScaleSegLib.server import uploads
from ClassScaleSegLib.server.limits import Limits
from remote_client import MIB, api, expected, image, offers, quick, segmented, volume  # noqa: F401  (fixtures)
from remote_fixtures import network_to, quick_server


def test_a_connection_that_breaks_again_and_again_goes_on_by_itself(api, image, monkeypatch):
    monkeypatch.setattr(sending, "PART_BYTES", MIB // 2)
    with network_to(api.address) as network:
        network.up = [300, 700_000, 300, 100_000, 10_000, 200_000, 1 << 40, 1 << 40, 600]
        network.down = [1 << 40, 1 << 40, 1 << 40, 1 << 40, 150, 1 << 40, 900, 1200]
        found = segmented(network.address, image)
        assert network.connections > 8 and not network.up
        assert len(network.sent) < 3.2 * MIB  # of which the image is 1.9 MiB: it was never begun anew
    assert np.array_equal(found.labels, expected(image))


@pytest.mark.parametrize("moment", ["send", "segment", "fetch"])
def test_a_server_that_restarts_in_the_middle(tmp_path, offers, quick, image, monkeypatch, moment):
    monkeypatch.setattr(connection, "_PAUSES", (0.05,) * 7)
    monkeypatch.setattr(sending, "PART_BYTES", MIB // 2)
    port, done, messages = None, threading.Event(), []
    outcome: list = []
    reached, go_on = threading.Event(), threading.Event()

    def progress(report) -> None:
        messages.append(report.message)
        if report.stage == moment and (moment != "send" or report.done) and not reached.is_set():
            reached.set()
            assert go_on.wait(60)

    def client(address: str) -> None:
        try:
            outcome.append(segmented(address, image, progress=progress))
        except BaseException as error:
            outcome.append(error)
        done.set()

    hold = threading.Event()
    quick.before = lambda job: hold.wait(60) if moment == "segment" and not reached.is_set() else None
    folder = tmp_path / "server"
    with quick_server(folder, offers, quick, monkeypatch) as api:
        port = int(api.address.rpartition(":")[2])
        threading.Thread(target=client, args=(api.address,), daemon=True).start()
        assert reached.wait(60)
        hold.set()
        go_on.set() if moment == "segment" else None
        time.sleep(0.2)
        before = len(quick.seen)
        threading.Timer(0.5, go_on.set).start()
    with quick_server(folder, offers, quick, monkeypatch, port=port) as api:
        assert done.wait(60)
        (found,) = outcome
        assert isinstance(found, Segmentation), found
        assert np.array_equal(found.labels, expected(image))
        assert api.files() == []
    if moment == "fetch":
        assert len(quick.seen) == before == 1  # it was finished, and not done again


def test_a_server_that_always_forgets_is_given_up(api, quick, image):
    def forget(job) -> None:
        with api_jobs._changed:
            api_jobs._all.pop(job.id, None)
            api_jobs._uploads.leave(job.wish.images, job.id, keep=True)

    from ClassScaleSegLib.server import jobs as server_jobs

    api_jobs = None
    original = server_jobs.Jobs.take

    def take(self, seconds):
        nonlocal api_jobs
        api_jobs = self
        return original(self, seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_jobs.Jobs, "take", take)
        while api_jobs is None:  # the worker asks for a job twice a second
            time.sleep(0.02)
        quick.before = forget
        with pytest.raises(ServerError, match="was started again 5 times in the middle"):
            segmented(api.address, image)


@pytest.mark.parametrize("stage", ["read", "send", "queue", "segment", "fetch"])
def test_cancelling_waits_for_nothing_and_leaves_nothing(api, quick, image, stage):
    cancel, moments = threading.Event(), []
    hold = threading.Event()
    quick.before = lambda job: job.stop.wait(20) if stage == "segment" else hold.wait(60) if stage == "queue" else None

    def progress(report) -> None:
        if report.stage == stage and not cancel.is_set():
            moments.append(time.monotonic())
            cancel.set()

    other = None
    if stage == "queue":  # another job is before it
        other = threading.Thread(target=segmented, args=(api.address, volume(10)))
        other.start()
        while not quick.seen:
            time.sleep(0.02)
    with pytest.raises(Cancelled):
        segmented(api.address, image, progress=progress, cancel=cancel)
    assert time.monotonic() - moments[0] < 15  # the jobs would take 20 s
    hold.set()
    if other is not None:
        other.join(60)
    health = RemoteSegmenter(api.address).health()
    assert health.waiting == 0


@pytest.mark.parametrize("moment", ["answered late", "never asked"])
def test_a_job_that_is_cancelled_before_the_server_answers_leaves_nothing(api, quick, image, monkeypatch, moment):
    from ClassScaleSegLib.server.jobs import Jobs

    quick.before = lambda job: job.stop.wait(20)
    token, removed, ended, asked, real = threading.Event(), threading.Event(), threading.Event(), [], Jobs.add

    def slow(self, wish):
        asked.append(wish.key)
        first = len(asked) == 1
        found = real(self, wish) if moment == "answered late" or not first else None
        if not first:
            return found
        token.set()
        removed.wait(60)
        ended.set()
        return found or real(self, wish)  # what arrives after everything was removed makes no job

    monkeypatch.setattr(Jobs, "add", slow)
    with pytest.raises(Cancelled):
        segmented(api.address, image, cancel=token)
    removed.set()
    assert ended.wait(60) and len(asked) == 2 and len(set(asked)) == 1
    assert api("get", "health").json()["queue"] == {"waiting": 0, "running": 0} and api.files() == []


def test_an_image_that_is_cancelled_before_the_server_answers_leaves_no_room_reserved(api, image, monkeypatch):
    token, removed, asked, real = threading.Event(), threading.Event(), [], uploads.Uploads.begin

    def slow(self, *announced):
        asked.append(found := real(self, *announced))
        if len(asked) == 1:
            token.set()
            removed.wait(60)
        return found

    monkeypatch.setattr(uploads.Uploads, "begin", slow)
    with pytest.raises(Cancelled):
        segmented(api.address, image, cancel=token)
    removed.set()
    assert len(asked) == 2 and asked[1] == (asked[0][0], False) and asked[0][0].removed


def test_a_disk_that_is_full_there(api, image, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(ServerError, match=f"{api.address} has no room on its disk"):
        segmented(api.address, image)


def test_a_queue_that_is_full(tmp_path, offers, quick, image, monkeypatch):
    monkeypatch.setattr(connection, "_PAUSES", (0.05,) * 7)
    monkeypatch.setattr(connection, "_BUSY_SECONDS", 0.3)
    hold = threading.Event()
    quick.before = lambda job: hold.wait(60)
    with quick_server(tmp_path / "server", offers, quick, monkeypatch, limits=Limits(jobs=1)) as api:
        other = threading.Thread(target=segmented, args=(api.address, volume(10)))
        other.start()
        while not quick.seen:
            time.sleep(0.02)
        with pytest.raises(ServerError, match="takes no more at the moment. 1 jobs of this token"):
            segmented(api.address, image)
        hold.set()
        other.join(60)
        assert api.files() == []


def test_an_image_waits_while_others_of_the_same_token_are_sent(api, image, monkeypatch):
    monkeypatch.setattr(sending, "_SECONDS_BUSY", 0.01)
    monkeypatch.setattr(uploads, "SENDING", 0)
    tried, real = [], uploads.Uploads.claim

    def claim(self, *arguments):
        tried.append(1)
        if len(tried) > sending._IN_VAIN + 5:
            monkeypatch.setattr(uploads, "SENDING", 8)
        return real(self, *arguments)

    monkeypatch.setattr(uploads.Uploads, "claim", claim)
    assert segmented(api.address, image).table.foreground and len(tried) > sending._IN_VAIN + 5


def test_a_proxy_that_takes_small_requests_only_gets_small_parts(api, image, monkeypatch):
    original, sizes = connection.Connection.part, []

    def part(self, path, body, offset):
        sizes.append(len(body))
        if len(body) > MIB // 2:
            raise connection.Refused("A server in front takes no request of this size.", 413)
        return original(self, path, body, offset)

    monkeypatch.setattr(connection.Connection, "part", part)
    assert np.array_equal(segmented(api.address, image).labels, expected(image))
    assert sizes[-1] <= MIB // 2
