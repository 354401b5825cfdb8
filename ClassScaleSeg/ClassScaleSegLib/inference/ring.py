"""The accumulator of the rolling basis: one patch depth of rows, reused in turn."""

from __future__ import annotations

import math
import tempfile

import numpy as np
import torch

from ..errors import OutOfMemoryError


class Ring:
    """Sums of weighted bases and of weights for ``depth`` successive rows.

    :param place: a torch device, or "disk" for an unnamed temporary file, which disappears with the process.
    """

    def __init__(self, depth: int, channels: int, plane: tuple[int, int], place: str):
        self.depth, self.place = depth, place
        self._sums = _zeros((depth, channels, *plane), place)
        self._weights = torch.zeros(depth, *plane)

    def move(self, place: str) -> None:
        """Continue elsewhere, keeping what was added."""
        if place != self.place:
            sums = _zeros(tuple(self._sums.shape), place)
            self._sums, self.place = sums.copy_(self._sums), place

    def add(self, x: int, y: int, z: int, basis: torch.Tensor, weight: torch.Tensor) -> None:
        """Add a window ``(R, px, py, pz)``, multiplied by ``weight`` ``(px, py, pz)``; its first row is ``x``."""
        length, height, width = weight.shape
        basis = basis.to(self._sums.device)  # all that can fail for want of memory comes before the first sum
        first = x % self.depth
        until_end = min(length, self.depth - first)  # the window may wrap around the ring's end
        for slot, row, rows in ((first, 0, until_end), (0, until_end, length - until_end)):
            if rows:
                box = (slice(slot, slot + rows), slice(y, y + height), slice(z, z + width))
                part = basis[:, row : row + rows].transpose(0, 1)
                self._sums[box[0], :, box[1], box[2]].add_(part)  # += would write the sum twice
                self._weights[box] += weight[row : row + rows]

    def take(self, row: int) -> torch.Tensor:
        """Mean basis ``(R, Y, Z)`` of a finished row; its place is free afterwards."""
        slot = row % self.depth
        mean = self._sums[slot] / self._weights[slot].to(self._sums.device)
        self._sums[slot].zero_()
        self._weights[slot].zero_()
        return mean


def _zeros(shape: tuple[int, ...], place: str) -> torch.Tensor:
    if place != "disk":
        return torch.zeros(shape, device=place)
    try:
        with tempfile.TemporaryFile(prefix="classscaleseg-ring-") as file:
            # every byte now: a sparse file that meets a full disk later kills the process with a bus error
            for _ in range(shape[0]):
                file.write(bytes(4 * math.prod(shape[1:])))
            return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=shape))
    except OSError as error:
        raise OutOfMemoryError(
            f"The rolling basis needs {4 * math.prod(shape) / 2**30:.1f} GiB in {tempfile.gettempdir()} "
            f"({error.strerror or error}). Make room there, or name another folder in the environment variable TMPDIR."
        ) from error
