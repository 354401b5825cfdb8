"""Whether a job fits into the memory of a server, as far as the server tells how much that is."""

from __future__ import annotations

from ..inference.memory_estimate import Estimate
from .health import Health


def describe_fit(need: Estimate, health: Health) -> str:
    """Return a sentence on whether a job fits there; empty if the server does not tell how much memory it has.

    :param need: what the job takes.

    >>> gb = 10**9
    >>> need = Estimate((1, 1, 1), 1, network=4 * gb, network_in_slabs=gb, basis=gb, ring=0, stored=0, slabs=0,
    ...     image=0, rows=0, labels=0)
    >>> describe_fit(need, Health("0.2.0", "a", "accepted", ("cuda:0 (NVIDIA A40)",), 0, 0, (48 * gb,)))
    'That fits: the GPU there has 48.0 GB.'
    """
    known = [size for size in health.memory if size is not None]
    if not known or len(known) < len(health.devices) or health.device == "auto":
        return ""
    least, most = min(known), max(known)
    placement = need.placement(health.device, health.device)
    if health.device == "cpu":
        needed, there = placement.host_bytes, f"there are {most / 1e9:.1f} GB of RAM"
    elif least < most:
        needed, there = placement.device_bytes, f"the GPUs there have {least / 1e9:.1f} to {most / 1e9:.1f} GB"
    else:
        needed, there = placement.device_bytes, f"the GPU there has {most / 1e9:.1f} GB"
    if needed <= least:
        return f"That fits: {there}."
    if needed <= most:
        return f"That fits on some devices only: {there}. On the others it will take less, and longer."
    if health.device == "cpu":
        return f"That is too much: {there}. It will take less, and longer, or fail."
    return f"That is too much: {there}. It will take less there, and longer."
