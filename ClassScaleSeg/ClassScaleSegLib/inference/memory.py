"""What to do when memory runs out: recognise it, work in smaller pieces, move to a roomier place."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import OutOfMemoryError
from .devices import free_memory

_T = TypeVar("_T")
# Of a full GPU, cuDNN and cuBLAS say that a handle or a workspace could not be made.
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
    """Whether torch (CUDA, MPS or CPU allocator), numpy or Python says that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return not isinstance(error, OutOfMemoryError)  # our own is the last word
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


class Tiles:
    """Slices of a range, at most ``size`` long; ``size`` halves for good whenever memory runs out.

    ``work`` is called again for the failed slice only.
    """

    def __init__(self, size: int):
        self.size = max(1, size)

    def run(self, count: int, work: Callable[[slice], None]) -> None:
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
    """Where the work is done.

    :ivar compute: torch device of the network and of decoding.
    :ivar ring: torch device of the rolling basis, or "disk".
    :ivar device_bytes: what that takes of the accelerator.
    :ivar host_bytes: and of main memory. Both estimates.
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
    """Placements from the fastest to the smallest, and which of them is in use."""

    def __init__(self, placements: Sequence[Placement], notify: Callable[[str], None] = lambda message: None):
        self._placements, self._notify = list(placements), notify
        self._watchers: list[Callable[[Placement], None]] = []

    @classmethod
    def simple(cls, device: str) -> MemoryPlan:
        """Everything on one device, with nowhere to go from there."""
        return cls([Placement(str(device), str(device))])

    @property
    def current(self) -> Placement:
        return self._placements[0]

    @property
    def compute(self) -> str:
        return self.current.compute

    @property
    def ring(self) -> str:
        return self.current.ring

    def watch(self, watcher: Callable[[Placement], None]) -> None:
        """Call ``watcher`` with each placement that is stepped down to."""
        self._watchers.append(watcher)

    def retry(self, work: Callable[[], _T]) -> _T:
        """``work()``, again with the next placement for as long as memory runs out.

        A device that lacks an operator (MPS and 3D transposed convolutions before torch 2.8) is left in the same way.

        :raises OutOfMemoryError: when there is no next placement.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError, NotImplementedError) as error:
                lacks = isinstance(error, NotImplementedError) or "not supported on MPS" in str(error)
                missing = lacks and self.compute != "cpu"
                if not missing and not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self._step_down(reason)  # out here, where the traceback no longer holds the tensors of the failed try

    def _step_down(self, reason: str) -> None:
        if len(self._placements) == 1:
            raise OutOfMemoryError(
                f"Memory ran out with the {self.current}, the smallest way to run this model ({reason}). "
                "Close other programs, use a machine with more memory, or a model with a smaller patch."
            )
        del self._placements[0]
        gc.collect()
        import torch

        for watcher in self._watchers:
            watcher(self.current)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        elif torch.backends.mps.is_available():
            torch.mps.empty_cache()
        self._notify(f"{reason}. Going on with the {self.current}.")


def plan_memory(
    placements: Sequence[Placement], device: str, limit: int | None, notify: Callable[[str], None]
) -> MemoryPlan:
    """The placements that fit, fastest first, then the smaller ones to fall back to.

    :param placements: of `Estimate.placements`, for this device.
    :param limit: bytes of the device that may be used (of main memory on a CPU); ``None``: what is free now.
    :raises OutOfMemoryError: if nothing fits a limit that was given.
    """
    placements = list(placements)
    given, free_host = limit is not None, free_memory("cpu")
    while True:
        first = placements[0]
        if first.compute == "cpu":
            fits = first.host_bytes <= (limit if given and device == "cpu" else free_host)
        else:
            fits = first.device_bytes <= (limit if given else free_memory(device))
        if fits or len(placements) == 1:
            break
        del placements[0]
        notify(f"The {first} would take {_size(first)}. Using the {placements[0]}.")
    if given and device == "cpu" and placements[0].host_bytes > limit:
        raise OutOfMemoryError(
            f"The smallest way to run this model on this image takes {_size(placements[0])}, more than the limit of "
            f"{limit / 2**30:.1f} GiB. Raise the limit, crop the image, or use a model with a smaller patch."
        )
    if placements[0].host_bytes > free_host:
        notify(f"This needs about {placements[0].host_bytes / 2**30:.1f} GiB of memory; less is free.")
    return MemoryPlan(placements, notify)


def _size(placement: Placement) -> str:
    if placement.compute != "cpu":
        return f"{placement.device_bytes / 2**30:.1f} GiB of GPU memory"
    return f"{placement.host_bytes / 2**30:.1f} GiB of memory"
