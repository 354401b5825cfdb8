"""Segmenting on a server: the same result as here, whatever happens to the network and the server in the meantime."""

from __future__ import annotations

import errno
import json
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import Options, RemoteSegmenter, Segmentation, errors
from ClassScaleSegLib.errors import Cancelled, ClassScaleError, OutputError, ServerError
from ClassScaleSegLib.images import nrrd
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.nrrd import nrrd_header, write_nrrd
from ClassScaleSegLib.images.reading import read_image
from ClassScaleSegLib.inference.progress import Monitor
from ClassScaleSegLib.labels.common_classes import common_classes
from ClassScaleSegLib.remote import connection, jobs, preparing, sending
from ClassScaleSegLib.remote.chosen_server import ChosenServer
from ClassScaleSegLib.remote.offers import models_of
from ClassScaleSegLib.remote.preparing import prepare
from ClassScaleSegLib.remote.request import wanted_table
from ClassScaleSegLib.server import uploads
from ClassScaleSegLib.server.limits import Limits
from ClassScaleSegLib.server.offers import Offers
from dicom_phantom import planes, write_series
from live_server import live_server
from remote_fixtures import Quick, fail, network_to, quick_server

MIB = 1 << 20


@pytest.fixture(scope="module")
def offers():
    return Offers(["toy-120", "toy-1000"])


@pytest.fixture
def quick():
    return Quick()


@pytest.fixture
def api(tmp_path, offers, quick, monkeypatch):
    """A server that is empty after each test."""
    monkeypatch.setattr(connection, "_PAUSES", (0.05,) * 7)
    with quick_server(tmp_path / "server", offers, quick, monkeypatch) as api:
        yield api
        deadline = time.monotonic() + 30
        while api.files() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert api.files() == []


@pytest.fixture
def image(tmp_path) -> Path:
    """An image of 2 MB whose file has the name of a patient."""
    return written(tmp_path / "Doe^John.nrrd")


def written(file: Path, side: int = 100) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(volume(side), file)
    return file


def volume(side: int = 100) -> sitk.Image:
    voxels = np.random.default_rng(7).normal(0, 100, (side, side, side)).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 0.8, 1.5))
    image.SetOrigin((-31.7, 1 / 3, 1000.125))
    return image


def expected(image, value: int = 1) -> np.ndarray:
    read = read_image(image, 1)
    voxels = read.voxels[0]  # a view of what ``read`` owns
    return np.where(voxels > voxels.mean(), value, 0)


def segmented(address: str, image, **more) -> Segmentation:
    with RemoteSegmenter(address, patience=20) as segmenter:
        return segmenter.segment(image, "toy-120", **more)


def test_the_result_is_the_same_as_here(tmp_path):
    from ClassScaleSegLib import open_model, segment
    from conftest import TOY

    small = sitk.ReadImage(str(TOY.parents[1] / "SampleData" / "toy-120.nrrd"))[20:60, 20:60, 20:60]
    stages: list[str] = []
    options = {"mirroring": False, "classes": ["cell 1", "cell 7", "cell 40"], "confidence": True, "smooth": 1.0}
    with live_server(tmp_path / "server", Offers(["toy-120"])) as api:
        with RemoteSegmenter(api.address) as segmenter:
            found = segmenter.segment(small, "toy-120", lambda report: stages.append(report.stage), **options)
        assert api.files() == []
    here = segment(small, open_model(TOY), device="cpu", **options)
    assert found.changes == here.changes and found.changes
    assert np.array_equal(found.labels, here.labels) and np.array_equal(found.confidence, here.confidence)
    assert found.table == here.table and found.geometry == here.geometry
    seen = list(dict.fromkeys(stages))
    assert seen[:2] == ["read", "send"] and seen[-1] == "fetch" and len(seen) > 3


@pytest.mark.parametrize("kind", [".nrrd", ".nii.gz", ".nii", ".mha", ".mhd", ".nhdr", ".gipl.gz", "image", "DICOM"])
def test_images_of_all_kinds_arrive_on_their_own_grid(api, quick, tmp_path, kind):
    if kind == "DICOM":
        source = tmp_path / "series"
        source.mkdir()
        write_series(source, planes())
    else:
        source = volume(20) if kind == "image" else tmp_path / f"Doe{kind}"
        if kind != "image":
            sitk.WriteImage(volume(20), source)
    found = segmented(api.address, source)
    assert np.array_equal(found.labels, expected(source))
    here = read_image(source, 1).geometry
    assert found.geometry == here and quick.sizes == [here.size]
    assert found.table.names[0] == "background" and len(found.table) == 121


def test_no_name_of_a_file_is_sent(api, tmp_path):
    with network_to(api.address) as network:
        for name in ("Doe^John.nii.gz", "Doe^John.mhd"):
            segmented(network.address, written(tmp_path / "Doe" / name, 20))
        assert len(network.sent) > 5000 and b"Doe" not in network.sent


def test_a_file_is_sent_as_it_is_and_other_images_raw_on_this_machine(api, tmp_path):
    file = written(tmp_path / "a.nii.gz", 40)
    with network_to(api.address) as network:
        segmented(network.address, file)
        before = len(network.sent)
        assert file.read_bytes()[:200] in network.sent
        segmented(network.address, volume(40))
        assert len(network.sent) - before > 2 * 40**3


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2"])
@pytest.mark.parametrize("compress", [False, True])
def test_voxels_of_every_type_are_written_as_they_are(tmp_path, dtype, compress):
    voxels = np.arange(24, dtype=dtype).reshape(2, 3, 4)[::-1]
    grid = Geometry((4, 3, 2), (0.1, 1 / 3, 5.0), (1e-7, -2.0, 3.3), (0, 1, 0, 1, 0, 0, 0, 0, -1))
    write_nrrd(tmp_path / "a.nrrd", voxels, grid, compress)
    read = sitk.ReadImage(str(tmp_path / "a.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(read), voxels)
    assert sitk.GetArrayFromImage(read).dtype == np.dtype(dtype).newbyteorder("=")
    assert Geometry.from_image(read).distance(grid) < 1e-12
    assert (b"encoding: gzip" in (tmp_path / "a.nrrd").read_bytes()) == compress


def test_channels_in_one_file_become_a_file_each(tmp_path):
    several = sitk.Compose([sitk.Cast(volume(10), sitk.sitkFloat32) * factor for factor in (1, 2, 3)])
    sitk.WriteImage(several, tmp_path / "three.nrrd")
    prepared = prepare(tmp_path / "three.nrrd", False, Monitor(), False, False)
    read = [sitk.GetArrayFromImage(sitk.ReadImage(str(file.path))) for file in prepared.files]
    assert len(read) == 3 and np.array_equal(read[2], 3 * read[0])
    folder = prepared.files[0].path.parent
    prepared.close()
    assert not folder.exists()


def test_a_folder_with_a_file_that_is_still_written_goes_after_cancelling(tmp_path, monkeypatch):
    """As on Windows, where no file is removed that is open; elsewhere a new file may come in between."""
    cancel, opened, clean = threading.Event(), threading.Event(), tempfile.TemporaryDirectory.cleanup

    def header(*arguments: object) -> str:
        opened.set()
        cancel.set()
        time.sleep(0.4)
        opened.clear()
        return nrrd_header(*arguments)

    def cleanup(folder: tempfile.TemporaryDirectory) -> None:
        if opened.is_set():
            raise PermissionError(13, "The process cannot access the file because it is being used")
        clean(folder)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(nrrd, "nrrd_header", header)
    monkeypatch.setattr(tempfile.TemporaryDirectory, "cleanup", cleanup)
    with pytest.raises(Cancelled):
        prepare(sitk.Compose([volume(20)] * 3), False, Monitor(cancel=cancel), False, False)
    assert list(tmp_path.iterdir()) == []
    time.sleep(0.2)
    assert not opened.is_set() and list(tmp_path.iterdir()) == []


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


def test_an_image_is_sent_once_for_several_models(api, image):
    with network_to(api.address) as network, RemoteSegmenter(network.address) as segmenter:
        with segmenter.upload(image) as sent:
            before = len(network.sent)
            found = [segmenter.segment(sent, model) for model in ("toy-120", "toy-1000", "toy-120")]
            assert len(network.sent) - before < 20_000 and len(api.files()) == 1
        assert [len(each.table) for each in found] == [121, 1001, 121]
        assert api.files() == []
    assert all(np.array_equal(each.labels, expected(image)) for each in found)


def test_the_classes_of_several_models_are_told_apart_as_they_are_here(offers):
    models = list(models_of(json.loads(offers.json), "http://lab").values())
    tables = [model.summaries[0].table for model in models]
    common = common_classes(tables, [model.name for model in models]).table
    assert wanted_table(models, Options()) == common


def test_choices_are_sent_and_the_result_has_the_classes_that_were_chosen(api, quick, image):
    found = segmented(api.address, image, classes=["cell 9", "cell 7"], smooth=2, confidence=True)
    assert quick.seen == [{"classes": ["cell 9", "cell 7"], "smooth": 2.0}]
    assert list(found.table.names) == [0, 7, 9] and np.array_equal(found.labels, expected(image, 7))
    assert found.confidence.dtype == np.float32 and (found.confidence == 0.5).all()


def test_a_model_of_the_server_tells_where_to_look(api, quick, image):
    segmented(api.address, image, locate_with="Toy atlas, 1000 classes", locate_classes=["cell 3"])
    segmented(api.address, image, locate_with="none")
    assert quick.seen == [{"locate_with": "toy-1000", "locate_classes": ["cell 3"]}, {"locate_with": "none"}]
    with pytest.raises(errors.ModelError, match="has no model liver"):
        segmented(api.address, image, locate_with="liver")


@pytest.mark.parametrize("way", ["RemoteSegmenter", "ChosenServer"])
def test_a_model_that_cannot_locate_is_refused_before_anything_is_sent(offers, image, way):
    known = models_of(json.loads(offers.json), "lab")
    toy = known["toy-1000"]
    known["two"] = replace(toy, id="two", name="Two", summaries=2 * toy.summaries)
    known["mr"] = replace(toy, id="mr", name="MR", summaries=(replace(toy.summaries[0], channels=4),))
    for name, sentence in (("two", "two consists of 2 models; give a single one"), ("mr", "needs 4 channel")):
        with pytest.raises(errors.ModelError, match=sentence):
            if way == "ChosenServer":
                ChosenServer("https://lab:1", models=known).choose(["toy-120"], Options(locate_with=name))
            else:
                segmenter = RemoteSegmenter("https://lab:1")
                segmenter._models = known
                segmenter.segment(image, "toy-120", locate_with=name)


@pytest.mark.parametrize("option", ["device", "threads", "memory_limit_gib", "checkpoint"])
def test_what_the_server_decides_cannot_be_chosen(api, image, option):
    with pytest.raises(ClassScaleError, match=f"The server chooses {option}. Leave that out"):
        segmented(api.address, image, **{option: "cpu"})
    with pytest.raises(ClassScaleError, match="There is no option colour"):
        segmented(api.address, image, colour="red")


def test_a_model_or_class_that_is_not_there(api, image):
    with RemoteSegmenter(api.address) as segmenter:
        with pytest.raises(errors.ModelError, match=f"{api.address} has no model liver. It offers toy-120, toy-1000."):
            segmenter.segment(image, "liver")
        with pytest.raises(errors.ModelError, match="is given twice"):
            segmenter.segment(image, ["toy-120", "toy-120"])
        with pytest.raises(errors.LabelTableError, match="No label is called livre"):
            segmenter.segment(image, "toy-120", classes=["livre"])


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        (errors.ModelError, errors.ModelError),
        (errors.ImageError, errors.ImageError),
        (errors.OutputError, errors.OutputError),
        (errors.OutOfMemoryError, errors.OutOfMemoryError),
        (errors.LabelTableError, errors.LabelTableError),
        (errors.ClassScaleError, errors.ServerError),
    ],
)
def test_a_job_that_fails_there_fails_here_in_the_same_way(api, quick, image, kind, raised):
    quick.before = fail(kind, "It does not work, in one sentence.")
    with pytest.raises(raised) as caught:
        segmented(api.address, image)
    assert str(caught.value) == f"{api.address}: It does not work, in one sentence."


def test_a_connection_that_breaks_again_and_again_goes_on_by_itself(api, image, monkeypatch):
    monkeypatch.setattr(sending, "PART_BYTES", MIB // 2)
    with network_to(api.address) as network:
        network.up = [300, 700_000, 300, 100_000, 10_000, 200_000, 1 << 40, 1 << 40, 600]
        network.down = [1 << 40, 1 << 40, 1 << 40, 1 << 40, 150, 1 << 40, 900, 1200]
        found = segmented(network.address, image)
        assert network.connections > 8 and not network.up
        assert len(network.sent) < 3.2 * MIB  # of which the image is 1.9 MiB: it was never begun anew
    assert np.array_equal(found.labels, expected(image))


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


def test_an_image_that_arrives_damaged_is_sent_again(api, image, monkeypatch):
    original, damaged = sending._Part.read, []

    def read(part, size=-1):
        content = original(part, size)
        if content and not damaged:
            damaged.append(True)
            content = bytes(reversed(content))
        return content

    monkeypatch.setattr(sending._Part, "read", read)
    assert np.array_equal(segmented(api.address, image).labels, expected(image))
    monkeypatch.setattr(sending._Part, "read", lambda part, size=-1: bytes(reversed(original(part, size))))
    with pytest.raises(ServerError, match="has changed while it was sent"):
        segmented(api.address, image)


def test_an_image_that_becomes_shorter_while_it_is_sent(api, image, monkeypatch):
    monkeypatch.setattr(sending, "PART_BYTES", MIB // 2)

    def progress(report) -> None:
        if report.stage == "send" and report.done:
            image.write_bytes(image.read_bytes()[:1000])

    with pytest.raises(ServerError, match="has become shorter while it was sent"):
        segmented(api.address, image, progress=progress)


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


def test_the_place_in_the_queue_is_reported(api, quick, image):
    hold, reports = threading.Event(), []
    quick.before = lambda job: quick.until_told(job) if hold.wait(60) else None
    others = [threading.Thread(target=segmented, args=(api.address, volume(10))) for _ in range(2)]
    for waiting, other in enumerate(others):
        other.start()
        while api("get", "health").json()["queue"] != {"waiting": waiting, "running": 1}:
            time.sleep(0.02)

    def progress(report) -> None:
        reports.append(report)
        if report.stage == "queue":
            hold.set()

    segmented(api.address, image, progress=progress)
    queue = [report for report in reports if report.stage == "queue"]
    assert (queue[0].done, queue[0].total) == (0, 1) and queue[0].message == "1 job is before this one."
    assert [report.remaining for report in reports if report.stage == "segment"][0] == 3.5
    assert [report.message for report in reports].count("A notice.") == 1
    for other in others:
        other.join(60)


def test_a_disk_that_is_full_there(api, image, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(ServerError, match=f"{api.address} has no room on its disk"):
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


def test_an_image_with_other_channels_is_not_sent(api, image):
    with network_to(api.address) as network, RemoteSegmenter(network.address) as segmenter:
        with pytest.raises(errors.ImageError, match=r"2 channel\(s\) were given, but the model needs 1"):
            segmenter.segment([image, image], "toy-120")
        assert b"uploads" not in network.sent
        with segmenter.upload([image, image]) as sent, pytest.raises(errors.ImageError, match="needs 1"):
            segmenter.segment(sent, "toy-120")


def test_an_image_that_was_removed_or_is_on_another_server_is_not_segmented(api, image):
    with RemoteSegmenter(api.address) as segmenter, network_to(api.address) as network:
        sent = segmenter.upload(image)
        with pytest.raises(ServerError, match="Send it there"), RemoteSegmenter(network.address) as other:
            other.segment(sent, "toy-120")
        sent.close()
        with pytest.raises(ServerError, match="Send it there"):
            segmenter.segment(sent, "toy-120")


def test_an_image_that_cannot_be_read_is_not_sent(api, tmp_path):
    (tmp_path / "a.nrrd").write_bytes(b"no image")
    with network_to(api.address) as network:
        for name in ("a.nrrd", "nothing.nrrd"):
            with pytest.raises(errors.ImageError, match=name):
                segmented(network.address, tmp_path / name)
        assert b"uploads" not in network.sent


def test_a_grid_that_is_refused_is_not_sent(api, image):
    def accept(geometry: Geometry) -> None:
        assert geometry.size == (100, 100, 100)
        raise errors.OutputError("No.")

    with network_to(api.address) as network, RemoteSegmenter(network.address) as segmenter:
        with pytest.raises(errors.OutputError, match="No."):
            segmenter.upload(image, accept=accept)
        assert b"uploads" not in network.sent


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
