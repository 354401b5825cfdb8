"""The image on the model grid, of which only the rows that the windows need at a time have to be in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch


def _silent(done: int, total: int) -> None:
    pass


class ImageRows:
    """An image on the model grid that is made from its first to its last row, when rows are asked for.

    If an error ends a call, the same call can be repeated: rows that were made are kept.

    :ivar shape: ``(channels, X, Y, Z)``.
    :param start: returns an iterator over the slabs ``(channels, rows, Y, Z)`` float32 from the given row on. It is
        released, with all that it holds, once the last row is made.
    :param report: called with the number of rows made, and the number that the first windows need, until they have
        them.

    >>> rows = ImageRows((1, 6, 2, 2), lambda row: (torch.full((1, 2, 2, 2), 0.5 * i) for i in range(row, 6, 2)))
    >>> rows.read(0, 3)[0, :, 0, 0].tolist(), rows.read(2, 6)[0, :, 0, 0].tolist()
    ([0.0, 0.0, 1.0], [1.0, 1.0, 2.0, 2.0])
    """

    def __init__(
        self,
        shape: Sequence[int],
        start: Callable[[int], Iterator[torch.Tensor]],
        report: Callable[[int, int], object] = _silent,
    ):
        self.shape = tuple(shape)
        self._start: Callable[[int], Iterator[torch.Tensor]] | None = start
        self._slabs: Iterator[torch.Tensor] | None = None
        self._ahead: torch.Tensor | None = None  # made, but not asked for yet
        self._held = torch.empty(self.shape[0], 0, *self.shape[2:])  # from row ``_first`` on; valid up to ``_end``
        self._first = self._end = 0
        self._report: Callable[[int, int], object] = report

    @classmethod
    def of(cls, image: torch.Tensor) -> ImageRows:
        """Return the rows of an image ``(channels, X, Y, Z)`` that exists."""
        rows = cls(image.shape, lambda row: iter(()))
        rows._held, rows._end, rows._start = image, image.shape[1], None
        return rows

    def within(self, box: tuple[slice, slice, slice]) -> ImageRows:
        """Return the rows of a box, for which only the slabs that reach into it are made. No row may have been read.

        >>> rows = ImageRows((1, 6, 2, 2), lambda row: (torch.full((1, 2, 2, 2), 0.5 * i) for i in range(row, 6, 2)))
        >>> part = rows.within((slice(2, 5), slice(0, 1), slice(0, 2)))
        >>> part.shape, part.whole()[0, :, 0, 0].tolist()
        ((1, 3, 1, 2), [1.0, 1.0, 2.0])
        """
        x, y, z = box
        start = self._start
        if start is None:
            return ImageRows.of(self._held[:, x, y, z].clone())  # so that the rest can be freed

        def slabs(row: int) -> Iterator[torch.Tensor]:
            left = x.stop - x.start - row
            for slab in start(x.start + row):
                yield slab[:, :left, y, z]
                left -= slab.shape[1]
                if left <= 0:
                    return

        return ImageRows((self.shape[0], *(part.stop - part.start for part in box)), slabs, self._report)

    def read(self, first: int, last: int) -> torch.Tensor:
        """Return the rows from ``first`` to before ``last``, ``(channels, rows, Y, Z)`` float32 on the CPU.

        ``first`` is never smaller than in a call before: earlier rows are released when others are made.
        """
        if self._end < last:
            self._hold(first, last)
            while self._end < last:
                self._append(self._next(last)[:, : last - self._end])
            self._report = _silent
        return self._held[:, first - self._first : last - self._first]

    def whole(self) -> torch.Tensor:
        """Make all rows, and return the image ``(channels, X, Y, Z)``."""
        return self.read(0, self.shape[1])

    def restart(self) -> None:
        """Let another iterator go on with the next slab, because memory has run out or the device has changed."""
        self._slabs = None

    def _hold(self, first: int, last: int) -> None:
        """Make room for the rows from ``first`` to before ``last``, and keep those that exist."""
        if (self._first, self._held.shape[1]) == (first, last - first):  # a call that memory had ended is repeated
            return
        room = self._held.new_empty(self.shape[0], last - first, *self.shape[2:])
        kept = self._held[:, first - self._first : self._end - self._first]
        room[:, : kept.shape[1]] = kept
        self._held, self._first = room, first

    def _next(self, last: int) -> torch.Tensor:
        """Return the rows that follow the last one held, at least one."""
        if self._ahead is None:
            assert self._start is not None  # there are rows left to make
            if self._slabs is None:
                self._slabs = self._start(self._end)
            self._report(self._end, last)
            try:
                self._ahead = next(self._slabs)
            except BaseException:
                self.restart()
                raise
        return self._ahead

    def _append(self, rows: torch.Tensor) -> None:
        assert self._ahead is not None
        begin, self._end = self._end, self._end + rows.shape[1]
        self._held[:, begin - self._first : self._end - self._first] = rows
        self._ahead = self._ahead[:, rows.shape[1] :] if rows.shape[1] < self._ahead.shape[1] else None
        if self._ahead is None and self._end == self.shape[1]:
            self._slabs = self._start = None
