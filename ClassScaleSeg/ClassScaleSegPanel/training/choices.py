"""What a user has chosen for a training, or to compare: remembered for the next time, and told to the child process."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TypeVar

import slicer
from slicer.i18n import tr as _

from ..widgets.folders import TRAINING_FOLDER

_SETTING = "ClassScaleSeg/Training"  # of all scenes: a training goes on after a restart
_COMPARED = "ClassScaleSeg/ComparedModels"
_SEEN = "Seen"  # after one of both: the folder in which cases were saved when it was remembered
EPOCHS = (5, 10, 20, 50, 100, 250, 500, 1000)  # for which there are trainers
_SUFFIX = ".zip"


@dataclass(frozen=True)
class Choices:
    """What is trained, and how.

    Paths are whole ones: the child process runs in another folder.

    :ivar folder: the training folder.
    :ivar model: the model to begin with: its id in the catalogue.
    :ivar output: path of the bundle to write.
    :ivar epochs: of 250 steps each.
    :ivar device: "auto", "cpu" or "mps".
    :ivar validate: keep a fifth of the cases to see how good the new model is.
    :ivar missing: what it means that a case lacks a structure: "", "background" or "unlabelled".
    :ivar overlap: which label wins where structures overlap: "", "first" or "last".
    :ivar corrected: leave out results that nobody has corrected or checked.
    :ivar fill: what a case lacks and the model knows is what the model finds.
    """

    folder: str = ""
    model: str = ""
    output: str = ""
    epochs: int = 100
    device: str = "auto"
    validate: bool = False
    missing: str = ""
    overlap: str = ""
    corrected: bool = False
    fill: bool = False

    def arguments(self, replace: bool) -> list[str]:
        """Return the arguments of ``classscaleseg-train finetune``.

        :param replace: the bundle, if there is one.
        """
        words = [self.folder, "-m", self.model, "-o", self.output, "--epochs", str(self.epochs)]
        words += ["-device", self.device] * (self.device != "auto") + ["--fold", "0"] * self.validate
        words += ["--missing", self.missing] * bool(self.missing) + ["--overlap", self.overlap] * bool(self.overlap)
        return words + ["--corrected"] * self.corrected + ["--fill"] * self.fill + ["--overwrite"] * replace

    def need(self) -> str:
        """Return what is missing before a training can begin, in a sentence; empty if nothing is."""
        if not self.folder:
            return _("Choose the folder with the cases. Save for training... writes one.")
        if not self.model:
            return _("Choose the model to begin with.")
        if not self.output:
            return _("Choose the file of the new model.")
        return next(filter(None, map(_not_whole, (self.folder, self.output))), "")


@dataclass(frozen=True)
class ComparedModels:
    """Which models are compared, on which cases.

    :ivar folder: the training folder, a whole path: the child process runs in another folder.
    :ivar first: a model: its id in the catalogue.
    :ivar second: the other one.
    :ivar device: "auto", "cpu" or "mps".
    """

    folder: str = ""
    first: str = ""
    second: str = ""
    device: str = "auto"

    def arguments(self) -> list[str]:
        """Return the arguments of ``classscaleseg-train compare-models``, without files to write."""
        return [self.folder, "-m", self.first, "-m", self.second, "-device", self.device]

    def need(self) -> str:
        """Return what is missing before the models can be compared, in a sentence; empty if nothing is."""
        if not self.folder:
            return _("Choose the folder with the cases. Save for training... writes one.")
        if not (self.first and self.second) or self.first == self.second:
            return _("Choose two models to compare.")
        return _not_whole(self.folder)


_Kind = TypeVar("_Kind", Choices, ComparedModels)


def _not_whole(path: str) -> str:
    """Return what is wrong with a path that depends on the current folder; empty if it does not."""
    return (
        ""
        if os.path.isabs(path)
        else _("{path} does not say where it is. Give the whole path, or choose it.").format(path=path)
    )


def typed_path(text: str) -> str:
    """Return the path that a user has typed, with the home folder in place of ``~``."""
    return os.path.expanduser(text.strip())


def remembered() -> Choices:
    """Return what was chosen last for a training, or the defaults."""
    return _read(Choices, _SETTING)


def remember(choices: Choices) -> None:
    """Keep what was chosen for the next training."""
    _keep(choices, _SETTING)


def compared_models() -> ComparedModels:
    """Return what was compared last, or the defaults."""
    return _read(ComparedModels, _COMPARED)


def remember_compared(choices: ComparedModels) -> None:
    """Keep what was chosen for the next comparison."""
    _keep(choices, _COMPARED)


def _read(kind: type[_Kind], setting: str) -> _Kind:
    """Return what was kept, or the defaults. Settings can be of another version."""
    try:
        kept = json.loads(slicer.app.userSettings().value(setting) or "{}")
    except ValueError:
        kept = {}
    defaults, given = asdict(kind()), kept if isinstance(kept, dict) else {}
    fitting = {name: given[name] for name, value in defaults.items() if type(given.get(name)) is type(value)}
    return kind(**defaults | fitting)


def _keep(choices: Choices | ComparedModels, setting: str) -> None:
    slicer.app.userSettings().setValue(setting, json.dumps(asdict(choices)))
    slicer.app.userSettings().setValue(setting + _SEEN, _saved_in())


def new_folder(choices: Choices | ComparedModels) -> str:
    """Return the folder in which cases are saved now, if it is another one than when choices were remembered."""
    saved, setting = _saved_in(), _SETTING if isinstance(choices, Choices) else _COMPARED
    return saved if saved not in (choices.folder, str(slicer.app.userSettings().value(setting + _SEEN) or "")) else ""


def _saved_in() -> str:
    return str(slicer.app.userSettings().value(TRAINING_FOLDER) or "")


def proposed_output(folder: str) -> str:
    """Return where the new model of a training folder can be written: beside it, under a name that is free.

    :param folder: may be typed by half; empty if nothing can be proposed for it.
    """
    above, name = os.path.split(folder.rstrip(os.sep + (os.altsep or "")))
    if not name:
        return ""
    number, file = 1, os.path.join(above, name + _SUFFIX)
    while os.path.exists(file):
        number += 1
        file = os.path.join(above, f"{name}-{number}{_SUFFIX}")
    return file
