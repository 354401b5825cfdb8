"""What to do when memory runs out: recognise it, work in smaller pieces, or move to a device with more memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import OutOfMemoryError, reason
from .devices import free_memory

_T = TypeVar("_T")
# On a full GPU, cuDNN and cuBLAS report only that they could not create a handle or a workspace.
_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "nable to find a valid cuDNN algorithm",
    "nable to find an engine to execute",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch (CUDA, MPS or CPU allocator), numpy or Python means that memory ran out.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return not isinstance(error, OutOfMemoryError)  # ours is raised only after the last attempt
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


class Tiles:
    """Work through a range in slices, and halve their size for good whenever memory runs out.

    :ivar size: the largest number of elements in a slice.
    """

    def __init__(self, size: int):
        self.size = max(1, size)

    def run(self, count: int, work: Callable[[slice], None]) -> None:
        """Call ``work`` for consecutive slices of ``range(count)``; only a slice that failed is repeated, in halves.

        >>> Tiles(2).run(5, print)
        slice(0, 2, None)
        slice(2, 4, None)
        slice(4, 5, None)
        """
        start = 0
        while start < count:
            stop = min(start + self.size, count)
            try:
                work(slice(start, stop))
            except (RuntimeError, MemoryError) as error:
                if stop - start == 1 or not is_out_of_memory(error):
                    raise
                self.size = (stop - start) // 2
                continue
            start = stop


@dataclass(frozen=True)
class Placement:
    """Where the network and the rolling basis are, and how much memory that is estimated to take.

    :ivar compute: torch device of the network and of decoding.
    :ivar ring: torch device of the rolling basis, or "disk".
    :ivar device_bytes: bytes of GPU memory; 0 on a CPU.
    :ivar host_bytes: bytes of main memory.
    """

    compute: str
    ring: str
    device_bytes: int = 0
    host_bytes: int = 0

    def __str__(self) -> str:
        where = "GPU" if self.compute != "cpu" else "CPU"
        ring = {"disk": "in a temporary file", "cpu": "in main memory"}.get(self.ring, "on the GPU")
        return f"network on the {where}, rolling basis {ring}"


class MemoryPlan:
    """A list of placements from the fastest to the smallest, of which the first is in use.

    :ivar current: the placement in use.
    :param placements: at least one.
    :param notify: called with a sentence whenever the plan moves on to the next placement.
    """

    def __init__(self, placements: Sequence[Placement], notify: Callable[[str], None] = lambda message: None):
        self.current, *self._smaller = placements
        self._notify = notify
        self._watchers: list[Callable[[Placement], object]] = []

    @property
    def compute(self) -> str:
        """Torch device of the network and of decoding."""
        return self.current.compute

    @property
    def ring(self) -> str:
        """Torch device of the rolling basis, or "disk"."""
        return self.current.ring

    def watch(self, watcher: Callable[[Placement], object]) -> None:
        """Call ``watcher`` with the new placement whenever the plan moves on to the next one."""
        self._watchers.append(watcher)

    def retry(self, work: Callable[[], _T]) -> _T:
        """Return ``work()``; if memory runs out, move on to the next placement and call it again.

        The plan also moves on if the device lacks an operator (MPS has no 3D transposed convolution before torch 2.8).

        :raises OutOfMemoryError: if there is no next placement.

        >>> MemoryPlan([Placement("cpu", "cpu")]).retry(lambda: 3)
        3
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError, NotImplementedError) as error:
                lacks = isinstance(error, NotImplementedError) or "not supported on MPS" in str(error)
                if not (lacks and self.compute != "cpu" or is_out_of_memory(error)):
                    raise
                cause = reason(error)
            self._step_down(cause)  # outside of "except", whose traceback keeps the tensors of the failed call alive

    def _step_down(self, cause: str) -> None:
        if not self._smaller:
            raise OutOfMemoryError(
                f"Memory ran out with the {self.current}, which is the smallest way to run this model ({cause}). "
                "Close other programs, use a machine with more memory, or use a model with a smaller patch."
            )
        self.current = self._smaller.pop(0)
        gc.collect()
        import torch

        for watcher in self._watchers:
            watcher(self.current)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        elif torch.backends.mps.is_available():
            torch.mps.empty_cache()
        self._notify(f"{cause}. Continuing with the {self.current}.")


def plan_memory(
    placements: Sequence[Placement], device: str, limit: int | None, notify: Callable[[str], None]
) -> MemoryPlan:
    """Plan with the fastest placement that fits, and the smaller ones after it as a fallback.

    :param placements: those that `Estimate.placements` gives for this device.
    :param device: torch device of the job.
    :param limit: bytes that may be used of the GPU, or of main memory on a CPU; ``None`` means what is free now.
    :param notify: called with a sentence if a placement does not fit, or if main memory may be too small.
    :raises OutOfMemoryError: if the device is the CPU and no placement fits the given limit.
    """
    free_host = free_memory("cpu")

    def fits(placement: Placement) -> bool:
        if placement.compute == "cpu":
            return placement.host_bytes <= (limit if limit is not None and device == "cpu" else free_host)
        return placement.device_bytes <= (limit if limit is not None else free_memory(device))

    first, *smaller = placements
    while smaller and not fits(first):
        larger, first = first, smaller.pop(0)
        notify(f"The {larger} would take {_size(larger)}, more than may be used. Using the {first}.")
    if limit is not None and device == "cpu" and first.host_bytes > limit:
        raise OutOfMemoryError(
            f"The smallest way to run this model on this image takes {_size(first)}, more than the limit of "
            f"{limit / 2**30:.1f} GiB. Raise the limit, crop the image, or use a model with a smaller patch."
        )
    if first.host_bytes > free_host:
        needed, free = first.host_bytes / 2**30, free_host / 2**30
        notify(f"This job needs about {needed:.1f} GiB of memory, but only {free:.1f} GiB are free.")
    return MemoryPlan([first, *smaller], notify)


def _size(placement: Placement) -> str:
    on_gpu = placement.compute != "cpu"
    size = placement.device_bytes if on_gpu else placement.host_bytes
    return f"{size / 2**30:.1f} GiB of {'GPU ' if on_gpu else ''}memory"
