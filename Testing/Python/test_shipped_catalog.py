"""The catalogue that is shipped: its entries are complete, say where their facts come from, and do not meet."""

from __future__ import annotations

import json
import re
from collections import Counter
from urllib.parse import urlsplit

import pytest
from ClassScaleSegLib.catalog.entries import REGIONS, Entry, LocateWith, Part, PartFile, read_entries
from ClassScaleSegLib.errors import CatalogError
from ClassScaleSegLib.resources import resource

FILE = resource("Catalog", "models.json")
ENTRIES = read_entries(FILE, own=False)
BY_ID = {entry.id: entry for entry in ENTRIES}
REMOTE = [entry for entry in ENTRIES if not entry.embedded]
FAMILIES = {"totalsegmentator": "nnU-Net", "auto3dseg": "Auto3DSeg", "meshnet": "MeshNet"}


def sections():
    """The rows of the README's table that tell sources, by the beginnings of ids: addresses, sizes, licence."""
    rows = resource("Catalog", "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("| ")]
    return {name.rstrip("*"): rest for names, *rest in cells[1:] for name in re.split(", ", names)}


@pytest.mark.parametrize("entry", REMOTE, ids=lambda entry: entry.id)
def test_every_model_to_download_is_described_completely(entry):
    for fact in (entry.description, entry.modality, entry.licence_address, entry.source, entry.regions):
        assert fact
    assert (entry.licence is None) == (entry.notice or "").startswith("No licence of these weights is stated.")
    assert entry.classes == len(entry.structures) == len(set(entry.structures))
    assert entry.family == FAMILIES[entry.id.partition("-")[0]] and not entry.tried
    assert entry.description.endswith(".") and len(entry.description) < 250
    for address in (entry.licence_address, entry.source, *(one for part in entry.parts for one in part.addresses)):
        assert urlsplit(address).scheme == "https"
    addresses, sizes, licence = sections()[entry.id.partition("-")[0] + "-"]
    assert "https://" in addresses and re.search(r"\b[0-9a-f]{40}\b", addresses) and licence
    known = [value for part in entry.parts for one in (part, *part.files) for value in (one.size, one.sha256)]
    assert sizes or not any(known)


def test_no_two_models_share_a_name_or_an_address():
    texts = Counter(text.casefold() for entry in ENTRIES for text in {entry.id, entry.name})
    assert max(texts.values()) == 1
    addresses = Counter(address for entry in ENTRIES for part in entry.parts for address in part.addresses)
    assert max(addresses.values()) == 1


def test_embedded_models_are_there_and_listed_first():
    assert [entry.id for entry in ENTRIES if entry.embedded] == ["toy-120", "toy-1000", "head-mr-312"]
    assert all(resource("Models", part.file).is_file() for e in ENTRIES if e.embedded for part in e.parts)


def test_the_tasks_of_totalsegmentator_are_listed_with_their_parts_and_what_locates_them():
    total = [BY_ID[f"totalsegmentator-{kind}{size}mm"] for kind in ("", "v3-") for size in ("1.5", "3", "6")]
    assert [len(entry.parts) for entry in total] == [5, 1, 1] * 2 and {entry.classes for entry in total} == {117}
    assert [part.file_name[7:10] for part in total[0].parts] == ["291", "292", "293", "294", "295"]
    # a zip of version 3 has two models each: that of TotalSegmentator's --model_size big is meant
    assert {part.configuration for entry in total[3:] for part in entry.parts} == {
        "nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres",
        "nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres",
    }
    for listed in (entry for entry in ENTRIES if entry.id.startswith("totalsegmentator-")):
        assert listed.licence == "Apache-2.0" and "not a medical device" in listed.notice
        assert (listed.modality == "MR") == ("mr" in listed.id.split("-"))
        assert all(part.address.startswith("https://github.com/wasserth/") for part in listed.parts)
    # with a licence only, of another network, or not without code of its own
    left_out = "heartchambers appendicular tissue face thigh coronary aortic aneurysm highres pp"
    names = [set(name.split("-")) for name in BY_ID if name.startswith("totalsegmentator-")]
    assert not [name for name in names if name & set(left_out.split())]
    assert BY_ID["totalsegmentator-teeth"].locate_with == LocateWith(
        "totalsegmentator-craniofacial-structures", ("teeth_lower", "teeth_upper"), 10.0
    )
    coarse = Counter(entry.locate_with.model for entry in ENTRIES if entry.locate_with)
    assert coarse == {
        "totalsegmentator-6mm": 15,
        "totalsegmentator-3mm": 2,
        "totalsegmentator-mr-3mm": 2,
        "totalsegmentator-body-6mm": 1,
        "totalsegmentator-craniofacial-structures": 1,
    }


def test_meshnet_is_several_files_of_one_commit_with_their_sums():
    meshnet = [entry for entry in ENTRIES if entry.family == "MeshNet"]
    assert [entry.classes for entry in meshnet] == [103, 17, 17, 2]
    for entry in meshnet:
        (part,) = entry.parts
        names = [file.file_name for file in part.files]
        assert names[0] == "model.json" and names[2] == "colormap.json" and names[1].endswith(".bin")
        assert all(file.size and file.sha256 and "/4c87885" in file.address for file in part.files)
        assert entry.download_size < 1_000_000


def test_a_model_is_located_with_another_of_the_catalogue_that_has_the_classes():
    for entry in ENTRIES:
        if entry.locate_with is not None:
            coarse = BY_ID[entry.locate_with.model]
            assert set(entry.locate_with.classes) <= set(coarse.structures) and len(coarse.parts) == 1
            assert coarse.modality == entry.modality


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "none"}, "'locate_with' must name another model, which has one part"),
        ({"model": "totalsegmentator-liver-vessels"}, "'locate_with' must name another model"),
        ({"model": "totalsegmentator-1.5mm"}, "'locate_with' must name another model"),
        ({"classes": ["liver", "lever"]}, "totalsegmentator-6mm has no structure 'lever' to locate"),
        ({"classes": []}, "locate_with: 'classes' cannot be"),
        ({"margin": -1}, "locate_with: 'margin' cannot be"),
        ({"margin": True}, "locate_with: 'margin' cannot be"),
        ({"margin": 1e400}, "locate_with: 'margin' cannot be"),
        ({"model": "../x"}, "locate_with: 'model' cannot be"),
        ({"more": 1}, "locate_with: 'more' is not known"),
    ],
)
def test_a_model_that_cannot_be_located_as_stated_is_refused(tmp_path, change, sentence):
    content = json.loads(FILE.read_text(encoding="utf-8"))
    (model,) = (model for model in content["models"] if model["id"] == "totalsegmentator-liver-vessels")
    model["locate_with"].update(change)
    file = tmp_path / "models.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CatalogError, match=sentence):
        read_entries(file, own=False)


def test_the_catalogue_is_as_its_schema_says():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(resource("Catalog", "schema.json").read_text(encoding="utf-8"))
    content = json.loads(FILE.read_text(encoding="utf-8"))
    jsonschema.validate(content, schema)
    assert schema["$defs"]["model"]["properties"]["regions"]["items"]["enum"] == list(REGIONS)
    content["models"][0]["parts"][0]["address"] = "https://a/b.zip"  # beside the file
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)


def test_the_schema_names_the_fields_that_are_read():
    schema = json.loads(resource("Catalog", "schema.json").read_text(encoding="utf-8"))["$defs"]
    for name, kind in (("model", Entry), ("part", Part), ("file", PartFile)):
        assert set(schema[name]["properties"]) == set(kind.__dataclass_fields__) - {"own"}
    later = {"family", "regions", "structures", "locate_with"}
    assert set(schema["model"]["required"]) == set(Entry.__dataclass_fields__) - {"own"} - later
    assert set(schema["part"]["required"]) == set(Part.__dataclass_fields__) - {"files"}
    (locating, _none) = schema["model"]["properties"]["locate_with"]["anyOf"]
    assert set(locating["required"]) == set(locating["properties"]) == set(LocateWith.__dataclass_fields__)
