"""The job of a child process, which it gets as a file, and the events that it reports."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any

from ..errors import ClassScaleError, reason
from ..options import FIELDS, WHOLE_IMAGE, Options, refuse_unknown
from .terminal import printable

_FILES = ("output", "confidence", "statistics", "report")
_MORE_FILES = ("more_outputs", "more_statistics")


@dataclass(frozen=True)
class ReportedAs:
    """What the report says of the only case of a job instead of the names of its files, which no user knows.

    :ivar name: of the case. If the report has another image of that name, this one gets a number.
    :ivar images: names of the images.
    :ivar origin: the same for two cases if they are of one image, such as a checksum; ``None``: that of the voxels in
        the files of the job.
    :ivar modality: of the image, as in DICOM; ``None`` if it is not known.
    """

    name: str
    images: tuple[str, ...]
    origin: str | None
    modality: str | None = None


@dataclass(frozen=True)
class Job:
    """What to segment, how, and which files to write.

    :ivar images: one image, or one file for each channel; or as ``classscaleseg segment`` takes them.
    :ivar model: a path, or an id or name of the catalogue; or several, of which the later one gets a voxel that two
        claim.
    :ivar output: file of the segmentation.
    :ivar confidence: file of the confidence, if wanted.
    :ivar statistics: file of the statistics, if wanted.
    :ivar options: the other choices; ``confidence`` is set if there is a file of it.
    :ivar more_outputs: further files of the segmentation, in other formats.
    :ivar more_statistics: further files of the statistics, in other formats.
    :ivar report: folder of the report, if wanted.
    :ivar reported: what the report says of the case; ``None``: the names of its files.
    :ivar model_names: of the models, by which classes of the same name are told apart; by default those of the
        catalogue, or the models' own.
    :ivar most_voxels: a larger image is refused.
    :ivar server: address of the server that segments, or its name in the user's list; the models are its own. By
        default this machine segments.
    :ivar server_ca: file with the certificate of that server, if the system does not trust it.
    :ivar insecure: images and the token may be sent to that server even if others could read them on their way.

    >>> print(Job(("ct.nrrd",), "toy-120", "ct.seg.nrrd", options=Options(device="cpu", classes="cell 7")))
    segment ct.nrrd with toy-120 into ct.seg.nrrd (device='cpu', classes=('cell 7',))
    """

    images: tuple[str | Path, ...]
    model: str | Path | tuple[str | Path, ...]
    output: str | Path
    confidence: str | Path | None = None
    statistics: str | Path | None = None
    options: Options = Options()
    more_outputs: tuple[str | Path, ...] = ()
    more_statistics: tuple[str | Path, ...] = ()
    report: str | Path | None = None
    model_names: tuple[str, ...] = ()
    most_voxels: int | None = None
    server: str | None = None
    server_ca: str | Path | None = None
    insecure: bool = False
    reported: ReportedAs | None = None

    @property
    def models(self) -> tuple[str | Path, ...]:
        """The model or models."""
        return self.model if isinstance(self.model, tuple) else (self.model,)

    def __str__(self) -> str:
        images, models = (", ".join(map(str, several)) for several in (self.images, self.models))
        return printable(f"segment {images} with {models} into {self.output} ({self.options})")

    def facts(self) -> dict[str, Any]:
        """Return the job as JSON values, with absolute paths, for :func:`job_of`."""
        coarse = self.options.locate_with
        here = self.server is None
        coarse = coarse if coarse in (None, WHOLE_IMAGE) or not here else _absolute(coarse)
        return {
            "images": [os.path.abspath(image) for image in self.images],
            "model": [_absolute(model) if here else str(model) for model in self.models],
            **{name: (file := getattr(self, name)) and os.path.abspath(file) for name in _FILES},
            "options": {**asdict(self.options), "locate_with": coarse},
            **{name: [os.path.abspath(file) for file in getattr(self, name)] for name in _MORE_FILES},
            "model_names": list(self.model_names),
            "most_voxels": self.most_voxels,
            "server": self.server,
            "server_ca": self.server_ca and os.path.abspath(self.server_ca),
            "insecure": self.insecure,
            "reported": self.reported and asdict(self.reported),
        }

    def write(self, path: Path) -> None:
        """Write the job as JSON for :func:`read_job`.

        :raises OSError: if the file cannot be written.
        """
        path.write_text(json.dumps(self.facts()), encoding="utf-8")


def _absolute(model: str | Path) -> str:
    """Return the absolute path of a model that is a file or folder; a name of the catalogue stays as it is."""
    return os.path.abspath(model) if os.path.exists(model) else str(model)


def read_job(path: Path) -> Job:
    """Read a job that :meth:`Job.write` has written. The file is not trusted.

    :raises ClassScaleError: if the file cannot be read, or is not a job; the message names the file and the entry.
    """
    try:
        return job_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise ClassScaleError(f"{path} cannot be read as a job in JSON ({reason(error)}).") from error
    except ClassScaleError as error:
        raise ClassScaleError(f"{path} is not a job of classscaleseg segment. {error}") from error


def job_of(facts: Any) -> Job:
    """Return the job that :meth:`Job.facts` describes. The facts are not trusted.

    :raises ClassScaleError: if they are not a job; the message names the entry.
    """
    options = facts.get("options", {}) if isinstance(facts, dict) else None
    if not isinstance(options, dict):
        raise ClassScaleError("The job and its options must be JSON objects.")
    refuse_unknown(facts, [entry.name for entry in fields(Job)])
    refuse_unknown(options, FIELDS)
    for name in ("images", "model"):
        texts = facts.get(name)
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise ClassScaleError(f"{name} must be a list of one or more texts.")
    more = {name: facts.get(name, []) for name in (*_MORE_FILES, "model_names")}
    for name, texts in more.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            what = "texts" if name == "model_names" else "paths of files"
            raise ClassScaleError(f"{name} must be a list of {what}.")
    for name in _FILES:
        if not isinstance(facts.get(name), str if name == "output" else (str, NoneType)):
            raise ClassScaleError(f"{name} must be the path of a file{' or folder' * (name == 'report')}.")
    if type(facts.get("most_voxels")) not in (int, NoneType):
        raise ClassScaleError("most_voxels must be a whole number.")
    for name in ("server", "server_ca"):
        if not isinstance(facts.get(name), (str, NoneType)):
            raise ClassScaleError(f"{name} must be {'an address' if name == 'server' else 'the path of a file'}.")
    if not isinstance(facts.get("insecure", False), bool):
        raise ClassScaleError("insecure must be true or false.")
    lists = {name: tuple(facts[name]) for name in ("images", "model")}
    lists |= {name: tuple(texts) for name, texts in more.items()}
    reported = _reported(facts.get("reported"))
    return Job(**{**facts, **lists, "options": Options(**options), "reported": reported})


def _reported(facts: Any) -> ReportedAs | None:
    """Return what the report says of the case. The facts are not trusted.

    :raises ClassScaleError: if they are wrong.
    """
    if facts is None:
        return None
    if not isinstance(facts, dict):
        raise ClassScaleError("reported must be a JSON object.")
    refuse_unknown(facts, [entry.name for entry in fields(ReportedAs)])
    for name in ("name", "origin", "modality"):
        if not isinstance(facts.get(name), str if name == "name" else (str, NoneType)):
            raise ClassScaleError(f"The {name} of reported must be text.")
    images = facts.get("images")
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise ClassScaleError("The images of reported must be a list of texts.")
    return ReportedAs(**{**facts, "images": tuple(images)})


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
        text = printable(facts.get("message") or "")
        known = ("stage", "done", "total", "remaining", "part", "parts")
        progress = {key: facts[key] for key in known if key in facts}
        return Event("message" if text else "progress", **progress, text=text, facts=facts)
    if kind in ("error", "message", "skipped"):
        text = printable(facts.get("reason" if kind == "skipped" else "message"))
        return Event("error" if kind == "error" else "message", text=text, facts=facts)
    return Event(kind, facts=facts) if kind in ("begin", "result") else None
