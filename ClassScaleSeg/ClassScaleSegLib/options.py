"""The choices of a segmentation, for Python, the command, the child process and the panel alike."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from .errors import ClassScaleError

WHOLE_IMAGE = "none"  # of locate_with: nothing is located, also if the catalogue says with what a model is

_NUMBERS: dict[type, Any] = {float: Real, int: Integral}  # NumPy's numbers are among them


def _option(default: Any, kind: type, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"kind": kind, "help": text, **more})


@dataclass(frozen=True)
class Options:
    """How to segment an image.

    All fields but ``confidence`` are options of ``classscaleseg segment``, and their texts below are its help. ``None``
    stands for an option that is not given. A single class or fold, or any iterable of them, becomes a tuple.

    :raises ClassScaleError: if a value is of the wrong type or out of range, if a list such as ``classes`` or ``folds``
        is empty, which would mean none and not all, or if ``clean_classes`` has nothing to limit or ``locate_classes``
        nothing to locate with.

    >>> Options(step=0.75, classes="liver").classes
    ('liver',)
    >>> Options(step=1.5)
    Traceback (most recent call last):
        ...
    ClassScaleSegLib.errors.ClassScaleError: The step is 1.5; it must be a number above 0 and at most 1.
    """

    device: str = _option("auto", str, "cpu, cuda, cuda:1, mps or auto, which is CUDA, else MPS, else the CPU")
    step: float | None = _option(
        None,
        float,
        "distance between windows as a fraction of the patch (default: that of the model's program; of nnU-Net, 0.5)",
        most=1,
    )
    mirroring: bool = _option(True, bool, "average over mirrored patches (which is slower and slightly more accurate)")
    classes: Iterable[str | int] | None = _option(
        None, tuple, "names or label values of the classes to keep; all others become background", metavar="NAME"
    )
    confidence: bool = _option(False, bool, "also compute the probability of each voxel's class")
    memory_limit_gib: float | None = _option(
        None, float, "GiB of GPU memory, or of RAM on a CPU, that may be used (default: what is free)", metavar="GIB"
    )
    threads: int | None = _option(
        None,
        int,
        "number of CPU threads (default: OMP_NUM_THREADS, or all cores but one; of two cores, both)",
        metavar="N",
    )
    folds: tuple[str | int, ...] | None = _option(
        None, tuple, "folds to average, such as 0 1 2 (default: all)", metavar="FOLD"
    )
    checkpoint: str = _option("final", str, "checkpoint of each fold", choices=("final", "best"))
    configuration: str | None = _option(
        None, str, "choose among several models in MODEL, such as 3d_fullres", metavar="NAME"
    )
    keep_empty: bool = _option(False, bool, "also list classes that were not found")
    dicom_seg: str = _option(
        "labelmap",
        str,
        "kind of DICOM segmentation: one label map, or binary for readers that do not know label maps yet",
        choices=("labelmap", "binary"),
    )
    smooth: float | None = _option(
        None,
        float,
        "smooth the borders of all classes together, by a Gaussian with this standard deviation in mm (default: off)",
        metavar="MM",
        most=20,
    )
    remove_islands: float | None = _option(
        None,
        float,
        "make islands of a class that are smaller than this, in mm^3, background; after smoothing (default: off)",
        metavar="MM3",
    )
    clean_classes: Iterable[str | int] | None = _option(
        None,
        tuple,
        "names or label values of the classes that --smooth and --remove-islands may change (default: all)",
        metavar="NAME",
    )

    locate_with: str | None = _option(
        None,
        str,
        "a coarse model, which finds quickly where the classes are; MODEL then sees that box alone (default: as the "
        "catalogue says of MODEL; none: the whole image)",
        metavar="MODEL",
    )
    locate_classes: Iterable[str | int] | None = _option(
        None,
        tuple,
        "classes of the coarse model that tell where to look (default: those of the same names as the wanted ones)",
        metavar="NAME",
    )
    locate_margin: float = _option(
        20.0, float, "margin around what the coarse model has found, in mm", metavar="MM", most=1000, zero=True
    )
    interpolation: str = _option(
        "linear",
        str,
        "from the voxels of the model to those of the image: between all classes, or copy the nearest label, as "
        "Auto3DSeg does",
        choices=("linear", "nearest"),
    )
    overlap: str = _option(
        "later",
        str,
        "which of several models gets a voxel that they claim: the one named later, or keep all, in layers",
        choices=("later", "keep"),
    )
    bfloat16: bool = _option(
        False,
        bool,
        "on a CPU, compute the network in bfloat16: about twice as fast on processors with AMX, slightly less exact",
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            value = option.default if value is None else value
            if value is not None:
                object.__setattr__(self, option.name, checked(option.name, value))
        if self.overlap == "keep" and self.confidence:
            raise ClassScaleError(
                "The confidence is that of one class in each voxel, so it cannot be computed where overlaps are kept. "
                "Leave out the confidence or overlap (--overlap)."
            )
        if self.clean_classes is not None and not self.cleans:
            raise ClassScaleError(
                "clean_classes (--clean-classes) needs smooth (--smooth) or remove_islands (--remove-islands)."
            )
        if self.locate_with in (None, WHOLE_IMAGE) and (self.locate_classes, self.locate_margin) != (
            None,
            Options.locate_margin,
        ):
            raise ClassScaleError(
                "locate_classes and locate_margin (--locate-classes, --locate-margin) need a model that locates: "
                "locate_with (--locate-with)."
            )

    @property
    def cleans(self) -> bool:
        """Whether the result is smoothed, or islands are removed from it."""
        return self.smooth is not None or self.remove_islands is not None

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the choices that differ from the defaults."""
        return tuple(name for name, option in FIELDS.items() if getattr(self, name) != option.default)

    def __str__(self) -> str:
        """The choices that differ from the defaults, in one line; of a long list of classes only the first ones."""
        return ", ".join(f"{name}={reprlib.repr(getattr(self, name))}" for name in self.changed)


FIELDS = {option.name: option for option in fields(Options)}  # with defaults and, in the metadata, type and text


def flag(name: str) -> str:
    """Return the option of the command that sets a field to something else than its default.

    >>> flag("memory_limit_gib"), flag("mirroring")
    ('--memory-limit', '--no-mirroring')
    """
    return f"--{'no-' * (FIELDS[name].default is True)}{name.removesuffix('_gib').replace('_', '-')}"


def refuse_unknown(names: Iterable[str], known: Iterable[str]) -> None:
    """Raise a `ClassScaleError` that lists the known names if there is a name that is not known."""
    if unknown := sorted(set(names) - set(known)):
        listed = ", ".join(sorted(known))
        raise ClassScaleError(f"There is no option {', '.join(unknown)}. The options are {listed}.")


def checked(name: str, value: Any) -> Any:
    """Return a value of an option as a plain `str`, `bool`, `float`, `int` or `tuple`.

    :raises ClassScaleError: if it is of the wrong type or out of range.
    """
    option = FIELDS[name]
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    value = value.item() if getattr(value, "shape", None) == () else value  # a number of NumPy
    zero = option.metadata.get("zero", False)
    kind, most, choices = option.metadata["kind"], option.metadata.get("most", 1e9), option.metadata.get("choices")
    if kind is tuple:
        return _items(option.name, value)
    if kind in (str, bool):
        right, must = isinstance(value, kind), "text" if kind is str else "true or false"
    else:
        right = isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool) and 0 <= value <= most
        right = right and (zero or value > 0)
        must = f"a {'whole ' if kind is int else ''}number {'from' if zero else 'above'} 0 and at most {most:g}"
    if choices is not None:
        right, must = value in choices, " or ".join(choices)
    if not right:
        raise ClassScaleError(f"The {option.name} is {value!r}; it must be {must}.")
    return kind(value)


def _items(name: str, value: Any) -> tuple[str | int, ...]:
    if isinstance(value, (bytes, Mapping)):
        raise ClassScaleError(f"{name} is {value!r}; it must be a list of texts and whole numbers.")
    items = (value,) if isinstance(value, (str, Integral)) or not isinstance(value, Iterable) else tuple(value)
    if not items:
        raise ClassScaleError(f"{name} is empty; leave it out for all {name}.")
    for item in items:
        if not isinstance(item, (str, Integral)) or isinstance(item, bool):
            raise ClassScaleError(f"{name} has the entry {item!r}; it must be text or a whole number.")
    return tuple(item if isinstance(item, str) else int(item) for item in items)
