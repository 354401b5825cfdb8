"""Receive a part of an image, and write it while the next bytes arrive."""

from __future__ import annotations

import asyncio

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from .limits import PART_BYTES, SECONDS_FOR_BYTES
from .problems import Problem
from .upload import Upload
from .uploads import Uploads

_BLOCK = 4 << 20  # bytes that are written at once


async def receive(uploads: Uploads, upload: Upload, request: Request) -> None:
    """Write the body of a request to an upload, some megabytes at a time, while the next ones arrive.

    :raises Problem: if it is too long, does not come, or cannot be written.
    """
    blocks: list[bytes] = []
    held = count = 0
    writing: asyncio.Task[None] | None = None

    async def write() -> None:
        nonlocal blocks, held, writing
        if writing is not None:
            await asyncio.shield(writing)
        writing = asyncio.create_task(run_in_threadpool(uploads.write, upload, blocks))
        blocks, held = [], 0

    stream = request.stream().__aiter__()
    try:
        while True:
            try:
                chunk = await asyncio.wait_for(anext(stream), SECONDS_FOR_BYTES)
            except (StopAsyncIteration, ClientDisconnect):
                break
            except (TimeoutError, asyncio.TimeoutError):  # two kinds before Python 3.11
                said = f"Nothing was sent for {SECONDS_FOR_BYTES:.0f} s. Go on later."
                raise Problem(408, "too_slow", said) from None
            count += len(chunk)
            if count > PART_BYTES:
                raise Problem(413, "too_large", f"A part may have {PART_BYTES} bytes at most. Send smaller ones.")
            blocks.append(chunk)
            held += len(chunk)
            if held >= _BLOCK:
                await write()
    finally:
        if blocks:
            await write()
        if writing is not None:
            await asyncio.shield(writing)
