"""Devices that a run may use, and the memory that is free there.

The list is made without torch, which may not be installed yet.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

from ..errors import ClassScaleError


def find_devices() -> dict[str, str]:
    """Device as the command takes it to its name: ``cuda:0`` to the model of the GPU, ``mps``, ``cpu``; best first.

    Asks NVIDIA's driver, which takes a fraction of a second: call it when a list is to be shown, not at start-up.
    """
    devices = {f"cuda:{index}": name for index, name in enumerate(_nvidia_gpus())}
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        devices["mps"] = "Apple GPU"
    return {**devices, "cpu": platform.processor() or platform.machine()}


def _nvidia_gpus() -> list[str]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # no console window on Windows
    try:
        answer = subprocess.run(
            [command, "-L"], capture_output=True, text=True, timeout=10, creationflags=hidden, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []  # a driver that does not answer offers no device
    return parse_gpu_list(answer.stdout)


def parse_gpu_list(text: str) -> list[str]:
    """Names in the lines ``GPU 0: NAME (UUID: ...)`` of ``nvidia-smi -L``."""
    return re.findall(r"^GPU \d+: (.+?) \(UUID", text, re.MULTILINE)


def choose_device(name: str) -> str:
    """``auto`` is CUDA, else MPS, else the CPU.

    :raises ClassScaleError: if the device is not here.
    """
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    available = [*(["cuda"] if cuda else []), *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
    if name == "auto":
        return available[0]
    if name not in (*available, *(f"cuda:{index}" for index in range(cuda))):
        raise ClassScaleError(
            f"There is no device {name} here. This torch ({torch.__version__}) offers {', '.join(available)}"
            + (f", cuda:0 to cuda:{cuda - 1}." if cuda > 1 else ".")
        )
    return name


def free_memory(device: str) -> int:
    import psutil
    import torch

    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device).index)[0]  # older torch takes no name
    if device == "mps" and hasattr(torch.mps, "recommended_max_memory"):  # from torch 2.5; the memory is shared
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    # what this process holds already is in the estimate
    free = psutil.virtual_memory().available + psutil.Process().memory_info().rss
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    text = limit.read_text().strip() if limit.exists() else "max"
    return free if text == "max" else min(free, int(text))
