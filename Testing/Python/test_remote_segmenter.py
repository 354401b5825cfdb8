"""Segmenting on a server: the same result as here, with the same choices and the same errors."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import Options, RemoteSegmenter, errors
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.labels.common_classes import common_classes
from ClassScaleSegLib.remote.chosen_server import ChosenServer
from ClassScaleSegLib.remote.offers import models_of
from ClassScaleSegLib.remote.request import wanted_table
from ClassScaleSegLib.server.offers import Offers
from live_server import live_server
from remote_client import api, expected, image, offers, quick, segmented, volume  # noqa: F401  (fixtures)
from remote_fixtures import fail


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
