"""Run commands of ``classscaleseg-train``, which comes with the extension, in child processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .child import ChildProcess

_PACKAGE = "classscale_training"


class TrainerProcess(ChildProcess):
    """A command of the trainer that reports its progress as JSON lines.

    :cvar command: its name.
    :ivar arguments: of the command. They can be set until :meth:`start`, so that files can be in ``work_folder``.
    :param arguments: of the command. Paths must be absolute.
    :param python: path of an interpreter; by default that of :func:`.child.default_python`.
    :param environment: variables to add to those of this process.
    :raises OutputError: if the work folder cannot be made.
    :raises ClassScaleError: if psutil is not installed.
    """

    command = ""

    def __init__(self, arguments: Sequence[str], python: str | None = None, environment: dict[str, str] | None = None):
        super().__init__(python, environment)
        self.arguments = tuple(arguments)

    def __str__(self) -> str:
        return " ".join(("classscaleseg-train", self.command, *self.arguments))

    def _command(self) -> list[str]:
        return ["-m", f"{_PACKAGE}.commands", self.command, *self.arguments, "--json-progress"]

    def _folders(self) -> list[Path]:
        return [*super()._folders(), *trainer_folders()]


class TrainingProcess(TrainerProcess):
    """A fine-tuning, ``classscaleseg-train finetune``.

    What it has done stays in its own folder when it is cancelled, and the same arguments go on there.

    :ivar result: ``output``, the bundle, and the figures of the comparison, if there is one, once it is finished.
    """

    command = "finetune"
    memory = "Close other programs. The training needs more memory than segmenting with the same model."

    def _child_environment(self) -> dict[str, str]:
        # nnU-Net compiles the network for CUDA, which needs a C compiler and Python's headers: Slicer has neither.
        return {"nnUNet_compile": "f", **super()._child_environment()}


class ModelComparisonProcess(TrainerProcess):
    """A comparison of models on drawn cases, ``classscaleseg-train compare-models``.

    It has finished if any case was compared; ``faults`` of the result say what went wrong with others.

    :ivar result: the figures, as of ``comparison.json``, with ``faults`` and ``without_common_classes``.
    """

    command = "compare-models"
    memory = "Close other programs."

    def _conclude(self, code: int) -> None:
        if self._reported is None and self.result:  # 1: some cases have failed
            self.state = "finished"
        else:
            super()._conclude(code)


def trainer_folders() -> list[Path]:
    """Return the folder of the trainer's package, if it is not where the library or Python finds it.

    The extension has it beside the library, and a checkout of the repository in another folder.
    """
    library = Path(__file__).resolve().parents[2]
    beside = library.parent / "training"
    return [beside] if not (library / _PACKAGE).is_dir() and (beside / _PACKAGE).is_dir() else []
