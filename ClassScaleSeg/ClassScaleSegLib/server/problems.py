"""What can be wrong with a request: a status of HTTP, a code for programs, a sentence for people."""

from __future__ import annotations

from typing import Any

from ..errors import ClassScaleError


class Problem(ClassScaleError):
    """A request that cannot be met.

    :ivar status: of HTTP.
    :ivar code: for programs, such as ``upload_unknown``.
    :ivar more: further members of the answer.
    """

    def __init__(self, status: int, code: str, sentence: str, **more: Any) -> None:
        super().__init__(sentence)
        self.status, self.code, self.more = status, code, more

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON of the answer."""
        return {"error": {"code": self.code, "message": str(self), **self.more}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to the status."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": "10"} if self.status in (429, 503) else {}


def unknown(what: str) -> Problem:
    """Return the answer for an id that nothing has, or nothing of this token."""
    return Problem(
        404,
        f"{what}_unknown",
        f"There is no such {what}. It was removed, its time is over, or the server was started again; send it again.",
    )


def unwritable() -> Problem:
    """Return the answer if nothing can be written for another reason."""
    return Problem(507, "disk_full", "The server cannot write to its folder. Tell the person who runs it.")


def disk_full() -> Problem:
    """Return the answer if there is no room."""
    return Problem(
        507, "disk_full", "The server has no room for this. Tell the person who runs it, or try again later."
    )
