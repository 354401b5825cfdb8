"""What the panel says and lists, apart from Qt: devices, advice before a run, names of anatomy."""

from dataclasses import replace

import pytest
from ClassScaleSegLib import LabelTable
from ClassScaleSegLib.inference.devices import find_devices
from ClassScaleSegLib.labels.standard_names import with_standard_names
from ClassScaleSegLib.models.advice import advise, advise_on_run
from ClassScaleSegLib.models.summary import summarize
from ClassScaleSegLib.resources import resource


def test_a_driver_that_does_not_answer_offers_no_device(monkeypatch, tmp_path):
    import os

    broken = tmp_path / "nvidia-smi"
    broken.write_text("#!/bin/sh\nexit 9\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert not any(device.startswith("cuda") for device in find_devices())


def test_another_modality_and_coarse_voxels_are_warned_of():
    model = replace(summarize(resource("Models", "toy-120.zip")), modality="CT")
    fine = model.spacing
    assert advise(model, fine, "CT") == [] and advise(model, fine, None) == []
    assert "made for CT, but this volume is MR" in advise(model, fine, "MR")[0]
    coarse = (fine[0] * 4, *fine[1:])
    (sentence,) = advise(model, coarse, None)
    assert "up to 8.0 mm long, 4.0 times as long as the model's" in sentence


def test_the_warnings_of_several_models_say_which_model_they_mean():
    model = summarize(resource("Models", "toy-120.zip"))
    ct, mr = replace(model, modality="CT", name="Organs"), replace(model, modality="MR", name="Head")
    wrong = "The model was made for CT, but this volume is MR: expect a wrong result."
    assert advise_on_run([("Organs", ct)], (), ct.spacing, "MR") == (wrong,)
    assert advise_on_run([("Organs", ct), ("Organs", ct)], (), ct.spacing, "MR") == (wrong,)  # its parts
    assert advise_on_run([("Organs", ct), ("Head", mr)], (), ct.spacing, "MR") == (f"Organs: {wrong}",)
    coarse = (8 * ct.spacing[0], *ct.spacing[1:])
    assert advise_on_run([("Head", mr)], [ct], coarse, "MR")[1:] == (f"Organs: {wrong}",)  # it may be coarse


@pytest.fixture
def anatomy():
    return LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv"))


def test_names_come_from_the_codes(anatomy):
    named = with_standard_names(anatomy)
    names = {anatomy[value].name: name for value, name in named.names.items()}
    assert names["kidney_left"] == "Left kidney" and names["liver"] == "Liver"
    assert len(set(names.values())) == len(names)
    assert [label.id for label in named] == [label.id for label in anatomy]


def test_labels_that_would_share_a_name_keep_their_own():
    table = LabelTable.from_names({0: "background", 1: "liver", 2: "Liver", 3: "cell 3"})
    assert with_standard_names(table).names == table.names
    assert with_standard_names(table.select(["liver"]), table).names == {0: "background", 1: "liver"}
