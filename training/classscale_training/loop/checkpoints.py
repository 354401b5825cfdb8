"""Checkpoints of the bare loop: one write cannot lose the one before, and a damaged newest one falls back to it."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError
from ClassScaleSegLib.files import replacing, unwritable
from ClassScaleSegLib.models.files import first_line


class Checkpoints:
    """``checkpoint_latest.pth`` and ``checkpoint_previous.pth`` of a fold; in the end ``checkpoint_final.pth``.

    All are readable with ``weights_only=True``.
    """

    def __init__(self, folder: Path) -> None:
        self.latest, self.previous, self.final = (
            folder / f"checkpoint_{name}.pth" for name in ("latest", "previous", "final")
        )

    def save(self, content: dict[str, Any]) -> None:
        """:raises OutputError: if it cannot be written (disk full, say); both older ones are then as they were."""
        with replacing(self.latest, overwrite=True) as temporary:
            _write(content, temporary, self.latest)
            if self.latest.exists():  # from here until the replacement a resumed run finds `previous`
                os.replace(self.latest, self.previous)

    def save_final(self, content: dict[str, Any]) -> None:
        """:raises OutputError: as :meth:`save`."""
        with replacing(self.final, overwrite=True) as temporary:
            _write(content, temporary, self.final)

    def load(self, device: torch.device | str) -> dict[str, Any] | None:
        """The newest readable checkpoint; ``None`` if there is none.

        Warns when the newest is damaged and the one before is used.

        :raises ModelError: if there are some, but none can be read.
        """
        faults = []
        for file in (self.latest, self.previous):
            if not file.exists():
                continue
            try:
                content = torch.load(file, map_location=device, weights_only=True)
            except Exception as error:  # torch names no set of errors for damaged files
                faults.append(f"{file} ({first_line(error)})")
                continue
            if faults:
                warnings.warn(f"{faults[0]} cannot be read; going on from {file.name}.", stacklevel=2)
            return content
        if faults:
            raise ModelError(f"No checkpoint can be read: {'; '.join(faults)}. Delete them to start anew.")
        return None


def _write(content: dict[str, Any], temporary: Path, file: Path) -> None:
    try:
        with open(temporary, "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
    except RuntimeError as error:  # torch's zip writer hides the OSError
        raise unwritable(file, error) from error
