"""Images for a server: of all kinds, without names, on their own grids; what is none is not sent."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import tempfile
import threading
import time

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import RemoteSegmenter, errors
from ClassScaleSegLib.errors import Cancelled, ServerError
from ClassScaleSegLib.images import nrrd
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.nrrd import nrrd_header, write_nrrd
from ClassScaleSegLib.images.reading import read_image
from ClassScaleSegLib.inference.progress import Monitor
from ClassScaleSegLib.remote import sending
from ClassScaleSegLib.remote.preparing import prepare
from dicom_phantom import planes, write_series
from remote_client import MIB, api, expected, image, offers, quick, segmented, volume, written  # noqa: F401  (fixtures)
from remote_fixtures import network_to


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


def test_an_image_is_sent_once_for_several_models(api, image):
    with network_to(api.address) as network, RemoteSegmenter(network.address) as segmenter:
        with segmenter.upload(image) as sent:
            before = len(network.sent)
            found = [segmenter.segment(sent, model) for model in ("toy-120", "toy-1000", "toy-120")]
            assert len(network.sent) - before < 20_000 and len(api.files()) == 1
        assert [len(each.table) for each in found] == [121, 1001, 121]
        assert api.files() == []
    assert all(np.array_equal(each.labels, expected(image)) for each in found)


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
