"""The catalogue: models of your own, the shipped list, faulty entries, and the command."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import io
import json
import shutil
from dataclasses import asdict, replace

import pytest
from catalog_fixtures import MODEL, SHA256, catalog, entry, known, server, site  # noqa: F401  (fixtures)
from ClassScaleSegLib import open_model
from ClassScaleSegLib.catalog.catalog import Catalog, models_folder, resolve_model
from ClassScaleSegLib.catalog.entries import Part, PartFile, read_entries
from ClassScaleSegLib.commands.main import main
from ClassScaleSegLib.errors import CatalogError, ModelError
from ClassScaleSegLib.resources import resource
from conftest import TOY

FILE = {"address": "https://a/b", "size": None, "sha256": None}


def test_a_model_of_the_catalogue_opens_by_its_name(monkeypatch, tmp_path):
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path))
    Catalog().add(TOY, "Mine")
    assert open_model("TOY-120").table[1].name == open_model("own-mine").table[1].name == open_model(TOY).table[1].name
    for name, sentence in (
        ("totalsegmentator-3mm", "not downloaded. Run `classscaleseg models download totalsegmentator-3mm`"),
        ("nowhere/model", "nowhere/model does not exist. Give a model folder, .* or a model of the catalogue"),
        ("qqq", "qqq is neither a file or folder nor a model of the catalogue"),
    ):
        with pytest.raises(CatalogError, match=sentence):
            open_model(name)
    monkeypatch.setattr(Catalog, "paths", lambda *_: (TOY, tmp_path / "b.zip"))
    with pytest.raises(ModelError, match="consists of 2 models. Open them one by one: .*toy-120.zip, .*b.zip"):
        open_model("totalsegmentator-1.5mm")


def test_your_own_models_are_remembered_and_stay_where_they_are(catalog, site, write_model):
    folder = write_model()
    small = catalog.add(folder, "Süd")
    assert (small.id, small.classes, small.modality, small.own) == ("own-sud", 20, "CT", True)
    file = catalog.add(TOY, "süd!")
    assert (file.id, file.classes, file.licence) == ("own-sud-2", 120, "Apache-2.0")
    web = catalog.add(f"{site.address}/a.zip?download=1")
    assert (web.id, web.name, web.classes) == ("own-a", "a", None) and not site.requests
    for name in ("SÜD", "own-sud", "toy-120", "A"):
        with pytest.raises(CatalogError, match="is in the catalogue already"):
            catalog.add(TOY, name)
    with pytest.raises(ModelError, match="nowhere does not exist"):
        catalog.add(folder / "nowhere")
    with pytest.raises(CatalogError, match="must start with https"):
        catalog.add("ftp://x/a.zip")
    again = Catalog(catalog.folder)
    assert again.entries()[-3:] == (small, file, web) and again.paths(small) == (folder,)
    assert catalog.size(file) == len(MODEL) and not again.is_installed(web)
    (path,) = again.download(web)
    described = again.find("a")
    assert path.read_bytes() == MODEL and (described.classes, described.notice) == (120, file.notice)
    assert again.remove(small) == 0 and folder.is_dir() and again.remove(described) > len(MODEL)
    assert again.entries()[-1] == file and not path.parent.exists()
    shutil.rmtree(folder)
    moved = replace(small, parts=(Part(file=str(folder)),))
    with pytest.raises(CatalogError, match="is no longer at .* Add it again"):
        again.paths(moved)


def test_a_file_that_was_replaced_is_described_anew(catalog, tmp_path):
    file = tmp_path / "mine.zip"
    shutil.copy(TOY, file)
    other = catalog.add(TOY, "Other")
    first = catalog.renew(file)
    shutil.copy(resource("Models", "head-mr-312.zip"), file)
    again = catalog.renew(file)
    assert (again.id, again.name) == (first.id, first.name) and (first.classes, again.classes) == (120, 311)
    assert [entry for entry in catalog.entries() if entry.own] == [other, again]


def test_a_model_whose_own_name_is_taken_is_called_like_its_file(catalog, tmp_path, write_model):
    (tmp_path / "b").mkdir()
    first, second = (shutil.copy(TOY, tmp_path / place) for place in ("mouse.zip", "b/mouse.zip"))
    assert [catalog.add(file).name for file in (first, second)] == ["mouse", "mouse 2"]
    with pytest.raises(CatalogError, match="mouse.zip is in the catalogue already, as mouse."):
        catalog.add(first)
    assert catalog.add(first, "Mouse, again").name == "Mouse, again"
    folders = [write_model(root=tmp_path / place) for place in ("c", "d")]
    names = [catalog.add(folder).name for folder in folders]
    assert names[1] == f"{names[0]} 2"
    assert catalog.add("https://example.org/mouse.zip").name == "mouse 3"


def test_embedded_models_are_found_by_id_and_name_and_not_removed(catalog, tmp_path):
    toy = catalog.find(" TOY-120 ")
    assert toy == catalog.find("toy atlas, 120 CLASSES") == catalog.entries()[0] and toy.embedded
    assert catalog.paths(toy) == catalog.download(toy) == (TOY,) and catalog.size(toy) == len(MODEL)
    with pytest.raises(CatalogError, match="part of ClassScaleSeg"):
        catalog.remove(toy)
    missing = known(toy, file="none.zip")
    assert not catalog.is_installed(missing)
    for ask in (catalog.paths, lambda entry: catalog.place(entry, *entry.parts)):
        with pytest.raises(CatalogError, match="none.zip was not found .* install it again"):
            ask(missing)
    with pytest.raises(CatalogError, match="Did you mean totalsegmentator-3mm"):
        catalog.find("totalsegmentator 3 mm")
    assert resolve_model(str(TOY), catalog) == (TOY,) and resolve_model("toy-120", catalog) == (TOY,)
    with pytest.raises(CatalogError, match="none.zip does not exist"):
        resolve_model(str(tmp_path / "none.zip"), catalog)
    with pytest.raises(CatalogError, match="neither a file or folder nor a model"):
        resolve_model("x" * 5000, catalog)
    with pytest.raises(CatalogError, match="catalogue. The command `classscaleseg models list` lists all"):
        catalog.find("qqq")  # nothing is near, so nothing is suggested


def test_a_list_of_own_models_from_an_earlier_version_is_read_and_stays_readable_for_it(catalog):
    models = {"earlier": "own-earlier", "added now": "own-added-now"}
    part = {"address": None, "file": str(TOY), "size": None, "sha256": None, "configuration": None}
    model = {
        **{"id": "own-earlier", "name": "earlier", "description": "", "modality": None, "classes": 120},
        **{"parts": [part], "licence": "Apache-2.0", "licence_address": None, "source": None, "notice": None},
        "tried": True,
    }
    catalog.folder.mkdir()
    file = catalog.folder / "own.json"
    file.write_text(json.dumps({"version": 1, "models": [model]}))
    assert catalog.paths(catalog.find("earlier")) == (TOY,)
    catalog.add(TOY, "added now")
    written = json.loads(file.read_text())["models"]
    assert {entry["name"]: entry["id"] for entry in written} == models
    assert all(entry.keys() == model.keys() and entry["parts"][0].keys() == part.keys() for entry in written)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"id": "../x"}, "'id' cannot be"),
        ({"id": "A"}, "'id' cannot be"),
        ({"name": "a\nb"}, "'name' cannot be"),
        ({"classes": 0}, "'classes' cannot be"),
        ({"classes": True}, "'classes' cannot be"),
        ({"tried": 1}, "'tried' cannot be"),
        ({"source": "javascript:alert(1)"}, "'source' cannot be"),
        ({"licence": 3}, "'licence' cannot be"),
        ({"extra": 1}, "'extra' is not known"),
        ({"regions": ["leg"]}, "'regions' cannot be"),
        ({"regions": "head"}, "'regions' cannot be"),
        ({"structures": ["liver"]}, "'structures' cannot be"),
        ({"structures": [1] * 120}, "'structures' cannot be"),
        ({"family": ""}, "'family' cannot be"),
        ({"locate_with": 1}, "locate_with must be a JSON object"),
        ({"parts": []}, "'parts' must be a list"),
        ({"parts": [{"address": "https://a/b.zip"}]}, "part 1: 'configuration' is missing"),
        ({"address": "file:///a.zip"}, "part 1: 'address' cannot be"),
        ({"address": None, "file": "../a.zip"}, "part 1: 'file' cannot be"),
        ({"address": None, "file": "/a.zip"}, "part 1: 'file' cannot be"),
        ({"address": None, "file": "NUL.zip"}, "part 1: 'file' cannot be"),
        ({"file": "b.zip"}, "either an 'address' or a 'file' or 'files'"),
        ({"files": [FILE]}, "either an 'address' or a 'file' or 'files'"),
        ({"address": None, "files": []}, "either an 'address' or a 'file' or 'files'"),
        ({"address": None, "files": 1}, "part 1: 'files' cannot be"),
        ({"address": None, "files": [FILE], "size": 1}, "must have its own 'size' and 'sha256'"),
        (
            {"address": None, "files": [{**FILE, "address": "https://a/b/"}, FILE, FILE]},
            "kept under the same file name",
        ),
        ({"address": None, "files": [FILE, {**FILE, "address": "https://a/B"}]}, "kept under the same file name"),
        ({"address": None, "files": [{**FILE, "address": "https://a/b/.."}]}, "file 1: 'address' cannot be"),
        ({"address": None, "files": [{**FILE, "address": "https://a/nul.bin"}]}, "file 1: 'address' cannot be"),
        ({"address": None, "files": [{**FILE, "address": "https://a/b.part"}]}, "file 1: 'address' cannot be"),
        ({"address": None, "files": [{**FILE, "address": "https://a/b.part.json"}]}, "file 1: 'address' cannot be"),
        ({"address": None, "files": [{**FILE, "address": "https://a/b%2f..%5cc"}]}, "file 1: 'address' cannot be"),
        ({"address": None, "files": [{**FILE, "address": "ftp://a/b"}]}, "file 1: 'address' cannot be"),
        ({"address": None, "files": [{**FILE, "size": 0}]}, "file 1: 'size' cannot be"),
        ({"address": None, "files": [{**FILE, "sha256": "x"}]}, "file 1: 'sha256' cannot be"),
        ({"address": None, "files": [{**FILE, "more": 1}]}, "file 1: 'more' is not known"),
        ({"size": -1}, "part 1: 'size' cannot be"),
        ({"size": 1 << 60}, "part 1: 'size' cannot be"),
        ({"sha256": "F" * 64}, "part 1: 'sha256' cannot be"),
    ],
)
def test_a_faulty_entry_is_named(tmp_path, entry, change, sentence):
    model = {key: value for key, value in asdict(known(entry, address="https://a/b.zip")).items() if key != "own"}
    for key, value in change.items():
        (model["parts"][0] if key in model["parts"][0] else model)[key] = value
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"version": 1, "models": [model]}))
    with pytest.raises(CatalogError, match=f"models.json: model 1.*{sentence}"):
        read_entries(file, own=False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not valid JSON"),
        ("[]", "contains a list"),
        ("{}", "is not a catalogue"),
        ('{"version": 2, "models": []}', "made by a newer ClassScaleSeg"),
        ('{"version": 1, "models": [1]}', "must be a JSON object"),
    ],
)
def test_a_broken_list_of_own_models_is_a_sentence_and_stays(catalog, text, sentence):
    catalog.folder.mkdir()
    (catalog.folder / "own.json").write_text(text)
    for action in (catalog.entries, lambda: catalog.add(TOY, "x")):
        with pytest.raises(CatalogError, match=f"own.json.*{sentence}"):
            action()
    assert (catalog.folder / "own.json").read_text() == text


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://a/b/model.zip?x=/c.zip", "model.zip"),
        ("https://a/b", "b.zip"),
        ("https://a/%2e%2e%2fx.zip", "x.zip"),
        ("https://a/", "model.zip"),
        ("https://a/con.zip", "model.zip"),
        ("https://a/..%5cx.zip", "model.zip"),
        ("https://a/" + "x" * 300 + ".zip", "model.zip"),
    ],
)
def test_no_address_leads_out_of_its_folder(address, name):
    assert Part(address).file_name == name


@pytest.mark.parametrize(
    ("address", "folder"),
    [
        ("https://a/brain/model.json?x=/y/z", "brain"),
        ("https://a/model.json", "model"),
        ("https://a/../model.json", "model"),
        ("https://a/%2e%2e%2f/model.json", "model"),
        ("https://a/download.lock/model.json", "model"),
        ("https://a/brain.part/model.json", "model"),
        ("https://a/com1.x/model.json", "model"),
    ],
)
def test_no_address_of_several_files_leads_out_of_its_folder(address, folder):
    assert Part(files=(PartFile(address),)).file_name == folder and PartFile(address).file_name == "model.json"


def test_models_are_kept_where_the_system_keeps_such_data(monkeypatch, tmp_path):
    platformdirs = pytest.importorskip("platformdirs")
    monkeypatch.delenv("CLASSSCALESEG_MODELS", raising=False)
    assert models_folder() == platformdirs.user_data_path("ClassScaleSeg", appauthor=False) / "models"
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path))
    assert Catalog().folder == tmp_path


def test_the_command_prints_the_model_card(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path / "models"))
    assert main(["models", "card", "toy-120"]) == 0
    assert capsys.readouterr().out.startswith("# Toy atlas, 120 classes\n")
    assert main(["models", "card", "totalsegmentator-3mm"]) == 3 and "not downloaded" in capsys.readouterr().err


def test_the_command_asks_before_it_downloads(site, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path / "models"))
    address = f"{site.address}/a.zip"
    assert main(["models", "add", address, "--name", "Web"]) == 0 and "use it as own-web" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["models", "download", "web"]) == 3 and not site.requests
    told = capsys.readouterr()
    assert address in told.out and "licence   unknown" in told.out and "size unknown" in told.out
    assert str(tmp_path / "models" / "own-web") in told.out and "Give --yes" in told.err
    assert main(["models", "path", "web"]) == 3
    assert main(["models", "download", "web", "--yes"]) == 0 and SHA256 in capsys.readouterr().out
    assert main(["models", "list"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "embedded" in rows["toy-120"] and "to download, 135.4 MB" in rows["totalsegmentator-3mm"]
    assert "120" in rows["own-web"] and "downloaded, 2.2 MB" in rows["own-web"]
    assert main(["models", "info", "web", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["classes"] == 120 and facts["parts"][0]["seen_sha256"] == SHA256
    assert main(["inspect", "web", "--json"]) == 0 and json.loads(capsys.readouterr().out)["number of classes"] == 120
    assert main(["models", "remove", "web"]) == 0 and "2.2 MB freed; removed from the list" in capsys.readouterr().out
    assert main(["models", "info", "web"]) == 3 and "`classscaleseg models list` lists" in capsys.readouterr().err
