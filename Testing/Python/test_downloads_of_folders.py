"""Models of several files: a folder that is there only when all files have arrived and are a model."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
from catalog_fixtures import catalog, entry, server, site  # noqa: F401  (fixtures)
from ClassScaleSegLib.catalog.catalog import Catalog
from ClassScaleSegLib.catalog.entries import Part, PartFile, read_entries, write_entries
from ClassScaleSegLib.commands.main import main
from ClassScaleSegLib.errors import Cancelled, CatalogError
from ClassScaleSegLib.models.summary import summarize
from conftest import TOY
from web import Page

with zipfile.ZipFile(TOY) as archive:
    FILES = {name: archive.read(name) for name in archive.namelist()}
WEIGHTS = "fold_0.safetensors"
TOTAL = sum(map(len, FILES.values()))


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def several(entry, site):
    """An entry with a model of several files, whose sizes and sums are known."""
    for name, content in FILES.items():
        site.pages[f"/toy/{name}"] = Page(content)
    files = tuple(PartFile(f"{site.address}/toy/{name}", len(text), sha256(text)) for name, text in FILES.items())
    return replace(entry, parts=(Part(files=files),))


def unknown(several):
    """The entry without the sums and sizes of its files."""
    return replace(several, parts=(Part(files=tuple(PartFile(file.address) for file in several.parts[0].files)),))


def with_file(several, name, **facts):
    files = [replace(file, **facts) if file.file_name == name else file for file in several.parts[0].files]
    return replace(several, parts=(Part(files=tuple(files)),))


def left_over(catalog):
    folder = catalog.folder / "model-a"
    return {str(file.relative_to(folder).as_posix()) for file in folder.rglob("*") if file.is_file()} - {
        "download.lock"
    }


ARRIVED = {f"toy/{name}" for name in FILES}


def test_a_folder_of_files_is_a_model_with_its_sum_noted_beside_it(catalog, several, site):
    steps = []
    assert not catalog.is_installed(several) and several.download_size == TOTAL
    with pytest.raises(CatalogError, match=f"is not downloaded.*{WEIGHTS}.* in the folder .*toy"):
        catalog.paths(several)
    (path,) = catalog.download(several, lambda *step: steps.append(step))
    assert path == catalog.folder / "model-a" / "toy" and summarize(path).classes == 121
    assert {name: (path / name).read_bytes() for name in FILES} == FILES
    assert left_over(catalog) == ARRIVED | {"toy.json"}
    assert steps == sorted(steps) and steps[-1] == (TOTAL, TOTAL) and catalog.size(several) > TOTAL
    record = catalog.record(several, several.parts[0])
    lines = "".join(f"{name} {sha256(FILES[name])}\n" for name in sorted(FILES))
    assert (record.sha256, record.size) == (sha256(lines.encode()), TOTAL)
    requests = len(site.requests)
    assert catalog.download(several) == catalog.download(unknown(several)) == (path,) == catalog.paths(several)
    assert len(site.requests) == requests == len(FILES)


def test_a_cancelled_download_goes_on_with_the_file_at_which_it_stopped(catalog, several, site):
    before = sum(len(FILES[name]) for name in list(FILES)[: list(FILES).index(WEIGHTS)])

    class InWeights:
        done = 0

        def is_set(self):
            return self.done > before + 500_000

    token = InWeights()
    with pytest.raises(Cancelled):
        catalog.download(several, lambda done, total: setattr(token, "done", done), token)
    assert not catalog.is_installed(several) and not (catalog.folder / "model-a" / "toy").exists()
    have = (catalog.folder / "model-a" / "toy.part" / f"{WEIGHTS}.part").stat().st_size
    begun = len(site.requests)
    (path,) = Catalog(catalog.folder).download(several)
    first = site.requests[begun]
    assert first["path"].endswith(WEIGHTS) and first["Range"] == f"bytes={have}-" and have >= 500_000
    assert len(site.requests) == len(FILES) + 1 and (path / WEIGHTS).read_bytes() == FILES[WEIGHTS]


def test_a_download_that_is_killed_leaves_no_model_and_goes_on(catalog, several, site, tmp_path):
    listed = tmp_path / "models.json"
    write_entries(listed, [several])
    (again,) = read_entries(listed, own=False)
    assert again == several
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom ClassScaleSegLib.catalog.catalog import Catalog\n"
        "from ClassScaleSegLib.catalog.entries import read_entries\n"
        "def show(done, total):\n    if done > 1_000_000:\n        print(done, flush=True)\n        time.sleep(60)\n"
        "(entry,) = read_entries(Path(sys.argv[1]), own=False)\nCatalog(Path(sys.argv[2])).download(entry, show)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, listed, catalog.folder], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline()
    finally:
        child.kill()
        child.communicate()
    assert not (catalog.folder / "model-a" / "toy").exists() and left_over(catalog)
    (path,) = catalog.download(several)
    assert {name: (path / name).read_bytes() for name in FILES} == FILES
    assert left_over(catalog) == ARRIVED | {"toy.json"}


def test_a_file_with_a_wrong_sum_or_size_keeps_the_model_away(catalog, several):
    with pytest.raises(CatalogError, match=f"{WEIGHTS} has the SHA-256 {sha256(FILES[WEIGHTS])}, but {'0' * 64} was"):
        catalog.download(with_file(several, WEIGHTS, sha256="0" * 64))
    assert not (catalog.folder / "model-a" / "toy").exists() and WEIGHTS not in "".join(left_over(catalog))
    with pytest.raises(CatalogError, match=f"{WEIGHTS} has {len(FILES[WEIGHTS])} bytes, but 5 were expected"):
        catalog.download(with_file(several, WEIGHTS, size=5))
    assert catalog.download(several)


def test_a_file_that_is_gone_keeps_the_model_away_until_it_is_back(catalog, several, site):
    page = site.pages.pop(f"/toy/{WEIGHTS}")
    with pytest.raises(CatalogError, match=f"{WEIGHTS} does not exist .status 404"):
        catalog.download(several)
    assert not (catalog.folder / "model-a" / "toy").exists()
    site.pages[f"/toy/{WEIGHTS}"] = page
    assert catalog.download(several)
    asked = [request["path"] for request in site.requests]
    assert asked.count("/toy/manifest.json") == 1 and asked.count(f"/toy/{WEIGHTS}") == 2


def test_files_that_are_no_model_leave_nothing(catalog, several, site):
    broken = b"{}"
    site.pages["/toy/manifest.json"].content = broken
    for one in (unknown(several), with_file(several, "manifest.json", size=2, sha256=sha256(broken))):
        with pytest.raises(CatalogError, match="manifest.json is not a usable model"):
            catalog.download(one)
        assert left_over(catalog) == set()


def test_files_of_unknown_sums_are_never_mixed_with_those_of_an_earlier_try(catalog, several, site):
    site.pages["/toy/README.md"].content = b"# Another card\n"
    weights = site.pages.pop(f"/toy/{WEIGHTS}")
    with pytest.raises(CatalogError, match="status 404"):
        catalog.download(unknown(several))
    site.pages[f"/toy/{WEIGHTS}"], site.pages["/toy/README.md"].content = weights, FILES["README.md"]
    (path,) = catalog.download(unknown(several))
    assert (path / "README.md").read_bytes() == FILES["README.md"]


def test_other_files_than_before_are_noticed_and_so_is_a_changed_one(catalog, several, site):
    one = unknown(several)
    (path,) = catalog.download(one)
    (path / "README.md").write_text("changed")
    with pytest.raises(CatalogError, match="toy is damaged: its SHA-256 is .* Delete it and download it again"):
        catalog.download(one)
    (path / "README.md").unlink()
    assert not catalog.is_installed(one)
    with pytest.raises(CatalogError, match="toy is not complete: README.md is missing. Delete that folder"):
        catalog.download(one)
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    site.pages["/toy/dataset.json"].content = FILES["dataset.json"] + b"\n"
    manifest = json.loads(FILES["manifest.json"])
    manifest["members"]["dataset.json"].update(
        size=len(FILES["dataset.json"]) + 1, sha256=sha256(FILES["dataset.json"] + b"\n")
    )
    site.pages["/toy/manifest.json"].content = json.dumps(manifest).encode()
    with pytest.raises(CatalogError, match="gave a different file than on 20.*delete .*toy.json"):
        catalog.download(one)
    assert not catalog.is_installed(one) and left_over(catalog) == {"toy.json"}
    (catalog.folder / "model-a" / "toy.json").unlink()
    assert catalog.download(one)


def test_a_folder_is_removed_and_the_files_of_others_stay(catalog, several):
    (path,) = catalog.download(several)
    (path / "notes.txt").write_text("mine")
    assert catalog.remove(several) > TOTAL and not catalog.is_installed(several)
    assert left_over(catalog) == {"toy/notes.txt"}
    (path / "notes.txt").unlink()
    catalog.remove(several)
    with pytest.raises(Cancelled):
        catalog.download(several, cancel=type("Token", (), {"is_set": lambda self: left_over(catalog) != set()})())
    assert left_over(catalog)
    catalog.remove(several)
    assert not path.parent.exists()


def test_the_command_names_every_address_before_it_downloads(catalog, several, site, monkeypatch, capsys):
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(catalog.folder))
    monkeypatch.setattr(Catalog, "_known", (several,))
    assert main(["models", "info", "model-a"]) == 0
    told = capsys.readouterr().out
    assert all(f"         address  {file.address}" in told for file in several.parts[0].files)
    assert main(["models", "list"]) == 0 and "to download, 2.2 MB" in capsys.readouterr().out
    assert main(["models", "download", "model-a", "--yes"]) == 0
    told = capsys.readouterr().out
    assert f"  address   {site.address}/toy/{WEIGHTS} (" in told and "checksum" not in told
    assert str(catalog.folder / "model-a" / "toy") in told.splitlines()
    assert main(["models", "list"]) == 0 and "downloaded, 2.2 MB" in capsys.readouterr().out
    assert main(["inspect", "model-a", "--json"]) == 0 and '"number of classes": 120' in capsys.readouterr().out
