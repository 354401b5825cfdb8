"""Jobs on the workers of a cluster, as of ``classscaleseg segment --cluster``, instead of devices of the server.

The workers must see the server's folder under the same path. Each runs one job at a time, in a child process.
"""

from __future__ import annotations

import itertools
import json
import platform
import queue
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..cohort.cluster import Cluster
from ..cohort.fitting import fitted
from ..errors import innermost
from ..process.job import Event, Job, job_of, parse_event
from ..process.segmentation import SegmentationProcess
from .workers import Gate

STOP = "stop"  # a file in the folder of a job that its worker should end
_SECONDS_BETWEEN = 0.1
_SECONDS_TO_STOP = 5.0
_SECONDS_TO_LOOK = 2.0


class ClusterProcess:
    """A job on a worker, with the members of :class:`~ClassScaleSegLib.process.segmentation.SegmentationProcess`.

    :ivar pid: there is none on this machine.
    :ivar kind: name of the class of the error.
    """

    def __init__(self, slots: ClusterSlots) -> None:
        self.job: Job | None = None
        self.state, self.log = "new", ""
        self.error: str | None = None
        self.kind: str | None = None
        self.result: dict[str, Any] = {}
        self.pid = None
        self._slots, self._key, self._future = slots, "", None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def __enter__(self) -> ClusterProcess:
        return self

    def __exit__(self, *_: Any) -> None:
        self.cancel()

    def start(self) -> None:
        """Give the job to the cluster."""
        assert self.job is not None
        self._key, self._future = self._slots.submit(self.job, self._events)
        self.state = "running"

    def poll(self) -> list[Event]:
        """Return the events since the last call. When the job has ended, this sets the state."""
        future: Any = self._future
        ended = future.done()
        events = []
        with suppress(queue.Empty):
            while True:
                events.append(self._events.get_nowait())
        if ended:
            self._conclude(future)
        return events

    def cancel(self) -> None:
        """End the job, and wait until its worker has ended it, some seconds at most."""
        future: Any = self._future
        if future is not None:
            if self.state == "running":
                self.state = "cancelled"
                with suppress(OSError):
                    _stop_file(self.job).touch()
                until = time.monotonic() + _SECONDS_TO_STOP
                while not future.done() and time.monotonic() < until:
                    time.sleep(_SECONDS_BETWEEN)
            with suppress(Exception):  # the scheduler may be gone
                future.cancel()
            self._slots.forget(self._key)
            self._future = None

    def _conclude(self, future: Any) -> None:
        try:
            answer = future.result(timeout=_SECONDS_TO_STOP)
            self.state, self.error = answer["state"], answer["error"]
            self.result, self.log, self.kind = answer["result"], answer["log"], answer["kind"]
        except Exception as error:  # of Dask: the worker died too often, or the scheduler is lost
            self.state = "failed"
            self.error = f"The cluster has failed ({innermost(error)}). Send the job again."


class ClusterSlots(Gate):
    """Gives jobs to a cluster, one to each worker.

    :param cluster: as :func:`~ClassScaleSegLib.cohort.workers.open_cluster` yields it.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._topic = f"classscaleseg-server-{secrets.token_hex(6)}"
        self._lock, self._at_work, self._numbers = threading.Lock(), 0, itertools.count()
        self._listeners: dict[str, queue.SimpleQueue[Event]] = {}
        self._looked = 0.0
        cluster.client.subscribe_topic(self._topic, self._told)

    def __call__(self) -> ClusterProcess:
        return ClusterProcess(self)

    def enter(self, waiting: int) -> bool:
        """Take a place for a job, if a worker is free or the queue has yet to start one.

        :param waiting: number of jobs.
        """
        with self._lock:
            if time.monotonic() - self._looked > _SECONDS_TO_LOOK:
                with suppress(Exception):  # the scheduler may be restarted
                    self.cluster.refresh()
                    self.cluster.want(waiting + self._at_work)
                self._looked = time.monotonic()
            if self._at_work >= max(1, self.cluster.workers):
                return False
            self._at_work += 1
            return True

    def leave(self) -> None:
        """Give a place back."""
        with self._lock:
            self._at_work -= 1

    def submit(self, job: Job, events: queue.SimpleQueue[Event]) -> tuple[str, Any]:
        """Give a job to the workers; return its key and Dask's future."""
        key = f"{self._topic}-{next(self._numbers)}"
        self._listeners[key] = events
        future = self.cluster.client.submit(
            segment_on_worker, job.facts(), self._topic, key, key=key, resources=self.cluster.resources, pure=False
        )
        return key, future

    def forget(self, key: str) -> None:
        """Listen no more to what a worker tells of a job."""
        self._listeners.pop(key, None)

    def _told(self, event: tuple[float, dict[str, Any]]) -> None:
        facts = event[1]
        listener, known = self._listeners.get(facts.get("key", "")), parse_event(facts.get("line", ""))
        if listener is not None and known is not None:
            listener.put(known)


def segment_on_worker(facts: dict[str, Any], topic: str, key: str) -> dict[str, Any]:
    """Do a job on a worker, in a child process of it, and tell its events.

    :param facts: of the job, as :meth:`~ClassScaleSegLib.process.job.Job.facts` returns them.
    :returns: ``state``, ``error``, ``kind``, ``result`` and ``log``, as of a `SegmentationProcess`.
    """
    from distributed import get_worker

    worker, job = get_worker(), fitted(job_of(facts))
    stop = _stop_file(job)
    if not stop.parent.is_dir():
        said = f"The worker on {platform.node()} does not see the server's folder. Give one that all see (--folder)."
        return {"state": "failed", "error": said, "kind": None, "result": {}, "log": ""}
    with SegmentationProcess(job) as process:
        kind = None
        process.start()
        while process.state == "running":
            for event in process.poll():
                kind = event.facts.get("kind") if event.kind == "error" else kind
                if event.facts:
                    worker.log_event(topic, {"key": key, "line": json.dumps(event.facts)})
            if stop.exists() or not stop.parent.exists():
                process.cancel()
            time.sleep(_SECONDS_BETWEEN)
        error = process.error if process.state != "cancelled" else "The job was cancelled."
        answer: dict[str, Any] = {"state": process.state, "error": error, "kind": kind}
        return {**answer, "result": process.result, "log": process.log}


def _stop_file(job: Job | None) -> Path:
    assert job is not None
    return Path(job.output).parent / STOP
