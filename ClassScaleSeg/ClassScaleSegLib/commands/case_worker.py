"""What a worker of a cluster does with a case: the same as one machine, with models that it opens once."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cohort.dispatch import LEAVES, UNFIT, own_address, tell_answer, tell_begin
from ..cohort.fitting import fitted
from ..cohort.ledger import is_latest
from ..cohort.records import Recipe
from ..errors import ClassScaleError, ModelError
from ..inference.progress import Progress
from ..process.allocator import return_memory_at_once
from ..process.job import Job
from ..version import VERSION
from .case_runner import CaseRunner
from .cases import Case
from .cohort_job import CohortJob, case_error
from .job_models import find_models
from .reporting import Reporter

OUTDATED, NOT_SHARED, OTHER_VERSION = "Outdated", "NotShared", "OtherVersion"  # errors of a worker, not of a case
_GPU_LOST = 7  # exit code of a worker whose GPU does not answer any more
_LOST = ("CUDA error", "CUDA driver error", "device-side assert", "uncorrectable ECC")

_MARGIN = 1.2  # by which a case may take longer than the longest one so far
_PARENTS = 2  # its nanny, and the script of the job
_begun: float | None = None  # when this process began, or its job, by the monotonic clock
_longest = 0.0  # seconds of a case in this process
_one_case = threading.Lock()  # a worker of a foreign scheduler may have several threads
_cancelled: dict[str, threading.Event] = {}  # by run
_opened: dict[str, CaseRunner] = {}  # by run; only the latest one
_places: dict[str, tempfile.TemporaryDirectory[str]] = {}  # for files that were sent, likewise
_SIDES = ("results", "confidence", "statistics")


@dataclass(frozen=True)
class Setup:
    """What all cases of a run have in common.

    :ivar cohort: with absolute paths.
    :ivar recipe: of the results; the worker's models must be the same.
    :ivar run: its id.
    :ivar seconds: after which a queue ends a worker; ``None`` if nothing does.
    :ivar sent: images and results are sent, so the worker need not see the folder of results.
    :ivar version: of ClassScaleSeg where the command runs; the worker's must be the same.
    """

    cohort: CohortJob
    recipe: Recipe
    run: str
    seconds: float | None = None
    sent: bool = False
    version: str = VERSION


class WorkerError(ClassScaleError):
    """The worker cannot segment any case of the run."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


def segment_case(setup: Setup, case: Case, overwrite: bool, attempt: int) -> dict[str, Any]:
    """Segment a case on a worker, and write its results.

    :param overwrite: replace results that are there; those that an attempt of this run has left are replaced anyway.
    :param attempt: from 1; the record of the case tells more exactly what earlier ones have left.
    :returns: "host", "seconds", "messages", and either "facts" of the results or "kind" and "error".
    """
    with _one_case:
        answer = _segment_case(setup, case, overwrite)
        tell_answer(setup.run, answer)
        return answer


def _segment_case(setup: Setup, case: Case, overwrite: bool) -> dict[str, Any]:
    global _longest
    begin, reporter = time.monotonic(), _Notes()
    if setup.seconds is not None and _seconds_since_start() + _MARGIN * _longest > setup.seconds and _longest:
        return {LEAVES: own_address()}
    tell_begin(setup.run, case.name)
    answer: dict[str, Any] = {"host": platform.node(), "messages": reporter.messages}
    try:
        _refuse_other_version(setup)
        _refuse_outdated(setup)
        runner = _runner(setup)
        facts = runner.finished(case, setup.run)  # by a worker that died before its answer arrived
        overwrite = overwrite or runner.begun(case, setup.run)  # Dask may repeat an attempt by itself
        answer["facts"] = facts or runner.run(case, reporter, overwrite, lambda: _refuse_outdated(setup))
    except Exception as error:
        if _gpu_is_lost(error):
            os._exit(_GPU_LOST)  # no later case of this process could use it; the next process may
        sentence = case_error(case.name, error, reporter)
        answer |= {"kind": getattr(sentence, "kind", type(sentence).__name__), "error": str(sentence)}
        if answer["kind"] in (NOT_SHARED, OTHER_VERSION, ModelError.__name__):
            answer[UNFIT] = own_address()
    seconds = time.monotonic() - begin
    _longest = max(_longest, seconds)
    return {**answer, "seconds": round(seconds, 2)}


def _seconds_since_start() -> float:
    """Return for how long this process has been running, or the job of a queue in which it is.

    The clock is asked once, and may be set later.
    """
    global _begun
    if _begun is None:
        import psutil

        process = psutil.Process()
        age = time.time() - min(each.create_time() for each in (process, *process.parents()[:_PARENTS]))
        _begun = time.monotonic() - age
    return time.monotonic() - _begun


def cancel_run(run: str) -> None:
    """Stop the case of a run that is at work in this process."""
    _cancelled.setdefault(run, threading.Event()).set()


def _refuse_other_version(setup: Setup) -> None:
    """Refuse to segment in another way than the other workers, and than the records will say."""
    if setup.version != VERSION:
        raise WorkerError(
            OTHER_VERSION,
            f"ClassScaleSeg {VERSION} is installed on the host {platform.node()} of a worker, and {setup.version} "
            "where the command runs. Install the same version.",
        )


def _refuse_outdated(setup: Setup) -> None:
    """Refuse to write results of a run that is not the latest one: this worker may have been cut off for long."""
    if setup.sent:
        return
    folder = setup.cohort.job.output
    latest = is_latest(folder, setup.run)
    if latest is None:
        raise WorkerError(
            NOT_SHARED,
            f"The host {platform.node()} of a worker does not see {folder}. Use a folder that all hosts see under "
            "the same path, or send images and results (--transfer).",
        )
    if not latest:
        raise WorkerError(OUTDATED, f"Another command has begun to segment into {folder}.")


def _runner(setup: Setup) -> CaseRunner:
    """Return what segments the cases of a run; its models stay open until another run comes."""
    if setup.run not in _opened:
        _opened.clear()  # before the next models are opened
        return_memory_at_once()  # in place of Dask's setting for glibc, by which cases take half as long again
        cohort = replace(setup.cohort, job=fitted(setup.cohort.job))
        models = find_models(cohort.job)
        if models.checksums != setup.recipe.models:
            raise ModelError(
                f"On the host {platform.node()}, {', '.join(map(str, cohort.job.models))} is another model than "
                "where the command runs. Copy it there, or give a path that all hosts see."
            )
        models.open()
        cancel = _cancelled.setdefault(setup.run, threading.Event())
        records, report = cohort.records(models), cohort.report(models)
        _opened[setup.run] = cohort.runner(models, report, records, cancel, setup.run)
    return _opened[setup.run]


def _gpu_is_lost(error: BaseException | None) -> bool:
    """Return whether an error says that the GPU of this process cannot be used any more."""
    while error is not None:
        if isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST):
            return True
        error = error.__cause__ or error.__context__
    return False


class _Notes(Reporter):
    """Keeps what is to be told of a case."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def progress(self, report: Progress) -> None:
        if report.message and report.message not in self.messages:
            self.messages.append(report.message)


def segment_sent_case(
    setup: Setup, case: Case, images: Mapping[str, bytes], models: Mapping[str, bytes], attempt: int
) -> dict[str, Any]:
    """Segment a case whose files were sent, and return its results.

    :param setup: with the paths where the command runs.
    :param case: likewise.
    :param images: content of each file, by its path below the folder of the first image.
    :param models: content of each model that is a file, by its name in the job.
    :returns: as :func:`segment_case`, and "files": content of each file of results, by "results", "confidence" or
        "statistics" and its name.
    """
    with _one_case:
        place = _place(setup.run)
        own = replace(setup, cohort=replace(setup.cohort, job=_received_job(place, setup.cohort.job, models)))
        here = _received_case(place, case, images)
        try:
            answer = _segment_case(own, here, True)
            if "facts" in answer:
                answer["files"] = {
                    (side, file.name): file.read_bytes() for side in _SIDES for file in (place / side).glob("[!.]*")
                }
        finally:
            for side in ("images", *_SIDES):
                shutil.rmtree(place / side, ignore_errors=True)
        there = str(case.files[0].parent)
        return _renamed(answer, str(place / "images"), there)


def _place(run: str) -> Path:
    """Return a folder of this process for a run, in that of its worker, which Dask removes if the process is killed."""
    from distributed import get_worker

    if run not in _places:
        for place in _places.values():
            place.cleanup()
        _places.clear()
        _places[run] = tempfile.TemporaryDirectory(
            prefix="classscaleseg-", dir=get_worker().local_directory, ignore_cleanup_errors=True
        )
    return Path(_places[run].name)


def _received_job(place: Path, job: Job, models: Mapping[str, bytes]) -> Job:
    """Return a job with models and results in a folder of this process."""
    files = {}
    for number, (name, content) in enumerate(models.items()):
        files[name] = place / f"model_{number}" / Path(name).name  # a model that has no name is called after its file
        if not files[name].exists():
            files[name].parent.mkdir()
            files[name].write_bytes(content)
    named = tuple(files.get(str(model), model) for model in job.models)
    coarse = job.options.locate_with
    options = replace(job.options, locate_with=None if coarse is None else str(files.get(coarse, coarse)))
    confidence, statistics = (getattr(job, side) and place / side for side in _SIDES[1:])
    job = replace(job, model=named, output=place / "results", options=options)
    return replace(job, confidence=confidence, statistics=statistics)


def _received_case(place: Path, case: Case, images: Mapping[str, bytes]) -> Case:
    """Write the files of a case, and return the case with their paths here."""
    for name, content in images.items():
        file = place / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    files = tuple(place / "images" / file.name for file in case.files)
    return replace(case, files=files, output=place / "results" / case.output.name)


def _renamed(answer: dict[str, Any], here: str, there: str) -> dict[str, Any]:
    """Return an answer whose sentences name files as the command knows them."""
    if "messages" in answer:  # not of a worker that leaves
        answer["messages"] = [message.replace(here, there) for message in answer["messages"]]
    if "error" in answer:
        answer["error"] = answer["error"].replace(here, there)
    return answer
