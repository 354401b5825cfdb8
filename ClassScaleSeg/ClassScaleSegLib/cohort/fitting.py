"""What a job gets of the machine that does it: threads and memory of a worker, the GPUs of this machine."""

from __future__ import annotations

import os
from dataclasses import replace

from ..inference.devices import choose_device
from ..process.job import Job


def fitted(job: Job) -> Job:
    """Return a job with the threads of this worker, and on a CPU with its memory, unless the job says otherwise."""
    from distributed import get_worker

    worker, options = get_worker(), job.options
    if options.threads is None:
        options = replace(options, threads=worker.state.nthreads)
    limit = getattr(worker.memory_manager, "memory_limit", None)
    if options.memory_limit_gib is None and limit and choose_device(options.device) == "cpu":
        options = replace(options, memory_limit_gib=limit / 2**30)
    return replace(job, options=options)


def visible_gpus(device: str) -> list[str | None] | None:
    """Return for each GPU of this machine that a device means what makes it the only visible one; ``None`` on a CPU.

    :param device: as of :class:`~ClassScaleSegLib.options.Options`.
    """
    name = choose_device(device)
    if name == "cpu":
        return None
    if not name.startswith("cuda") or ":" in name:
        return [None]  # one GPU, which the device names
    import torch

    visible: list[str | None] = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = torch.cuda.device_count()  # fewer than the variable lists, if it lists one that is not there
    return (visible or [*map(str, range(count))])[:count]
