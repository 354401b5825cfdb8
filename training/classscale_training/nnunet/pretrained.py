"""Self-supervised encoders as starting weights, in the form in which nnssl publishes them (OpenMind models and others).

Such a checkpoint holds ``network_weights`` and an ``nnssl_adaptation_plan`` that says under which prefixes its encoder
and stem are. nnU-Net's ``-pretrained_weights`` wants a whole network instead; one is written for it here, whose decoder
is freshly initialised.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ClassScaleSegLib.errors import ModelError


@contextmanager
def whole_network(file: Path, build: Any) -> Iterator[Path]:
    """A checkpoint that nnU-Net's ``-pretrained_weights`` accepts: ``file`` itself, or one made from an encoder.

    :param build: makes the network to be trained.
    :raises ModelError: if the file is missing, or its encoder does not fit the network.
    """
    content = _self_supervised(file)
    if content is None:
        yield file
        return
    network = build()
    adopt_encoder(network, content, str(file))
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "checkpoint_pretrained.pth"
        torch.save({"network_weights": network.state_dict()}, whole)
        yield whole


def _self_supervised(file: Path) -> dict | None:
    """Content of an nnssl checkpoint; ``None`` for any other, which is then nnU-Net's to read."""
    if not file.is_file():
        raise ModelError(f"{file} does not exist: name the checkpoint with the pretrained weights.")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # nnU-Net's own checkpoints hold NumPy numbers
        return None
    return content if isinstance(content, dict) and "nnssl_adaptation_plan" in content else None


def adopt_encoder(network: torch.nn.Module, content: dict, where: str) -> None:
    """Load encoder and stem into ``network`` (PlainConvUNet, ResidualEncoderUNet); all else stays as it is.

    Where the network has more input channels than the encoder had, its first weights are repeated and divided by their
    number, as nnssl's own nnU-Net does.

    :param content: of the checkpoint.
    :param where: its file, for messages.
    :raises ModelError: naming the first tensor that is missing or has another shape.
    """
    plan, given = content["nnssl_adaptation_plan"], content["network_weights"]
    # the second name of each is that of older files
    prefixes = [
        (own + ".", str(plan.get(key, plan.get(f"state_dict_{key}"))) + ".")
        for own, key in ((network.key_to_stem, "key_to_stem"), (network.key_to_encoder, "key_to_encoder"))
    ]
    first = tuple(f"{name}.weight" for name in network.keys_to_in_proj)
    weights = {}
    for name, tensor in network.state_dict().items():
        source = next((theirs + name[len(own) :] for own, theirs in prefixes if name.startswith(own)), None)
        if source is None:
            continue
        if source not in given:
            raise ModelError(f"{where}: the encoder does not fit the plans: {source} is missing.")
        value = given[source]
        if name in first and value.shape[1] == 1 < tensor.shape[1]:
            channels = tensor.shape[1]
            value = value.repeat(1, channels, *[1] * (value.ndim - 2)) / channels
        if value.shape != tensor.shape:
            raise ModelError(
                f"{where}: the encoder does not fit the plans: {source} has shape {tuple(value.shape)}, the network "
                f"has {tuple(tensor.shape)}. Plan with the architecture that was pretrained (nnU-Net's ResEncL mostly)."
            )
        weights[name] = value
    network.load_state_dict(weights, strict=False)
