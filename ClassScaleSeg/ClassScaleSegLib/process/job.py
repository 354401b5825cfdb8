"""The job of a child process, which becomes its command line, and the events that the child reports."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ClassScaleError


@dataclass(frozen=True)
class Job:
    """What to segment and how; the fields mean the same as the options of ``classscaleseg segment``.

    :ivar images: one image, or one file for each channel.
    :ivar model: a path, or an id or name of the catalogue; or several, of which the later one gets a voxel that two
        claim.
    :ivar output: file of the segmentation.
    :ivar confidence: file of the confidence, if wanted.
    :ivar statistics: CSV file of the statistics, if wanted.
    :ivar device: "auto", "cpu", "cuda", "cuda:1" or "mps".
    :ivar step: distance between windows, as a fraction of the patch.
    :ivar mirroring: whether to average over mirrored patches.
    :ivar folds: such as ``("0", "1")``, or a single one; ``None`` means all.
    :ivar checkpoint: "final" or "best".
    :ivar configuration: chooses among several models in a source.
    :ivar classes: names or label values to keep, or a single one; ``None`` means all.
    :ivar memory_limit: GiB of GPU memory, or of main memory on a CPU.
    :ivar threads: number of CPU threads.
    :ivar keep_empty: whether classes without a voxel are listed in the segmentation.
    :raises ClassScaleError: if ``classes`` or ``folds`` is given but empty, which would mean none and not all.

    >>> job = Job(images=("ct.nrrd",), model="toy-120", output="ct.seg.nrrd", classes="cell 7")
    >>> job.classes
    ('cell 7',)
    >>> [argument for argument in job.arguments() if not os.path.isabs(argument)][:2]
    ['segment', '--model=toy-120']
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
                    raise ClassScaleError(f"{name} is empty; leave it out for all {name}.")
                object.__setattr__(self, name, items)

    def arguments(self, classes_file: Path | None = None) -> list[str]:
        """Return the arguments of ``classscaleseg`` for this job.

        Paths are absolute. Every value is joined to its option with ``=``, so that it may begin with a hyphen.

        :param classes_file: a text file that lists the classes, if they are not to be on the command line.
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
    """Something that the child reported.

    :ivar kind: "begin", "progress", "message", "result" or "error".
    :ivar stage: "start" while the child loads its libraries and the model, then that of
        :class:`~ClassScaleSegLib.inference.progress.Progress`.
    :ivar done: steps of the stage that are done.
    :ivar total: all steps of the stage.
    :ivar remaining: seconds; ``None`` if unknown.
    :ivar text: the text of a message or error.
    :ivar part: which of several models is at work, from 1.
    :ivar parts: number of models.
    :ivar facts: all members of the JSON line.
    """

    kind: str
    stage: str = ""
    done: int = 0
    total: int = 1
    remaining: float | None = None
    text: str = ""
    part: int = 1
    parts: int = 1
    facts: dict[str, Any] = field(default_factory=dict)


def parse_event(line: str) -> Event | None:
    """Return the event that a line of ``--json-progress`` describes; ``None`` if the line is anything else.

    >>> event = parse_event('{"event": "progress", "stage": "segment", "done": 3, "total": 8, "remaining": 5.5}')
    >>> event.kind, event.stage, event.done, event.remaining
    ('progress', 'segment', 3, 5.5)
    """
    try:
        facts = json.loads(line)
    except ValueError:
        return None
    kind = facts.get("event") if isinstance(facts, dict) else None
    if kind == "progress":
        text = facts.get("message") or ""
        known = ("stage", "done", "total", "remaining", "part", "parts")
        progress = {key: facts[key] for key in known if key in facts}
        return Event("message" if text else "progress", **progress, text=text, facts=facts)
    if kind in ("error", "skipped"):
        text = str(facts.get("message" if kind == "error" else "reason"))
        return Event("error" if kind == "error" else "message", text=text, facts=facts)
    return Event(kind, facts=facts) if kind in ("begin", "result") else None
