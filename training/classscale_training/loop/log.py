"""The log of the bare loop: lines of JSON, and optionally TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.files import replacing


class Log:
    """``log.jsonl`` with one object on each line.

    When a killed run is continued, the lines logged after its last checkpoint are removed.

    :param folder: the model folder.
    :param step: step of the checkpoint from which the run continues; 0 for a new run.
    :param tensorboard: whether to log to TensorBoard too.
    :raises ClassScaleError: if ``tensorboard`` is set and TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self._file = folder / "log.jsonl"
        self._writer = _tensorboard(folder / "tensorboard", step) if tensorboard else None
        if self._file.exists():
            kept = [line for line in self._file.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
            with replacing(self._file, overwrite=True) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def add(self, entry: dict[str, Any]) -> None:
        """Append one line.

        :param entry: values by name; ``step`` is among them.
        """
        with open(self._file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
        if self._writer:
            for name, value in entry.items():
                if name not in ("step", "seconds"):
                    self._writer.add_scalar(name, value, entry["step"])

    def close(self) -> None:
        """Close the files of TensorBoard."""
        if self._writer:
            self._writer.close()


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # a killed run may leave half a line
        return float("inf")


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ClassScaleError(
            "TensorBoard is not installed: pip install tensorboard, or omit --tensorboard."
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)
