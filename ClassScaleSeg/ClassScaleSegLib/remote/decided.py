"""Which options of a segmentation a server decides, and which are not for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import ServerError
from ..options import FIELDS, Options

BY_SERVER = ("device", "threads", "memory_limit_gib", "checkpoint")
# Those that are not options of a job: these, the confidence, which has a member of its own, and what is done with the
# result where it is written.
NOT_SENT = (*BY_SERVER, "confidence", "dicom_seg", "keep_empty")
SENT = tuple(name for name in FIELDS if name not in NOT_SENT)


def refuse_decided(names: Iterable[str]) -> None:
    """Refuse options that the server decides.

    :param names: of the options that were given.
    :raises ServerError: naming them.

    >>> refuse_decided(["step", "threads"])
    Traceback (most recent call last):
        ...
    ClassScaleSegLib.errors.ServerError: The server chooses threads. Leave that out.
    """
    given = set(names)
    if own := [name for name in BY_SERVER if name in given]:
        raise ServerError(f"The server chooses {', '.join(own)}. Leave that out.")


def sent_options(options: Options) -> dict[str, Any]:
    """Return the options that a server is told: those that differ from the defaults, as JSON values."""
    changed = {name: getattr(options, name) for name in options.changed if name in SENT}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
