"""Results of a server: fetched to their end, and used only if they are what they must be."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import errno
import threading
import time

import numpy as np
import pytest
from ClassScaleSegLib import RemoteSegmenter
from ClassScaleSegLib.errors import Cancelled, OutputError, ServerError
from ClassScaleSegLib.remote import connection, jobs, preparing
from remote_client import api, expected, image, offers, quick, segmented, volume  # noqa: F401  (fixtures)
from remote_fixtures import network_to


def test_a_result_whose_fetching_is_cancelled_leaves_no_open_file(api, image, tmp_path, monkeypatch):
    cancel, streams = threading.Event(), []

    def pieces(self, answer, most, size):
        yield b"NRRD"
        cancel.set()
        time.sleep(0.5)
        yield b"more"

    class Noted(jobs.Fetching):
        def close(self) -> None:
            super().close()
            streams.append(self._stream)
            assert self._stream.closed

    original = jobs.Fetching.work

    def work(fetching) -> None:
        monkeypatch.setattr(connection.Connection, "pieces", pieces)
        original(fetching)

    monkeypatch.setattr(Noted, "work", work)
    monkeypatch.setattr(jobs, "Fetching", Noted)
    with RemoteSegmenter(api.address) as segmenter, pytest.raises(Cancelled):
        segmenter.segment(image, "toy-120", cancel=cancel)
    assert len(streams) == 1


def test_a_result_that_breaks_off_is_fetched_to_its_end(api, image):
    file = api.folder / "results"
    with network_to(api.address) as network:
        sizes: list[int] = []

        def progress(report) -> None:
            if report.stage == "fetch" and not sizes:
                sizes.extend(each.stat().st_size for each in file.rglob("*.seg.nrrd"))

        original = jobs.Fetching.work

        def work(fetching) -> None:
            fetching._connection.close()  # the next request opens a connection, which breaks after 40 kB
            network.down[:] = [40_000]
            original(fetching)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs.Fetching, "work", work)
            found = segmented(network.address, image, progress=progress)
        assert sizes[0] > 80_000
        assert network.sent.count(b"Range: bytes=") >= sizes[0] // 40_000 - 1
    assert np.array_equal(found.labels, expected(image))


def corrupted(monkeypatch, times: int) -> None:
    """Let results arrive with a wrong byte in them, so many times."""
    original, left = jobs.Fetching.work, [times]

    def work(fetching) -> None:
        original(fetching)
        if left[0]:
            left[0] -= 1
            content = bytearray(fetching._place.read_bytes())
            content[len(content) // 2] ^= 1
            fetching._place.write_bytes(content)

    monkeypatch.setattr(jobs.Fetching, "work", work)


def test_a_result_of_another_hash_is_fetched_again_and_never_used(api, image, monkeypatch):
    corrupted(monkeypatch, 2)
    assert np.array_equal(segmented(api.address, image).labels, expected(image))
    corrupted(monkeypatch, 9)
    with pytest.raises(ServerError, match="arrived damaged 3 times"):
        segmented(api.address, image)


def test_a_result_on_another_grid_is_refused(api, quick, image):
    quick.shift = 0.3
    with pytest.raises(ServerError, match=r"cannot be used \(It is on another grid than .*Doe\^John.nrrd\)"):
        segmented(api.address, image)


def test_a_result_with_other_classes_is_refused(api, quick, image):
    quick.names = {0: "background", 1: "liver"}
    with pytest.raises(ServerError, match="names other classes than the server has described"):
        segmented(api.address, image)


def test_a_result_that_would_be_too_large_is_not_fetched(api, image, monkeypatch):
    from ClassScaleSegLib.server import workers

    original = workers.described_files

    def described(folder, wish):
        return {what: {**facts, "size": 1 << 40} for what, facts in original(folder, wish).items()}

    monkeypatch.setattr(workers, "described_files", described)
    with pytest.raises(ServerError, match="more than the result can have. Nothing was fetched"):
        segmented(api.address, image)


def test_a_disk_that_is_full_here(api, image, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(jobs.Fetching, "work", full)
        with pytest.raises(OutputError, match=r"cannot be fetched.* \(No space left on device\).*TMPDIR"):
            segmented(api.address, image)
    monkeypatch.setattr(preparing, "write_nrrd", full)
    with pytest.raises(ServerError, match=r"cannot be sent.* \(No space left on device\).*TMPDIR"):
        segmented(api.address, volume(20))
