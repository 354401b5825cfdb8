"""Keep what Dask logs out of the terminal, where it would disturb the progress."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# All that Dask gives handlers of their own, and what it uses.
_LOGGERS = (
    "distributed",
    "distributed.client",
    "distributed.nanny",
    "distributed.scheduler",
    "distributed.worker",
    "asyncio",
    "tornado",
    "tornado.application",
    "bokeh",
    "dask_jobqueue",
)


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Write what Dask logs into a file instead of the terminal."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler: logging.Handler = logging.FileHandler(file, encoding="utf-8")
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    # when this process ends, after the block, it would tell that workers were there, which were killed
    logging.getLogger("distributed.process").setLevel(logging.WARNING)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger, logger.handlers[:], logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers[:], logger.propagate = [handler], False
    try:
        yield
    except BaseException:
        before = [(logger, [logging.NullHandler()], False) for logger in loggers]  # Dask ends later, and complains
        raise
    finally:
        for logger, handlers, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate
        handler.close()
