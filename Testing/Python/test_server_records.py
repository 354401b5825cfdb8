"""What a server notes beside its results: odd notes and clocks lose no other result, and keep none for ever."""

import copy
import json
import shutil
import time

import pytest

pytest.importorskip("fastapi")
from ClassScaleSegLib.server import jobs  # noqa: E402
from ClassScaleSegLib.server.limits import Limits  # noqa: E402
from ClassScaleSegLib.server.schemas import JobFacts  # noqa: E402
from ClassScaleSegLib.server.workers import adopt_unfinished  # noqa: E402
from live_server import Ahead, live_server  # noqa: E402
from odd_json import WEIRD, entries  # noqa: E402
from server_child import (  # noqa: E402, F401  (fixtures)
    IMAGE,
    a_server,
    controlled_child,
    finished,
    left,
    nrrd,
    remove,
    server_without_tokens,
    start,
    toy_offers,
)


@pytest.mark.parametrize("years", [-10, 10])
def test_a_clock_that_jumps_while_the_server_runs_changes_nothing(api, monkeypatch, years):
    real = time.time
    upload, kept = api.upload(IMAGE), finished(api)
    monkeypatch.setattr(time, "time", lambda: real() + years * 365 * 86400)
    time.sleep(0.3)
    assert api("get", f"uploads/{upload}").json()["complete"]
    assert api("get", f"jobs/{kept}/result").status_code == 200
    remove(api, kept, start(api, upload), finished(api))


@pytest.mark.parametrize("years, kept", [(-10, True), (10, False)])
def test_a_clock_that_jumps_between_two_starts_keeps_no_result_for_ever(tmp_path, child, monkeypatch, years, kept):
    with live_server(tmp_path / "server", toy_offers()) as api:
        name = finished(api)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + years * 365 * 86400)
    clock = Ahead(monkeypatch)
    with a_server(tmp_path / "server") as api:
        assert api("get", f"jobs/{name}").status_code == (200 if kept else 404)
        clock.runs(3601)
        assert left(api) == []  # by the clock that does not jump


def test_a_result_that_was_being_removed_is_none_after_a_crash(tmp_path, child):
    with live_server(tmp_path / "server", toy_offers()) as api:
        name = finished(api)
        (api.folder / "results" / name).rename(api.folder / "results" / f".{name}")
    with a_server(tmp_path / "server") as api:
        assert left(api) == [] and api("get", f"jobs/{name}").status_code == 404


def odd_variants(facts):
    """Yield a JSON object with something odd in each of its entries, in turn."""
    for path in entries(facts):
        for weird in WEIRD:
            odd = copy.deepcopy(facts)
            place = odd
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = weird
            yield odd


def test_odd_records_of_results_are_none_or_can_be_answered(tmp_path, child):
    """A server that could not start because of one file would lose all other results."""
    with live_server(tmp_path / "server", toy_offers()) as api:
        record = api.folder / "results" / finished(api, confidence=True) / "record.json"
    kept, whole = 0, json.loads(record.read_text())
    texts = [json.dumps(odd) for odd in odd_variants(whole)]
    for text in (*texts, "[" * 100_000, "", "[]", "\0", json.dumps(whole)[:-1]):
        folder = tmp_path / "results" / record.parent.name
        shutil.copytree(record.parent, folder)
        (folder / "record.json").write_text(text)
        found = jobs.Jobs(tmp_path, folder.parent, None, Limits())
        if found.restore():
            kept += 1
            (job,) = found._all.values()
            facts = found.facts(job.wish.owner, job.id)
            JobFacts.model_validate(json.loads(json.dumps(facts, allow_nan=False)), strict=True)
            assert 0 <= time.monotonic() - job.ended <= 3600
            shutil.rmtree(folder)
        assert not folder.exists()
    assert 5 < kept < len(texts) / 2


def test_odd_notes_of_jobs_that_were_running_are_removed(tmp_path):
    wish = {"owner": "local", "key": "k" * 16, "images": ["0" * 32], "models": ["toy-120"], "options": {}}
    whole = {"pid": 2**22 - 1, "began": 0.0, "wish": {**wish, "confidence": False}}
    (tmp_path / "results").mkdir()
    for text in (*map(json.dumps, odd_variants(whole)), "[" * 100_000, "", "7"):
        folder = tmp_path / "unfinished" / ("a" * 32)
        folder.mkdir(parents=True)
        (folder / "started.json").write_text(text)
        (folder / "result.seg.nrrd").write_bytes(b"NRRD")
        adopt_unfinished(folder.parent, tmp_path / "results")
        assert list(folder.parent.iterdir()) == []
        shutil.rmtree(tmp_path / "results" / folder.name, ignore_errors=True)
