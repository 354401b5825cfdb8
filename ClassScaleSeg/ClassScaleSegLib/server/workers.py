"""The threads that run jobs, one per device: each job in a child process, as in Slicer."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import errors
from ..errors import ClassScaleError
from ..files import sha256_of
from ..options import Options
from ..process.exit_codes import ExitCode, exit_code
from ..process.job import Job
from ..process.process_tree import is_alive
from ..process.segmentation import SegmentationProcess
from .job import ServerJob
from .jobs import Jobs
from .limits import Limits
from .offers import Offers
from .records import FAULTS, read_wish, write_record
from .wishes import FILES, Wish

STARTED = "started.json"
_SECONDS_BETWEEN = 0.05
_SECONDS_FOR_JOBS = 0.5
_SECONDS_TO_DIE = 5.0  # of a child whose server was killed: it notices within a tenth of a second
_LOG_CHARACTERS = 64 << 10
_UNWRITABLE = "The server cannot write the result. Tell the person who runs it, or try again later."

log = logging.getLogger("classscaleseg.serve")


@dataclass(frozen=True)
class Slot:
    """A place where one job can run at a time.

    :ivar name: for people, such as ``cuda:0``.
    :ivar device: as of :class:`~ClassScaleSegLib.options.Options`.
    :ivar threads: of the processor; ``None``: the default of the library.
    :ivar memory_limit_gib: that a job may use; ``None``: what is free.
    """

    name: str
    device: str
    threads: int | None = None
    memory_limit_gib: float | None = None


class Gate:
    """Whether a worker may take a job; always, if it has a device of its own."""

    def enter(self, waiting: int) -> bool:
        """Take a place for a job."""
        return True

    def leave(self) -> None:
        """Give it back."""


class Worker(threading.Thread):
    """Runs one job after the other in a slot, until it is told to stop.

    :param launch: makes what runs a job: a `SegmentationProcess`, or the same for a cluster.
    """

    def __init__(
        self,
        slot: Slot,
        jobs: Jobs,
        offers: Offers,
        limits: Limits,
        launch: Callable[[], Any] = SegmentationProcess,
        gate: Gate = Gate(),
    ) -> None:
        super().__init__(name=f"worker {slot.name}", daemon=True)
        self._slot, self._jobs, self._offers, self._limits = slot, jobs, offers, limits
        self._launch, self._gate = launch, gate
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Take no more jobs. One that runs is ended by :meth:`.jobs.Jobs.close`."""
        self._stopped.set()

    def run(self) -> None:
        """Run jobs."""
        while not self._stopped.is_set():
            if not self._gate.enter(self._jobs.counts()["waiting"]):
                self._stopped.wait(_SECONDS_FOR_JOBS)
                continue
            try:
                job = self._jobs.take(_SECONDS_FOR_JOBS)
                if job is not None:
                    self._run(job)
            except Exception:  # else no job would be run on this device any more
                log.exception("worker %s", self._slot.name)
            finally:
                self._gate.leave()

    def _run(self, job: ServerJob) -> None:
        begin, folder = time.monotonic(), self._jobs.folder(job)
        who = f"job {job.id[:8]} of {job.wish.owner}"
        log.info("%s begins on %s: %s", who, self._slot.name, ", ".join(job.wish.models))
        try:
            self._segment(job, folder)
        except ClassScaleError as error:
            self._jobs.fail(job, self._without_paths(str(error), job, folder), int(exit_code(error)), "")
        except OSError as error:  # the folder of the server is full, or gone
            log.warning("%s: %s", who, error)
            self._jobs.fail(job, _UNWRITABLE, int(exit_code(errors.OutputError())), "")
        except Exception:
            log.exception("%s", who)
            self._jobs.fail(job, "The server has failed. Tell the person who runs it.", int(ExitCode.FAULT), "")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        log.info("%s is %s after %.1f s", who, job.state, time.monotonic() - begin)

    def _segment(self, job: ServerJob, folder: Path) -> None:
        folder.mkdir()
        with self._launch() as process:
            process.job = self._job(job.wish, job.paths, folder)
            process.start()
            _note_child(folder, job.wish, process.pid)
            self._watch(job, process, folder)
            said = self._without_paths(process.log, job, folder)[-_LOG_CHARACTERS:]
            if process.state == "finished":
                result = {name: process.result.get(name) for name in ("structures", "seconds", "changes")}
                self._jobs.finish(job, {**result, "files": described_files(folder, job.wish)}, said)
            elif process.state == "failed":
                kind, error = _class_of(process.kind), self._without_paths(process.error or "", job, folder)
                if issubclass(kind, errors.OutputError):
                    log.warning("job %s: %s", job.id[:8], error)
                    error = _UNWRITABLE
                self._jobs.fail(job, error, int(exit_code(kind(""))), said)
            elif job.stop.is_set():
                self._jobs.cancelled(job)
            else:
                minutes = self._limits.job_seconds / 60
                sentence = f"The job was stopped after {minutes:g} minutes, the longest that this server allows."
                self._jobs.fail(job, sentence, int(ExitCode.FAULT), said)

    def _watch(self, job: ServerJob, process: Any, folder: Path) -> None:
        """Wait until a job has ended; stop it if it is not wanted any more or takes too long."""
        until, running = time.monotonic() + self._limits.job_seconds, True
        while running:
            if job.stop.is_set() or time.monotonic() > until:
                process.cancel()
                return
            events = process.poll()
            running = process.state == "running"
            for event in events:
                self._jobs.happened(job, event, lambda text: self._without_paths(text, job, folder))
            if running and not events:
                job.stop.wait(_SECONDS_BETWEEN)

    def _without_paths(self, text: str, job: ServerJob, folder: Path) -> str:
        """Return a text for a client, which need not know the folders of the server."""
        several = len(job.paths) > 1
        for channel, path in enumerate(job.paths, 1):
            text = text.replace(str(path), f"Image {channel}" if several else "The image")
        for what, name in FILES.items():
            text = text.replace(str(folder / name), f"The {what}")
        for offer in self._offers.all.values():
            for source in (offer.source, *map(str, offer.paths)):
                text = text.replace(source, offer.id)
        return text.replace(str(folder.parents[1]), "(server)").replace(sys.executable, "python")

    def _job(self, wish: Wish, paths: tuple[Path, ...], folder: Path) -> Job:
        slot, files = self._slot, wish.files
        options = Options(
            **{
                **wish.options,
                "device": slot.device,
                "threads": slot.threads,
                "memory_limit_gib": slot.memory_limit_gib,
                "keep_empty": True,
                "locate_with": self._offers.source(wish.options.get("locate_with")),
            }
        )
        return Job(
            tuple(paths),
            tuple(self._offers.source(name) or name for name in wish.models),
            folder / files["segmentation"],
            confidence=folder / files["confidence"] if "confidence" in files else None,
            statistics=folder / files["statistics"] if "statistics" in files else None,
            options=options,
            most_voxels=self._limits.voxels,
        )


def adopt_unfinished(unfinished: Path, results: Path) -> None:
    """Clean up after a server that was killed: the children end, and what they have finished becomes a result.

    The rest is removed. So no job is done twice, and no image of a patient stays.
    """
    for folder in list(unfinished.iterdir()):
        try:
            started = json.loads((folder / STARTED).read_text(encoding="utf-8"))
            _await_end(started["pid"], started["began"])
            wish = read_wish(started["wish"])
            result = {"structures": None, "seconds": None, "changes": None, "files": described_files(folder, wish)}
            write_record(folder, wish, result)
            folder.rename(results / folder.name)
            log.info("job %s of %s was finished when the server was killed", folder.name[:8], wish.owner)
        except (*FAULTS, ClassScaleError):
            shutil.rmtree(folder, ignore_errors=True)


def described_files(folder: Path, wish: Wish) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of each file that a job was to make.

    :raises OSError: if one is missing.
    """
    files = {what: folder / name for what, name in wish.files.items()}
    return {what: {"size": file.stat().st_size, "sha256": sha256_of(file)} for what, file in files.items()}


def _note_child(folder: Path, wish: Wish, pid: int | None) -> None:
    """Note which process makes the files of a folder, for the time after a crash; ``None``: none of this machine."""
    import psutil

    began = 0.0
    with suppress(psutil.Error):
        began = 0.0 if pid is None else psutil.Process(pid).create_time()  # without a pid, psutil takes this process
    temporary = folder / f".{STARTED}"
    temporary.write_text(json.dumps({"pid": pid, "began": began, "wish": vars(wish)}), encoding="utf-8")
    os.replace(temporary, folder / STARTED)


def _await_end(pid: int | None, began: float) -> None:
    """Wait until a process has ended, and kill it if it does not."""
    import psutil

    if pid is None:
        return

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if not abs(process.create_time() - began) <= 1:  # another one has its number now
            return
        until = time.monotonic() + _SECONDS_TO_DIE
        while is_alive(process) and time.monotonic() < until:
            time.sleep(_SECONDS_BETWEEN)
        if is_alive(process):
            process.kill()
            process.wait(_SECONDS_TO_DIE)


def _class_of(kind: str | None) -> type[ClassScaleError]:
    """Return the class of an error that a child has reported by name."""
    found = getattr(errors, str(kind), None)
    return found if isinstance(found, type) and issubclass(found, ClassScaleError) else ClassScaleError
