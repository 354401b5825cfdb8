"""What is noted beside the files of a job, so that its result survives a crash. It is not trusted when it is read."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from ..errors import ClassScaleError
from ..files import replacing
from .job import FINISHED, ServerJob
from .schemas import NewJob, ResultFacts
from .wishes import Wish, wish_of

RECORD = "record.json"
FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)  # of odd JSON
_ID = re.compile(r"[0-9a-f]{32}")


def write_record(folder: Path, wish: Wish, result: dict[str, Any]) -> None:
    """Note beside the files of a job what it was and what came out, for the time after a crash.

    :raises OutputError: if it cannot be written.
    """
    facts: dict[str, Any] = {"wish": vars(wish), "result": result, "time": time.time()}
    with replacing(folder / RECORD, overwrite=True) as temporary:
        temporary.write_text(json.dumps(facts), encoding="utf-8")


def read_wish(facts: Any) -> Wish:
    """Return the wish that JSON describes which this program has written.

    :raises KeyError, TypeError, ValueError: if it is anything else.
    """
    asked = NewJob.model_validate({name: value for name, value in facts.items() if name != "owner"})
    if not isinstance(facts["owner"], str):
        raise ValueError("its owner has no name")
    return wish_of(facts["owner"], asked)


def restored_job(folder: Path, keep_seconds: float) -> ServerJob | None:
    """Return the job of a folder of results; ``None`` if it is none, damaged, or its time is over."""
    if not _ID.fullmatch(folder.name):  # one that was being removed
        return None
    try:
        facts = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        wish, result = read_wish(facts["wish"]), ResultFacts.model_validate(facts["result"], strict=True)
        for what, name in wish.files.items():
            if (folder / name).stat().st_size != result.files[what].size:
                return None
        age = max(time.time() - facts["time"], 0.0)  # the clock may have been set back
    except (*FAULTS, ClassScaleError):
        return None
    if not age <= keep_seconds:
        return None
    done = {"stage": "write", "done": 1, "total": 1, "remaining": None, "part": 1, "parts": 1}
    ended = time.monotonic() - age
    return ServerJob(
        folder.name, wish, state=FINISHED, progress=done, result=result.model_dump(), ended=ended, changes=1
    )
