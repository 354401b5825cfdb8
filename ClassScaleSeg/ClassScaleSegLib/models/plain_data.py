"""Stand-ins for plain data beside the weights of a checkpoint, so that nothing named in the file is ever imported.

Trainers store more than tensors: their arguments, paths, dates, NumPy numbers and arrays of the training log. torch's
safe unpickler (``weights_only=True``) refuses most of these types. Here it gets, under each of their names, a stand-in
from this file. A stand-in keeps at most the bytes or arguments that it was given and runs none of the type's own code;
only NumPy numbers and arrays can be turned into values, because the axes for mirroring may be written so.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

NAMES = (  # of types that hold plain values; none of these is imported
    *(f"builtins.{name}" for name in "bool bytes dict float frozenset int list object range slice str tuple".split()),
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    "decimal.Decimal",
    "fractions.Fraction",
    *(f"uuid.{name}" for name in ("UUID", "SafeUUID")),
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")  # the second is Python 3.13
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    ),
    "torch.torch_version.TorchVersion",
    *(
        f"numpy.{name}"
        for name in "bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 longdouble "
        "float128 complex64 complex128 str_ bytes_".split()
    ),
)
MAX_VALUES = 64  # of an array that is read; only a few axes are ever needed
MAX_TEXT = 2048  # letters that stand for bytes; more are never needed, and a file could have them made many times


class StandIn:
    """An object of a plain type: its content is not used."""

    def __new__(cls, *arguments: Any, **more: Any) -> StandIn:
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **more: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class NumpyType(StandIn):
    """A ``numpy.dtype``, by its code such as ``i8``.

    :ivar code: with the byte order.
    """

    code = ""

    def __init__(self, code: Any = "", *more: Any) -> None:
        self.code = code if isinstance(code, str) and re.fullmatch(r"[biufcSUMmVO]\d{0,9}", code) else ""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">") and self.code[:1] in "iufc":
            self.code = state[1] + self.code


class NumpyArray(StandIn):
    """A ``numpy.ndarray``, whose numbers are read only on demand."""

    content: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.content = state if isinstance(state, tuple) and len(state) == 5 else ()

    def values(self) -> list[Any]:
        """Return the numbers of an array of one dimension; nothing if it is no short array of numbers."""
        if not self.content:
            return []
        _, shape, dtype, _, data = self.content
        fits = isinstance(shape, tuple) and len(shape) == 1 and type(shape[0]) is int and shape[0] <= MAX_VALUES
        return _decoded(dtype, data, shape[0]) if fits else []


@functools.cache
def stand_ins() -> list[Any]:
    """Return all stand-ins, each with the module and name of what it stands for, as torch looks them up."""
    plain = [_renamed(type("_Plain", (StandIn,), {}), name) for name in NAMES]
    functions: dict[str, Callable] = {
        "collections.defaultdict": lambda *_: {},  # torch fills only dict and list
        "collections.deque": lambda *_: [],
    }
    for package in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
        functions[f"{package}.multiarray.scalar"] = lambda dtype, data=None: _scalar(dtype, data)
        functions[f"{package}.multiarray._reconstruct"] = lambda *_: array()
    dtype = _renamed(type("_Dtype", (NumpyType,), {}), "numpy.dtype")
    array = _renamed(type("_Array", (NumpyArray,), {}), "numpy.ndarray")
    functions["_codecs.encode"] = _encoded
    return [dtype, array, *plain, *(_renamed(function, name) for name, function in functions.items())]


def _renamed(found: Any, name: str) -> Any:
    found.__module__, _, found.__qualname__ = name.rpartition(".")
    return found


def _encoded(text: Any, encoding: Any = None) -> Any:
    """Return bytes, which the second pickle protocol writes as text in Latin 1; other encodings could be endless."""
    if isinstance(text, str) and len(text) <= MAX_TEXT and encoding in ("latin1", "latin-1"):
        return text.encode("latin-1")
    return StandIn()


def _scalar(dtype: Any, data: Any) -> Any:
    values = _decoded(dtype, data, 1)
    return values[0] if values else StandIn()


def _decoded(dtype: Any, data: Any, count: int) -> list[Any]:
    """Return numbers as Python's; nothing if they are of another kind, or the bytes do not fit."""
    code = dtype.code if isinstance(dtype, NumpyType) else ""
    if not re.fullmatch(r"[<>]?[biufc]\d{1,2}", code) or not isinstance(data, bytes):
        return []
    try:
        kind = np.dtype(code)
    except TypeError:
        return []
    if len(data) != count * kind.itemsize:
        return []
    return np.frombuffer(data, kind).tolist()
