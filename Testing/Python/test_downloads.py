"""Downloads that are cut, exchanged, refused or cancelled, and files placed by hand."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from catalog_fixtures import MODEL, SHA256, catalog, entry, known, server, site  # noqa: F401  (fixtures)
from ClassScaleSegLib.catalog import download
from ClassScaleSegLib.catalog.catalog import Catalog
from ClassScaleSegLib.catalog.download import follow
from ClassScaleSegLib.catalog.entries import Part
from ClassScaleSegLib.errors import Cancelled, CatalogError
from ClassScaleSegLib.locking import locked
from conftest import TOY
from web import Page


def left_over(catalog, entry):
    return {file.name for file in (catalog.folder / entry.id).iterdir()} - {"download.lock"}


class CancelAfter:
    """Set once it was asked ``count`` times."""

    def __init__(self, count):
        self.count = count

    def is_set(self):
        self.count -= 1
        return self.count < 0


def test_a_download_is_the_file_with_its_sum_noted_beside_it(catalog, entry, site):
    steps = []
    assert not catalog.is_installed(entry) and catalog.size(entry) == 0
    with pytest.raises(
        CatalogError, match="Model A is not downloaded. Run `classscaleseg models download model-a`, or save"
    ):
        catalog.paths(entry)
    (path,) = catalog.download(entry, lambda *step: steps.append(step))
    assert path == catalog.folder / "model-a" / "a.zip" and path.read_bytes() == MODEL
    assert steps == sorted(steps) and steps[0] == (0, len(MODEL)) and steps[-1] == (len(MODEL), len(MODEL))
    assert left_over(catalog, entry) == {"a.zip", "a.zip.json"}
    record = catalog.record(entry, entry.parts[0])
    assert (record.sha256, record.size, record.address) == (SHA256, len(MODEL), f"{site.address}/a.zip")
    assert catalog.is_installed(entry) and catalog.paths(entry) == (path,)
    assert catalog.download(entry) == (path,) and len(site.requests) == 1


def test_a_cut_connection_is_resumed_where_it_stopped(catalog, entry, site):
    site.pages["/a.zip"].cuts = [700_000, 500_000, 1]
    lost, steps = download.CHUNK, []  # at most, at each cut
    (path,) = catalog.download(known(entry, sha256=SHA256), lambda *step: steps.append(step))
    assert path.read_bytes() == MODEL and steps == sorted(steps)
    first, *others = site.requests
    begins = [int(request["Range"].removeprefix("bytes=").removesuffix("-")) for request in others]
    assert "Range" not in first and {request["If-Range"] for request in others} == {'"one"'}
    assert 0 <= 700_000 - begins[0] < lost and 0 <= begins[0] + 500_000 - begins[1] < lost and len(begins) == 3


def test_a_cancelled_download_goes_on_in_another_session(catalog, entry, site):
    with pytest.raises(Cancelled, match="What has arrived is kept"):
        catalog.download(entry, cancel=CancelAfter(10))
    have = (catalog.folder / "model-a" / "a.zip.part").stat().st_size
    assert 100_000 < have < len(MODEL) and not catalog.is_installed(entry) and catalog.size(entry) > have
    (path,) = Catalog(catalog.folder).download(entry)
    assert path.read_bytes() == MODEL and site.requests[-1]["Range"] == f"bytes={have}-"


def test_a_download_cancelled_after_its_last_byte_is_not_loaded_again(catalog, entry, site):
    done = threading.Event()
    with pytest.raises(Cancelled):
        catalog.download(entry, lambda have, total: have == total and done.set(), done)
    catalog.download(entry)
    assert len(site.requests) == 1 and left_over(catalog, entry) == {"a.zip", "a.zip.json"}


@pytest.mark.parametrize("how", ["no range support", "changed", "changed and unnoticed by the server", "no tag", "416"])
def test_pieces_of_different_files_are_never_put_together(catalog, entry, site, how):
    page = site.pages["/a.zip"] = Page(bytes(reversed(MODEL)), cuts=[900_000])
    page.content = b"PK" + page.content
    page.tag = None if how == "no tag" else page.tag
    with pytest.raises(Cancelled):
        catalog.download(entry, cancel=CancelAfter(9))
    page.cuts, page.content = [], MODEL
    if how == "no range support":
        page.ranges = False
    elif how == "416":
        page.content, page.trusting = MODEL, True
        (catalog.folder / "model-a" / "a.zip.part").write_bytes(bytes(len(MODEL) + 5))
    elif how != "no tag":
        page.tag, page.trusting = '"two"', how != "changed"
    (path,) = catalog.download(entry)
    assert path.read_bytes() == MODEL


def test_a_connection_that_stays_dead_is_a_sentence_with_a_way_out(catalog, entry, site):
    site.pages["/a.zip"] = Page(MODEL, tag=None, cuts=[100_000] * 20)
    with pytest.raises(CatalogError, match=r"was lost .* bytes have arrived.* save it as .*a.zip") as caught:
        catalog.download(entry)
    assert f"{site.address}/a.zip" in str(caught.value) and len(site.requests) < 6
    dead = known(entry, address="http://127.0.0.1:9/a.zip")
    with pytest.raises(CatalogError, match="could not be reached.*refused"):
        catalog.download(dead)


def test_a_wrong_checksum_leaves_nothing(catalog, entry):
    with pytest.raises(CatalogError, match=f"SHA-256 {SHA256}, but {'0' * 64} was expected"):
        catalog.download(known(entry, sha256="0" * 64))
    assert left_over(catalog, entry) == set() and not catalog.is_installed(entry)


def test_redirects_are_followed_to_web_addresses_only(catalog, entry, site):
    site.pages["/start.zip"] = Page(status=302, location="/next.zip")
    site.pages["/next.zip"] = Page(status=307, location=f"{site.address}/a.zip", tag=None)
    (path,) = catalog.download(known(entry, address=f"{site.address}/start.zip"))
    assert path.name == "start.zip" and path.read_bytes() == MODEL
    for location, sentence in [
        ("file:///etc/passwd", "not an address"),
        ("ftp://127.0.0.1/a.zip", "not an address"),
        ("/loop.zip", "more than 5 redirects"),
    ]:
        site.pages["/loop.zip"] = Page(status=302, location=location)
        with pytest.raises(CatalogError, match=sentence):
            catalog.download(known(entry, address=f"{site.address}/loop.zip"))
    assert follow("https://a/b/c", "d") == "https://a/b/d" and follow("http://a/b", "https://c/d") == "https://c/d"
    with pytest.raises(CatalogError, match="from https to http://b/c, which others can alter"):
        follow("https://a/x", "http://b/c")


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(404, "does not exist .status 404"), (403, "Get the file by hand"), (503, "status 503. Try again later")],
)
def test_a_refusing_server_is_a_sentence_and_what_has_arrived_stays(catalog, entry, site, status, sentence):
    with pytest.raises(Cancelled):
        catalog.download(entry, cancel=CancelAfter(9))
    site.pages["/a.zip"].status = status
    with pytest.raises(CatalogError, match=sentence):
        catalog.download(entry)
    assert left_over(catalog, entry) == {"a.zip.part", "a.zip.part.json"}
    site.pages["/a.zip"].status = 200
    catalog.download(entry)
    assert "Range" in site.requests[-1]


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<!DOCTYPE html><title>Log in</title>", "not a zip .it begins with b'<!DOCTYPE html>"),
        (zipped(**{"readme.txt": "x"}), "not a usable model: .* contains no model"),
        (zipped(**{"../plans.json": "{}"}), "leads out of the zip"),
        (MODEL[:-1000], "not a usable model"),
        (b"", "is not a usable model"),
    ],
)
def test_what_is_no_model_is_not_accepted(catalog, entry, site, content, sentence):
    site.pages["/a.zip"].content = content
    with pytest.raises(CatalogError, match=sentence):
        catalog.download(entry)
    assert not catalog.is_installed(entry) and "a.zip" not in left_over(catalog, entry)


def test_more_bytes_than_stated_are_refused(catalog, entry, site, monkeypatch):
    with pytest.raises(CatalogError, match=f"has {len(MODEL)} bytes, but 1000 were expected: the file was replaced"):
        catalog.download(known(entry, size=1000))
    site.pages["/a.zip"].chunked = True
    with pytest.raises(CatalogError, match="sent more than 1000000 bytes"):
        catalog.download(known(entry, size=1_000_000))
    assert catalog.download(entry)[0].read_bytes() == MODEL
    catalog.remove(entry)
    monkeypatch.setattr(download, "MAX_DOWNLOAD", 300_000)
    with pytest.raises(CatalogError, match="sent more than 300000 bytes"):
        catalog.download(entry)
    site.pages["/a.zip"].chunked = False
    with pytest.raises(CatalogError, match="but at most 300000 are downloaded"):
        catalog.download(entry)


def test_a_full_disk_is_known_beforehand(catalog, entry, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9**9, 9**9, 1_000_000))
    with pytest.raises(CatalogError, match="has 1 MB left, but 2 MB are needed. Free some space there"):
        catalog.download(entry)


def test_a_file_placed_by_hand_is_used_checked_and_then_remembered(catalog, entry, site):
    place = catalog.folder / "model-a" / "a.zip"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"no zip")
    assert catalog.is_installed(entry)
    with pytest.raises(CatalogError, match=f"{place} is not a usable model"):
        catalog.download(entry)
    shutil.copy(TOY, place)
    assert catalog.download(entry) == catalog.paths(entry) == (place,)
    assert catalog.record(entry, entry.parts[0]).sha256 == SHA256 and not site.requests
    place.write_bytes(MODEL[:-1])
    with pytest.raises(CatalogError, match=f"a.zip is damaged: its SHA-256 is .* but {SHA256} was expected"):
        catalog.download(entry)


def test_an_address_that_gives_another_file_than_before_is_noticed(catalog, entry, site, write_model):
    (path,) = catalog.download(entry)
    path.unlink()
    folder = write_model()
    other = shutil.make_archive(str(folder.parent / "other"), "zip", folder.parent, folder.name)
    site.pages["/a.zip"].content = Path(other).read_bytes()
    with pytest.raises(CatalogError, match=f"gave a different file than on 20.*then {SHA256}.*delete .*a.zip.json"):
        catalog.download(entry)
    assert not catalog.is_installed(entry)
    (catalog.folder / "model-a" / "a.zip.json").unlink()
    assert catalog.download(entry)[0].stat().st_size != len(MODEL)


def test_parts_are_one_count_and_only_missing_ones_are_loaded(catalog, entry, site):
    site.pages |= {f"/{name}.zip": Page(MODEL) for name in "bc"}
    parts = tuple(Part(f"{site.address}/{name}.zip", size=len(MODEL)) for name in "abc")
    entry = replace(entry, parts=parts)
    (catalog.folder / "model-a").mkdir(parents=True)
    shutil.copy(TOY, catalog.folder / "model-a" / "b.zip")
    steps = []
    paths = catalog.download(entry, lambda *step: steps.append(step))
    assert [path.name for path in paths] == ["a.zip", "b.zip", "c.zip"]
    assert [request["path"] for request in site.requests] == ["/a.zip", "/c.zip"]
    assert steps == sorted(steps) and steps[-1] == (2 * len(MODEL), 2 * len(MODEL))
    (catalog.folder / "model-a" / "notes.txt").write_text("mine")
    assert catalog.remove(entry) > 3 * len(MODEL) and not catalog.is_installed(entry)
    assert left_over(catalog, entry) == {"notes.txt"}
    (catalog.folder / "model-a" / "notes.txt").unlink()
    catalog.remove(entry)
    assert not (catalog.folder / "model-a").exists()


def test_a_second_download_is_refused_while_the_first_lives_and_only_then(catalog, entry):
    lock = catalog.folder / "model-a" / "download.lock"
    with locked(lock, "x"), pytest.raises(CatalogError, match=r"Model A is being downloaded by another process \(id "):
        catalog.download(entry)
    code = f"import time\nfrom ClassScaleSegLib.locking import *\nwith locked(Path({str(lock)!r}), 'x'):\n"
    code += " print(flush=True)\n time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        for action in (catalog.download, catalog.remove):
            with pytest.raises(CatalogError, match=f"id {holder.pid} on .*. Wait until it has ended"):
                action(entry)
    finally:
        holder.kill()
        holder.communicate()
    assert lock.exists() and catalog.download(entry)[0].exists()  # the lock went with its holder
