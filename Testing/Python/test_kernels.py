"""The Triton kernels where there is no GPU: run by Triton's interpreter, and compiled ahead of time for two devices.

The interpreter replaces ``triton.jit`` when Triton is imported, so it runs in a process of its own. It is silently
wrong in bfloat16, which the kernels do not use.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this platform")
import gpu_kernels  # noqa: E402
from classscale_training.loss import triton_statistics  # noqa: E402
from kernel_resources import FINISHING, KERNELS, SHARED_LIMIT, resources  # noqa: E402

# dtype, rank, classes, voxels and the largest relative difference: padding of each; one block of each, several, and
# more than one turn of a loop takes when the partial sums are added up (1100 voxels)
CASES = [
    ("float32", 32, 5, 300, 1e-5),
    ("float32", 8, 150, 130, 1e-5),
    ("float32", 160, 70, 70, 1e-5),
    ("float32", 8, 600, 9, 1e-5),
    ("float32", 8, 5, 1100, 1e-5),
    ("float16", 40, 17, 300, 1e-3),
]
SCRIPT = """
import json, sys, torch
from classscale_training.loss.tiles import Inputs
from classscale_training.loss.triton_statistics import TritonStatistics, disagreement
results = {"differences": []}
for dtype, *sizes, _ in json.loads(sys.argv[1]):
    results["differences"].append(disagreement(torch.device("cpu"), getattr(torch, dtype), *sizes))
generator = torch.Generator().manual_seed(0)
inputs = [torch.randn(2, 16, 150, generator=generator), torch.randn(9, 16, generator=generator), torch.zeros(9)]
inputs = [x.requires_grad_() for x in inputs]
labels = torch.randint(0, 9, (2, 150), generator=generator, dtype=torch.uint8)
runs = []
for _ in range(2):
    sums = TritonStatistics()(Inputs(*inputs, labels, None))
    runs.append([*sums, *torch.autograd.grad(sum(x.square().sum() for x in sums), inputs)])
results["same twice"] = all(torch.equal(a, b) for a, b in zip(*runs))
labels[0, 3] = 200
results["trusted"] = TritonStatistics()(Inputs(*inputs, labels, None, True))[0].sum().item()
results["ignored"] = TritonStatistics()(Inputs(*inputs, labels, 200))[-1].item()
try:
    TritonStatistics()(Inputs(*inputs, labels, None))
except ValueError as fault:
    results["fault"] = str(fault)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def interpreted() -> dict:
    command = [sys.executable, "-c", SCRIPT, json.dumps(CASES)]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("index", range(len(CASES)), ids=[str(case[:3]) for case in CASES])
def test_sums_and_gradients_equal_the_torch_twin(interpreted, index):
    assert interpreted["differences"][index] < CASES[index][-1]


def test_two_runs_give_the_same_bits(interpreted):
    assert interpreted["same twice"]


def test_a_label_outside_the_classes_is_named(interpreted):
    assert interpreted["fault"] == "label 200 is outside 0..8, the classes of this model."


def test_a_label_outside_the_classes_gives_nan_if_it_is_trusted_and_is_left_out_if_it_is_ignored(interpreted):
    assert math.isnan(interpreted["trusted"])
    assert interpreted["ignored"] == 299


def test_the_loss_launches_little_and_waits_for_the_gpu_only_to_check_labels(tmp_path):
    script = Path(gpu_kernels.__file__).with_name("loss_launches.py")
    command = [sys.executable, str(script), "--quick", "--root", str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    bars = json.loads((tmp_path / "loss_launches.json").read_text())["bars"]
    assert [(bar["measured"], bar["limit"]) for bar in bars[1:]] == [(1, 1), (0, 0), (0, 0)]
    assert 0 < bars[0]["measured"] <= bars[0]["limit"]


def differs(*_):
    return 0.5


def fails(*_):
    raise RuntimeError("Failed to find C compiler")


@pytest.mark.parametrize(
    ("check", "capability", "message"),
    [
        (differs, (9, 0), "their results differ from those of torch by 0.5"),
        (fails, (8, 0), "RuntimeError: Failed to find C compiler"),
        (lambda *_: 0.0, (7, 5), None),
    ],
)
def test_kernels_that_differ_or_fail_are_left_alone_with_one_warning(check, capability, message, monkeypatch, recwarn):
    monkeypatch.setattr(triton_statistics, "disagreement", check)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    basis, projection = torch.zeros(1, 32, 8), torch.zeros(5, 32)
    triton_statistics._agree.cache_clear()
    assert [triton_statistics.usable(basis, projection) for _ in range(2)] == [False, False]
    assert [message in str(w.message) for w in recwarn] == ([True] if message else [])
    triton_statistics._agree.cache_clear()
    monkeypatch.setattr(triton_statistics, "disagreement", lambda *_: 1e-4)
    assert triton_statistics.usable(basis, projection) == (capability >= (8, 0))
    assert not triton_statistics.usable(basis.double(), projection.double())
    triton_statistics._agree.cache_clear()


@pytest.mark.parametrize("name", [*KERNELS, *FINISHING])
@pytest.mark.parametrize(("architecture", "rank", "classes", "half"), [(80, 32, 118, True), (90, 160, 1000, False)])
def test_a_kernel_compiles_without_spills_and_fits_the_shared_memory(name, architecture, rank, classes, half):
    found = resources(name, architecture, rank, classes, half)
    assert found["spilled"] == 0
    assert 0 < found["shared"] <= SHARED_LIMIT or name in FINISHING
    assert found["registers"] <= 255


def test_the_gpu_benchmark_runs_in_small_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu_kernels.py", "--quick", "--device", "cpu", "--folder", str(tmp_path)])
    assert gpu_kernels.main() == 0
    content = json.loads((tmp_path / "gpu_kernels.json").read_text())
    single = next(row for row in content["parity"] if row["dtype"] == "float32")
    assert max(single["kernels"].values()) < 1e-4 and single["same bits twice"]
    assert all("both_ms" in row for row in content["timing"] if not row["what"].startswith("linear_cross_entropy"))
