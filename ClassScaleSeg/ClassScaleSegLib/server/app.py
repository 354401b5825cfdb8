"""The routes of the server, version 1. What blocks runs in threads, so that the server always answers."""

from __future__ import annotations

import asyncio
import json
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Header, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse

from ..version import VERSION
from .converting import TYPES, Converter, chosen_type
from .error_answers import answer_errors, problems, sent, uploaded
from .jobs import Jobs
from .limits import STREAM_SECONDS
from .offers import Offers
from .problems import Problem, unknown
from .receiving import receive
from .responses import AsciiJson, EventStream, SentFile
from .schemas import Health, Id, JobFacts, ModelFacts, Models, NewJob, NewUpload, UploadFacts
from .uploads import Uploads
from .wishes import checked_wish, wish_of

API = 1
_SECONDS_BETWEEN = 0.2  # looks at a job, for its events
_SECONDS_ALIVE = 10.0


@dataclass(frozen=True)
class Parts:
    """What the routes work with.

    :ivar devices: name, what it is, and bytes of memory of each, as :func:`.devices.described` returns them.
    """

    offers: Offers
    uploads: Uploads
    jobs: Jobs
    converter: Converter
    devices: tuple[dict[str, Any], ...]


def make_app(parts: Parts) -> FastAPI:
    """Make the application, without what guards it."""
    app = FastAPI(
        title="ClassScaleSeg",
        version=VERSION,
        description="Segments 3D medical images into hundreds of named structures.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # their pages would fetch scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # the address would be made of what the client says of itself
        default_response_class=AsciiJson,
    )
    instance = secrets.token_hex(8)

    @app.get("/v1/health", response_model=Health, responses=problems())
    async def health(request: Request) -> AsciiJson:
        """Tell what the server is, and how busy. No token is needed."""
        facts = {"service": "ClassScaleSeg", "api": API, "version": VERSION, "instance": instance}
        known = request.scope["owner"] is not None  # strangers need not know how much can be computed here
        devices = [device if known else {**device, "memory": None} for device in parts.devices]
        more = {"token": request.scope["token"], "devices": devices, "queue": parts.jobs.counts()}
        return AsciiJson({**facts, **more})

    _model_routes(app, parts)
    _upload_routes(app, parts)
    _job_routes(app, parts)
    _result_routes(app, parts)
    answer_errors(app)
    return app


def _model_routes(app: FastAPI, parts: Parts) -> None:
    @app.get("/v1/models", response_model=Models, responses=problems(401, 422))
    async def models(brief: bool = False) -> Response:
        """List the models, with all their classes unless brief."""
        return Response(parts.offers.brief_json if brief else parts.offers.json, media_type="application/json")

    @app.get("/v1/models/{name}", response_model=ModelFacts, responses=problems(401, 404))
    async def model(name: str) -> AsciiJson:
        """Describe a model."""
        if name not in parts.offers.all:
            raise Problem(404, "model_unknown", f"This server has no model {name[:100]!a}.")
        return AsciiJson(parts.offers.all[name].facts)


def _upload_routes(app: FastAPI, parts: Parts) -> None:
    uploads = parts.uploads

    @app.post("/v1/uploads", status_code=201, response_model=UploadFacts, responses=uploaded(409, 413, 415, 429, 507))
    async def begin(new: NewUpload, request: Request) -> AsciiJson:
        """Announce an image, which is then sent in parts."""
        owner = request.scope["owner"]
        upload, fresh = await run_in_threadpool(uploads.begin, owner, new.key, new.kind, new.size, new.sha256)
        return AsciiJson(upload.facts, 201 if fresh else 200)

    @app.get("/v1/uploads/{upload_id}", response_model=UploadFacts, responses=problems(401, 404, 422))
    async def how_far(upload_id: Id, request: Request) -> AsciiJson:
        """Tell how much of an image has arrived."""
        return AsciiJson(uploads.find(request.scope["owner"], upload_id).facts)

    @app.patch(
        "/v1/uploads/{upload_id}",
        response_model=UploadFacts,
        responses=problems(400, 401, 404, 408, 409, 413, 422, 429, 507),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def part(upload_id: Id, request: Request, upload_offset: int = Header(ge=0, le=1 << 50)) -> AsciiJson:
        """Send a part of an image. What arrives before a connection breaks is kept."""
        upload = uploads.claim(request.scope["owner"], upload_id, upload_offset)
        try:
            await receive(uploads, upload, request)
        finally:
            await asyncio.shield(run_in_threadpool(uploads.release, upload))
        if upload.removed:  # while it arrived
            raise unknown("upload")
        return AsciiJson(upload.facts)

    @app.delete("/v1/uploads/{upload_id}", status_code=204, responses=problems(401, 404, 409, 422))
    async def remove(upload_id: Id, request: Request) -> Response:
        """Remove an image."""
        await run_in_threadpool(uploads.remove, request.scope["owner"], upload_id)
        return Response(status_code=204)


def _job_routes(app: FastAPI, parts: Parts) -> None:
    jobs = parts.jobs

    @app.post("/v1/jobs", status_code=201, response_model=JobFacts, responses=uploaded(404, 409, 429, 503))
    async def add(new: NewJob, request: Request) -> AsciiJson:
        """Have images segmented."""
        owner = request.scope["owner"]
        wish = checked_wish(wish_of(owner, new), parts.offers)
        job, fresh = await run_in_threadpool(jobs.add, wish)
        return AsciiJson(jobs.facts(owner, job.id), 201 if fresh else 200)

    @app.get("/v1/jobs/{job_id}", response_model=JobFacts, responses=problems(401, 404, 422))
    async def how_far(job_id: Id, request: Request) -> AsciiJson:
        """Tell how far a job is."""
        return AsciiJson(jobs.facts(request.scope["owner"], job_id))

    @app.get(
        "/v1/jobs/{job_id}/events",
        response_class=StreamingResponse,
        responses=sent(("text/event-stream",), 404, 422, 429),
    )
    async def events(job_id: Id, request: Request, last_event_id: str = Header("0", pattern=r"^\d{1,15}$")) -> Response:
        """Tell what happens to a job, as server-sent events."""
        owner = request.scope["owner"]
        return EventStream(jobs.find(owner, job_id), _events(jobs, owner, job_id, int(last_event_id)))

    @app.get("/v1/jobs/{job_id}/log", response_class=PlainTextResponse, responses=sent(("text/plain",), 404, 422))
    async def log(job_id: Id, request: Request) -> PlainTextResponse:
        """Return what a job that has ended has printed."""
        text = jobs.find(request.scope["owner"], job_id).log
        return PlainTextResponse(text.encode("utf-8", "replace"))

    @app.delete("/v1/jobs/{job_id}", status_code=204, responses=problems(401, 404, 422))
    async def remove(job_id: Id, request: Request) -> Response:
        """Cancel a job, and remove all that it has made."""
        await run_in_threadpool(jobs.remove, request.scope["owner"], job_id)
        return Response(status_code=204)


def _result_routes(app: FastAPI, parts: Parts) -> None:
    jobs = parts.jobs

    def send(request: Request, job_id: str, what: str, kind: str, path: Path | None = None) -> SentFile:
        file = path or jobs.file(request.scope["owner"], job_id, what)
        facts = (jobs.find(request.scope["owner"], job_id).result or {}).get("files", {}).get(what, {})
        headers = {} if path is not None else {"Repr-Digest": f"sha-256=:{_base64(facts['sha256'])}:"}
        whole = "range" not in request.headers or request.headers["range"].endswith("-")
        done = (lambda: jobs.sent(job_id)) if whole and what == "segmentation" else None
        return SentFile(file, kind, headers, done)

    @app.get(
        "/v1/jobs/{job_id}/result",
        response_class=FileResponse,
        responses=sent(tuple(TYPES), 400, 404, 406, 409, 416, 422, 507, part=True),
    )
    async def result(job_id: Id, request: Request, accept: str = Header("*/*", max_length=1000)) -> Response:
        """Return the segmentation: .seg.nrrd unless another type is asked for."""
        kind = chosen_type(accept)
        if kind == "application/x-nrrd":
            return send(request, job_id, "segmentation", kind)
        file = jobs.file(request.scope["owner"], job_id, "segmentation")
        path = await parts.converter.convert(file, kind)
        return send(request, job_id, "segmentation", kind, path)

    for what, kind in (("confidence", "application/x-nrrd"), ("statistics", "text/csv")):
        _add_file_route(app, what, kind, send)


def _add_file_route(app: FastAPI, what: str, kind: str, send: Any) -> None:
    async def file(job_id: Id, request: Request) -> Response:
        return send(request, job_id, what, kind)

    app.add_api_route(
        f"/v1/jobs/{{job_id}}/{what}",
        file,
        name=what,
        description=f"Return the {what}, if it was asked for.",
        response_class=FileResponse,
        responses=sent((kind,), 400, 404, 409, 416, 422, part=True),
    )


async def _events(jobs: Jobs, owner: str, name: str, after: int) -> AsyncIterator[str]:
    """Yield the events of a job, until it has ended or was removed."""
    loop = asyncio.get_running_loop()
    until, told = loop.time() + STREAM_SECONDS, loop.time()
    yield ": alive\n\n"
    while loop.time() < until:
        try:
            news = jobs.news(owner, name, after)
        except Problem:
            return
        for number, kind, facts in news:
            after, told = number, loop.time()
            yield f"id: {number}\nevent: {kind}\ndata: {json.dumps(facts)}\n\n"
            if kind == "end":
                return
        if loop.time() - told > _SECONDS_ALIVE:
            told = loop.time()
            yield ": alive\n\n"
        await asyncio.sleep(_SECONDS_BETWEEN)


def _base64(digest: str) -> str:
    return b64encode(bytes.fromhex(digest)).decode("ascii")
