"""Whose job is next: the owners take turns, and each one's jobs are done in their order."""

from __future__ import annotations

from collections import OrderedDict, deque


class FairQueue:
    """Jobs that wait. An owner with many does not hold up the others. Not for several threads without a lock.

    >>> queue = FairQueue()
    >>> for owner, job in ("anna", "a1"), ("anna", "a2"), ("anna", "a3"), ("ben", "b1"):
    ...     queue.add(owner, job)
    >>> queue.order()
    ['a1', 'b1', 'a2', 'a3']
    >>> queue.take(), queue.take(), len(queue)
    ('a1', 'b1', 2)
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[str]] = OrderedDict()  # by owner; the first one is next

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, owner: str, job: str) -> None:
        """Add a job behind the others of its owner."""
        self._waiting.setdefault(owner, deque()).append(job)

    def take(self) -> str | None:
        """Remove and return the next job; ``None`` if none waits."""
        if not self._waiting:
            return None
        owner, jobs = next(iter(self._waiting.items()))
        job = jobs.popleft()
        if jobs:
            self._waiting.move_to_end(owner)
        else:
            del self._waiting[owner]
        return job

    def remove(self, owner: str, job: str) -> bool:
        """Remove a job that is not to be done; return whether it waited."""
        jobs = self._waiting.get(owner)
        if jobs is None or job not in jobs:
            return False
        jobs.remove(job)
        if not jobs:
            del self._waiting[owner]
        return True

    def order(self) -> list[str]:
        """Return all jobs in the order in which they will be taken if none is added."""
        lists = [list(jobs) for jobs in self._waiting.values()]
        longest = max(map(len, lists), default=0)
        return [jobs[turn] for turn in range(longest) for jobs in lists if turn < len(jobs)]
