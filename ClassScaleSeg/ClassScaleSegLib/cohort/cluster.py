"""A connection to the workers of a cohort, wherever they run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .queue_jobs import QueueJobs

ONE_CASE = "case"  # the resource of which every worker that is started here has one, and a case needs one


class Cluster:
    """A connection to workers; see :func:`~ClassScaleSegLib.cohort.workers.open_cluster`.

    :ivar client: of Dask.
    :ivar what: the cluster in words.
    :ivar unfit: addresses of workers that can do no case.
    :ivar seconds: after which a queue ends a worker; ``None`` if nothing does, or it is not known.
    :param most: workers that may be there at once; ``None`` if that is for others to decide.
    :param jobs: of a queue.
    :param renew: called while fewer workers than ``most`` are there.
    """

    def __init__(
        self,
        client: Any,
        what: str,
        most: int | None,
        jobs: QueueJobs | None = None,
        seconds: float | None = None,
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        self.client, self.what, self.seconds = client, what, seconds
        self._most, self._jobs, self._renew = most, jobs, renew
        self.workers, self._addresses = 0, frozenset[str]()
        self.unfit: set[str] = set()
        self.resources: dict[str, float] | None = None
        self.refresh()

    @property
    def dashboard(self) -> str | None:
        """The address of Dask's dashboard; ``None`` if it shows no pages."""
        try:
            import bokeh  # noqa: F401
        except ImportError:
            return None
        with suppress(Exception):  # a scheduler without pages
            return self.client.dashboard_link
        return None

    @property
    def own(self) -> bool:
        """Whether the workers were started here, and end with this command."""
        return self._most is not None

    def want(self, cases: int) -> None:
        """Tell a queue how many cases are left.

        :raises ClassScaleError: if it does not take the jobs.
        """
        if self._jobs is not None:
            self._jobs.cases = cases
            self._jobs.check()

    def retire(self, worker: str) -> None:
        """End a worker that has no time left for another case; a queue gets a new job in its place."""
        self.client.retire_workers([worker], close_workers=True)

    @property
    def hint(self) -> str:
        """Where to look if no workers come; empty if there is nothing to say."""
        if self._jobs is None:
            return "" if self.own else "start some (dask worker)"
        ids = self._jobs.ids
        listed = ", ".join(ids[:5]) + (" ..." if len(ids) > 5 else "")
        refused = f"; it does not take more ({self._jobs.refusal})" if self._jobs.refusal else ""
        return f"{len(ids)} jobs are with the queue ({listed}){refused}; what they print is in {self._jobs.logs}"

    def refresh(self) -> None:
        """Ask which workers there are."""
        found = self.client.scheduler_info(n_workers=-1)["workers"]
        self._addresses, workers = frozenset(found), found.values()
        self.workers = len(workers)
        offered = {name for worker in workers for name in worker["resources"]}
        wanted = next((name for name in ("GPU", ONE_CASE) if name in offered), ONE_CASE if self.own else None)
        self.resources = None if wanted is None else {wanted: 1}
        if self._most is not None and self.workers < self._most:
            self._renew()

    @property
    def window(self) -> int:
        """How many cases may be with the workers at once: one at work and one waiting for each.

        None without workers: it is not known yet which resources they have, and nobody could be sent an image.
        """
        return 2 * len(self._addresses - self.unfit)

    @property
    def fit(self) -> list[str] | None:
        """The workers that may get cases; ``None`` if all may."""
        return sorted(self._addresses - self.unfit) if self.unfit & self._addresses else None

    def set_aside(self, worker: str) -> None:
        """Give no more cases to a worker. A queue gets another job in its place."""
        self.unfit.add(worker)
        if self._jobs is not None:
            self.retire(worker)
