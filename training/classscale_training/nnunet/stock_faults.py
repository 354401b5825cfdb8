"""Sentences for the faults of the machine that nnU-Net's own functions meet: no room left, killed processes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ClassScaleSegLib.errors import OutOfMemoryError, reason
from ClassScaleSegLib.files import unwritable
from ClassScaleSegLib.inference.memory_plan import is_out_of_memory

_NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_BY_BLOSC = "Error while creating the NDArray"  # which does not say why
_KILLED = "background processes is missing"


@contextmanager
def as_sentences(folder: Path, killed: str = "") -> Iterator[None]:
    """Turn faults of the machine within a ``with`` block into errors that say what to do.

    :param folder: in which nnU-Net writes.
    :param killed: the sentence for a process of nnU-Net that was killed, if it starts any.
    :raises OutputError: if a file cannot be written.
    :raises OutOfMemoryError: if memory has run out, also that of the GPU, or one of nnU-Net's processes was killed.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_WRITTEN:
            raise
        raise unwritable(Path(error.filename or folder), error) from error
    except RuntimeError as error:
        if _BY_BLOSC in str(error):
            raise unwritable(folder, "the file system refuses a file; it may be full") from error
        if killed and _KILLED in str(error):
            raise OutOfMemoryError(killed) from error
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"Memory has run out ({reason(error).rstrip('.')}). Close other programs, above all those that use the "
                "GPU. If that is not enough, train a smaller model, or with a smaller patch_size or batch_size in the "
                "plans."
            ) from error
        raise
