"""Pack a training as the embedded toy model ``Resources/Models/toy-<classes>.zip``, with its model card.

    python training/embedded_models/pack_toy_model.py .benchmarks/toy-1000 [--checkpoint latest] [--hardware TEXT]

The card contains the course of the training and the Dice of every class. The Dice is measured here, with our engine, on
unseen volumes with the voxel grid of the model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classscale_training.data.toy import ToyCases, ToyOptions
from classscale_training.evaluation.dice import foreground_mean, pooled_dice, reference_dice
from ClassScaleSegLib import open_model, pack
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.images.counts import overlap_counts
from evaluate_brain_model import segmented

MODELS = Path(__file__).resolve().parents[2] / "Resources" / "Models"
NOTICE = "A demonstration of the method on generated volumes, not for clinical use."
WEAK = 0.8  # Dice below which the card lists a class as a failure


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 after an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the training")
    parser.add_argument(
        "--checkpoint", default="final", help="final, or latest for a training that is not finished (default: final)"
    )
    parser.add_argument(
        "--hardware",
        default="one CPU thread",
        help="hardware of the training, for the card (default: %(default)s)",
    )
    parser.add_argument("--cases", type=int, default=8, help="number of unseen volumes to evaluate (default: 8)")
    parser.add_argument("--output", type=Path, help="bundle to write (default: toy-<classes>.zip in Resources/Models)")
    options = parser.parse_args(arguments)
    try:
        toy, text = _described(options)
        output = options.output or MODELS / f"toy-{toy.classes}.zip"
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "README.md"
            path.write_text(text, encoding="utf-8")
            pack(
                options.folder,
                output,
                checkpoint=options.checkpoint,
                card=path,
                name=f"Toy atlas, {toy.classes} classes",
                licence="Apache-2.0",
                notice=NOTICE,
                overwrite=True,
            )
    except (ClassScaleError, OSError, ValueError, KeyError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    return 0


def _described(options: argparse.Namespace) -> tuple[ToyOptions, str]:
    """Return the data of the training and the card."""
    fold = options.folder / "fold_0"
    state = torch.load(fold / "checkpoint_latest.pth", map_location="cpu", weights_only=True)["loop"]
    fixed = state["options"]
    toy = ToyOptions(fixed["classes"], fixed["mode"], fixed["size"], fixed["seed"])
    model = open_model(options.folder, checkpoint=options.checkpoint)
    log = [json.loads(line) for line in (options.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    log = [entry for entry in log if entry["step"] <= state["step"]]
    unseen = ToyCases(ToyOptions(toy.classes, toy.mode, toy.size, toy.seed + 1), options.cases)
    cases = (unseen[index] for index in range(options.cases))
    counts = [
        overlap_counts(labels.numpy(), segmented(model, image[0].numpy(), toy.spacing), toy.classes + 1)
        for image, labels in cases
    ]
    return toy, card(fixed, log, np.stack(counts), options.hardware)


def card(fixed: dict[str, Any], log: list[dict[str, Any]], counts: np.ndarray, hardware: str) -> str:
    """Return the model card in Markdown.

    :param fixed: options of the training.
    :param log: entries of ``log.jsonl``.
    :param counts: ``(cases, 3, classes + 1)``, see :func:`overlap_counts`.
    :param hardware: hardware of the training.
    """
    classes, size, rank = fixed["classes"], fixed["size"], fixed["features"][0]
    by_class, pooled = reference_dice(counts), pooled_dice(counts)
    weak = [label for label in range(1, classes + 1) if not by_class[label] >= WEAK]
    last, voxels = log[-1], counts[:, 2, 1:].mean()
    course = [entry for entry in log if "dice" in entry]
    lines = [
        f"# Toy atlas, {classes} classes",
        "",
        f"{NOTICE} Weights: safetensors, names as in nnU-Net. Licence: Apache-2.0.",
        "",
        "| | |",
        "|---|---|",
        f"| Network | PlainConvUNet, stages of {', '.join(map(str, fixed['features']))} channels; rank {rank} |",
        f"| Input | one channel, patch {size}x{size}x{size} at {128 / size:g} mm |",
        "| Data | generated by `classscale_training.data.toy.atlas_case`; no patient data |",
        f"| Training | {last['step']} steps, volumes per step: {fixed['batch']}; "
        f"{last['seconds'] / 60:.0f} minutes on {hardware} |",
        f"| Result | mean Dice over the {classes} classes on {len(counts)} unseen volumes: "
        f"{foreground_mean(by_class):.3f}; pooled over all volumes, {foreground_mean(pooled):.3f} |",
        "| Made by | `python -m classscale_training.loop`, `python training/embedded_models/pack_toy_model.py` |",
        "",
        "## Known failures",
        "",
        f"- A class has {voxels:.0f} voxels on average in the grid of the model; errors at borders affect "
        "small classes most.",
        f"- {len(weak)} of {classes} classes have a Dice below {WEAK}"
        + (f": {', '.join(f'{label} ({by_class[label]:.2f})' for label in weak[:40])}" if weak else "")
        + (", ..." if len(weak) > 40 else "")
        + ".",
        "- The model knows only this one generated anatomy.",
        "",
        "## Course of the training",
        "",
        "Loss: cross entropy minus mean soft Dice. Dice: on unseen volumes, during the training.",
        "",
        "| Step | Loss | Seconds | Dice |",
        "|---|---|---|---|",
        *(f"| {e['step']} | {e['loss']:.4f} | {e['seconds']:.0f} | {e['dice']:.4f} |" for e in course),
        "",
        "## Dice of every class",
        "",
        "In the order of the labels, ten per row.",
        "",
        "| label | | | | | | | | | | |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_row(by_class, first, classes) for first in range(1, classes + 1, 10)),
        "",
    ]
    return "\n".join(lines)


def _row(by_class: np.ndarray, first: int, classes: int) -> str:
    labels = range(first, min(first + 10, classes + 1))
    return f"| {first} | " + " | ".join(f"{by_class[label]:.3f}" for label in labels) + " |"


if __name__ == "__main__":
    sys.exit(main())
