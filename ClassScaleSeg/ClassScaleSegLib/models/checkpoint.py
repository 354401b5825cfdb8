"""Read the weights from a ``checkpoint_*.pth`` of nnU-Net without running code in it.

A checkpoint is a pickle in a zip, or, from torch before 1.6, a pickle alone. It is read with ``weights_only=True``.
Types of plain data, which nnU-Net and other trainers store with the weights, are replaced by :mod:`.plain_data`. Some
kinds of file are refused before torch sees them: TorchScript and tar files, which torch up to 2.5 would open in other
ways (CVE-2025-32434), compressed members, which torch would unpack to any size, and pickles that never end.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch

from ..errors import ModelError, reason
from .files import ZIP_FAULTS
from .pickle_size import MAX_PICKLE, check_pickles
from .plain_data import NumpyArray, stand_ins
from .zip_directory import check_directory

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch began its files before 1.6: a pickled number
ENTRIES = ("network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint that inference needs.

    :ivar weights: tensors by nnU-Net's names, without the prefixes of ``torch.compile`` and data parallel training.
    :ivar configuration: configuration in the plans that it was trained with; ``None`` if the file does not name it.
    :ivar mirror_axes: spatial axes that may be mirrored, as the trainer set them; unchecked.
    :ivar trainer: name of the trainer class, ``None`` if unknown. Some trainers build another network than the plans
        describe.
    :ivar arguments: what the trainer was made with: plans, configuration, ``dataset_json`` and more; unchecked.
    """

    weights: dict[str, torch.Tensor]
    configuration: str | None
    mirror_axes: tuple[Any, ...]
    trainer: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """The trainer, as messages append it to the file name; empty if unknown."""
        return f" (trained by {self.trainer})" if self.trainer else ""


def check_container(stream: BinaryIO) -> None:
    """Check that ``torch.load`` may open a file, and leave the stream at its beginning.

    :raises ModelError: if it is truncated or damaged, or of a kind that torch would open in other ways.
    """
    if stream.read(len(LEGACY)) == LEGACY:
        _check_no_tar(stream)
        stream.seek(0)
        check_pickles(stream.read(MAX_PICKLE), 5)  # a number, a version, facts of the system, the content, its keys
    else:
        _check_container(stream)
    stream.seek(0)


def read_checkpoint(stream: BinaryIO) -> Checkpoint:
    """Read a checkpoint written by nnU-Net v2 from a seekable stream.

    :raises ModelError: if it is truncated, not a checkpoint, or contains more than weights and plain values.
    """
    content = read_content(stream, ENTRIES)
    weights = tensors(content, "network_weights", "nnU-Net v2")
    arguments = content.get("init_args")
    configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
    axes, trainer = content.get("inference_allowed_mirroring_axes"), content.get("trainer_name")
    return Checkpoint(
        weights,
        configuration if isinstance(configuration, str) else None,
        tuple(axes.values() if isinstance(axes, NumpyArray) else axes) if isinstance(axes, _SEQUENCES) else (),
        trainer if isinstance(trainer, str) and trainer else None,
        arguments if isinstance(arguments, dict) else {},
    )


_SEQUENCES = (list, tuple, NumpyArray)


def read_content(stream: BinaryIO, entries: Sequence[str]) -> Any:
    """Return what a file contains that ``torch.save`` has written, with stand-ins for types of plain data.

    :param stream: seekable.
    :param entries: those that are needed, for messages.
    :raises ModelError: if it is truncated or damaged, or contains more than tensors and plain values.
    """
    check_container(stream)
    try:
        with _plain_data_allowed(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the pickle protocol, which is an error below
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(_explain(str(error), entries)) from error
    except Exception as error:  # torch does not document its exceptions for damaged files
        raise ModelError(f"It cannot be read as a checkpoint ({reason(error)}): get the file again.") from error


def tensors(content: Any, entry: str, program: str) -> dict[str, torch.Tensor]:
    """Return the weights in a checkpoint, without the prefixes of ``torch.compile`` and data parallel training.

    :param content: as `read_content` returns it.
    :param entry: that has the weights.
    :param program: that writes such checkpoints, for messages.
    :raises ModelError: if the content has no such entry with tensors by their names.
    """
    weights = content.get(entry) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in weights.items()
    ):
        raise ModelError(f"It has no '{entry}': it is not a checkpoint of {program}.")
    return {re.sub(r"^((_orig_mod|module)\.)+", "", key): value for key, value in weights.items()}


def _check_no_tar(stream: BinaryIO) -> None:
    """Refuse the tar files of torch before 0.1.10, which torch tries first where it expects a pickle."""
    stream.seek(0)
    if tarfile.is_tarfile(stream):
        raise ModelError("It is a tar file, not a checkpoint of nnU-Net v2. It was not opened.")


def _check_container(stream: BinaryIO) -> None:
    """Check the zip of a checkpoint before torch reads it.

    ``torch.save`` stores its members uncompressed, so their total size never exceeds the size of the file. torch does
    not compare checksums and would not notice a flipped bit in a weight. They are compared here, which takes about a
    second for a gigabyte.
    """
    check_directory(stream)
    length = stream.seek(0, 2)
    stream.seek(0)
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            if any(member.filename.endswith("/constants.pkl") for member in members):
                raise ModelError("It is a TorchScript program, not a checkpoint. It could run code and was not opened.")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members) or length < sum(
                member.file_size for member in members
            ):
                raise ModelError("It cannot be read as a checkpoint: it declares more bytes than it has.")
            damaged = archive.testzip()
            # torch takes any capital letters, and the first of several
            for member in members:
                if damaged is None and member.filename.lower().endswith("data.pkl"):
                    if member.file_size > MAX_PICKLE:
                        raise ModelError(f"It has {member.file_size} bytes besides its weights. It was not opened.")
                    check_pickles(archive.read(member), 1)
    except ZIP_FAULTS as error:
        raise ModelError(
            f"It cannot be read as a checkpoint ({length} bytes, {reason(error)}): it is truncated or was not "
            "written by nnU-Net v2."
        ) from error
    if damaged is not None:
        raise ModelError("It cannot be read as a checkpoint: its bytes were altered (checksum). Get it again.")


def _plain_data_allowed() -> contextlib.AbstractContextManager:
    """Put stand-ins in the place of plain data while a checkpoint is read.

    torch below 2.5 has no context manager for this: there the names remain allowed, which is harmless. torch below 2.4
    cannot allow them at all, so most checkpoints fail with a message that says what to do.
    """
    if hasattr(torch.serialization, "safe_globals"):
        return torch.serialization.safe_globals(stand_ins())
    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals(stand_ins())
    return contextlib.nullcontext()


def _explain(message: str, entries: Sequence[str]) -> str:
    found = re.search(r"GLOBAL (\S+)|[Uu]nsupported class (\S+)|but got <class '([\w.]+)'>", message)
    name = next(filter(None, found.groups()), "")[:80] if found else ""
    if name.startswith("numpy.") and not hasattr(torch.serialization, "add_safe_globals"):
        return (
            f"It contains NumPy numbers, which torch {torch.__version__} cannot read safely: update torch to 2.4 "
            "or later, or use the model as a bundle (made by `classscaleseg pack` on a computer with a newer torch)."
        )
    if re.search(r"[Uu]nsupported operand", message):
        return "It was saved with another pickle protocol than 2, torch's default. Save it again without that option."
    what = f" ({name if '.' in name else f'builtins.{name}'})" if name else ""
    return (
        f"It contains more than weights and plain values{what}. It could run code and was not opened. If you trust its "
        "origin, read it there with torch.load(file, weights_only=False) and save only its entries "
        f"{', '.join(entries)} again."
    )
