"""How requests connects to a DICOM archive: an answer whose headers come byte by byte is not waited for.

The timeout of a socket is that of each byte. The content of answers is looked after by `answers`.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter

SECONDS = 600.0  # for the headers: 300 may pass before the first byte, as while an archive stores a whole batch


def archive_adapter() -> HTTPAdapter:
    """Return what is to be mounted in a session. Headers that have not come in ``SECONDS`` are a timeout."""
    from requests.adapters import HTTPAdapter

    class ArchiveAdapter(HTTPAdapter):
        def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
            return _in_time(super().get_connection_with_tls_context(*args, **kwargs))

        def get_connection(self, *args: Any, **kwargs: Any) -> Any:  # requests before 2.32 asks here
            return _in_time(super().get_connection(*args, **kwargs))

    return ArchiveAdapter()


class _HeadersInTime:
    """Goes before a class of connections of urllib3."""

    sock: Any

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        late = threading.Event()

        def hang_up(connected: Any) -> None:
            late.set()
            with suppress(OSError, TypeError):  # it ends just now
                # not its own shutdown, if it is encrypted: that pulls the encryption away from who reads
                socket.socket.shutdown(getattr(connected, "socket", connected), socket.SHUT_RDWR)

        timer = threading.Timer(SECONDS, hang_up, (self.sock,))
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse(*args, **kwargs)  # type: ignore[misc]
        finally:
            timer.cancel()
            if late.is_set():  # http.client takes headers that are cut for whole
                raise TimeoutError(f"the headers of the answer did not come in {SECONDS:g} s")


def _in_time(pool: Any) -> Any:
    """Let the connections of a pool wait for headers no longer than that."""
    if not issubclass(pool.ConnectionCls, _HeadersInTime):
        pool.ConnectionCls = type("HeadersInTime", (_HeadersInTime, pool.ConnectionCls), {})
    return pool
