"""Removes what a server has of a client, also what was sent to it and not answered yet."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ServerError
from .connection import LARGEST_JOB, Connection
from .faults import Lost

_SECONDS = 0.7  # that a cancelled job may wait for the server's answer


@dataclass
class Sent:
    """An image or a job that was sent to a server.

    :ivar place: "/v1/uploads" or "/v1/jobs".
    :ivar body: of the request, with a key. Sent again, it is answered with the same id.
    :ivar name: the id; empty until the server has answered.
    """

    place: str
    body: Mapping[str, Any]
    name: str = ""

    def remove(self, connection: Connection) -> None:
        """Remove it from the server, in the calling thread.

        :raises ServerError: if the connection is lost, or the server refuses it.
        """
        name = self.name or connection.once("POST", self.place, self.body, LARGEST_JOB).get("id")
        if is_id(name):
            connection.request("DELETE", f"{self.place}/{name}", {}).close()


def remove_quickly(connection: Connection, things: Iterable[Sent]) -> None:
    """Remove things of a server, waiting for its answer a fraction of a second only. It raises nothing."""
    own, end, left = connection.another(), time.monotonic() + _SECONDS, list(things)

    def work() -> None:
        for each in left:
            while True:  # at least once, also on a machine that stood still
                try:
                    each.remove(own)
                    break
                except Lost:
                    time.sleep(0.05)
                except ServerError:  # there is nothing of this id any more, or a job needs it
                    break
                if time.monotonic() > end:
                    break

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_SECONDS)


def is_id(value: Any) -> bool:
    """Tell whether a value is an id that a server gives to images and jobs."""
    return isinstance(value, str) and re.fullmatch(r"[\w-]{1,64}", value, re.ASCII) is not None
