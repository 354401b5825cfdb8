"""Read the plain values of a ``torch.save`` file, and the shapes of its tensors, without torch and without its weights.

Such a file is a zip with a pickle, ``data.pkl``, beside the numbers of each tensor. The pickle is read by Python's own
unpickler, limited to the few operations that plain values and tensors need. Every name in it is looked up in one table
of stand-ins; nothing is imported. Weights are read elsewhere, by torch, see :mod:`.checkpoint`.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any, BinaryIO, NamedTuple

from ..errors import ModelError, reason
from .files import ZIP_FAULTS
from .plain_data import StandIn, stand_ins
from .zip_directory import check_directory

_OPERATIONS = (
    *("PROTO", "STOP", "MARK", "POP", "GLOBAL", "REDUCE", "BUILD", "NEWOBJ", "BINPERSID"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES"),
    *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT"),
)
MAX_PICKLE = 4 << 20  # bytes, of names, shapes and a configuration


class Outline(NamedTuple):
    """A tensor without its numbers."""

    shape: tuple[int, ...]


class _Dictionary(dict):
    """A dictionary, ordered or not; the attributes that torch gives that of a network's weights are left out."""

    def __setstate__(self, state: Any) -> None: ...


class _Refused(Exception):
    pass


def read_outline(stream: BinaryIO) -> Any:
    """Return what a file contains that ``torch.save`` has written, each tensor as its `Outline`, keys as text.

    :param stream: seekable, at its beginning.
    :raises ModelError: if it is truncated or damaged, or contains more than tensors and plain values.
    """
    check_directory(stream)
    try:
        with zipfile.ZipFile(stream) as archive:
            member = next((info for info in archive.infolist() if info.filename.endswith("/data.pkl")), None)
            if member is None or member.file_size > MAX_PICKLE or member.compress_type != zipfile.ZIP_STORED:
                raise ModelError("It cannot be read as a checkpoint: it was not written by torch.save.")
            content = archive.read(member)
    except ZIP_FAULTS as error:
        raise ModelError(
            f"It cannot be read as a checkpoint ({reason(error)}): it is truncated or was not written by torch.save."
        ) from error
    try:
        return _Reader(io.BytesIO(content)).load()
    except _Refused as error:
        raise ModelError(
            f"It contains more than weights and plain values ({error}). It could run code and was not opened."
        ) from None
    except Exception as error:  # Python does not document its exceptions for damaged pickles
        raise ModelError(f"It cannot be read as a checkpoint ({reason(error)}): get the file again.") from error


def _tensor(storage: Any, offset: Any, size: Any, *_more: Any) -> Outline:
    if not isinstance(size, tuple) or len(size) > 16 or not all(type(side) is int and side >= 0 for side in size):
        raise _Refused("a tensor without a shape")
    return Outline(size)


def _parameter(data: Any, *_more: Any) -> Any:
    return data


def _dictionary(*items: Any) -> _Dictionary:
    return _Dictionary()


def _names() -> dict[tuple[str, str], Any]:
    """Return what stands for each name that may occur."""
    found = {(known.__module__, known.__qualname__): known for known in stand_ins()}
    kinds = "Double Float Half BFloat16 Long Int Short Char Byte Bool".split()
    return {
        **found,
        ("builtins", "set"): StandIn,  # what is in it would be hashed
        ("collections", "OrderedDict"): _dictionary,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        **{("torch", f"{kind}Storage"): StandIn for kind in kinds},
        **{
            ("torch", name): StandIn
            for name in ("Size", "device", "float16", "bfloat16", "float32", "float64", "int64")
        },
    }


_NAMES = _names()


class _Reader(pickle._Unpickler):  # the one in Python, whose memory a number in the file cannot blow up
    dispatch = {  # noqa: RUF012
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _OPERATIONS
    }

    def find_class(self, module: str, name: str) -> Any:
        known = _NAMES.get(("builtins" if module == "__builtin__" else module, name))
        if known is None:
            raise _Refused(f"{module}.{name}"[:80])
        return known

    def persistent_load(self, pid: Any) -> StandIn:
        return StandIn()

    def load_build(self) -> None:
        state = self.stack.pop()  # type: ignore[attr-defined]
        found = self.stack[-1]  # type: ignore[attr-defined]
        if not isinstance(found, StandIn | _Dictionary):
            raise _Refused(f"the state of a {type(found).__name__}")
        found.__setstate__(state)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()  # type: ignore[attr-defined]
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())  # type: ignore[attr-defined]

    def _set(self, items: list[Any]) -> None:
        found = self.stack[-1]  # type: ignore[attr-defined]
        if not isinstance(found, dict):
            raise _Refused(f"the items of a {type(found).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):  # the hash of tuples may take for ever, or all of the stack
                raise _Refused(f"a {type(key).__name__} as a key")
            found[str(key)] = value

    dispatch[pickle.SETITEM[0]] = load_setitem  # type: ignore[assignment]
    dispatch[pickle.SETITEMS[0]] = load_setitems  # type: ignore[assignment]
    dispatch[pickle.BUILD[0]] = load_build  # type: ignore[assignment]
