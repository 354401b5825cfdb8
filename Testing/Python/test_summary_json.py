"""Summaries as JSON: they come back whole, and what another machine sends is checked."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.models.preprocessing import Auto3DSeg, Conform
from ClassScaleSegLib.models.summary import summarize
from ClassScaleSegLib.models.summary_json import summary_facts, summary_of
from ClassScaleSegLib.resources import resource
from conftest import TOY
from odd_json import WEIRD

FACTS = summary_facts(summarize(TOY))


def sent(summary):
    """What arrives of a summary."""
    return summary_of(json.loads(json.dumps(summary_facts(summary))), "model-1")


@pytest.mark.parametrize("name", ["toy-120.zip", "toy-1000.zip", "head-mr-312.zip"])
def test_an_embedded_model_arrives_as_it_was_sent(name):
    summary = summarize(resource("Models", name))
    arrived = sent(summary)
    assert arrived == replace(summary, path=arrived.path, plans={}, dataset={}, packages=())
    assert str(arrived.path) == "model-1"


@pytest.mark.parametrize(
    "preprocessing",
    [
        Auto3DSeg("RAS", ("meanstd",), (-1.0, 2.5), True, False),
        Auto3DSeg(None, ("range",), (-1000.0, 1000.0), False, True),
        Conform("LIA", "quantiles", 0.05, 4),
    ],
)
def test_the_preprocessing_of_other_programs_arrives(preprocessing):
    assert sent(replace(summarize(TOY), preprocessing=preprocessing)).preprocessing == preprocessing


def test_a_flat_model_of_several_folds_and_channels_arrives():
    flat = replace(
        summarize(TOY), patch=(64, 96), spacing=(0.5, 0.7), folds=("0", "all"), channels=2, channel_names=("T1", "T2")
    )
    assert sent(flat) == replace(flat, path=sent(flat).path, plans={}, dataset={}, packages=())


def test_the_estimate_of_memory_is_the_same():
    from ClassScaleSegLib.inference.memory_estimate import estimate

    summary = summarize(TOY)
    case = ((96, 96, 96), (1.5, 1.0, 1.0))
    assert estimate(sent(summary), *case) == estimate(summary, *case)


def test_no_package_is_asked_for_and_no_list_of_images_leaves():
    summary = replace(summarize(TOY), packages=("monai",), dataset={"training": ["Doe_John.nii.gz"]})
    assert "Doe" not in json.dumps(summary_facts(summary))
    assert summary_of({**summary_facts(summary), "packages": ["evil"]}, "toy").packages == ()


def test_texts_that_a_file_may_have_are_sent_so_that_they_are_accepted():
    odd = replace(
        summarize(TOY),
        channel_names=("",),
        configuration_name="3d\nfullres" + 3000 * "x",
        card=3 << 20 and "#" * (3 << 20),
    )
    arrived = sent(odd)
    assert arrived.channel_names == ("?",) and len(arrived.configuration_name) == 2000 and len(arrived.card) == 1 << 20


@pytest.mark.parametrize("entry", sorted(set(FACTS) - {"preprocessing"}))
def test_an_entry_that_is_not_valid_is_named(entry):
    refused = 0
    for value in WEIRD:
        try:
            summary_of({**FACTS, entry: value}, "toy")
        except ModelError as error:
            assert str(error).startswith("the description of the model toy ") and len(str(error)) < 400
            refused += 1
    assert refused >= len(WEIRD) - 4  # null, or a text


@pytest.mark.parametrize(
    "change",
    [
        {"patch": [1 << 20, 1 << 20, 1 << 20]},
        {"patch": [64, 64]},
        {"spacing": [0.0, 1.0, 1.0]},
        {"values": [0, 1]},
        {"labels": FACTS["labels"][1:] + [{**FACTS["labels"][1], "id": "Segment_1000"}]},
        {"labels": FACTS["labels"][:-1] + [{**FACTS["labels"][-1], "value": 65536}]},
        {"labels": FACTS["labels"][:-1] + [{**FACTS["labels"][-1], "color": [0, 0, 256]}]},
        {"labels": FACTS["labels"][:-1] + [{**FACTS["labels"][-1], "codes": {"path": ["SCT", "1", "x"]}}]},
        {"labels": FACTS["labels"][:-1] + [{**FACTS["labels"][-1], "codes": {"type": ["SCT", 1, "x"]}}]},
        {"preprocessing": {"kind": "newer"}},
        {"folds": ["0/../.."]},
        {"parameters": True},
        {"card": "x" * ((1 << 20) + 1)},
    ],
)
def test_what_contradicts_itself_or_is_too_large_is_refused(change):
    with pytest.raises(ModelError, match=r"^the description of the model toy "):
        summary_of({**FACTS, **change}, "toy")


@pytest.mark.parametrize("model", ["", "..", "../toy", "/etc/passwd", "a/b", "C:x", "x" * 101, None, 7])
def test_an_id_that_could_be_the_path_of_another_file_is_refused(model):
    with pytest.raises(ModelError, match="is not the id of a model"):
        summary_of(FACTS, model)
