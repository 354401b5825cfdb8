"""Build a network from checked plans and weights, and split it into backbone and projection.

The network is built on torch's ``meta`` device, where tensors have shapes but no memory. Untrusted plans therefore
allocate nothing before they are known to fit the weights. The loaded weights then replace the tensors without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..errors import ModelError
from .low_rank import fold_low_rank_head, has_low_rank_head
from .projection import Projection

MAX_PARAMETERS = 1 << 30  # nnU-Net's largest preset (ResEnc XL) has about 0.14 * 10^9
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def build_network(configuration: Any, channels: int, classes: int) -> torch.nn.Module:
    """Build the network of the plans on the ``meta`` device, without heads for deep supervision.

    :param configuration: nnU-Net's ``ConfigurationManager`` of checked plans.
    :raises ModelError: if the network cannot be built, or would have more than ``MAX_PARAMETERS`` parameters.
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    try:
        with torch.device("meta"):
            network = get_network_from_plans(
                configuration.network_arch_class_name,
                configuration.network_arch_init_kwargs,
                configuration.network_arch_init_kwargs_req_import,
                channels,
                classes,
                allow_init=False,
                deep_supervision=False,
            )
    except Exception as error:
        raise ModelError(f"the architecture cannot be built ({type(error).__name__}: {error}).") from error
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > MAX_PARAMETERS:
        raise ModelError(f"the network would have {parameters} parameters. At most {MAX_PARAMETERS} are built.")
    heads = _heads(network)
    for index in range(len(heads) - 1):
        heads[index] = torch.nn.Identity()
    return network.requires_grad_(False).eval()


def fit_weights(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Select the tensors that inference needs and check that they fit the network.

    nnU-Net's decoder registers the encoder again, and its blocks register each layer twice, so a checkpoint has two to
    four names for one tensor. A tensor may be given under any of them. Heads of deep supervision are left out. The
    low-rank head of ClassScaleTrainer is merged into nnU-Net's last layer.

    :returns: float32 tensors, each by the first of its names.
    :raises ModelError: if a tensor is missing, not part of the network, of another shape, or not finite.
    """
    if has_low_rank_head(weights):
        weights = fold_low_rank_head(weights)
    heads = len(_heads(network))
    unused = tuple(f"decoder.seg_layers.{index}." for index in range(heads - 1))
    names: dict[int, list[str]] = {}
    expected = network.state_dict(keep_vars=True)
    for alias, tensor in expected.items():
        names.setdefault(id(tensor), []).append(alias)
    foreign = next((name for name in weights if name not in expected and not name.startswith(unused)), None)
    if foreign is not None:
        raise ModelError(f"the weights do not belong to plans.json: {foreign} is not part of the network.")
    fitted = {}
    for aliases in names.values():
        if aliases[0].endswith(".num_batches_tracked"):  # counts training steps; inference does not use it
            continue
        name = next((alias for alias in aliases if alias in weights), None)
        if name is None:
            raise ModelError(f"the weights do not belong to plans.json: {aliases[0]} is missing.")
        _check_tensor(weights[name], tuple(expected[name].shape), name, heads)
        fitted[aliases[0]] = weights[name].detach().to(torch.float32).contiguous()
    return fitted


def _check_tensor(tensor: torch.Tensor, shape: tuple[int, ...], name: str, heads: int) -> None:
    found = tuple(tensor.shape)
    if found != shape:
        if name.startswith(f"decoder.seg_layers.{heads - 1}.") and found[1:] == shape[1:]:
            fault = f"they have {found[0]} classes, dataset.json has {shape[0]}"
        elif found[:1] + found[2:] == shape[:1] + shape[2:] and name.startswith(("encoder.stages.0.", "encoder.stem.")):
            fault = f"they take {found[1]} channels, dataset.json has {shape[1]}"
        else:
            fault = f"{name} has shape {found}, plans.json requires {shape}"
        raise ModelError(f"the weights do not fit: {fault}.")
    if tensor.dtype not in FLOATS or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise ModelError(f"{name} is not a plain array of floating-point numbers.")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise ModelError(f"{name} contains fewer numbers than its shape {shape} requires.")
    if not bool(torch.isfinite(tensor).all()):
        raise ModelError(f"{name} has values that are not finite: the training of this model failed.")


def adopt_weights(network: torch.nn.Module, fitted: dict[str, torch.Tensor]) -> None:
    """Set the tensors of a network to those from :func:`fit_weights`, without copying them."""
    network.load_state_dict(fitted, strict=False, assign=True)
    for module in network.modules():
        if getattr(module, "num_batches_tracked", None) is not None:
            module.num_batches_tracked = torch.zeros((), dtype=torch.int64)


def split(networks: Sequence[torch.nn.Module], values: tuple[int, ...], regions: bool) -> tuple[Projection, bool]:
    """Remove the last, linear layer of each fold's network, if that makes the basis smaller.

    The mean over folds of the logits ``W_k f_k + b_k`` is linear in the concatenated bases of the folds, with the
    weight ``[W_1 ... W_K] / K``. This first form has K backbones with R channels and a projection ``(C, K R)``. If
    C < K R, the logits themselves are the smaller basis. In this second form the networks keep their last layers, the
    basis is the mean of their outputs with C channels, and the projection is the identity. Inference applies only
    linear operations to a basis (Gaussian average, mirroring, linear resampling), so both forms give the same label map
    up to the rounding of float32.

    :param networks: one for each fold, with weights; their last layers are removed in the first form.
    :returns: the projection; whether the networks' outputs are to be averaged (second form) or concatenated (first).
    """
    heads = [_heads(network)[-1] for network in networks]
    classes, rank = heads[0].weight.shape[:2]
    if classes < rank * len(networks):
        return Projection(torch.eye(classes), torch.zeros(classes), values, regions), True
    for network in networks:
        _heads(network)[-1] = torch.nn.Identity()
    weight = torch.cat([head.weight.flatten(1) for head in heads], 1) / len(heads)
    bias = torch.stack([head.bias for head in heads]).mean(0)
    return Projection(weight, bias, values, regions), False


def _heads(network: Any) -> Any:
    """Return nnU-Net's last layers, one for each scale of deep supervision; the last one is used for inference."""
    return network.decoder.seg_layers
