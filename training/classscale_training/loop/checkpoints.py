"""Checkpoints of the bare loop.

Writing a new checkpoint cannot lose the previous one, and a damaged newest checkpoint is replaced by the previous one.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from ..files import LATEST, PREVIOUS, read_newest, save_whole


class Checkpoints:
    """``checkpoint_latest.pth`` and ``checkpoint_previous.pth`` of a fold, and ``checkpoint_final.pth`` at the end.

    All can be read with ``weights_only=True``.

    :param folder: the folder of the fold.
    """

    def __init__(self, folder: Path) -> None:
        self.latest, self.previous, self.final = folder / LATEST, folder / PREVIOUS, folder / "checkpoint_final.pth"

    def save(self, content: dict[str, Any]) -> None:
        """Write ``content`` as the latest checkpoint and keep the one before it as the previous one.

        :param content: see :func:`~classscale_training.loop.model_folder.checkpoint_content`.
        :raises OutputError: if it cannot be written (because the disk is full, for example). Both older checkpoints
            are then unchanged.
        """
        save_whole(self.latest, functools.partial(_write, content))

    def save_final(self, content: dict[str, Any]) -> None:
        """Write ``content`` as the checkpoint of the finished training.

        :param content: as for :meth:`save`.
        :raises OutputError: as :meth:`save`.
        """
        save_whole(self.final, functools.partial(_write, content))

    def load(self, device: torch.device | str) -> tuple[Path, dict[str, Any]] | None:
        """Load the newest checkpoint that can be read.

        Warns when the newest one is damaged and the previous one is used instead.

        :param device: where to put the tensors.
        :returns: the file and its content, or ``None`` if there is no checkpoint.
        :raises ModelError: if there are checkpoints, but none can be read.
        """
        files = [file for file in (self.latest, self.previous) if file.exists()]

        def read(file: Path) -> tuple[Path, dict[str, Any]]:
            return file, torch.load(file, map_location=device, weights_only=True)

        return read_newest(files, read, "Delete them to start again from the beginning.") if files else None


def _write(content: dict[str, Any], name: str) -> None:
    with open(name, "wb") as stream:  # with a name, torch would store it in the file
        torch.save(content, stream)
