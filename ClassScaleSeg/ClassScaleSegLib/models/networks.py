"""Every network that the engine and ClassScaleTrainer take, in one list.

A network belongs here if its last layer is linear and its place is known. If that layer is a convolution with a kernel
of 1, it is a projection, and what it is applied to is the basis. The networks of MONAI are there for inference alone.
Primus ends in a transposed convolution whose kernel
is as large as its stride. It has another matrix at each place of a block of 2 x 2 x 2 voxels, so no single projection
stands for it: stock checkpoints of Primus keep their last layer, and ClassScaleTrainer adds a projection to theirs.

Class names in plans are compared with this list, and never imported from a file. Some trainers of nnU-Net build another
network than the plans say; they are listed too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import ModelError
from .json_checks import short

PACKAGE = "dynamic_network_architectures"
MONAI = "monai"
OWN = "ClassScaleSegLib"
DEFAULT_RANK = 32  # channels of the finest scale of nnU-Net's U-Nets, and of ClassScaleTrainer's basis
# Entry of a configuration in plans.json, which nnU-Net ignores: the channels of the basis. U-Nets do without it if the
# rank is the default. A Primus with it ends in a basis and a projection, a Primus without it as nnU-Net's does.
RANK_ENTRY = "classscale_rank"

_UNET = (
    *("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage_decoder", "conv_bias"),
    *("norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs", "nonlin", "nonlin_kwargs", "deep_supervision"),
)
_RESIDUAL = (*_UNET, "n_blocks_per_stage", "block", "bottleneck_channels", "stem_channels")
_SEGRESNET = (
    *("init_filters", "act", "norm", "blocks_down", "blocks_up", "dsdepth", "upsample_mode", "resolution"),
    *("spatial_dims", "preprocess"),
)
_MESHNET = ("features", "dilations", "activation")
_PRIMUS = (
    *("embed_dim", "patch_embed_size", "eva_depth", "eva_numheads", "input_shape", "num_register_tokens"),
    *("use_rot_pos_emb", "use_abs_pos_embed", "mlp_ratio", "drop_path_rate", "patch_drop_rate", "proj_drop_rate"),
    *("attn_drop_rate", "init_values", "scale_attn_inner"),
)
# Of a Primus whose size is in its name: its class has no more arguments.
_SIZED = ("patch_embed_size", "input_shape", "drop_path_rate", "patch_drop_rate", "init_values", "scale_attn_inner")
_SIZES = {"S": (396, 12, 6), "B": (792, 12, 12), "M": (864, 16, 12), "L": (1056, 24, 16)}  # width, depth, heads


class Network(NamedTuple):
    """A network that engine and trainer take.

    :ivar module: of the package, which defines it.
    :ivar arguments: what ``arch_kwargs`` in plans may give it.
    :ivar last: where its last layers are, the last of which gives the logits.
    :ivar residual: its encoder has residual blocks.
    :ivar package: that it is imported from.
    :ivar features: the argument with the channels of its last feature map; the first number, if there are several.
    :ivar packages: requirements that it has beyond those of nnU-Net's U-Nets.
    """

    module: str
    arguments: tuple[str, ...]
    last: str = "decoder.seg_layers"
    residual: bool = False
    package: str = PACKAGE
    features: str = "features_per_stage"
    packages: tuple[str, ...] = ()

    @property
    def unet(self) -> bool:
        """Whether it is a U-Net of nnU-Net."""
        return self.last == "decoder.seg_layers"

    @property
    def projects(self) -> bool:
        """Whether its last layer is a projection of a basis: a convolution with a kernel of 1."""
        return self.last != "up_projection.decode"


_TIMM = ("timm", "einops")
NETWORKS: dict[str, Network] = {
    "PlainConvUNet": Network("architectures.unet", (*_UNET, "n_conv_per_stage", "nonlin_first")),
    "ResidualEncoderUNet": Network("architectures.unet", _RESIDUAL, residual=True),
    "ResidualUNet": Network("architectures.unet", _RESIDUAL, residual=True),
    "Primus": Network("architectures.primus", _PRIMUS, "up_projection.decode", packages=_TIMM),
    "PrimusV2": Network("architectures.primus", _PRIMUS, "up_projection.decode", packages=_TIMM),
    "PrimusV3": Network(
        "architectures.primus",
        (*_PRIMUS, "depth_per_level", "ch_per_level", "add_skips", "nonlin"),
        "up_projection.decode",
        packages=_TIMM,
    ),
    "SegResNetDS": Network(
        "networks.nets.segresnet_ds",
        _SEGRESNET,
        "up_layers",
        residual=True,
        package=MONAI,
        features="init_filters",
        packages=("monai>=1.3",),
    ),
    "MeshNet": Network("models.meshnet_network", _MESHNET, "seg_layers", package=OWN, features="features"),
}
# PrimusM and the like: the class without the size, and the size
SIZED = {f"{name}{size}": (name, size) for name in ("Primus", "PrimusV2", "PrimusV3") for size in _SIZES}
# nnU-Net's trainers that build a Primus, whatever network the plans name
PRIMUS_TRAINERS = {
    **{f"nnUNet_Primus_{size}_Trainer": f"Primus{size}" for size in _SIZES},
    **{f"nnUNet_{name}_Trainer": name for name in SIZED if "V" in name},
    "nnUNet_Primus_M_Trainer_BS8": "PrimusM",
    "nnUNet_Primus_M_Trainer_BS8_2e4": "PrimusM",
    "_Primus_S_96_BS1": "PrimusS",
    "_Primus_B_96_BS1": "PrimusB",
    "_Primus_M_96_BS1": "PrimusM",
    "_Primus_L_48_BS1": "PrimusL",
}
BATCH_NORM_TRAINER = "nnUNetTrainerBN"  # replaces the normalisation of the plans


def is_primus(architecture: dict) -> bool:
    """Tell whether a checked architecture is that of a Primus."""
    return not find_network(architecture)[1].projects


def find_network(architecture: dict) -> tuple[str, Network]:
    """Return the name and the entry of the network that an architecture in plans names.

    :raises ModelError: if it is not on the list; the message says what would have to be true.
    """
    path = architecture.get("network_class_name")
    name = path.rpartition(".")[2] if isinstance(path, str) else ""
    if name in SIZED:
        name = SIZED[name][0]
    if name not in NETWORKS or last_name(path, NETWORKS[name].package) is None:
        listed = ", ".join(known for known, network in NETWORKS.items() if network.package == PACKAGE)
        raise ModelError(
            f"architecture {short(path)} is not supported. Use {listed} of {PACKAGE}, SegResNetDS of {MONAI}, or the "
            "MeshNet of Brainchop. Another network would have to end in a convolution with a kernel of 1, or in a "
            "transposed one whose kernel is its stride, and be added to ClassScaleSegLib/models/networks.py."
        )
    return name, NETWORKS[name]


def sized_primus(name: str, **more: Any) -> dict:
    """Return the architecture of a Primus with one of the published sizes, as its class without the size.

    :param name: such as ``PrimusM``.
    :param more: further arguments.

    >>> sized_primus("PrimusV2S")["network_class_name"]
    'dynamic_network_architectures.architectures.primus.PrimusV2'
    """
    base, size = SIZED[name]
    width, depth, heads = _SIZES[size]
    arguments = {"embed_dim": width, "eva_depth": depth, "eva_numheads": heads}
    usual = {"patch_embed_size": [8, 8, 8], "init_values": 0.1, "scale_attn_inner": True}
    return {
        "network_class_name": f"{PACKAGE}.{NETWORKS[base].module}.{base}",
        "arch_kwargs": {**usual, **more, **arguments},
        "_kw_requires_import": [],
    }


def without_size(architecture: dict) -> dict:
    """Return an architecture in which a class such as ``PrimusM`` is replaced by ``Primus`` with its arguments.

    :raises ModelError: if it has an argument that this class does not have.
    """
    name = last_name(architecture.get("network_class_name"), PACKAGE)
    if name not in SIZED:
        return architecture
    given = architecture["arch_kwargs"]
    check_arguments(name, given, _SIZED)
    kept = {key: value for key, value in given.items() if value is not None or key == "init_values"}
    return sized_primus(name, **kept)


def check_arguments(name: str, given: dict, known: tuple[str, ...]) -> None:
    """Refuse arguments that a network does not have, unless they are ``null``.

    :raises ModelError: naming the first one.
    """
    for key, value in given.items():
        if key not in known and value is not None:
            raise ModelError(
                f"the architecture cannot be built: {name} may not be given {short(key)} in plans, only "
                f"{', '.join(known)}."
            )


def trained_architecture(trainer: str | None, architecture: dict, dimension: int) -> dict:
    """Return the architecture of the network that a trainer of nnU-Net builds: in most cases that of the plans.

    :param trainer: name of its class; ``None`` if unknown.
    :param architecture: that of the plans.
    :param dimension: of the images, 2 or 3.
    :returns: ``architecture`` itself, if the trainer does not change it.

    >>> trained_architecture("nnUNet_Primus_S_Trainer", {}, 3)["arch_kwargs"]["embed_dim"]
    396
    """
    if trainer in PRIMUS_TRAINERS:
        return sized_primus(PRIMUS_TRAINERS[trainer], drop_path_rate=0.2)
    if trainer != BATCH_NORM_TRAINER or not isinstance(architecture.get("arch_kwargs"), dict):
        return architecture
    changed = {"norm_op": f"torch.nn.BatchNorm{dimension}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True}}
    return {**architecture, "arch_kwargs": {**architecture["arch_kwargs"], **changed}}


def stock_trainer(architecture: dict) -> str:
    """Return the trainer of nnU-Net that builds a network with this checked architecture.

    :raises ModelError: if none does.
    """
    if not is_primus(architecture):
        return "nnUNetTrainer"
    name, _ = find_network(architecture)
    given = architecture["arch_kwargs"]
    for trainer, sized in PRIMUS_TRAINERS.items():
        wanted = sized_primus(sized)["arch_kwargs"]
        if SIZED[sized][0] == name and all(given.get(key) == value for key, value in wanted.items()):
            return trainer
    raise ModelError(
        f"no trainer of nnU-Net builds this {name}: nnU-Net takes the size of a Primus from its trainers, and not from "
        "the plans. Export a bundle instead."
    )


def last_name(path: Any, package: str) -> str | None:
    """Return the last name of a dotted path inside ``package``; ``None`` for any other value."""
    return path.rpartition(".")[2] if isinstance(path, str) and path.startswith(f"{package}.") else None
