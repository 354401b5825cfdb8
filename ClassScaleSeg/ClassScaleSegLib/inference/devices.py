"""Devices that a segmentation can run on, and the memory that is free on them.

:func:`find_devices` works without torch, because torch may not be installed yet when the list is shown.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
from pathlib import Path

from ..errors import ClassScaleError
from .gpu_list import listed_gpus, offered_gpus


def find_devices() -> dict[str, str]:
    """Find the devices of this machine, fastest first.

    NVIDIA's driver is asked, which takes a fraction of a second: call this when a list is shown, not at start-up.

    :returns: for each device, as the option ``--device`` takes it (``cuda:0``, ``mps``, ``cpu``), a name to show.

    >>> list(find_devices())[-1]
    'cpu'
    """
    devices = {f"cuda:{index}": name for index, name in enumerate(_nvidia_gpus())}
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        devices["mps"] = device_name("mps")
    return {**devices, "cpu": device_name("cpu")}


def _nvidia_gpus() -> list[str]:
    """Return what CUDA's devices are called, in their order."""
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # no console window on Windows
    try:
        answer = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, creationflags=hidden, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []  # there is no driver, or a GPU whose driver does not answer, which cannot be used
    return offered_gpus(listed_gpus(answer.stdout), os.environ)


def choose_device(name: str) -> str:
    """Check that torch offers a device, and return its name.

    :param name: such as "cuda:1"; "auto" means CUDA if there is any, otherwise MPS, otherwise the CPU.
    :raises ClassScaleError: if torch does not offer the device.

    >>> choose_device("cpu")
    'cpu'
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


def has_bfloat16() -> bool:
    """Return whether the CPU has instructions for bfloat16 (AMX or AVX512-BF16) that torch's convolutions use.

    Other processors imitate bfloat16, which is slower than float32.
    """
    import torch

    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    told = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    answers = [function() for function in told if function is not None]
    return any(answers) or not answers  # torch before 2.6 does not tell


def device_name(device: str) -> str:
    """Return what a device is, such as "NVIDIA A40".

    :param device: as :func:`choose_device` returns it; for "cpu" and "mps", torch is not imported.
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(torch.device(device).index or 0)
    return "Apple GPU" if device == "mps" else platform.processor() or platform.machine()


def total_memory(device: str) -> int | None:
    """Return the bytes of memory of a device, however much of it is free; ``None`` if torch does not tell it.

    :param device: "cuda", "cuda:1" or "mps"; for "cpu", torch is not imported.
    """
    if device == "cpu":
        import psutil

        return int(min(psutil.virtual_memory().total, _container_limit()))
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(torch.device(device).index or 0).total_memory
    return torch.mps.recommended_max_memory() if hasattr(torch.mps, "recommended_max_memory") else None


def _container_limit() -> float:
    """Return the bytes that the processes of this container may use; infinity outside of one."""
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return math.inf if text == "max" else int(text)


def free_memory(device: str) -> int:
    """Return the bytes that a job may use on a torch device; for "cpu", this includes what this process holds."""
    import psutil
    import torch

    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device).index)[0]  # older torch takes no name
    if device == "mps" and hasattr(torch.mps, "recommended_max_memory"):  # since torch 2.5; the memory is shared
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    # the estimate includes what this process holds already, so that counts as free
    free = psutil.virtual_memory().available + psutil.Process().memory_info().rss
    return int(min(free, _container_limit()))
