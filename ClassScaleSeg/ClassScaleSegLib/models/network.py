"""Build a network from checked plans and weights, and split it into backbone and projection.

The network is built on torch's ``meta`` device, where tensors have shapes but no memory. Untrusted plans therefore
allocate nothing before they are known to fit the weights. The loaded weights then replace the tensors without a copy.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..errors import ModelError
from .architecture import basis_channels
from .low_rank import fold_low_rank_head, has_low_rank_head, split_patch_head
from .meshnet_network import MeshNet
from .networks import RANK_ENTRY, find_network, is_primus
from .projection import Projection
from .torchvision_import import make_torchvision_importable

MAX_PARAMETERS = 1 << 30  # nnU-Net's largest preset (ResEnc XL) has about 0.14 * 10^9
_FIRST = (  # layers
    *("encoder.stages.0.", "encoder.stem.", "encoder.conv_init.", "down_projection.proj.", "down_projection.stem."),
)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def construct_network(entries: dict, channels: int, outputs: int, train: bool = False) -> torch.nn.Module:
    """Construct a network of the list as nnU-Net does, on torch's default device.

    :param entries: of one configuration; `check_architecture` has checked its ``architecture``.
    :param outputs: channels of the last layer.
    :param train: initialise the weights, and make a U-Net return all scales.
    :raises ModelError: if the installed packages do not have the network, or refuse its arguments.
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    architecture = entries["architecture"]
    name, network = find_network(architecture)
    arguments = architecture["arch_kwargs"]
    try:
        if name == "SegResNetDS":
            return _segresnet()(in_channels=channels, out_channels=outputs, **arguments)
        if name == "MeshNet":
            return MeshNet(channels, outputs, **arguments)
        if network.unet:
            imported = architecture["_kw_requires_import"]
            built = get_network_from_plans(
                architecture["network_class_name"],
                arguments,
                imported,
                channels,
                outputs,
                train,
                deep_supervision=train,
            )
            # It looks for classes by exceptions that hold their own frames, and with them those of all callers and
            # whatever these have: a model would stay in memory beside the next one. Such new garbage takes no time.
            gc.collect(1)
            return built
        if "nonlin" in arguments:
            arguments = {**arguments, "nonlin": getattr(torch.nn, arguments["nonlin"].rpartition(".")[2])}
        return _primus_class(name)(input_channels=channels, num_classes=outputs, **arguments)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"the architecture cannot be built ({type(error).__name__}: {error}).") from error


def _primus_class(name: str) -> Any:
    make_torchvision_importable()
    try:
        from dynamic_network_architectures.architectures import primus
    except ImportError as error:
        raise ModelError(
            f"its network, {name}, needs packages that are missing ({error}): run "
            "`pip install --upgrade dynamic-network-architectures timm einops`."
        ) from error
    if not hasattr(primus, name):
        raise ModelError(
            f"its network, {name}, is not part of the installed dynamic-network-architectures: run "
            "`pip install --upgrade dynamic-network-architectures`."
        )
    return getattr(primus, name)


def _segresnet() -> Any:
    try:
        from monai.networks.nets.segresnet_ds import SegResNetDS
    except ImportError as error:
        raise ModelError(
            f"its network, SegResNetDS, needs the package monai ({error}): run `pip install monai`."
        ) from error
    return SegResNetDS


class LowRankDecoder(torch.nn.Module):
    """The decoder of a Primus with a projection: what ClassScaleTrainer trains, as inference needs it.

    :param decode: transposed convolutions, which give the basis.
    :param seg_layers: one convolution with a kernel of 1, the projection; as in a U-Net, it may be replaced.
    """

    def __init__(self, decode: torch.nn.Sequential, seg_layers: torch.nn.ModuleList) -> None:
        super().__init__()
        self.decode, self.seg_layers = decode, seg_layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(B, C, ...)``, or the basis if the projection was removed."""
        return self.seg_layers[-1](self.decode(x))


def build_network(configuration: Any, channels: int, classes: int) -> torch.nn.Module:
    """Build the network of the plans on the ``meta`` device, without heads for deep supervision.

    :param configuration: nnU-Net's ``ConfigurationManager`` of checked plans.
    :raises ModelError: if the network cannot be built, or would have more than ``MAX_PARAMETERS`` parameters.
    """
    entries = configuration.configuration
    primus = is_primus(entries["architecture"])
    outputs = basis_channels(entries, classes) if primus else classes
    with torch.device("meta"):
        network: Any = construct_network(entries, channels, outputs)
        if primus and entries.get(RANK_ENTRY) is not None:
            projection = torch.nn.ModuleList([torch.nn.Conv3d(outputs, classes, 1)])
            network.up_projection = LowRankDecoder(network.up_projection.decode, projection)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > MAX_PARAMETERS:
        raise ModelError(f"the network would have {parameters} parameters. At most {MAX_PARAMETERS} are built.")
    for key in (last := _last_layer(network)).unused:
        last.layers[key] = torch.nn.Identity()
    return network.requires_grad_(False).eval()


def fit_weights(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Select the tensors that inference needs and check that they fit the network.

    nnU-Net's decoder registers the encoder again, and its blocks register each layer twice, so a checkpoint has two to
    four names for one tensor. A tensor may be given under any of them. Heads of deep supervision are left out. The
    low-rank head of ClassScaleTrainer is merged into nnU-Net's last layer.

    :returns: float32 tensors, each by the first of its names.
    :raises ModelError: if a tensor is missing, not part of the network, of another shape, or not finite.
    """
    end = _last_layer(network)
    if has_low_rank_head(weights):
        weights = fold_low_rank_head(weights)
    elif isinstance(getattr(network, "up_projection", None), LowRankDecoder):
        weights = split_patch_head(weights)
    last = f"{end.path}.{end.key}."
    if f"{last}bias" in weights:  # whose size is the number of classes, on which other layers of a Primus depend
        _check_tensor(weights[f"{last}bias"], tuple(end.layer.bias.shape), f"{last}bias", last)
    unused = end.unused_names
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
        _check_tensor(weights[name], tuple(expected[name].shape), name, last)
        fitted[aliases[0]] = weights[name].detach().to(torch.float32).contiguous()
    return fitted


def _check_tensor(tensor: torch.Tensor, shape: tuple[int, ...], name: str, last: str) -> None:
    found = tuple(tensor.shape)
    if found != shape:
        if name.startswith(last) and found[1:] == shape[1:]:
            fault = f"they have {found[0]} classes, dataset.json has {shape[0]}"
        elif found[:1] + found[2:] == shape[:1] + shape[2:] and name.startswith(_FIRST):
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
    if name.endswith("running_var") and bool((tensor < 0).any()):
        raise ModelError(f"{name} has variances below 0: the file is damaged. Get it again.")


def adopt_weights(network: torch.nn.Module, fitted: dict[str, torch.Tensor]) -> None:
    """Set the tensors of a network to those from :func:`fit_weights`, without copying them."""
    network.load_state_dict(fitted, strict=False, assign=True)
    for module in network.modules():
        if getattr(module, "num_batches_tracked", None) is not None:
            module.num_batches_tracked = torch.zeros((), dtype=torch.int64)
    eva: Any = getattr(network, "eva", None)
    if eva is not None and eva.rope is not None:  # constants, which no checkpoint holds
        dimension = round(eva.embed_dim // eva.blocks[0].attn.num_heads / 1.5)  # as in its own ``__init__``
        shape = eva.rope.feat_shape
        eva.rope = type(eva.rope)(dimension, in_pixels=False, feat_shape=shape, ref_feat_shape=shape)


def split(networks: Sequence[torch.nn.Module], values: tuple[int, ...], regions: bool) -> tuple[Projection, bool]:
    """Remove the last, linear layer of each fold's network, if that makes the basis smaller.

    The mean over folds of the logits ``W_k f_k + b_k`` is linear in the concatenated bases of the folds, with the
    weight ``[W_1 ... W_K] / K``. This first form has K backbones with R channels and a projection ``(C, K R)``. If
    C < K R, the logits themselves are the smaller basis. In this second form the networks keep their last layers, the
    basis is the mean of their outputs with C channels, and the projection is the identity. Inference applies only
    linear operations to a basis (Gaussian average, mirroring, linear resampling), so both forms give the same label map
    up to the rounding of float32. A stock Primus has no projection, so it always takes the second form.

    :param networks: one for each fold, with weights; their last layers are removed in the first form.
    :returns: the projection; whether the networks' outputs are to be averaged (second form) or concatenated (first).
    """
    heads = [_last_layer(network).layer for network in networks]
    classes, rank = heads[0].weight.shape[:2]
    projects = not isinstance(heads[0], torch.nn.ConvTranspose3d)
    if not projects or classes < rank * len(networks):
        classes = classes if projects else heads[0].out_channels
        return Projection(torch.eye(classes), torch.zeros(classes), values, regions), True
    for network in networks:
        last = _last_layer(network)
        last.layers[last.key] = torch.nn.Identity()
    weight = torch.cat([head.weight.flatten(1) for head in heads], 1) / len(heads)
    bias = torch.stack([head.bias for head in heads]).mean(0)
    return Projection(weight, bias, values, regions), False


class _LastLayer(NamedTuple):
    """Where the layer that gives the logits is.

    :ivar layers: the container that holds it, in which it may be replaced.
    :ivar key: its index or name in the container.
    :ivar path: name of the container in the network.
    :ivar unused: keys of layers in the container that inference does not need.
    :ivar unused_names: beginnings of the names of tensors that inference does not need.
    """

    layers: Any
    key: Any
    path: str
    unused: tuple[int, ...] = ()
    unused_names: tuple[str, ...] = ()

    @property
    def layer(self) -> Any:
        """The layer itself."""
        return self.layers[self.key]


def _last_layer(network: Any) -> _LastLayer:
    """Return the last layer of a network of the list; deep supervision has one for each scale, of which one is used."""
    levels = getattr(network, "up_layers", None)
    if levels is not None:  # SegResNetDS
        path, *heads = (f"up_layers.{index}" for index in reversed(range(len(levels))))
        return _LastLayer(levels[-1], "head", path, unused_names=tuple(f"{level}.head." for level in heads))
    decoder = getattr(network, "up_projection", None)
    if isinstance(network, MeshNet):
        return _LastLayer(network.seg_layers, 0, "seg_layers")
    if isinstance(decoder, LowRankDecoder):
        return _LastLayer(decoder.seg_layers, 0, "up_projection.seg_layers")
    if decoder is not None:
        return _LastLayer(decoder.decode, len(decoder.decode) - 1, "up_projection.decode")
    layers, path = network.decoder.seg_layers, "decoder.seg_layers"
    unused = tuple(range(len(layers) - 1))
    names = tuple(f"{path}.{index}." for index in unused)
    return _LastLayer(layers, len(layers) - 1, path, unused, names)
