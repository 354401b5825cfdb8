"""Models are found by what they segment, by modality, region and licence."""

from __future__ import annotations

import json

import pytest
from ClassScaleSegLib.catalog.catalog import Catalog, Search
from ClassScaleSegLib.commands.main import main
from conftest import TOY


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path / "models"))
    return Catalog()


def found(catalog, text="", **more):
    return [entry.id for entry in catalog.search(Search(text, **more))]


def test_words_are_found_in_what_a_model_segments(catalog):
    kidneys = found(catalog, "LEFT kidneys")
    assert {"totalsegmentator-mr-3mm", "totalsegmentator-kidney-cysts", "auto3dseg-abdominal-17-ts1"} <= set(kidneys)
    assert kidneys == found(catalog, "kidney_left") == found(catalog, "kidn left")
    assert "totalsegmentator-teeth" not in kidneys and "totalsegmentator-liver-vessels" not in kidneys
    assert found(catalog, "left amygdala") == ["head-mr-312", "meshnet-104"]  # the first in the table of the model
    assert found(catalog, "cell 121 atlas") == ["toy-1000"] and found(catalog, "cell 1001 atlas") == []
    assert found(catalog) == [entry.id for entry in catalog.entries()]


def test_a_short_word_is_a_whole_one(catalog):
    assert {entry.modality for entry in catalog.search(Search("ct"))} == {"CT"}
    assert "totalsegmentator-vertebrae-mr" in found(catalog, "t1")  # a vertebra
    assert found(catalog, "1.5mm trunk extremities") == [
        "totalsegmentator-body-1.5mm",
        "totalsegmentator-body-mr-1.5mm",
    ]


def test_filters_narrow_what_is_found(catalog):
    heads = catalog.search(Search(region="head", modality="mr"))
    assert heads and all(entry.modality == "MR" for entry in heads)
    assert {"totalsegmentator-mr-6mm", "head-mr-312", "auto3dseg-brats-gli"} <= {entry.id for entry in heads}
    assert "totalsegmentator-vertebrae-mr" not in {entry.id for entry in heads}
    whole = catalog.search(Search(region="whole body"))
    assert whole and all(entry.regions == ("whole body",) for entry in whole)
    assert {entry.licence for entry in catalog.search(Search(licence="cc by"))} == {"CC-BY-4.0", "CC-BY-SA-4.0"}
    assert {entry.licence for entry in catalog.search(Search(licence="CC-BY-4.0"))} == {"CC-BY-4.0", "CC-BY-SA-4.0"}
    assert found(catalog, licence="cc-by-sa") == ["auto3dseg-prostate"]


def test_models_of_your_own_are_found_by_their_classes(catalog):
    catalog.add(TOY, "Mine")
    assert found(catalog, "cell 7 mine") == ["own-mine"]
    (catalog.folder / "own.json").write_text((catalog.folder / "own.json").read_text().replace(str(TOY), "/gone.zip"))
    assert found(catalog, "cell 7 mine") == [] and found(catalog, "mine") == ["own-mine"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--search", "pancras"], "None has the word pancras; did you mean pancreas,"),
        (["--search", "qqqqqqqq"], "None has the word qqqqqqqq."),
        (["--search", "liver", "--modality", "PT"], "The modalities are CT, MR. Without --modality there are "),
        (
            ["--search", "teeth", "pulp", "--licence", "MIT"],
            "No model fits. Without --search there are 4. Without --licence there is one.",
        ),
        (["--licence", "GPL"], "No model fits. Leave words out, or list all models without a filter."),
    ],
)
def test_nothing_found_says_what_could_be_tried(catalog, options, sentence, capsys):
    assert main(["models", "list", *options]) == 0
    assert sentence in capsys.readouterr().out
    assert main(["models", "list", *options, "--json"]) == 0 and json.loads(capsys.readouterr().out) == []


def test_the_command_lists_what_fits_and_tells_what_a_model_segments(catalog, capsys):
    assert main(["models", "list", "--search", "vessels", "tumour", "--region", "Abdomen", "--licence", "apache"]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    assert rows[1:-1] == ["totalsegmentator-liver-vessels"]
    with pytest.raises(SystemExit, match="2"):
        main(["models", "list", "--region", "leg"])
    assert "'whole body', 'head'" in capsys.readouterr().err
    assert main(["models", "list", "--search", "pulp", "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["id"] == "totalsegmentator-teeth" and len(facts["structures"]) == 77
    assert facts["locate_with"]["classes"] == ["teeth_lower", "teeth_upper"]
    assert main(["models", "info", "totalsegmentator-liver-vessels"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "      structures  liver_vessels, liver_tumor" and "         regions  abdomen" in lines
    assert "     locate_with  totalsegmentator-6mm: liver, with a margin of 20 mm" in lines
