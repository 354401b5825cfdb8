"""Run a training in a child process: ``classscaleseg-train finetune``, which comes with the extension."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .child import ChildProcess

_PACKAGE = "classscale_training"


class TrainingProcess(ChildProcess):
    """A fine-tuning in a child process.

    What it has done stays in its own folder when it is cancelled, and the same arguments go on there.

    :ivar result: ``output``, the bundle, and ``seconds``, once it is finished.
    :param arguments: of ``classscaleseg-train finetune``. Paths must be absolute.
    :param python: path of an interpreter; by default that of :func:`.child.default_python`.
    :param environment: variables to add to those of this process.
    :raises OutputError: if the work folder cannot be made.
    :raises ClassScaleError: if psutil is not installed.
    """

    memory = "Close other programs. The training needs more memory than segmenting with the same model."

    def __init__(self, arguments: Sequence[str], python: str | None = None, environment: dict[str, str] | None = None):
        super().__init__(python, environment)
        self.arguments = tuple(arguments)

    def __str__(self) -> str:
        return " ".join(("classscaleseg-train", "finetune", *self.arguments))

    def _command(self) -> list[str]:
        return ["-m", f"{_PACKAGE}.commands", "finetune", *self.arguments, "--json-progress"]

    def _child_environment(self) -> dict[str, str]:
        # nnU-Net compiles the network for CUDA, which needs a C compiler and Python's headers: Slicer has neither.
        return {"nnUNet_compile": "f", **super()._child_environment()}

    def _folders(self) -> list[Path]:
        return [*super()._folders(), *trainer_folders()]


def trainer_folders() -> list[Path]:
    """Return the folder of the trainer's package, if it is not where the library or Python finds it.

    The extension has it beside the library, and a checkout of the repository in another folder.
    """
    library = Path(__file__).resolve().parents[2]
    beside = library.parent / "training"
    return [beside] if not (library / _PACKAGE).is_dir() and (beside / _PACKAGE).is_dir() else []
