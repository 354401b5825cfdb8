"""Time training steps on a GPU: eager, as a CUDA graph, with torch.compile; and steps of pretraining and of a Primus.

    python Testing/Benchmarks/gpu_step.py [--device cuda] [--minutes 3] [--folder FOLDER] [--quick]

A step is the network with float16 autocast, the loss with trusted labels, all gradients and AdamW, on 2 x 128^3 voxels.
It must go through both ways: ``torch.compile`` with ``fullgraph=True``, which fails at any break of the graph, and the
capture of a CUDA graph, which fails at any synchronisation. Rows that are done are kept in ``gpu_step.partial.json``,
and the same command goes on after them. ``--quick --device cpu`` runs everything with small sizes; the CUDA graph is
then left out, and nothing is optimised.

The steps of a U-Net need torch and this repository alone; those of pretraining and of a Primus also need
``dynamic_network_architectures``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parents[1] / "training"), str(HERE.parents[1] / "ClassScaleSeg")]
from classscale_training import CrossEntropyDiceLoss  # noqa: E402
from classscale_training.files import write_json  # noqa: E402
from classscale_training.network.plain_unet import PlainUNet, architecture  # noqa: E402

RANK = 32
LOSS = CrossEntropyDiceLoss(trusted=True)
Step = Callable[[], torch.Tensor]


class Training:
    """A network, its loss and its optimiser, with inputs that stay where they are, as a CUDA graph needs them."""

    def __init__(self, network: torch.nn.Module, loss: Callable[..., torch.Tensor], inputs: tuple, device: str) -> None:
        self.network, self.loss, self.inputs, self.device = network.to(device), loss, inputs, device
        on_gpu = device != "cpu"
        self.optimizer = torch.optim.AdamW(network.parameters(), 1e-4, capturable=on_gpu)
        self.kind = torch.float16 if on_gpu else torch.bfloat16

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(torch.device(self.device).type, self.kind, cache_enabled=False):
            output = self.network(inputs[0])
        return self.loss(self.network, output, *inputs)

    def step(self, forward: Callable[..., torch.Tensor] | None = None) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = (forward or self.forward)(*self.inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12.0)
        self.optimizer.step()
        return loss.detach()

    def eager(self) -> Step:
        return self.step

    def compiled(self) -> Step:
        backend = "inductor" if self.device != "cpu" else "aot_eager"
        forward = torch.compile(self.forward, backend=backend, fullgraph=True)
        return lambda: self.step(forward)

    def graph(self) -> Step:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.step()

        def replay() -> torch.Tensor:
            graph.replay()
            return loss

        return replay


def unet(classes: int, device: str, quick: bool) -> Training:
    features = (8, 12, 16) if quick else (32, 64, 128, 256, 320, 320)
    kwargs = architecture(features, [2] * len(features), [2] * (len(features) - 1))
    network, size = PlainUNet(kwargs, 1, classes), 16 if quick else 128

    def loss(network: Any, basis: torch.Tensor, image: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return LOSS(basis, network.head.weight.flatten(1), network.head.bias, labels)

    return Training(network, loss, volumes(classes, size, device), device)


def primus(classes: int, device: str, quick: bool) -> Training:
    from ClassScaleSegLib.models.torchvision_import import make_torchvision_importable

    make_torchvision_importable()
    from classscale_training.network.low_rank_head import add_head
    from dynamic_network_architectures.architectures.primus import Primus

    size = 16 if quick else 128
    width, depth, heads = (24, 2, 2) if quick else (864, 16, 12)
    network = Primus(
        input_channels=1, num_classes=RANK, embed_dim=width, patch_embed_size=(8, 8, 8), eva_depth=depth,
        eva_numheads=heads, input_shape=(size,) * 3, drop_path_rate=0.2, init_values=0.1, scale_attn_inner=True,
    )  # fmt: skip

    def loss(network: Any, output: tuple, image: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        (basis,), projection, bias = output
        return LOSS(basis, projection, bias, labels)

    return Training(add_head(network, classes), loss, volumes(classes, size, device), device)


def pretraining(classes: int, device: str, quick: bool) -> Training:
    from classscale_training.nnunet.pretraining.masking import MaskedAutoencoder, random_visible, reconstruction_error
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    size, features = (16, (8, 12, 16)) if quick else (128, (32, 64, 128, 256, 320, 320))
    stages = len(features)
    network = PlainConvUNet(
        1, stages, features, torch.nn.Conv3d, 3, (1, *(2,) * (stages - 1)), 2, 1, 2, conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=torch.nn.LeakyReLU,
        deep_supervision=True,
    )  # fmt: skip
    image, _ = volumes(2, size, device)
    visible = random_visible((size,) * 3, (size // 4,) * 3, 0.75, torch.Generator().manual_seed(0))
    masked = torch.cat([image, visible[None].expand(2, -1, -1, -1, -1).to(device)], 1)

    def loss(network: Any, output: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        return reconstruction_error(output, masked)

    return Training(MaskedAutoencoder(network), loss, (masked,), device)


def volumes(classes: int, size: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (2, 1, size^3) and labels (2, size^3), int16."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 1, size, size, size, generator=generator)
    labels = torch.randint(0, classes, (2, size // 8, size // 8, size // 8), generator=generator)
    for axis in (1, 2, 3):
        labels = labels.repeat_interleave(8, axis)
    return image.to(device), labels.short().to(device)


def rows(quick: bool, device: str) -> list[tuple[dict[str, Any], Callable[[], Training]]]:
    """Return description and training of each row, the most important first."""
    ways = ["eager", "compiled", *(["graph"] if device != "cpu" else [])]
    few, many = (5, 9) if quick else (118, 1000)
    found = [({"what": "U-Net", "classes": c, "way": way}, unet) for c in (many, few) for way in ways]
    found += [({"what": "Primus-M", "classes": few, "way": "eager"}, primus)]
    found += [({"what": "pretraining of a U-Net", "classes": 0, "way": "eager"}, pretraining)]
    return [(told, lambda make=make, told=told: make(told["classes"], device, quick)) for told, make in found]


def measured(training: Training, way: str, repeats: int) -> dict[str, Any]:
    """Return milliseconds of a step, the loss of the first step of this kind, and memory."""
    on_gpu = training.device != "cpu"
    begin = time.perf_counter()
    step = getattr(training, way)()
    first = float(step())
    row: dict[str, Any] = {"first_s": round(time.perf_counter() - begin, 1), "loss": first}
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    step()
    seconds = []
    for _ in range(repeats):
        if on_gpu:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    row["step_ms"] = round(1000 * median(seconds), 2)
    if on_gpu:
        row["peak_MiB"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=3.0, help="time for all rows together (default: 3)")
    parser.add_argument("--quick", action="store_true", help="use small sizes, to show that everything works")
    parser.add_argument("--folder", type=Path, default=HERE / "results", help="folder of the JSON file")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    name = torch.cuda.get_device_name() if options.device != "cpu" else "cpu"
    content: dict[str, Any] = {"machine": {"device": name, "torch": torch.__version__}, "quick": options.quick}
    partial, left_over = options.folder / "gpu_step.partial.json", False
    before = done_before(partial, content)
    content["cases"] = []
    for told, make in rows(options.quick, options.device):
        done = [row for row in before if all(row.get(key) == value for key, value in told.items())]
        if not done and time.monotonic() > end - (0 if options.quick else 20):
            left_over = True
            continue
        row = done[0] if done else {**told, **attempt(make, told["way"], 2 if options.quick else 10)}
        content["cases"].append(row)
        write_json(partial, content)
        print(json.dumps(row), flush=True)
    if left_over:
        return 2
    write_json(options.folder / "gpu_step.json", content)
    partial.unlink(missing_ok=True)
    return int(any("fault" in row for row in content["cases"]))


def attempt(make: Callable[[], Training], way: str, repeats: int) -> dict[str, Any]:
    """Return the figures of a row; a fault or a package that is missing is told in it, and the others still run."""
    torch.manual_seed(0)
    try:
        return measured(make(), way, repeats)
    except ModuleNotFoundError as missing:
        return {"skipped": f"{missing.name} is not installed"}
    except Exception as fault:
        return {"fault": f"{type(fault).__name__}: {(str(fault).splitlines() or [''])[0][:300]}"}
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def done_before(partial: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that an earlier call with the same device and torch has done."""
    try:
        before = json.loads(partial.read_text(encoding="utf-8"))
        rows = before.pop("cases")
        return [row for row in rows if isinstance(row, dict)] if before == content else []
    except (OSError, ValueError, KeyError, AttributeError):
        return []


if __name__ == "__main__":
    sys.exit(main())
