"""What is sent to a server: images that are none, or others than announced, are refused, and no other file is read."""

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
import SimpleITK as sitk  # noqa: E402
from ClassScaleSegLib import errors  # noqa: E402
from ClassScaleSegLib.images.image_file import read_file  # noqa: E402
from ClassScaleSegLib.server import receiving  # noqa: E402
from server_child import (  # noqa: E402, F401  (fixtures)
    IMAGE,
    SAMPLE,
    begin,
    controlled_child,
    nrrd,
    refused,
    remove,
    server_without_tokens,
    start,
    wait_until,
)


def mha(more: str = "", file: str = "LOCAL") -> bytes:
    head = f"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n{more}ElementDataFile = {file}\n"
    return head.encode() + bytes(64)


def nifti(folder: Path, suffix: str) -> bytes:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4, 4), np.uint8)), folder / f"image{suffix}")
    return (folder / f"image{suffix}").read_bytes()


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
    monkeypatch.setattr(receiving, "_BLOCK", 1)
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
    monkeypatch.setattr(receiving, "SECONDS_FOR_BYTES", 0.3)
    name = api.announce(IMAGE).json()["id"]
    headers = (f"Content-Length: {len(IMAGE)}", "Upload-Offset: 0")
    with begin(api, f"PATCH /v1/uploads/{name}", *headers, body=IMAGE[:50]) as opened:
        assert b"408 Request Timeout" in opened.recv(1000)
    assert api.part(name, 50, IMAGE[50:]).json()["complete"]
    remove(api, start(api, name))


def test_a_job_for_a_model_that_is_not_there_leaves_its_image(api):
    upload = api.upload(IMAGE)
    for model in ("no-such", "../../etc/passwd", "/etc/passwd", str(SAMPLE), "toy-120\0", ""):
        refused(api.job([upload], (model,)), 404, "model_unknown", "It has toy-120.")
    remove(api, start(api, upload))
