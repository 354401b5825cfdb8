"""The server: the API from upload to result, tokens, the queue, what lasts how long, and what survives a crash."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import SimpleITK as sitk
from ClassScaleSegLib import Segmentation, errors, open_model, segment
from ClassScaleSegLib.commands.main import main
from ClassScaleSegLib.images.counts import overlap_counts
from ClassScaleSegLib.models.summary_json import summary_of
from ClassScaleSegLib.server.converting import chosen_type
from ClassScaleSegLib.server.folder import LOCK
from ClassScaleSegLib.server.limits import Limits
from ClassScaleSegLib.server.offers import Offers
from ClassScaleSegLib.server.queue import FairQueue
from ClassScaleSegLib.server.records import write_record
from ClassScaleSegLib.server.serving import Settings, prepared
from ClassScaleSegLib.server.tokens import Tokens
from ClassScaleSegLib.server.wishes import Wish
from ClassScaleSegLib.server.workers import STARTED, Slot, described_files
from live_server import Ahead, Api, live_server

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "Resources" / "SampleData" / "toy-120.nrrd"
FAST = {"options": {"mirroring": False, "step": 1}}


@pytest.fixture(scope="module")
def offers() -> Offers:
    return Offers(["toy-120"])


@pytest.fixture(scope="module")
def server(tmp_path_factory, offers):
    with live_server(tmp_path_factory.mktemp("server"), offers) as api:
        yield api


@pytest.fixture
def api(server):
    """The server of all tests that do not need another one. Each leaves it empty."""
    yield server
    assert server.files() == []


@pytest.fixture
def image() -> bytes:
    """An image that takes a second."""
    small = sitk.ReadImage(str(SAMPLE))[20:60, 20:60, 20:60]
    return as_nrrd(small)


def as_nrrd(image: sitk.Image) -> bytes:
    file = Path(os.environ["PYTEST_FILES"], "image.nrrd")
    sitk.WriteImage(image, file)
    return file.read_bytes()


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_FILES", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


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


def test_a_server_for_others_needs_a_token_first(tmp_path, offers):
    with pytest.raises(errors.ClassScaleError, match="classscaleseg serve token NAME"):
        with prepared(Settings(tmp_path, ("toy-120",), host="0.0.0.0", port=0), offers):
            pass


def test_one_folder_is_for_one_server(api, offers):
    with pytest.raises(errors.Busy, match=rf"server \(id {os.getpid()} on .*--folder"):
        with prepared(Settings(api.folder, ("toy-120",), port=0), offers):
            pass


@pytest.mark.parametrize("port", [-1, 65536, 80000])
def test_a_number_that_is_no_port_is_refused(tmp_path, offers, port):
    with pytest.raises(errors.ClassScaleError, match=f"{port} cannot be a port"):
        with prepared(Settings(tmp_path, ("toy-120",), port=port), offers):
            pass


def test_a_device_that_is_not_there_is_refused_at_the_start(tmp_path, offers):
    slots = (Slot("cpu", "cpu"), Slot("cuda:77", "cuda:77"))
    with pytest.raises(errors.ClassScaleError, match="There is no device cuda:77 here. This torch"):
        with prepared(Settings(tmp_path, ("toy-120",), port=0, slots=slots), offers):
            pass


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


def restored(folder: Path, name: str, key: str = "k" * 16, age: float = 0) -> None:
    """Write a result as a server that was killed has left it."""
    results = folder / "results" / name
    results.mkdir(parents=True)
    (folder / LOCK).touch()
    (results / "result.seg.nrrd").write_bytes(b"NRRD0004\n")
    wish = Wish("local", key, ("0" * 32,), ("toy-120",), FAST["options"])
    write_record(results, wish, {"structures": 3, "seconds": 1.0, "files": described_files(results, wish)})
    record = json.loads((results / "record.json").read_text())
    (results / "record.json").write_text(json.dumps({**record, "time": record["time"] - age}))


def test_what_nobody_fetches_is_removed(tmp_path, offers, image, monkeypatch):
    clock = Ahead(monkeypatch)
    restored(tmp_path, "a" * 32)
    restored(tmp_path, "b" * 32, "old " * 4, age=601)
    restored(tmp_path, "c" * 32, "damaged-" * 2)
    (tmp_path / "results" / ("c" * 32) / "result.seg.nrrd").write_bytes(b"NR")
    with live_server(tmp_path, offers, limits=Limits(keep_seconds=600)) as api:
        assert api("get", f"jobs/{'a' * 32}/result", headers={"Range": "bytes=0-8"}).content == b"NRRD0004\n"
        assert all("a" * 32 in file for file in api.files())
        api.announce(image)
        api.upload(image)
        clock.runs(300)
        assert len(api.files()) == 3
        clock.runs(301)
        assert api.files() == [] and api("get", f"jobs/{'a' * 32}").status_code == 404


def test_what_was_fetched_is_removed_soon(tmp_path, offers, monkeypatch):
    clock = Ahead(monkeypatch)
    restored(tmp_path, "a" * 32)
    with live_server(tmp_path, offers) as api:
        clock.runs(301)
        assert api("get", f"jobs/{'a' * 32}/result", headers={"Range": "bytes=0-3"}).status_code == 206
        clock.runs(301)
        assert api("get", f"jobs/{'a' * 32}/result").status_code == 200
        assert api("get", f"jobs/{'a' * 32}/result").status_code == 200  # the connection may have broken at the end
        clock.runs(301)
        assert api.files() == [] and api("get", f"jobs/{'a' * 32}").status_code == 404


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


def start(folder: Path, *more: str) -> tuple[subprocess.Popen, Api]:
    """Start the command as a process of its own."""
    command = [sys.executable, "-m", "ClassScaleSegLib", "serve", "--folder", str(folder), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "ClassScaleSeg")}
    process = subprocess.Popen(
        [*command, "--models", "toy-120", "--devices", "cpu", "--threads", "1", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )
    line = process.stdout.readline()
    assert "serves toy-120 at http" in line
    return process, Api(line.split()[-1], folder)


def test_a_server_says_where_others_reach_it_and_ends_without_a_fault(tmp_path):
    Tokens(tmp_path).make("anna")
    process, api = start(tmp_path, "--host", "0.0.0.0")
    port = api.address.rpartition(":")[2]
    said = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    said += process.stdout.read()
    process.wait(60)
    process.stdout.close()
    assert f"Other machines reach it at http://{socket.gethostname()}:{port}, " in said
    assert "The server stops." in said and process.returncode == 0


def test_a_killed_server_keeps_what_it_promised_and_nothing_else(tmp_path, image):
    process, api = start(tmp_path)
    done = api.job([api.upload(image)], key="done" * 4, **FAST).json()["id"]
    api.wait(done)
    api.upload(image)
    running = api.job([api.upload(SAMPLE.read_bytes())], options={"step": 0.2}).json()["id"]
    api.wait(running, "running")
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process, api = start(tmp_path)
    try:
        assert all(file.startswith(f"results/{done}/") for file in api.files())
        assert api("get", f"jobs/{running}").status_code == 404
        again = api.job(["0" * 32], key="done" * 4, **FAST)
        assert (again.status_code, again.json()["id"], again.json()["state"]) == (200, done, "finished")
        assert api("get", f"jobs/{done}/result").content.startswith(b"NRRD")
        assert api("delete", f"jobs/{done}").status_code == 204 and api.files() == []
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
    assert process.returncode == 0


def test_jobs_run_on_a_cluster(tmp_path, image):
    process, api = start(tmp_path, "--cluster", "local:1")
    try:
        assert api("get", "health").json()["devices"][0]["name"] == "cluster"
        done = api.job([api.upload(image)], **FAST).json()["id"]
        assert api.wait(done)["result"]["structures"] > 5
        slow = api.job([api.upload(SAMPLE.read_bytes())], options={"step": 0.2}).json()["id"]
        while api.wait(slow, "running")["stage"] == "start":
            time.sleep(0.1)
        for job in (done, slow):
            assert api("delete", f"jobs/{job}").status_code == 204
        until = time.monotonic() + 60
        while api.files() and time.monotonic() < until:
            time.sleep(0.1)
        assert api.files() == []
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
    assert process.returncode == 0


def test_a_child_that_had_finished_when_the_server_was_killed_is_not_run_again(tmp_path, offers, image):
    wish = Wish("local", "k" * 16, ("0" * 32,), ("toy-120",), FAST["options"])
    for name, finished in (("a" * 32, True), ("b" * 32, False)):
        folder = tmp_path / "unfinished" / name
        folder.mkdir(parents=True)
        (tmp_path / LOCK).touch()
        (folder / STARTED).write_text(json.dumps({"pid": 2**22 - 1, "began": 0, "wish": vars(wish)}))
        if finished:
            (folder / "result.seg.nrrd").write_bytes(b"NRRD0004\n")
    with live_server(tmp_path, offers) as api:
        again = api.job(["0" * 32], key="k" * 16, **FAST)
        assert again.json()["id"] == "a" * 32 and again.json()["state"] == "finished"
        assert again.json()["result"]["structures"] is None
        assert api("get", f"jobs/{'a' * 32}/result").content == b"NRRD0004\n"
        assert api("get", f"jobs/{'b' * 32}").status_code == 404
        assert not list((tmp_path / "unfinished").iterdir())


def test_tokens_of_the_command(tmp_path, capsys):
    folder = ["--folder", str(tmp_path)]
    assert main(["serve", "token", "anna", *folder]) == 0
    secret = capsys.readouterr().out.strip()
    assert secret.startswith("css_") and Tokens(tmp_path).owner(secret) == "anna"
    file = tmp_path / "tokens.json"
    assert secret not in file.read_text() and (os.name == "nt" or file.stat().st_mode & 0o077 == 0)
    assert main(["serve", "token", "anna", *folder]) == 8 and "Revoke it first" in capsys.readouterr().err
    assert main(["serve", "token", "--list", *folder]) == 0 and "anna" in capsys.readouterr().out
    assert main(["serve", "token", "--revoke", "anna", *folder]) == 0
    assert Tokens(tmp_path).owner(secret) is None
    assert main(["serve", "token", "--revoke", "anna", *folder]) == 8
    assert main(["serve", "token", "a b", *folder]) == 8
    assert main(["serve", "token", *folder]) == 2


def test_tls(tmp_path, offers):
    key, certificate = self_signed(tmp_path)
    with live_server(tmp_path / "server", offers, certificate=certificate, certificate_key=key) as api:
        assert api.address.startswith("https://127.0.0.1:")
        api.session.verify = str(certificate)
        assert api("get", "health").json()["service"] == "ClassScaleSeg"
    missing = Settings(tmp_path, (), port=0, certificate=certificate, certificate_key=tmp_path / "lost.pem")
    with pytest.raises(errors.ClassScaleError, match="lost.pem does not exist"), prepared(missing, offers):
        pass
    with pytest.raises(errors.ClassScaleError, match="PEM that belong together"):
        with prepared(Settings(tmp_path, (), port=0, certificate=SAMPLE, certificate_key=SAMPLE), offers):
            pass


def self_signed(folder: Path, hours: float = 24) -> tuple[Path, Path]:
    """Write a key, and a certificate of 127.0.0.1 that it has signed."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(hours=hours))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "key.pem", folder / "certificate.pem"
    form = serialization.PrivateFormat.PKCS8
    files[0].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    files[1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return files
