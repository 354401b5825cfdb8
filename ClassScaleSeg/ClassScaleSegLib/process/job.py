"""What a child process is asked to do, as a command line, and what it says meanwhile, as events."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ClassScaleError


@dataclass(frozen=True)
class Job:
    """What to segment, with the meaning that the options of ``classscaleseg segment`` have.

    :ivar images: one image, or one a channel.
    :ivar model: path or catalogue name, or several, of which later ones win.
    :ivar memory_limit: GiB.
    :ivar classes, folds: one may stand for a tuple of one.
    :raises ClassScaleError: if classes or folds are given and empty: that would mean nothing, not all.
    """

    images: tuple[str | Path, ...]
    model: str | Path | tuple[str | Path, ...]
    output: str | Path
    confidence: str | Path | None = None
    statistics: str | Path | None = None
    device: str = "auto"
    step: float = 0.5
    mirroring: bool = True
    folds: tuple[str, ...] | None = None
    checkpoint: str = "final"
    configuration: str | None = None
    classes: tuple[str | int, ...] | None = None
    memory_limit: float | None = None
    threads: int | None = None
    keep_empty: bool = False

    def __post_init__(self) -> None:
        for name in ("classes", "folds"):
            given = getattr(self, name)
            if given is not None:
                items = (given,) if isinstance(given, (str, int)) else tuple(given)
                if not items:
                    raise ClassScaleError(f"{name} is empty; leave it out for all.")
                object.__setattr__(self, name, items)

    def arguments(self, classes_file: Path | None = None) -> list[str]:
        """Of ``classscaleseg``; paths are absolute, and every value is tied to its option, be it ``-1`` or ``--x``.

        :param classes_file: where the classes are listed, if they are not to be on the command line.
        """
        models = self.model if isinstance(self.model, tuple) else (self.model,)
        single = {
            "output": os.path.abspath(self.output),
            "confidence": None if self.confidence is None else os.path.abspath(self.confidence),
            "statistics": None if self.statistics is None else os.path.abspath(self.statistics),
            "device": self.device,
            "step": self.step,
            "checkpoint": self.checkpoint,
            "configuration": self.configuration,
            "memory-limit": self.memory_limit,
            "threads": self.threads,
            "classes-file": classes_file,
        }
        listed = () if classes_file is not None else self.classes or ()
        return [
            "segment",
            *(os.path.abspath(image) for image in self.images),
            *(f"--model={os.path.abspath(model) if os.path.exists(model) else model}" for model in models),
            *(f"--{option}={value}" for option, value in single.items() if value is not None),
            *(f"--folds={fold}" for fold in self.folds or ()),
            *(f"--classes={name}" for name in listed),
            *(["--no-mirroring"] if not self.mirroring else []),
            *(["--keep-empty"] if self.keep_empty else []),
        ]


@dataclass(frozen=True)
class Event:
    """Something the child said.

    :ivar kind: "begin", "progress", "message", "result" or "error".
    :ivar stage: "start" while the child loads its libraries and the model, then that of
        :class:`~ClassScaleSegLib.inference.progress.Progress`.
    :ivar remaining: seconds, ``None`` if unknown.
    :ivar text: of a message or error.
    :ivar facts: all that the line held.
    """

    kind: str
    stage: str = ""
    done: int = 0
    total: int = 1
    remaining: float | None = None
    text: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def parse_event(line: str) -> Event | None:
    """The event that a line of ``--json-progress`` tells of; ``None`` if something else was printed."""
    try:
        facts = json.loads(line)
    except ValueError:
        return None
    kind = facts.get("event") if isinstance(facts, dict) else None
    if kind == "progress":
        text = facts.get("message") or ""
        progress = (facts.get(key) for key in ("stage", "done", "total", "remaining"))
        return Event("message" if text else "progress", *progress, text, facts)
    if kind in ("error", "skipped"):
        text = str(facts.get("message" if kind == "error" else "reason"))
        return Event("error" if kind == "error" else "message", text=text, facts=facts)
    return Event(kind, facts=facts) if kind in ("begin", "result") else None
