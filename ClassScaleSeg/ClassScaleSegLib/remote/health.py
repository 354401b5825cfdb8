"""What a server says of itself, which is not trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ServerError, shown
from ..version import VERSION
from .credentials import TOKEN_HINT
from .faults import Refused, not_ours, wrong_token

API = 1  # version of the protocol


@dataclass(frozen=True)
class Health:
    """What a server says of itself.

    :ivar version: of ClassScaleSeg there.
    :ivar instance: differs after each start.
    :ivar token: "accepted", or "not needed".
    :ivar devices: what computes there, such as ``("cuda:0 (NVIDIA H100 PCIe)",)``.
    :ivar waiting: jobs that wait.
    :ivar running: jobs that run.
    :ivar memory: bytes that a job may use of each device; ``None`` if the server does not tell.
    """

    version: str
    instance: str
    token: str
    devices: tuple[str, ...]
    waiting: int
    running: int
    memory: tuple[int | None, ...] = ()

    @property
    def devices_with_memory(self) -> tuple[str, ...]:
        """What computes there, with its memory as far as that is told.

        >>> facts = "0.2.0", "a", "accepted", ("cuda:0 (NVIDIA A40)", "cpu"), 0, 0
        >>> Health(*facts, memory=(48 * 10**9, None)).devices_with_memory
        ('cuda:0 (NVIDIA A40), 48.0 GB', 'cpu')
        """
        sizes = [*self.memory, *[None] * len(self.devices)]
        return tuple(
            device if size is None else f"{device}, {size / 1e9:.1f} GB"
            for device, size in zip(self.devices, sizes, strict=False)
        )

    @property
    def device(self) -> str:
        """What computes there, as of :class:`~ClassScaleSegLib.options.Options`: "cuda", "mps" or "cpu"; "auto" if that
        differs, or is not stated, as of a cluster.

        >>> facts = "0.2.0", "a", "accepted"
        >>> Health(*facts, ("cuda:0 (NVIDIA A40)", "cuda:1"), 0, 0).device, Health(*facts, ("cpu", "cuda"), 0, 0).device
        ('cuda', 'auto')
        """
        kinds = {re.split("[: ]", device)[0] for device in self.devices}
        (kind,) = kinds if len(kinds) == 1 else ("auto",)
        return kind if kind in ("cpu", "cuda", "mps") else "auto"


def health_of(facts: Mapping[str, Any], address: str, token: str | None) -> Health:
    """Check what a server says of itself.

    :raises ServerError: as of :meth:`.Connection.health`.
    """
    api, version = facts.get("api"), shown(str(facts.get("version")))
    if facts.get("service") != "ClassScaleSeg" or type(api) is not int:
        raise not_ours(address, "it says that it is something else")
    if api != API:
        which = "here" if api > API else "there"
        raise ServerError(
            f"{address} runs ClassScaleSeg {version} (protocol {api}), and here is {VERSION} (protocol {API}). Update "
            f"ClassScaleSeg {which}."
        )
    state = facts.get("token")
    if state in ("missing", "wrong"):
        asks = state == "missing" or token is None
        raise Refused(f"{address} asks for a token. {TOKEN_HINT}" if asks else wrong_token(address), 401, "token")
    listed: Any = facts.get("devices")
    devices = [each for each in listed if isinstance(each, dict)][:64] if isinstance(listed, list) else []
    queue = facts.get("queue")
    counts = [queue.get(name) if isinstance(queue, dict) else None for name in ("waiting", "running")]
    waiting, running = (count if type(count) is int and 0 <= count < 10**9 else 0 for count in counts)
    return Health(
        version,
        shown(str(facts.get("instance"))),
        shown(str(state)),
        tuple(_device(each) for each in devices),
        waiting,
        running,
        tuple(_bytes(each.get("memory")) for each in devices),
    )


def _bytes(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 1 << 60 else None


def _device(facts: Mapping[str, Any]) -> str:
    name, about = (shown(str(facts.get(key) or "")) for key in ("name", "about"))
    return f"{name} ({about})" if about else name
