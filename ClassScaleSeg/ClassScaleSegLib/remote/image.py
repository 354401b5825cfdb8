"""An image on a server, which several segmentations may use."""

from __future__ import annotations

from types import TracebackType

from ..errors import ServerError
from ..inference.progress import Monitor
from .connection import Connection
from .preparing import Prepared
from .removing import Sent, remove_quickly
from .sending import send


class RemoteImage:
    """An image on a server, for several segmentations. It is removed there by :meth:`close`, or after an hour.

    :ivar geometry: its grid.
    """

    def __init__(self, connection: Connection, prepared: Prepared) -> None:
        self._connection, self.prepared = connection, prepared
        self.geometry = prepared.geometry
        self.names: list[str] = []  # on the server, of the files in their order
        self._begun: list[Sent] = []
        self._closed = False

    def check(self, address: str, channels: int) -> None:
        """Refuse to segment with a model of so many channels at an address, if the image is not for that.

        :raises ImageError: if it has other channels.
        :raises ServerError: if it is not there.
        """
        if self._closed or self._connection.address != address:
            raise ServerError(f"{self.prepared.name} is not at {address}, or no longer. Send it there (upload).")
        self.prepared.check(channels)

    def send(self, monitor: Monitor) -> None:
        """Send the files, unless the server has them.

        :raises ServerError: if the server cannot be reached, or refuses one.
        :raises Cancelled: if the monitor's token is set.
        """
        self.names = send(self._connection, self.prepared.files, monitor, self._begun)

    def leave(self) -> None:
        """Leave the files to the server, which removes them itself."""
        self._begun.clear()

    def close(self) -> None:
        """Remove the image from the server, and the files that were made for sending it."""
        if self._begun:
            remove_quickly(self._connection, {sent.name or sent.body["key"]: sent for sent in self._begun}.values())
        self._begun.clear()
        self._closed = True
        self.prepared.close()

    def __enter__(self) -> RemoteImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
