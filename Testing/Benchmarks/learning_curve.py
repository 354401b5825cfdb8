"""Write the learning curve of a run of the bare loop, as JSON and PNG.

    python -m classscale_training.loop --folder .benchmarks/toy-100 --classes 100 --size 48 --features 16 24 32 48 \\
        --convolutions 1 1 2 2 --decoder-convolutions 1 1 1 --steps 1500    # a quarter of an hour; resumable
    python Testing/Benchmarks/learning_curve.py .benchmarks/toy-100 [--name toy-100] [--dice 0.9]

The script reads the run's ``log.jsonl`` and the options in its last checkpoint, and writes ``results/<name>.json`` and
``results/<name>.png``: the loss, and the mean Dice on unseen volumes by both rules, TotalSegmentator's (classes of the
reference only) and the pooled one, which counts false positives. An unfinished run gives the curve so far.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from measure import HERE, Bar, report

RULES = {"dice": "TotalSegmentator's rule", "pooled_dice": "pooled, with false positives"}


def read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the entries of the log, and the options that must not change in a run.

    :raises SystemExit: if the folder holds no run.
    """
    try:
        entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        checkpoint = torch.load(folder / "fold_0" / "checkpoint_latest.pth", map_location="cpu", weights_only=True)
    except OSError as error:
        raise SystemExit(f"{folder} holds no run of classscale_training.loop ({error}).") from error
    return entries, checkpoint["loop"]["options"]


def draw(entries: list[dict[str, Any]], title: str, picture: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="tight")
    left, right = figure.subplots(1, 2)
    minutes = [entry["seconds"] / 60 for entry in entries]
    left.plot(minutes, [entry["loss"] for entry in entries], color="tab:grey")
    left.set(xlabel="minutes of training", ylabel="loss (cross entropy - Dice)", title=title)
    evaluated = [entry for entry in entries if "dice" in entry]
    for rule, name in RULES.items():
        right.plot([e["seconds"] / 60 for e in evaluated], [e[rule] for e in evaluated], marker=".", label=name)
    right.axhline(0.9, color="black", linewidth=0.5)
    right.set(xlabel="minutes of training", ylabel="mean Dice, unseen volumes", ylim=(0, 1))
    right.legend()
    figure.savefig(picture, dpi=100)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the training")
    parser.add_argument("--name", help="name of the results (default: that of the folder)")
    parser.add_argument("--dice", type=float, default=0.9, help="Dice that both rules must reach (default: 0.9)")
    options = parser.parse_args()
    entries, fixed = read(options.folder)
    name = options.name or options.folder.resolve().name
    evaluated = [entry for entry in entries if "dice" in entry]
    if not evaluated:
        raise SystemExit(f"{options.folder} has no evaluation yet: continue the training.")
    last = evaluated[-1]
    rows = [{**{key: fixed[key] for key in ("classes", "mode", "size", "batch")}, **entry} for entry in evaluated]
    bars = [Bar(f"mean Dice, {text}", last[rule], options.dice, at_least=True) for rule, text in RULES.items()]
    draw(entries, f"{fixed['classes']} classes, {fixed['size']}^3", HERE / "results" / f"{name}.png")
    return report(argparse.Namespace(quick=False, root=options.folder), name, rows, bars)


if __name__ == "__main__":
    sys.exit(main())
