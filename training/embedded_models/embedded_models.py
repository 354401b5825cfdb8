"""What the scripts that make the embedded models share: folders, options, how they run, images, logs and packing."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from ClassScaleSegLib import pack
from ClassScaleSegLib.errors import ClassScaleError

RESOURCES = Path(__file__).resolve().parents[2] / "Resources"
BRAIN = Path(".benchmarks/brain")  # what the scripts of the brain model write and read


def option(text: str, default: Any, shown: str = "%(default)s") -> dict[str, Any]:
    """Return the arguments of ``add_argument`` for an option of the type of its default, which the help shows so."""
    return {"help": f"{text} (default: {shown})", "type": type(default), "default": default}


LABEL_MAPS = option("file that prepare_brain_data.py wrote", BRAIN / "label_maps.npz")
CHECKPOINT = option("checkpoint of the training: final, or latest if it is not finished", "final")


def run(
    description: str | None,
    options: Mapping[str, dict[str, Any]],
    work: Callable[[argparse.Namespace], str],
    arguments: list[str] | None,
    *faults: type[Exception],
) -> int:
    """Do the work of a script, print the line that it returns, and return the exit code: 0, or 1 after an error.

    :param options: arguments of ``add_argument`` by name.
    :param arguments: of the command line; those of the process if ``None``.
    :param faults: errors of which only the message is printed, besides those of the project.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, more in options.items():
        parser.add_argument(name, **more)
    chosen = parser.parse_args(arguments)
    try:
        print(work(chosen))
    except (ClassScaleError, *faults) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def picture(array: np.ndarray, spacing: float) -> sitk.Image:
    """Return an image of ``array`` ``(Z, Y, X)``; ``spacing`` in mm."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([spacing] * 3)
    return image


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of the ``log.jsonl`` of a training."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def pack_with_card(options: argparse.Namespace, output: Path, card: str, **more: Any) -> str:
    """Pack the training that ``options`` name, with its model card, and return a line with the size of the bundle.

    :param more: for :func:`ClassScaleSegLib.pack`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "README.md"
        path.write_text(card, encoding="utf-8")
        pack(options.folder, output, checkpoint=options.checkpoint, card=path, overwrite=True, **more)
    return f"{output}: {output.stat().st_size / 1e6:.1f} MB"
