"""Who may come in: a layer around the application that sees each request before its body is read."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException

from ..addresses import is_loopback
from ..errors import ClassScaleError
from ..version import VERSION
from .limits import JSON_BYTES, SECONDS_FOR_BYTES
from .problems import Problem
from .tokens import NOBODY, Tokens

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
HEALTH = "/v1/health"
_OWN_HEADERS = (
    (b"classscaleseg-version", VERSION.encode()),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
_PROXY = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")


class Guard:
    """Lets requests with a valid token through, and notes its owner in the scope as ``owner``.

    :param needs_token: if not, the server is bound to loopback, and everybody on this machine may come in. Then pages
        of a browser are kept out by ``Host`` and ``Origin``, and the world by the headers that proxies add.
    """

    def __init__(self, app: Any, tokens: Tokens, needs_token: bool) -> None:
        self._app, self._tokens, self._needs_token = app, tokens, needs_token

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        begun = False

        async def send_named(message: dict[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": [*message.get("headers", ()), *_OWN_HEADERS]}
            await send(message)

        try:
            headers = dict(scope["headers"])
            scope["owner"], scope["token"] = self._owner(headers)
            if scope["owner"] is None and scope["path"] != HEALTH:
                raise _refused(scope["token"])
            if scope["method"] != "PATCH":
                receive = _limited(receive, headers)
            await self._app(scope, receive, send_named)
        except Problem as problem:
            if not begun:
                await _answer(problem, send_named)

    def _owner(self, headers: dict[bytes, bytes]) -> tuple[str | None, str]:
        """Return the owner of a request, ``None`` if nobody may come in by it, and what its token is."""
        if not self._needs_token:
            _refuse_outsiders(headers)
            return NOBODY, "not needed"
        kind, _, secret = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() != "bearer" or not secret.strip():
            return None, "missing"
        try:
            owner = self._tokens.owner(secret.strip()[:500])
        except ClassScaleError as error:
            raise Problem(503, "stopping", "The server cannot read its tokens. Tell the person who runs it.") from error
        return owner, "wrong" if owner is None else "accepted"


def _refuse_outsiders(headers: dict[bytes, bytes]) -> None:
    host = headers.get(b"host", b"").decode("latin-1").lower()
    name = re.sub(r":\d*$", "", host)
    name = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if not is_loopback(name):  # a page of a browser whose name leads here
        said = f"This server is for programs on its own machine, which call it localhost, not {host[:100]!a}."
        raise Problem(403, "forbidden", said)
    # its script sends something here, or it only shows an answer
    if b"origin" in headers or headers.get(b"sec-fetch-site", b"none") != b"none":
        origin = headers.get(b"origin", b"").decode("latin-1")
        said = "This server is for programs on its own machine, and the request came from a page of a browser."
        if origin:
            said = f"{said[:-1]}, {origin[:100]!a}."
        raise Problem(403, "forbidden", said)
    if any(header in headers for header in _PROXY):
        said = "The request came through a proxy, and this server knows no tokens. Start it with --require-token."
        raise Problem(403, "forbidden", said)


def _refused(token: str) -> Problem:
    if token == "missing":
        said = "A token is needed. The person who runs the server makes one: classscaleseg serve token NAME."
        return Problem(401, "token_missing", said)
    return Problem(401, "token_wrong", "The token is not valid, or no longer. Ask the person who runs the server.")


def _limited(receive: Receive, headers: dict[bytes, bytes]) -> Receive:
    """Return what refuses a body that is longer than any request needs."""
    said = f"The body of this request may have {JSON_BYTES} bytes at most."
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length[:20]) > JSON_BYTES:
        raise Problem(413, "too_large", said)
    count, more = 0, True

    async def limited() -> dict[str, Any]:
        nonlocal count, more
        try:  # after the body, a message comes only if the client goes away
            message = await asyncio.wait_for(receive(), SECONDS_FOR_BYTES if more else None)
        except (TimeoutError, asyncio.TimeoutError):  # two kinds before Python 3.11
            raise HTTPException(408, f"The rest of the request did not come for {SECONDS_FOR_BYTES:.0f} s") from None
        count += len(message.get("body", b""))
        more = message.get("more_body", False)
        if count > JSON_BYTES:
            raise HTTPException(413, said)  # FastAPI would make another exception a fault of the JSON
        return message

    return limited


async def _answer(problem: Problem, send: Send) -> None:
    body = json.dumps(problem.answer).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **problem.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
