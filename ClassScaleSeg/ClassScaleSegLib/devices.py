"""Devices that a run may use, found without torch, which may not be installed yet."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess


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
