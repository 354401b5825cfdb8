"""All jobs of the server, and the queue of those that wait."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..process.job import Event
from .job import CANCELLED, FAILED, FINISHED, RUNNING, WAITING, ServerJob
from .limits import FETCHED_SECONDS, KEPT, MESSAGE_CHARACTERS, REMOVED, Limits
from .problems import Problem, unknown
from .queue import FairQueue
from .records import restored_job, write_record
from .upload import Upload
from .uploads import Uploads
from .wishes import FILES, Wish

_PROGRESS = ("stage", "done", "total", "remaining", "part", "parts")


class Jobs:
    """All jobs, and the queue of those that wait.

    Its methods are called from many threads. None of them runs a job.

    :param unfinished: folder in which each running job has a folder of its own.
    :param results: folder to which that of a finished job is moved, so that a result is there completely or not at all.
    """

    def __init__(self, unfinished: Path, results: Path, uploads: Uploads, limits: Limits) -> None:
        self._unfinished, self._results, self._uploads, self._limits = unfinished, results, uploads, limits
        self._all: dict[str, ServerJob] = {}
        self._queue = FairQueue()
        self._removed: dict[str, deque[str]] = {}  # keys, by owner
        self._changed = threading.Condition(threading.RLock())
        self._closed = False

    # For clients. Each raises a `Problem` with the status 404 if this token has no job of this id.

    def add(self, wish: Wish) -> tuple[ServerJob, bool]:
        """Add a job to the queue. This may block.

        :returns: the job, and whether it is new; it is not if the client has sent it before.
        :raises Problem: if its key is taken, as also that of a job that was removed; an image is missing, or this token
            has too many jobs.
        """
        with self._changed:
            mine = [job for job in self._all.values() if job.wish.owner == wish.owner]
            before = next((job for job in mine if job.wish.key == wish.key), None)
            if before is None and wish.key in self._removed.get(wish.owner, ()):  # it was sent before it was removed
                raise Problem(409, "key_taken", "The job of this key was removed. Choose a new key to send it again.")
            if before is None:
                return self._add(wish, mine), True
            if not before.wish.is_same(wish):
                raise Problem(409, "key_taken", "Another job was sent with this key. Choose a new key.")
        if before.has_ended:  # then the images that were sent for it once more are not needed
            self._uploads.leave(wish.owner, wish.images, before.id, wish.keep_images)
        return before, False

    def _add(self, wish: Wish, mine: list[ServerJob]) -> ServerJob:
        if self._closed:
            raise Problem(503, "stopping", "The server is being stopped. Send the job again later.")
        count = sum(not job.has_ended for job in mine)
        if count >= self._limits.jobs:
            said = f"{count} jobs of this token wait or run already, as many as this server takes. Try again later."
            raise Problem(429, "too_many", said)
        if len(mine) - count >= KEPT:
            failed = next((job for job in mine if job.state == FAILED), None)
            if failed is None:
                said = f"{KEPT} results of this token are kept already. Fetch and remove some first."
                raise Problem(429, "too_many", said)
            del self._all[failed.id]  # the oldest; it has no files
        name = secrets.token_hex(16)
        uploads: list[Upload] = self._uploads.use(wish.owner, list(wish.images), name)
        job = ServerJob(name, wish, tuple(upload.path for upload in uploads))
        self._all[name] = job
        self._queue.add(wish.owner, name)
        self._note(job)
        self._changed.notify_all()
        return job

    def find(self, owner: str, name: str) -> ServerJob:
        """Return a job."""
        with self._changed:
            job = self._all.get(name)
            if job is None or job.wish.owner != owner:
                raise unknown("job")
            return job

    def facts(self, owner: str, name: str) -> dict[str, Any]:
        """Return the JSON of a job."""
        with self._changed:
            return self._facts(self.find(owner, name))

    def news(self, owner: str, name: str, after: int) -> list[tuple[int, str, dict[str, Any]]]:
        """Return what has happened to a job since a change: id, kind and JSON of each event."""
        with self._changed:
            job = self.find(owner, name)
            if job.changes <= after and not job.has_ended:
                return []
            events: list[tuple[int, str, dict[str, Any]]] = []
            events += ((number, "message", {"text": text}) for number, text in job.messages if number > after)
            if job.state == WAITING:
                events.append((job.changes, "queued", {"place": self._place(job)}))
            elif job.has_ended:
                events.append((job.changes, "end", self._facts(job)))
            else:
                events.append((job.changes, "progress", dict(job.progress)))
            return events

    def file(self, owner: str, name: str, what: str) -> Path:
        """Return a file of a finished job.

        :param what: a key of :data:`.wishes.FILES`.
        :raises Problem: if the job is not finished, or was not to make this file.
        """
        with self._changed:
            job = self.find(owner, name)
            if job.state in (WAITING, RUNNING):
                raise Problem(409, "not_finished", "The job is not finished. Ask again when its state says so.")
            if job.state != FINISHED:
                raise Problem(409, "job_failed", job.error or "The job was cancelled.")
            if what not in job.wish.files:
                raise Problem(409, "not_wanted", f"The job was not asked for {what}. Send it again, with {what}: true.")
            return self._results / name / FILES[what]

    def sent(self, name: str) -> None:
        """Note that the result of a job was sent to its end: it is kept a few minutes only."""
        with self._changed:
            if (job := self._all.get(name)) is not None and job.fetched is None:
                job.fetched = time.monotonic()

    def remove(self, owner: str, name: str, for_good: bool = True) -> None:
        """Cancel a job, and remove all that it has made. A running one ends within two seconds. This may block.

        :param for_good: its key is not taken again, as by a request that was sent before but arrives later.
        """
        folder, gone = self._results / name, self._results / f".{name}"
        with self._changed:
            job = self.find(owner, name)
            waited = job.state == WAITING
            if waited:
                self._queue.remove(owner, name)
                self._end(job, CANCELLED)
            job.stop.set()
            del self._all[name]
            if for_good:
                self._removed.setdefault(owner, deque(maxlen=REMOVED)).append(job.wish.key)
            self._tell_waiting()
            if job.state != RUNNING:  # else the thread that runs it removes its files
                try:
                    folder.rename(gone)  # so that nothing is added while it is removed
                except OSError:  # there is none, or a system does not rename folders with open files
                    gone = folder
        if waited:
            self._leave(job)
        shutil.rmtree(gone, ignore_errors=True)

    # For the threads that run jobs.

    def take(self, seconds: float) -> ServerJob | None:
        """Wait for a job, and return it as running; ``None`` if there is none in this time."""
        with self._changed:
            if not self._queue and not self._closed:
                self._changed.wait(seconds)
            name = None if self._closed else self._queue.take()
            if name is None:
                return None
            job = self._all[name]
            job.state = RUNNING
            job.progress = {"stage": "start", "done": 0, "total": 1, "remaining": None, "part": 1, "parts": 1}
            self._note(job)
            self._tell_waiting()
            return job

    def folder(self, job: ServerJob) -> Path:
        """Return the folder in which a running job makes its files."""
        return self._unfinished / job.id

    def happened(self, job: ServerJob, event: Event, said: Callable[[str], str]) -> None:
        """Note what the child process of a job has reported."""
        with self._changed:
            if event.kind in ("progress", "message"):
                job.progress = {name: getattr(event, name) for name in _PROGRESS}
                self._note(job)
                if event.text:
                    job.messages.append((job.changes, said(event.text)[:MESSAGE_CHARACTERS]))

    def finish(self, job: ServerJob, result: dict[str, Any], log: str) -> None:
        """Give the files of a job the place of finished ones. From here on, the result survives a crash.

        :raises OutputError: if they cannot be moved.
        """
        folder = self.folder(job)
        write_record(folder, job.wish, result)
        self._leave(job)
        with self._changed:
            if job.id not in self._all:  # removed meanwhile
                self._end(job, CANCELLED)
                return
            folder.rename(self._results / job.id)
            job.result, job.log = result, log
            self._end(job, FINISHED)

    def fail(self, job: ServerJob, error: str, code: int, log: str) -> None:
        """Note that a job has failed."""
        self._leave(job)
        with self._changed:
            job.error, job.code, job.log = error[:MESSAGE_CHARACTERS], code, log
            self._end(job, FAILED)

    def cancelled(self, job: ServerJob) -> None:
        """Note that a job was stopped because it is not wanted any more, or the server ends."""
        self._leave(job)
        with self._changed:
            self._end(job, CANCELLED)

    # For the server as a whole.

    def restore(self) -> int:
        """Find the results that an earlier process has finished, and remove what is none.

        :returns: the number of results.
        """
        for folder in self._results.iterdir():
            restored = restored_job(folder, self._limits.keep_seconds)
            if restored is None:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                self._all[restored.id] = restored
        return len(self._all)

    def counts(self) -> dict[str, int]:
        """Return how many jobs wait and run."""
        with self._changed:
            running = sum(job.state == RUNNING for job in self._all.values())
            return {"waiting": len(self._queue), "running": running}

    def remove_old(self) -> None:
        """Remove what nobody has fetched in time, and what was fetched some minutes ago."""
        now, old = time.monotonic(), []
        with self._changed:
            for job in [job for job in self._all.values() if job.ended is not None]:
                late = now - (job.ended or now) > self._limits.keep_seconds
                if late or (job.fetched is not None and now - job.fetched > FETCHED_SECONDS):
                    old.append(job)
        for job in old:
            with suppress(Problem):  # removed meanwhile
                self.remove(job.wish.owner, job.id, for_good=False)  # a client that comes back late may send it again

    def close(self) -> None:
        """Take no more jobs, and ask those that run to end."""
        with self._changed:
            self._closed = True
            for job in self._all.values():
                if job.state == WAITING:  # its images are removed with all others
                    self._queue.remove(job.wish.owner, job.id)
                    self._end(job, CANCELLED)
                job.stop.set()
            self._changed.notify_all()

    def _facts(self, job: ServerJob) -> dict[str, Any]:
        return {
            "id": job.id,
            "key": job.wish.key,
            "state": job.state,
            "place": self._place(job) if job.state == WAITING else None,
            **{name: job.progress.get(name, 1 if name in ("part", "parts") else None) for name in _PROGRESS},
            "message": job.messages[-1][1] if job.messages else None,
            "error": job.error,
            "exit_code": job.code,
            "result": job.result,
        }

    def _place(self, job: ServerJob) -> int:
        return self._queue.order().index(job.id)

    def _tell_waiting(self) -> None:
        """Note that the places of those that wait may be others."""
        for name in self._queue.order():
            self._note(self._all[name])

    def _note(self, job: ServerJob) -> None:
        job.changes += 1

    def _end(self, job: ServerJob, state: str) -> None:
        job.state, job.ended = state, time.monotonic()
        self._note(job)

    def _leave(self, job: ServerJob) -> None:
        """Remove the images of a job that has ended. Large files take a while, so it is done without the lock."""
        self._uploads.leave(job.wish.owner, job.wish.images, job.id, job.wish.keep_images)
