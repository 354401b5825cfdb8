"""The API of the server, from upload to result: tokens, the queue, limits."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator

import pytest
import requests
import SimpleITK as sitk
from ClassScaleSegLib import Segmentation, errors, open_model, segment
from ClassScaleSegLib.images.counts import overlap_counts
from ClassScaleSegLib.models.summary_json import summary_of
from ClassScaleSegLib.server.converting import chosen_type
from ClassScaleSegLib.server.limits import Limits
from ClassScaleSegLib.server.queue import FairQueue
from ClassScaleSegLib.server.tokens import Tokens
from live_server import Api, live_server
from server_api import FAST, ROOT, SAMPLE, api, files, image, offers, server  # noqa: F401  (fixtures)


def events(answer: requests.Response) -> Iterator[tuple[int, str, dict]]:
    """Read server-sent events until the stream ends."""
    event = {}
    for line in answer.iter_lines(decode_unicode=True):
        name, _, value = line.partition(": ")
        if line and name:
            event[name] = value
        elif not line and event:
            yield int(event["id"]), event["event"], json.loads(event["data"])
            event = {}


def test_an_image_becomes_the_segmentation_that_it_becomes_here(api, image, tmp_path):
    wish = {"key": "k" * 16, "confidence": True, "statistics": True, **FAST}
    upload = api.upload(image)
    added = api.job([upload], **wish)
    assert added.status_code == 201 and added.json()["state"] in ("waiting", "running")
    job = added.json()["id"]
    told = list(events(api("get", f"jobs/{job}/events", stream=True)))
    kinds = [kind for _, kind, _ in told]
    assert kinds[-1] == "end" and "progress" in kinds
    assert [number for number, _, _ in told] == sorted(number for number, _, _ in told)
    facts = told[-1][2]
    assert facts == api("get", f"jobs/{job}").json()
    assert facts["state"] == "finished" and facts["result"]["structures"] > 5
    assert not any(file.startswith("uploads/") for file in api.files())  # the image is not needed any more
    again = api.job([upload], **wish)  # as a client does that did not hear the answer
    assert again.status_code == 200 and again.json() == facts
    assert api.job([upload], key="k" * 16).json()["error"]["code"] == "key_taken"

    answer = api("get", f"jobs/{job}/result")
    digest = hashlib.sha256(answer.content)
    assert facts["result"]["files"]["segmentation"] == {"size": len(answer.content), "sha256": digest.hexdigest()}
    assert answer.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    (tmp_path / "there.seg.nrrd").write_bytes(answer.content)
    there = Segmentation.from_image(tmp_path / "there.seg.nrrd")
    toy = open_model(ROOT / "Resources" / "Models" / "toy-120.zip")
    here = segment(sitk.ReadImage(tmp_path / "image.nrrd"), toy, device="cpu", **FAST["options"])
    assert (there.labels == here.labels).all() and there.table.foreground == here.table.foreground

    nifti = api("get", f"jobs/{job}/result", headers={"Accept": "application/x-nifti"})
    (tmp_path / "there.nii.gz").write_bytes(nifti.content)
    counts = overlap_counts(Segmentation.from_image(tmp_path / "there.nii.gz", there.table).labels, there.labels, 121)
    assert counts[0].sum() == counts[2].sum()
    table = api("get", f"jobs/{job}/result", headers={"Accept": "text/csv"}).text
    assert table == there.table.to_csv()
    assert api("get", f"jobs/{job}/statistics").text.startswith("LabelValue,Name,Voxels")
    assert api("get", f"jobs/{job}/confidence").content.startswith(b"NRRD")
    part = api("get", f"jobs/{job}/result", headers={"Range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == answer.content[100:200]
    log = api("get", f"jobs/{job}/log").text
    assert "The image" in log and str(api.folder) not in log

    assert api("delete", f"jobs/{job}").status_code == 204
    assert api.files() == [] and api("get", f"jobs/{job}").json()["error"]["code"] == "job_unknown"


def test_an_upload_goes_on_where_it_stopped(api, image):
    upload = api.announce(image).json()
    assert upload["offset"] == 0
    assert api.part(upload["id"], 0, image[:1000]).json()["offset"] == 1000
    wrong = api.part(upload["id"], 0, image)
    assert wrong.status_code == 409 and wrong.json()["error"]["offset"] == 1000
    assert api.job([upload["id"]]).json()["error"]["code"] == "upload_incomplete"
    assert api("get", f"uploads/{upload['id']}").json() == {**upload, "offset": 1000}
    assert api.part(upload["id"], 1000, image[1000:]).json()["complete"]
    assert api.part(upload["id"], len(image), b"x").status_code == 409
    assert api("delete", f"uploads/{upload['id']}").status_code == 204 and api.files() == []


def test_an_image_that_is_announced_twice_is_one(api, image):
    key = "k" * 16
    upload = api.announce(image, key=key)
    again = api.announce(image, key=key)
    assert (upload.status_code, again.status_code) == (201, 200) and upload.json() == again.json()
    other = api.announce(image + b"x", key=key)
    assert other.status_code == 409 and other.json()["error"]["code"] == "key_taken"
    assert api("delete", f"uploads/{upload.json()['id']}").status_code == 204


def test_one_image_is_sent_once_for_several_models(tmp_path, image):
    with live_server(tmp_path / "server", models=("toy-120", "toy-1000")) as api:
        upload = api.upload(image)
        first = api.job([upload], keep_images=True, **FAST).json()["id"]
        second = api.job([upload], ("toy-120", "toy-1000"), keep_images=True, **FAST).json()["id"]
        assert api("delete", f"uploads/{upload}").json()["error"]["code"] == "upload_busy"
        assert api.wait(first)["state"] == "finished"
        assert api.wait(second)["state"] == "finished"
        assert api("get", f"jobs/{second}/result", headers={"Accept": "text/csv"}).text.count("(Toy atlas") > 100
        assert api("delete", f"uploads/{upload}").status_code == 204


def test_models_are_described_so_that_a_client_can_choose(api, offers):
    brief = api("get", "models?brief=true").json()["models"]
    whole = api("get", "models").json()["models"]
    assert [model["id"] for model in brief] == ["toy-120"] and brief[0]["parts"] == []
    assert api("get", "models/toy-120").json() == whole[0]
    summary = summary_of(whole[0]["parts"][0], "toy-120")
    own = offers.all["toy-120"].summaries[0]
    assert summary.table == own.table and (summary.channels, summary.spacing) == (own.channels, own.spacing)
    assert api("get", "models/no-such").json()["error"]["code"] == "model_unknown"


def test_health_needs_no_token_and_tells_what_one_is_worth(tmp_path, offers):
    secret = Tokens(tmp_path).make("anna")
    with live_server(tmp_path, offers, require_token=True) as api:
        health = api("get", "health")
        assert health.json()["token"] == "missing" and health.json()["service"] == "ClassScaleSeg"
        assert health.headers["ClassScaleSeg-Version"] == health.json()["version"]
        assert [(device["name"], device["memory"]) for device in health.json()["devices"]] == [("cpu", None)]
        refused = api("get", "models")
        assert refused.status_code == 401 and refused.json()["error"]["code"] == "token_missing"
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        for secret_sent, said in (("css_wrong", "wrong"), (secret, "accepted")):
            api.session.headers["Authorization"] = f"Bearer {secret_sent}"
            found = api("get", "health").json()
            assert found["token"] == said and (found["devices"][0]["memory"] is not None) == (said == "accepted")
        assert api("get", "models").status_code == 200
        Tokens(tmp_path).revoke("anna")  # as another process does
        assert api("get", "models").json()["error"]["code"] == "token_wrong"


def test_nobody_sees_what_belongs_to_another_token(tmp_path, offers, image):
    anna, ben = (Tokens(tmp_path).make(name) for name in ("anna", "ben"))
    with live_server(tmp_path, offers, anna, require_token=True) as api:
        other = Api(api.address, tmp_path, ben)
        upload = api.upload(image)
        job = api.job([upload], keep_images=True, **FAST).json()["id"]
        for method, path in (
            ("get", f"uploads/{upload}"),
            ("delete", f"uploads/{upload}"),
            *(("get", f"jobs/{job}{more}") for more in ("", "/events", "/result", "/log", "/statistics")),
            ("delete", f"jobs/{job}"),
        ):
            assert other(method, path).status_code == 404, path
        assert other.job([upload]).json()["error"]["code"] == "upload_unknown"
        assert api("get", f"jobs/{job}").json()["state"] in ("waiting", "running")
        assert api("delete", f"jobs/{job}").status_code == 204


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8471"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"X-Forwarded-For": "10.0.0.1"},
    ],
)
def test_without_tokens_only_programs_of_this_machine_come_in(api, headers):
    for path in ("models", "health"):
        answer = api("get", path, headers=headers)
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "forbidden"
        said = answer.json()["error"]["message"]
        kinds = {"Host": "call it localhost, not 'evil.example", "X-Forwarded-For": "came through a proxy"}
        (name, value) = next(iter(headers.items()))
        assert kinds.get(name, f"came from a page of a browser, '{value}'.") in said


def test_owners_take_turns():
    queue = FairQueue()
    for owner, job in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")):
        queue.add(owner, job)
    order = queue.order()
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert queue.remove("c", "c1") and not queue.remove("c", "c1")
    assert [queue.take() for _ in range(6)] == ["a1", "b1", "a2", "b2", "a3", None]


def test_a_waiting_job_knows_its_place_and_a_cancelled_one_leaves_nothing(api, image):
    whole = SAMPLE.read_bytes()
    slow = api.job([api.upload(whole)], options={"step": 0.2}).json()["id"]
    while api.wait(slow, "running")["stage"] != "segment":
        time.sleep(0.1)
    second, third = (api.job([api.upload(image)], **FAST).json()["id"] for _ in range(2))
    assert [api("get", f"jobs/{job}").json()["place"] for job in (second, third)] == [0, 1]
    told = events(api("get", f"jobs/{third}/events", stream=True))
    assert next(told)[1:] == ("queued", {"place": 1})
    assert api("delete", f"jobs/{second}").status_code == 204
    assert api("get", f"jobs/{third}").json()["place"] == 0
    assert next(told)[1:] == ("queued", {"place": 0})
    assert api("delete", f"jobs/{slow}").status_code == 204
    assert api.wait(third)["state"] == "finished"
    assert {facts["place"] for _, kind, facts in told if kind == "queued"} <= {0}
    assert all(third in file for file in api.files())
    assert api("delete", f"jobs/{third}").status_code == 204


def test_a_job_that_fails_says_why_without_paths_of_the_server(api):
    facts = api.wait(api.job([api.upload(SAMPLE.read_bytes()[:-1000])]).json()["id"])
    assert facts["state"] == "failed" and facts["exit_code"] == 4 and facts["result"] is None
    assert facts["error"].startswith("The image ") and str(api.folder) not in facts["error"]
    answer = api("get", f"jobs/{facts['id']}/result")
    assert answer.status_code == 409 and answer.json()["error"] == {"code": "job_failed", "message": facts["error"]}
    assert api("delete", f"jobs/{facts['id']}").status_code == 204


def test_limits(tmp_path, offers, image):
    with live_server(tmp_path, offers, limits=Limits(upload_bytes=10**6, jobs=2)) as api:
        large = api("post", "uploads", json={"key": "k" * 16, "kind": ".nrrd", "size": 10**6 + 1, "sha256": "0" * 64})
        assert large.status_code == 413 and "0.0 GiB" in large.json()["error"]["message"]
        upload = api.upload(image)
        first, second = (api.job([upload], keep_images=True, **FAST).json()["id"] for _ in range(2))
        many = api.job([upload])
        assert many.status_code == 429 and "2 jobs" in many.json()["error"]["message"] and many.headers["Retry-After"]
        for job in (first, second):
            assert api("delete", f"jobs/{job}").status_code == 204
    with live_server(tmp_path, offers, limits=Limits(job_seconds=0.2)) as api:
        assert "stopped after" in api.wait(api.job([api.upload(image)], **FAST).json()["id"])["error"]
    with live_server(tmp_path, offers, limits=Limits(voxels=1000)) as api:
        answer = api.part(api.announce(image).json()["id"], 0, image)
        assert answer.status_code == 413 and "million voxels" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/x-nrrd"),
        ("application/x-nifti", "application/x-nifti"),
        ("text/csv;q=0.9, application/x-nifti;q=0.1", "text/csv"),
        ("application/x-nifti;q=0, application/*", "application/x-nrrd"),
        ("image/png", None),
        ("", None),
        ("application/x-nifti;q=nan", None),
    ],
)
def test_accept(accept, kind):
    if kind is None:
        with pytest.raises(errors.ClassScaleError, match="can be had as"):
            chosen_type(accept)
    else:
        assert chosen_type(accept) == kind
