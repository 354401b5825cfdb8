"""One ``checkpoint_*.pth`` of nnU-Net -> weights, without running anything it holds.

A checkpoint is a pickle in a zip. It is read with ``weights_only=True`` and, because nnU-Net keeps its training log
beside the weights, a short list of NumPy scalar types. What looks like TorchScript, or is not plain stored bytes, is
refused before torch sees it: torch up to 2.5 would run the one (CVE-2025-32434) and unpack the other to any size.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch

from ..errors import ModelError
from .files import ZIP_FAULTS, first_line


@dataclass(frozen=True)
class Checkpoint:
    """:ivar weights: nnU-Net's names without the prefixes of ``torch.compile`` and data parallel training.

    :ivar configuration: the plans' configuration it was trained with, if it says so.
    :ivar mirror_axes: spatial axes that may be mirrored, as the trainer set them; unchecked.
    :ivar trainer: the trainer class; some build another network than the plans say.
    """

    weights: dict[str, torch.Tensor]
    configuration: str | None
    mirror_axes: tuple[Any, ...]
    trainer: str | None

    @property
    def origin(self) -> str:
        """Who trained it, to be put behind the file name in messages."""
        return f" (trained by {self.trainer})" if self.trainer else ""


def read_checkpoint(stream: BinaryIO, where: str) -> Checkpoint:
    """Read a checkpoint written by nnU-Net v2.

    :param stream: seekable.
    :param where: the file, for messages.
    :raises ModelError: if it is truncated, no checkpoint, or holds more than weights and plain values.
    """
    _check_container(stream, where)
    stream.seek(0)
    try:
        with _numpy_scalars_allowed():
            content = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(_explain(str(error), where)) from error
    except Exception as error:  # torch names no set of errors for damaged files
        raise ModelError(
            f"{where} cannot be read as a checkpoint ({first_line(error)}): get the file again."
        ) from error
    weights = content.get("network_weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in weights.items()
    ):
        raise ModelError(f"{where} has no 'network_weights': it is not a checkpoint of nnU-Net v2.")
    arguments = content.get("init_args")
    configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
    axes, trainer = content.get("inference_allowed_mirroring_axes"), content.get("trainer_name")
    return Checkpoint(
        {re.sub(r"^((_orig_mod|module)\.)+", "", key): value for key, value in weights.items()},
        configuration if isinstance(configuration, str) else None,
        tuple(axes) if isinstance(axes, list | tuple) else (),
        trainer if isinstance(trainer, str) else None,
    )


def _check_container(stream: BinaryIO, where: str) -> None:
    """``torch.save`` stores its members uncompressed, so together they are never larger than the file.

    torch does not compare the checksums, so that a flipped bit in a weight would pass unnoticed: they are compared here
    (about a second for a gigabyte).
    """
    length = stream.seek(0, 2)
    stream.seek(0)
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            if any(member.filename.endswith("/constants.pkl") for member in members):
                raise ModelError(f"{where} is a TorchScript program, not a checkpoint: it could run code: not opened.")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members) or length < sum(
                member.file_size for member in members
            ):
                raise ModelError(f"{where} cannot be read as a checkpoint: it declares more bytes than it has.")
            damaged = archive.testzip()
    except ZIP_FAULTS as error:
        raise ModelError(
            f"{where} cannot be read as a checkpoint ({length} bytes, {first_line(error)}): it is truncated or was not "
            "written by nnU-Net v2."
        ) from error
    if damaged is not None:
        raise ModelError(f"{where} cannot be read as a checkpoint: its bytes were altered (checksum). Get it again.")


def _numpy_scalars_allowed() -> contextlib.AbstractContextManager:
    """Allow the NumPy scalars of nnU-Net's training log (``_best_ema``) while a checkpoint is read.

    torch below 2.5 has no context manager for it: there the names stay allowed, which is harmless. Below 2.4 nothing
    can be allowed, so most checkpoints fail with a sentence that says what to do.
    """
    if hasattr(torch.serialization, "safe_globals"):
        return torch.serialization.safe_globals(_numpy_scalars())
    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals(_numpy_scalars())
    return contextlib.nullcontext()


@functools.cache
def _numpy_scalars() -> list[Any]:
    """What a pickled NumPy number names; files written with NumPy 1 and 2 call the same function differently."""
    module = np.core if int(np.__version__.split(".")[0]) < 2 else np._core
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_)]
    return [np.dtype, codecs.encode, *(_scalar(module, name) for name in ("numpy.core", "numpy._core")), *dtypes]


def _scalar(module: Any, package: str) -> Callable:
    def scalar(dtype: np.dtype, data: bytes) -> Any:
        return module.multiarray.scalar(dtype, data)

    scalar.__module__, scalar.__qualname__ = f"{package}.multiarray", "scalar"
    return scalar


def _explain(message: str, where: str) -> str:
    found = re.search(r"GLOBAL (\S+)", message) or re.search(r"[Uu]nsupported class (\S+)", message)
    name = found[1][:80] if found else ""
    if name.startswith("numpy.") and not hasattr(torch.serialization, "add_safe_globals"):
        return (
            f"{where} holds NumPy numbers, which torch {torch.__version__} cannot read safely: update torch to 2.4 or "
            "later, or use the model as a bundle (made by `classscaleseg pack` where a newer torch is installed)."
        )
    what = f"{name}, " if name else ""
    return f"{where} holds {what}more than weights and plain values: it could run code and is not opened."
