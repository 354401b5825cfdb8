"""Kinds of answers: JSON, a file that notes whether it was sent, and a stream of events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, JSONResponse, StreamingResponse

from .job import ServerJob
from .limits import STREAMS
from .problems import Problem, unknown


class AsciiJson(JSONResponse):
    """JSON in ASCII, so that any text can be sent, also one that is not UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


class SentFile(FileResponse):
    """A file, or the range of it that was asked for.

    :param kind: its media type.
    :param done: called when the last byte was sent, and not if the connection breaks before.
    """

    def __init__(self, file: Path, kind: str, headers: dict[str, str], done: Callable[[], None] | None) -> None:
        super().__init__(file, media_type=kind, headers=headers)
        self._done = done

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        head: Any = None  # is sent with the first bytes, so that a file that cannot be opened can still be an error
        gone = False

        async def noting(message: Any) -> None:
            nonlocal head
            if message.get("status") in (400, 416):  # which would be told as plain text
                said = "The file does not have the bytes of the header Range. Its size is in the facts of the job."
                raise Problem(message["status"], "range", said)
            if message["type"] == "http.response.start":
                head = message
                return
            if head is not None:
                first, head = head, None
                await send(first)
            await send(message)
            if not message.get("more_body") and not gone and self._done is not None:
                self._done()

        async def listening() -> Any:
            nonlocal gone
            message = await receive()
            gone = gone or message["type"] == "http.disconnect"
            return message

        try:
            await super().__call__(scope, listening, noting)
        except FileNotFoundError as error:  # removed at this moment
            raise unknown("job") from error


class EventStream(StreamingResponse):
    """Server-sent events of a job, whose streams are counted.

    :raises Problem: if there are too many already.
    """

    media_type = "text/event-stream"

    def __init__(self, job: ServerJob, lines: AsyncIterator[str]) -> None:
        if job.streams >= STREAMS:
            raise Problem(429, "too_many", f"{STREAMS} connections follow this job already. Close one of them.")
        super().__init__(lines)
        self._job = job
        job.streams += 1

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.streams -= 1
