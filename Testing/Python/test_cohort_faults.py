"""Faults of cohorts that `Testing/Benchmarks/cohort.py` and trials beside it have found."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ClassScaleSegLib import Segmentation
from ClassScaleSegLib.cohort.dispatch import LEAVES, tell_begin
from ClassScaleSegLib.cohort.records import Recipe, Records
from ClassScaleSegLib.commands import case_worker
from ClassScaleSegLib.commands.case_runner import CaseRunner
from ClassScaleSegLib.commands.cases import Case
from ClassScaleSegLib.commands.cohort_job import CohortJob
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.options import Options
from ClassScaleSegLib.process.job import Job

distributed = pytest.importorskip("distributed")
NOT_UTF8 = os.fsdecode(b"bad\xff")


def test_a_name_that_is_not_utf8_leaves_the_connection_of_a_worker_whole(monkeypatch):
    from distributed.protocol import dumps, loads

    told = []
    worker = SimpleNamespace(address="tcp://w1", log_event=lambda topic, facts: told.append(loads(dumps(facts))))
    monkeypatch.setattr(distributed, "get_worker", lambda: worker)
    tell_begin("run", NOT_UTF8)
    assert os.fsdecode(told[0]["name"]) == NOT_UTF8 and str(os.getpid()) in told[0]["process"]


class Models:
    """Finds nothing, at once."""

    channels, flat, nibabel, used, names = 1, False, False, (), ()

    def run(self, images, progress, cancel, accept):
        table = LabelTable.from_names({0: "background", 1: "cell"})
        return Segmentation(
            np.zeros((2, 2, 2), np.uint16), table, Geometry((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
        )

    def advice(self, geometry, modality):
        return ()


def test_an_attempt_that_dask_repeats_may_replace_what_a_killed_worker_has_written(tmp_path, monkeypatch):
    out = tmp_path / "out"
    job = Job((str(tmp_path),), ("model",), str(out), options=Options(device="cpu"))
    case = Case("ct", (tmp_path / "ct.nrrd",), out / "ct.seg.nrrd")
    records = Records(out, Recipe.of([("model", "5eb9")], job.options, [".seg.nrrd"]))
    case.files[0].write_text("not read")
    runner = CaseRunner(job, Models(), records=records, run="run")
    monkeypatch.setattr(case_worker, "_runner", lambda setup: runner)
    monkeypatch.setattr(case_worker, "_refuse_outdated", lambda setup: None)
    monkeypatch.setattr(case_worker, "tell_begin", lambda *_: None)
    monkeypatch.setattr(case_worker, "tell_answer", lambda *_: None)
    setup = case_worker.Setup(CohortJob(job, (".seg.nrrd",)), records.recipe, "run")
    records.announce(records.begin("ct", case.files, "run"))
    case.output.write_bytes(b"of the worker that was killed before it completed the record")
    answer = case_worker.segment_case(setup, case, False, 1)
    assert "error" not in answer and records.structures("ct", "run") == 0
    case.output.with_name("ct.seg.nrrd").write_bytes(b"of somebody else")
    (out / ".classscaleseg" / "cases" / "ct.json").unlink()
    assert "already exists" in case_worker.segment_case(setup, case, False, 1)["error"]


def test_a_worker_that_was_sent_images_can_leave_too(tmp_path, monkeypatch):
    monkeypatch.setattr(case_worker, "_place", lambda run: tmp_path)
    monkeypatch.setattr(case_worker, "_segment_case", lambda *_: {LEAVES: "tcp://w1"})
    job = Job((str(tmp_path),), ("model",), str(tmp_path / "out"))
    setup = case_worker.Setup(CohortJob(job, (".seg.nrrd",)), Recipe((), {}, ()), "run", sent=True)
    case = Case("ct", (Path("ct.nrrd"),), Path("ct.seg.nrrd"))
    assert case_worker.segment_sent_case(setup, case, {"ct.nrrd": b""}, {}, 1) == {LEAVES: "tcp://w1"}


def test_dask_keeps_its_defaults_and_says_nothing_when_the_process_ends(tmp_path):
    script = """
import logging, pathlib
from ClassScaleSegLib import ClassScaleError
from ClassScaleSegLib.cohort.workers import open_cluster
try:
    with open_cluster("nowhere", pathlib.Path()):
        pass
except ClassScaleError:
    import dask
    print(dask.config.get("distributed.scheduler.worker-ttl"))
    logging.getLogger("distributed.process").info("reaping stray process")
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "5 minutes\n" and ran.stderr == ""
