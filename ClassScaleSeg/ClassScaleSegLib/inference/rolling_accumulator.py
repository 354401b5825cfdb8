"""The accumulator of the rolling basis: a ring buffer of as many rows as a patch is deep."""

from __future__ import annotations

import math
import tempfile

import numpy as np
import torch

from ..errors import OutOfMemoryError


class Ring:
    """Hold the sums of weighted bases, and of their weights, for ``depth`` successive rows.

    :param depth: rows of the ring: those of a patch.
    :param channels: channels R of the basis.
    :param plane: shape ``(Y, Z)`` of a row.
    :param place: a torch device, or "disk" for an unnamed temporary file, which disappears with the process.
    :param channels_last: the channels of a voxel are adjacent in memory, as in the windows that will be added.
    :raises OutOfMemoryError: if the disk has no room for the temporary file.

    >>> ring, ones = Ring(2, 3, (4, 4), "cpu"), torch.ones(2, 4, 4)
    >>> ring.add(0, 0, 0, torch.full((3, 2, 4, 4), 5.0), ones)
    >>> ring.take(0).shape, ring.take(1).mean()
    (torch.Size([3, 4, 4]), tensor(5.))
    """

    def __init__(self, depth: int, channels: int, plane: tuple[int, int], place: str, channels_last: bool = False):
        self.depth, self.place, self._channels_last = depth, place, channels_last
        self._sums = _zeros((depth, channels, *plane), place, channels_last)
        self._weights = torch.zeros(depth, *plane)

    def move(self, place: str) -> None:
        """Move the sums to another place, a torch device or "disk"."""
        if place != self.place:
            sums = _zeros(tuple(self._sums.shape), place, self._channels_last)
            self._sums, self.place = sums.copy_(self._sums), place

    def add(self, x: int, y: int, z: int, basis: torch.Tensor, weight: torch.Tensor) -> None:
        """Add a window.

        :param x: index of the window's first row; ``y`` and ``z`` are those of its first voxel along the other axes.
        :param basis: ``(R, px, py, pz)``, already multiplied by ``weight``.
        :param weight: ``(px, py, pz)`` float32 on the CPU.
        """
        length, height, width = weight.shape
        basis = basis.to(self._sums.device)  # whatever may run out of memory comes before the first addition
        first = x % self.depth
        until_end = min(length, self.depth - first)  # the window may wrap around the end of the ring
        for slot, row, rows in ((first, 0, until_end), (0, until_end, length - until_end)):
            if rows:
                box = (slice(slot, slot + rows), slice(y, y + height), slice(z, z + width))
                part = basis[:, row : row + rows].transpose(0, 1)
                self._sums[box[0], :, box[1], box[2]].add_(part)  # += would write the result a second time
                self._weights[box] += weight[row : row + rows]

    def take(self, row: int) -> torch.Tensor:
        """Return the mean basis ``(R, Y, Z)`` of a finished row, and free its place for a later row."""
        slot = row % self.depth
        mean = self._sums[slot] / self._weights[slot].to(self._sums.device)
        self._sums[slot].zero_()
        self._weights[slot].zero_()
        return mean


def _zeros(shape: tuple[int, ...], place: str, channels_last: bool) -> torch.Tensor:
    if channels_last:
        depth, channels, *plane = shape
        return _zeros((depth, *plane, channels), place, False).movedim(-1, 1)
    if place != "disk":
        return torch.zeros(shape, device=place)
    try:
        with tempfile.TemporaryFile(prefix="classscaleseg-ring-") as file:
            # write every byte now: if the disk fills up later, a sparse file kills the process with a bus error
            for _ in range(shape[0]):
                file.write(bytes(4 * math.prod(shape[1:])))
            return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=shape))
    except OSError as error:
        raise OutOfMemoryError(
            f"The rolling basis needs {4 * math.prod(shape) / 2**30:.1f} GiB in {tempfile.gettempdir()} "
            f"({error.strerror or error}). Free some space there, or set the environment variable TMPDIR to another "
            "folder."
        ) from error
