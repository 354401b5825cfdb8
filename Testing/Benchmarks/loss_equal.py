"""Bar 1 of the losses: compare value and gradients with nnU-Net's in float64, for every option, and over two ranks.

``python Testing/Benchmarks/loss_equal.py`` computes relative errors (of the value; of each gradient, in norm) and
writes ``results/loss_equal.json``. It takes about a minute on one thread.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
from classscale_training import CrossEntropyDiceLoss, SoftDice
from measure import Bar, parse, report
from reference_losses import IGNORE, Case, cases, head, nnunet_loss, sums_in_float64

RANK = 32


def inputs(classes: int, size: int, ignored: float, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Return basis (3, R, size^3), projection, bias (float64, with gradient) and labels (3, 1, size^3)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    labels = torch.randint(0, classes, (3, 1, size, size, size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = IGNORE
    return normal(3, RANK, size, size, size), normal(classes, RANK), normal(classes), labels


def relative_errors(case: Case, classes: int, size: int, seed: int = 0) -> dict[str, float]:
    """Return the relative errors of the value and, in norm, of the gradients of basis, projection and bias."""
    *leaves, labels = inputs(classes, size, case.ignored, seed)
    ours = case.ours(*leaves, labels)
    with sums_in_float64():
        reference = case.reference(head(*leaves), labels)
    errors = {"value": _error(ours, reference)}
    gradients = (torch.autograd.grad(loss, leaves) for loss in (ours, reference))
    for name, mine, theirs in zip(("basis", "projection", "bias"), *gradients, strict=True):
        errors[name] = _error(mine, theirs)
    return errors


def _error(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    scale = float(theirs.detach().norm())
    return float((mine - theirs).detach().norm()) / (scale or 1.0)


def two_ranks(classes: int, size: int) -> dict[str, float]:
    """Return the largest errors over two gloo ranks, each with its own samples, against nnU-Net's ``ddp=True``."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (classes, size, folder), nprocs=2)
        ranks = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]
    return {name: max(errors[name] for errors in ranks) for name in ranks[0]}


def _rank(rank: int, classes: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = (Path(folder) / "store").as_uri()
    torch.distributed.init_process_group("gloo", store, timedelta(minutes=2), world_size=2, rank=rank)
    case = Case("ddp", CrossEntropyDiceLoss(SoftDice(ddp=True)), nnunet_loss(ddp=True))
    torch.save(relative_errors(case, classes, size, seed=rank), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def main() -> int:
    options = parse(__doc__, "loss_equal")
    torch.set_num_threads(1)
    size = 5 if options.quick else 8
    rows, bars = [], []
    for classes in (5, 118) if options.quick else (5, 118, 1000):
        for case in cases(classes):
            errors = relative_errors(case, classes, size)
            rows.append({"case": case.name, "classes": classes, **errors})
        worst = max(max(row[k] for k in errors) for row in rows if row["classes"] == classes)
        bars.append(Bar(f"largest relative error at C = {classes}", worst, 1e-10))
    errors = two_ranks(118, size)
    rows.append({"case": "two ranks", "classes": 118, **errors})
    bars.append(Bar("largest relative error over two ranks", max(errors.values()), 1e-6))
    return report(options, "loss_equal", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
