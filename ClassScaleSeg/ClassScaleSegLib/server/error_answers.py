"""Errors of the routes: each is answered by JSON with a sentence, and each route says which ones it can have."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ..errors import ClassScaleError
from .problems import Problem, unknown
from .responses import AsciiJson
from .schemas import Error

_LONGEST = 1000  # characters of a sentence


def answer_errors(app: FastAPI) -> None:
    """Answer every error by JSON with a sentence."""

    def answer(problem: Problem) -> AsciiJson:
        return AsciiJson(problem.answer, problem.status, problem.headers)

    @app.exception_handler(Problem)
    async def known(request: Request, problem: Problem) -> AsciiJson:
        return answer(problem)

    @app.exception_handler(ClassScaleError)
    async def refused(request: Request, error: ClassScaleError) -> AsciiJson:
        return answer(Problem(422, "invalid", _shortened(str(error))))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> AsciiJson:
        first = error.errors()[0]
        where = ".".join(str(place) for place in first["loc"] if place != "body")
        malformed = first["type"] == "json_invalid"
        said = _shortened(f"{where or 'The body'}: {first['msg']}.")
        return answer(Problem(400, "malformed", said) if malformed else Problem(422, "invalid", said))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> AsciiJson:
        codes = {404: "unknown", 405: "method", 400: "malformed", 408: "too_slow", 413: "too_large"}
        problem = Problem(
            error.status_code, codes.get(error.status_code, "refused"), f"{str(error.detail).rstrip('.')}."
        )
        return AsciiJson(problem.answer, problem.status, {**problem.headers, **(error.headers or {})})

    @app.exception_handler(RuntimeError)
    async def vanished(request: Request, error: RuntimeError) -> AsciiJson:
        if "does not exist" not in str(error):  # of a file that was removed while it was asked for
            raise error
        return answer(unknown("job"))


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route, with those that each can have."""
    return {code: {"model": Error} for code in (403, 503, *codes)}


def sent(kinds: tuple[str, ...], *codes: int, part: bool = False) -> dict[int | str, dict[str, Any]]:
    """Describe the answers of a route that sends a text or a file.

    :param kinds: its types.
    :param part: also describe what is sent of it if a range is asked for.
    """
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    found: dict[int | str, dict[str, Any]] = {200: {"content": dict.fromkeys(kinds, {})}}
    if part:
        found[206] = {"description": "Partial Content", "content": dict.fromkeys((*kinds, "multipart/byteranges"), {})}
    return found | {
        code: {"description": HTTPStatus(code).phrase, "content": error} for code in (401, 403, 503, *codes)
    }


def uploaded(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route with a body in JSON that may be sent twice."""
    return {200: {"description": "It is here already"}, **problems(400, 401, 408, 413, 422, *codes)}


def _shortened(text: str) -> str:
    """Return a sentence that may quote what the client has sent, without most of that if it is long."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
