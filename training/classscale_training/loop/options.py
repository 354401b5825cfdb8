"""Options of the bare training loop, and the command line made from them."""

from __future__ import annotations

import argparse
import math
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from ClassScaleSegLib.errors import ClassScaleError

from ..data.brain import BrainOptions
from ..data.toy.options import MODES, ToyOptions
from ..network.plain_unet import architecture
from .presets import PRESETS

TOY, BRAIN = "toy", "brain:"
_LATER = ("atlas_share", "mirrored", "deformation")  # of heads; older runs have their default values
_HEAD = "head:"  # the former name of BRAIN, accepted in options of older runs


def _option(default: Any, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True)
class _Run:
    """Output and computing"""

    folder: Path = field(metadata={"help": "model folder to write; a run that is already there is continued"})
    device: str = _option("auto", "auto (CUDA if there is a GPU, else the CPU), cpu, cuda, cuda:1, mps")
    workers: int = _option(
        0, "processes that make the volumes, at most one per CPU core; 0: a thread makes them on the device", least=0
    )
    prefetch: int = _option(
        0,
        "batches made ahead of time while the network trains, by the thread or by each process (there at least 1)",
        least=0,
    )
    minutes: float | None = _option(
        None, "write a checkpoint and stop after this many minutes; run the same command to continue", least=0
    )
    checkpoint_minutes: float = _option(5.0, "minutes between checkpoints; 0: after every step", least=0)
    small_checkpoints: bool = _option(
        False, "store the moments of the optimizer in 8 bits: half the size, and a continued run is no longer exact"
    )
    log_every: int = _option(100, "number of steps between lines of log.jsonl", least=1)
    evaluate_every: int = _option(
        500, "number of steps between evaluations on unseen cases; a multiple of --log-every", least=1
    )
    evaluation_cases: int = _option(4, "number of unseen cases in each evaluation", least=1)
    tensorboard: bool = _option(False, "also log to TensorBoard, in the subfolder tensorboard")


@dataclass(frozen=True)
class _Data:
    """Data"""

    data: str = _option(TOY, "toy, or brain:FILE, where FILE holds the label maps written by prepare_brain_data.py")
    classes: int = _option(120, "number of foreground classes of the toy data")
    mode: str = _option(
        "atlas", "kind of toy data: atlas (the cells of one anatomy) or objects (scattered objects)", choices=MODES
    )
    size: int = _option(64, "voxels along each side of a toy volume, which is also the patch")
    patch: tuple[int, ...] = _option((64, 96, 80), "voxels of a patch of a head along z, y and x")
    spacing: float = _option(2.0, "distance between the voxels of a head, in mm", above=0)
    warm_up: int = _option(
        0, "number of volumes over which heads get harder: from one contrast, subject and place to all of them", least=0
    )
    atlas_share: float = _option(
        0.7, "share of the heads that show the atlas subject; the others show individuals", least=0, most=1
    )
    mirrored: float = _option(
        0.0, "share of the heads that are mirrored, with left and right exchanged", least=0, most=1
    )
    deformation: float = _option(
        3.0, "largest standard deviation of the displacement of a head's parts, in mm", least=0
    )
    changed_data: bool = _option(False, "continue a run although its label maps have changed since")
    seed: int = _option(0, "seed of the data and the initial weights; evaluation uses the cases of seed + 1")


@dataclass(frozen=True)
class _Network:
    """Network"""

    features: tuple[int, ...] = _option(
        (16, 24, 32, 48, 48), "channels of each stage, finest first; the first number is the rank of the basis", least=1
    )
    convolutions: tuple[int, ...] = _option(
        (1, 1, 2, 2, 2), "convolutions of each stage of the encoder, finest first", least=1
    )
    decoder_convolutions: tuple[int, ...] = _option(
        (1, 1, 1, 1),
        "convolutions of each stage of the decoder, coarsest first; one number less than for the encoder",
        least=1,
    )
    weights: str = _option("", "bundle or checkpoint_*.pth from which a new run takes its first weights")


@dataclass(frozen=True)
class _Learning:
    """Optimisation and loss"""

    steps: int = _option(4000, "number of steps of the whole training", least=1)
    batch: int = _option(1, "volumes per step", least=1)
    optimizer: str = _option("adamw", "adamw, or nnU-Net's SGD with Nesterov momentum 0.99", choices=("adamw", "sgd"))
    learning_rate: float = _option(
        3e-3, "learning rate of the first step; it falls as (1 - step / steps)^0.9. nnU-Net: 0.01 with sgd", above=0
    )
    weight_decay: float = _option(1e-4, "weight decay of the optimizer. nnU-Net: 3e-5 with sgd", least=0)
    half_precision: bool = _option(
        False, "compute with autocast: float16 with gradient scaling on CUDA, bfloat16 on a CPU"
    )
    present_only: bool = _option(
        False, "compute the Dice only over the classes that are in the patch; nnU-Net uses all classes"
    )
    balance: float = _option(
        0.0, "heads only: a voxel has the weight (share of its class)^(-balance) in the cross entropy", least=0
    )
    loss_stride: int = _option(
        1, "compute the loss at the finest scale on every n-th voxel, on other voxels in each step: faster", least=1
    )
    deep_supervision: bool = _option(
        False, "compute a loss at every scale, each with half the weight of the next finer one"
    )
    finest_every: int = _option(
        1, "with deep supervision, compute the finest scale only in every n-th step: faster", least=1
    )


@dataclass(frozen=True)
class LoopOptions(_Learning, _Network, _Data, _Run):
    """What to train, on which data, and for how long.

    Each field is an option of ``python -m classscale_training.loop``, whose ``--help`` explains it.
    :data:`PRESETS` holds the options of the embedded models and of other trainings:

    >>> options = LoopOptions(Path("runs/demo"), **PRESETS["toy-1000"])
    >>> options.classes, options.size, options.steps
    (1000, 128, 6000)
    >>> LoopOptions(Path("runs/demo"), batch=0)
    Traceback (most recent call last):
        ...
    ClassScaleSegLib.errors.ClassScaleError: --batch 0 must be 1 or more.

    :raises ClassScaleError: for values that are out of range or contradict each other.
    """

    def __post_init__(self) -> None:
        if self.data.startswith(_HEAD):
            object.__setattr__(self, "data", BRAIN + self.data.removeprefix(_HEAD))
        if self.data != TOY and not self.data.startswith(BRAIN):
            raise ClassScaleError(f"--data {self.data} is unknown: give {TOY} or {BRAIN}FILE.")
        for option in fields(self):
            _check_range(option, getattr(self, option.name))
        _ = self.toy  # checks its options
        if self.data != TOY and len(self.patch) != 3:
            raise ClassScaleError(f"--patch {self.patch} has {len(self.patch)} numbers; expected three (z y x).")
        try:
            self.arch_kwargs()
        except ValueError as error:
            raise ClassScaleError(f"The network cannot be built: {error}") from error
        stages, coarsest = len(self.features), 2 ** (len(self.features) - 1)
        for size in (self.size,) if self.data == TOY else self.patch:
            if size % coarsest or size // coarsest < 2:
                raise ClassScaleError(
                    f"Size {size} does not fit a network of {stages} stages: it must be a multiple of {coarsest}, and "
                    f"at least {2 * coarsest}."
                )
        if self.finest_every > 1 and (not self.deep_supervision or stages < 3):
            raise ClassScaleError(
                "--finest-every needs --deep-supervision and three stages: otherwise there is no other scale."
            )
        if self.evaluate_every % self.log_every:
            raise ClassScaleError(
                f"--evaluate-every {self.evaluate_every} is not a multiple of --log-every {self.log_every}."
            )

    @property
    def toy(self) -> ToyOptions:
        """The options of the toy data, used if ``data`` is :data:`TOY`."""
        return ToyOptions(self.classes, self.mode, self.size, self.seed)

    @property
    def brain(self) -> BrainOptions:
        """The options of the heads, used if ``data`` starts with :data:`BRAIN`."""
        z, y, x = self.patch
        more = {name: getattr(self, name) for name in _LATER}
        return BrainOptions((z, y, x), self.spacing, self.seed, warm_up=self.warm_up, **more)

    def arch_kwargs(self) -> dict[str, Any]:
        """Return the arguments of the network.

        :raises ValueError: as :func:`~classscale_training.network.plain_unet.architecture`.
        """
        return architecture(self.features, self.convolutions, self.decoder_convolutions)

    def fixed(self) -> dict[str, Any]:
        """Return the options that must not change when a run is continued, by name, as plain values."""
        heads = ("patch", "spacing", "present_only", "warm_up", *_LATER)
        data = ("classes", "mode", "size") if self.data == TOY else heads
        network = ("features", "convolutions", "decoder_convolutions", "batch", "optimizer", "half_precision")
        begin = ("weights",) if self.weights else ()
        values = {name: getattr(self, name) for name in (*data, "seed", *network, *begin)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def changeable(self) -> dict[str, Any]:
        """Return the options that decide the steps too, but may change when a run is continued, by name."""
        only_toy = ("present_only",) if self.data == TOY else ()  # of heads, it is fixed
        learning = ("steps", "learning_rate", "weight_decay", "balance")
        loss = ("loss_stride", "deep_supervision", "finest_every")
        return {name: getattr(self, name) for name in (*learning, *loss, *only_toy)}


def _check_range(option: Field, value: Any) -> None:
    """Check that the numbers of an option are not outside of what its metadata allow.

    :raises ClassScaleError: naming the option.
    """
    least, most, above = (option.metadata.get(name) for name in ("least", "most", "above"))
    for number in value if isinstance(value, tuple) else (value,):
        words = [f"{least} or more"] if least is not None else []
        words += [f"{most} or less"] if most is not None else []
        words += [f"above {above}"] if above is not None else []
        if not words or number is None:
            continue
        low = least is not None and not number >= least or above is not None and not number > above
        if low or most is not None and not number <= most or number == math.inf:
            raise ClassScaleError(f"--{option.name.replace('_', '-')} {number} must be {' and '.join(words)}.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--preset`` and an option for each field of :class:`LoopOptions`.

    Options not given are absent from the parsed arguments, so that :func:`options_from` can tell them from given ones.
    """
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="toy-120",
        help="set of values for the options that are not given (default: toy-120)",
    )
    for group in (_Run, _Data, _Network, _Learning):
        section = parser.add_argument_group(group.__doc__)
        for option in fields(group):
            name, default, about = "--" + option.name.replace("_", "-"), option.default, option.metadata
            more: dict[str, Any] = {"help": about["help"], "default": argparse.SUPPRESS, "dest": option.name}
            if default is MISSING:
                more |= {"type": Path, "required": True}
            elif isinstance(default, bool):
                more["action"] = argparse.BooleanOptionalAction
            elif isinstance(default, tuple):
                more |= {"type": int, "nargs": "+"}
            else:
                more |= {"type": float if default is None else type(default), "choices": about.get("choices")}
            section.add_argument(name, **more)


def options_from(arguments: argparse.Namespace) -> LoopOptions:
    """Return the options that a parser with :func:`add_arguments` parsed, completed by those of the preset.

    :raises ClassScaleError: as :class:`LoopOptions`.
    """
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(arguments).items()}
    del given["preset"]
    return LoopOptions(**{**PRESETS[arguments.preset], **given})
