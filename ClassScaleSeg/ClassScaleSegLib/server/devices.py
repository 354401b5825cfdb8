"""The devices of the server: whether they are there, and how much memory they have.

A process of its own asks torch, which would stay in the memory of this one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ClassScaleError
from ..inference.devices import device_name, find_devices, total_memory
from .workers import Slot

_SECONDS_TO_ASK = 120.0  # on a cold disk, importing torch takes half a minute
_ROOT = Path(__file__).resolve().parents[2]
_ASK = f"""
import json, sys
sys.path[:] = [path for path in sys.path if path] + [{str(_ROOT)!r}]  # not the current folder
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.inference.devices import choose_device, device_name, total_memory
def ask(name): return [total_memory(choose_device(name)), device_name(name)]
try: said = {{"devices": [ask(name) for name in sys.argv[1:]]}}
except ClassScaleError as error: said = {{"error": str(error)}}
print(json.dumps(said))
"""


def default_slots() -> tuple[Slot, ...]:
    """Return one slot for each GPU; the processor alone if there is none."""
    devices = list(find_devices())
    gpus = [device for device in devices if device != "cpu"]
    return tuple(Slot(device, device) for device in gpus or ["cpu"])


def described(slots: Sequence[Slot]) -> tuple[dict[str, Any], ...]:
    """Return for each slot its name, what the device is, and the bytes of memory that a job may use of it.

    The memory is that of the device, however much is free now: ``None`` if it is not known, as of "auto".

    :raises ClassScaleError: if there is no such device, which else each job would say.

    >>> [(facts["name"], facts["memory"]) for facts in described([Slot("cpu", "cpu", memory_limit_gib=0.5)])]
    [('cpu', 536870912)]
    """
    gpus = list(dict.fromkeys(slot.device for slot in slots if slot.device not in ("auto", "cpu")))
    known = dict(zip(gpus, _asked(gpus), strict=True)) if gpus else {}
    known |= {"cpu": (total_memory("cpu"), device_name("cpu")), "auto": (None, "auto")}
    return tuple(
        {"name": slot.name, "about": about, "memory": _usable(there, slot)}
        for slot, (there, about) in ((slot, known[slot.device]) for slot in slots)
    )


def _usable(there: int | None, slot: Slot) -> int | None:
    if there is None or slot.memory_limit_gib is None:
        return there
    return min(there, int(slot.memory_limit_gib * 2**30))


def _asked(devices: Sequence[str]) -> list[tuple[int | None, str]]:
    """Return the bytes of memory of devices, and what they are.

    :raises ClassScaleError: if one is not there, or they cannot be asked.
    """
    command = [sys.executable or "python", "-c", _ASK, *devices]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_TO_ASK, check=True)
        said = json.loads(answer.stdout.splitlines()[-1])  # what came before, a library has printed
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        asked = ", ".join(devices)
        why = _in_words(error)
        raise ClassScaleError(f"The device {asked} cannot be looked for ({why}). Try --devices cpu.") from error
    if "error" in said:
        raise ClassScaleError(said["error"])
    return [(memory, name) for memory, name in said["devices"]]


def _in_words(error: Exception) -> str:
    """Return why a process could not be asked, without its command line, which is a program."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {_SECONDS_TO_ASK:.0f} seconds"
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines()
        return lines[-1] if lines else f"exit code {error.returncode}"
    return str(error)
