"""Compile the Triton kernels for sm_80 and sm_90, which needs no GPU, and list the resources that they use.

``python Testing/Benchmarks/kernel_resources.py`` writes ``results/kernel_resources.json``. The first run takes about
five minutes; later runs are faster, because Triton caches compiled kernels. Registers that do not fit are spilled to
memory, which makes a kernel several times slower. A kernel with too much shared memory fails at the launch. Both are
bars, and tests check a part of the table.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from classscale_training.loss import triton_statistics
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

KERNELS = {  # and the options that each is launched with
    "log_sum_exp": "voxel_rows",
    "class_sums": "class_rows",
    "basis_gradient": "voxel_rows",
    "projection_gradient": "class_rows",
}
FINISHING = {  # without voxels
    "label_range": {"EACH": 1 << 14, "VOXELS": 1024},
    "pad_weights": {"CLASSES": 16},
    "pad_slopes": {"CLASSES": 128},
    "class_totals": {"CLASSES": 32, "SPLITS": 32},
    "weight_gradients": {"COLUMNS": 64, "ROWS": 32},
}
NUMBERS = ("voxels", "rank", "classes", "ignore", "labelled", "count", "padded", "splits", "batch", "rows", "width")
SHARED_LIMIT = 99 * 1024  # of sm_86 and sm_89, the smallest of the devices with tf32


def resources(name: str, architecture: int, rank: int, classes: int, half: bool) -> dict[str, int]:
    """Return what ptxas reports for one kernel: registers and spilled bytes per thread, bytes of shared memory."""
    kernel = getattr(triton_statistics, name)
    blocks = triton_statistics.Blocks.fitting(rank, classes)
    if name in KERNELS:
        options = getattr(blocks, KERNELS[name]) | {"PRECISION": "tf32", "LOGITS": False}
    else:
        options = {**FINISHING[name], "RANK": blocks.rank, "num_warps": 4, "num_stages": 3}
    constants = {k: v for k, v in options.items() if k in kernel.arg_names}
    signature = {argument: _type(argument, constants, half) for argument in kernel.arg_names}
    aligned = [["tt.divisibility", 16]]  # as at a launch, for tensors, padded numbers of classes and usual volume sizes
    attributes = {
        (index,): aligned
        for index, (argument, kind) in enumerate(signature.items())
        if kind.startswith("*") or argument in ("voxels", "classes", "stride_b", "stride_r")
    }
    launch = {k: options[k] for k in ("num_warps", "num_stages")}
    source = ASTSource(kernel, signature, constants, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=launch)
    report = _assemble(compiled.asm["ptx"], architecture)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    registers = re.search(r"Used (\d+) registers", report)
    return {
        "registers": int(registers[1]),
        "spilled": sum(map(int, spilled.groups())),
        "shared": compiled.metadata.shared,
    }


def _type(argument: str, constants: dict[str, Any], half: bool) -> str:
    if argument in constants:
        return "constexpr"
    if argument in NUMBERS or "stride" in argument or argument.endswith(("_b", "_c")):
        return "i32"
    if argument in ("labels", "found", "totals"):
        return {"labels": "*i16", "found": "*i64", "totals": "*fp64"}[argument]
    return "*fp16" if half and argument in ("basis", "weights", "grad_basis") else "*fp32"


def _assemble(ptx: str, architecture: int) -> str:
    """Return what Triton's ptxas prints about this code."""
    ptxas = next(Path(triton.__file__).parent.glob("backends/nvidia/bin/ptxas*"))
    target = f"sm_{architecture}a" if architecture >= 90 else f"sm_{architecture}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        command = [str(ptxas), "-v", f"--gpu-name={target}", str(file), "-o", str(file.with_suffix(".cubin"))]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ptxas rejects the kernel: {done.stderr}")
    return done.stderr


def main() -> int:
    from measure import Bar, parse, report

    options = parse(__doc__, "kernel_resources")
    ranks = (32,) if options.quick else (8, 32, 64, 128, 160)
    rows = [
        {"kernel": name, "sm": sm, "rank": rank, "classes": classes, "half": half}
        | resources(name, sm, rank, classes, half)
        for rank in ranks
        for classes in ((1000,) if options.quick else (5, 1000))
        for half in (True, False)
        for sm in (80, 90)
        for name in (*KERNELS, *FINISHING)
    ]
    bars = [
        Bar("bytes spilled by any kernel", max(row["spilled"] for row in rows), 0),
        Bar("bytes of shared memory of any kernel", max(row["shared"] for row in rows), SHARED_LIMIT),
    ]
    return report(options, "kernel_resources", rows, bars)


if __name__ == "__main__":
    sys.exit(main())
