"""Measure the Triton kernels on a GPU: errors against torch in float64, reproducibility, and speed beside alternatives.

``python Testing/Benchmarks/gpu_kernels.py`` needs only torch, triton and this repository, takes less than 8 minutes on
one H100, and writes ``results/gpu_kernels.json``. ``--quick --device cpu`` runs everything once with small sizes and
with the torch operator instead of the kernels, to show that the script works; use another ``--folder`` with it.

Timed is the way from the basis to the gradients of basis, projection and bias, with a float16 basis as under autocast,
2 x 128^3 voxels and R = 32. Compared are the kernels, their torch twin, nnU-Net's loss formula on all logits (eager and
``torch.compile``), and only the cross entropy with ``torch.nn.functional.linear_cross_entropy``, where torch has it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "training"), str(ROOT / "ClassScaleSeg")]
from classscale_training import CrossEntropyDiceLoss  # noqa: E402
from classscale_training.files import write_json  # noqa: E402

RANK = 32
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def inputs(classes: int, size: int, device: str, rank: int = RANK, dtype: torch.dtype = torch.float16) -> Inputs:
    """Return basis (2, R, size^3) in ``dtype``, projection and bias in float32, labels int16 in connected patches."""
    generator = torch.Generator().manual_seed(classes)
    seeds = torch.randint(0, classes, (2, 1, 8, 8, 8), generator=generator).float().to(device)
    labels = functional.interpolate(seeds, (size,) * 3)[:, 0].short()
    # where the label is c, the basis leans towards row c of the projection, as in a trained network
    projection = torch.randn(classes, rank, generator=generator).to(device)
    noise = torch.randn(2, rank, size, size, size, generator=torch.Generator(device).manual_seed(0), device=device)
    basis = (noise + 6 * (projection / projection.norm(dim=1, keepdim=True))[labels.long()].movedim(-1, 1)).to(dtype)
    return (
        basis.requires_grad_(),
        projection.requires_grad_(),
        torch.zeros(classes, device=device).requires_grad_(),
        labels,
    )


def ours(basis: torch.Tensor, projection: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return CrossEntropyDiceLoss()(basis, projection, bias, labels)


def twin(basis: torch.Tensor, projection: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return CrossEntropyDiceLoss(implementation="torch")(basis, projection, bias, labels)


def nnunet_formula(basis, projection, bias, labels) -> torch.Tensor:
    """Compute head, cross entropy and soft Dice as nnU-Net does under autocast, with all logits and probabilities."""
    half = basis.is_cuda and basis.dtype == torch.float16
    basis = basis if half else basis.float()
    with torch.autocast(basis.device.type, dtype=torch.float16, enabled=half):
        logits = functional.conv3d(basis, projection[:, :, None, None, None], bias)
        p = logits.softmax(1)
        with torch.no_grad():
            target = torch.zeros_like(p).scatter_(1, labels[:, None].long(), 1)[:, 1:]
            reference = target.sum((0, 2, 3, 4))
        p = p[:, 1:]
        intersection, predicted = (p * target).sum((0, 2, 3, 4)), p.sum((0, 2, 3, 4))
        dice = (2 * intersection + 1e-5) / (predicted + reference + 1e-5).clamp_min(1e-8)
        return functional.cross_entropy(logits, labels.long()) - dice.mean()


def linear_cross_entropy(basis, projection, bias, labels) -> torch.Tensor:
    """Compute only the cross entropy, without bias; the operator requires the voxels in the first axis."""
    options = (
        {"options": torch.nn.LinearCrossEntropyOptions()} if hasattr(torch.nn, "LinearCrossEntropyOptions") else {}
    )
    features = basis.flatten(2).transpose(1, 2).reshape(-1, basis.shape[1])
    weights = projection.to(basis.dtype)
    return functional.linear_cross_entropy(features, weights, labels.flatten().long(), **options)


def gradients(loss: torch.Tensor, leaves: Inputs) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss, [leaf for leaf in leaves if leaf.requires_grad], allow_unused=True)


def parity(classes: int, rank: int, dtype: torch.dtype, size: int, device: str) -> dict[str, object]:
    """Return the relative errors, in norm, against the torch operator in float64, and those of nnU-Net's formula."""
    leaves = inputs(classes, size, device, rank, dtype)
    exact = tuple(x.detach().double().requires_grad_() if x.is_floating_point() else x for x in leaves)
    truth = [twin(*exact), *gradients(twin(*exact), exact)]
    row: dict[str, object] = {"classes": classes, "rank": rank, "dtype": str(dtype).removeprefix("torch.")}
    for name, loss in (("kernels", ours), ("nnU-Net's formula", nnunet_formula)):
        found = [loss(*leaves), *gradients(loss(*leaves), leaves)]
        errors = [float(((a.double() - b).norm() / b.norm()).detach()) for a, b in zip(found, truth, strict=True)]
        row[name] = dict(zip(("value", "basis", "projection", "bias"), errors, strict=True))
    repeated = gradients(ours(*leaves), leaves)
    row["same bits twice"] = all(
        torch.equal(a, b) for a, b in zip(repeated, gradients(ours(*leaves), leaves), strict=True)
    )
    return row


def timing(name: str, loss: Callable[..., torch.Tensor], leaves: Inputs, repeats: int) -> dict[str, object]:
    """Return median milliseconds of forward and of both, and peak MiB above the inputs; or the fault."""
    row: dict[str, object] = {"what": name, "classes": len(leaves[1]), "voxels": leaves[3].numel()}
    on_gpu = leaves[0].is_cuda
    try:
        begin = time.perf_counter()
        gradients(loss(*leaves), leaves)
        row["first_call_s"] = round(time.perf_counter() - begin, 1)
        before = torch.cuda.memory_allocated() if on_gpu else 0
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        samples = []
        for _ in range(repeats):
            start = _now(on_gpu)
            value = loss(*leaves)
            middle = _now(on_gpu)
            gradients(value, leaves)
            samples.append((_milliseconds(start, middle, on_gpu), _milliseconds(start, _now(on_gpu), on_gpu)))
        forward, both = torch.tensor(samples).median(0).values.tolist()
        peak = torch.cuda.max_memory_allocated() - before if on_gpu else 0
        row |= {"forward_ms": forward, "both_ms": both, "peak_MiB": round(peak / 2**20, 1)}
    except Exception as fault:  # out of memory, or torch lacks it or cannot compile it; the others still run
        row["fault"] = f"{type(fault).__name__}: {str(fault).splitlines()[0][:200]}"
    if on_gpu:
        torch.cuda.empty_cache()
    return row


def _now(on_gpu: bool) -> torch.cuda.Event | float:
    if not on_gpu:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _milliseconds(start, stop, on_gpu: bool) -> float:
    if not on_gpu:
        return 1000 * (stop - start)
    stop.synchronize()
    return start.elapsed_time(stop)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="use small sizes, to show that everything works")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(__file__).parent / "results",
        help="folder of the JSON file (default: results)",
    )
    options = parser.parse_args()
    device, quick = options.device, options.quick
    begin = time.perf_counter()

    content = {
        "machine": {
            "device": torch.cuda.get_device_name() if device == "cuda" else device,
            "torch": torch.__version__,
            "triton": _triton_version(),
            "date": date.today().isoformat(),
        },
        "kernels used": device == "cuda" and _kernels_used(),
        "quick": quick,
        "seconds": 0.0,
        "parity": [],
        "timing": [],
    }

    def add(kind: str, row: dict[str, object]) -> None:
        content[kind].append(row)
        content["seconds"] = round(time.perf_counter() - begin, 1)
        write_json(partial, content)  # after each row, so that a killed run keeps its rows
        print(json.dumps(row), flush=True)

    partial = options.folder / "gpu_kernels.partial.json"
    for classes, rank in ((20, 32),) if quick else ((118, 32), (500, 32), (1000, 32), (4096, 8), (118, 160)):
        for dtype in (torch.float16, torch.float32, torch.bfloat16):
            add("parity", parity(classes, rank, dtype, 8 if quick else 32, device))
    for classes in (20,) if quick else (118, 500, 1000):
        leaves = inputs(classes, 16 if quick else 128, device)
        contenders = {
            "kernels": ours,
            "torch twin": twin,
            "nnU-Net's formula": nnunet_formula,
            "nnU-Net's formula, compiled": torch.compile(nnunet_formula, backend="eager" if quick else "inductor"),
            "linear_cross_entropy, cross entropy only": linear_cross_entropy,
        }
        for name, loss in contenders.items():
            add("timing", timing(name, loss, leaves, 2 if quick else 10))
        del leaves
    partial.replace(options.folder / "gpu_kernels.json")
    return 0 if quick or content["kernels used"] else 1


def _triton_version() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    return triton.__version__


def _kernels_used() -> bool:
    from classscale_training.loss.triton_statistics import usable

    return all(usable(*inputs(c, 4, "cuda")[:2]) for c in (118, 500, 1000))


if __name__ == "__main__":
    sys.exit(main())
