"""The log of the bare loop: JSON lines, and TensorBoard where wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.files import replacing


class Log:
    """``log.jsonl``, one object a line. What a killed run logged after its last checkpoint is dropped on resuming."""

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        """:param step: of the checkpoint the run goes on from.

        :raises ClassScaleError: if TensorBoard is wanted and not installed.
        """
        self._file = folder / "log.jsonl"
        self._writer = _tensorboard(folder / "tensorboard", step) if tensorboard else None
        if self._file.exists():
            kept = [line for line in self._file.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
            with replacing(self._file, overwrite=True) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def add(self, entry: dict[str, Any]) -> None:
        with open(self._file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
        if self._writer:
            for name, value in entry.items():
                if name not in ("step", "seconds"):
                    self._writer.add_scalar(name, value, entry["step"])

    def close(self) -> None:
        if self._writer:
            self._writer.close()


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # the half line of a killed run
        return float("inf")


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ClassScaleError(
            "TensorBoard is not installed: pip install tensorboard, or leave --tensorboard out."
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)
