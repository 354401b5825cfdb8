"""Checkpoints of the bare loop.

Writing a new checkpoint cannot lose the previous one, and a damaged newest checkpoint is replaced by the previous one.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError, reason
from ClassScaleSegLib.files import replacing, unwritable


class Checkpoints:
    """``checkpoint_latest.pth`` and ``checkpoint_previous.pth`` of a fold, and ``checkpoint_final.pth`` at the end.

    All can be read with ``weights_only=True``.

    :param folder: the folder of the fold.
    """

    def __init__(self, folder: Path) -> None:
        self.latest, self.previous, self.final = (
            folder / f"checkpoint_{name}.pth" for name in ("latest", "previous", "final")
        )

    def save(self, content: dict[str, Any]) -> None:
        """Write ``content`` as the latest checkpoint and keep the one before it as the previous one.

        :param content: see :func:`~classscale_training.loop.model_folder.checkpoint_content`.
        :raises OutputError: if it cannot be written (because the disk is full, for example). Both older checkpoints
            are then unchanged.
        """
        with replacing(self.latest, overwrite=True) as temporary:
            _write(content, temporary, self.latest)
            if self.latest.exists():  # if the process is killed before `latest` is replaced, `previous` is loaded
                os.replace(self.latest, self.previous)

    def save_final(self, content: dict[str, Any]) -> None:
        """Write ``content`` as the checkpoint of the finished training.

        :param content: as for :meth:`save`.
        :raises OutputError: as :meth:`save`.
        """
        with replacing(self.final, overwrite=True) as temporary:
            _write(content, temporary, self.final)

    def load(self, device: torch.device | str) -> dict[str, Any] | None:
        """Load the newest checkpoint that can be read.

        Warns when the newest one is damaged and the previous one is used instead.

        :param device: where to put the tensors.
        :returns: the content, or ``None`` if there is no checkpoint.
        :raises ModelError: if there are checkpoints, but none can be read.
        """
        faults = []
        for file in (self.latest, self.previous):
            if not file.exists():
                continue
            try:
                content = torch.load(file, map_location=device, weights_only=True)
            except Exception as error:  # torch does not document which errors damaged files raise
                faults.append(f"{file} ({reason(error)})")
                continue
            if faults:
                warnings.warn(f"{faults[0]} cannot be read; the training continues from {file.name}.", stacklevel=2)
            return content
        if faults:
            raise ModelError(
                f"No checkpoint can be read: {'; '.join(faults)}. Delete them to start again from the beginning."
            )
        return None


def _write(content: dict[str, Any], temporary: Path, file: Path) -> None:
    try:
        with open(temporary, "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
    except RuntimeError as error:  # torch's zip writer hides the OSError
        raise unwritable(file, error) from error
