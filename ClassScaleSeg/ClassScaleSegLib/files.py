"""Write files so that a result gets its name only once it is complete: write a temporary file, then rename it."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError, OutputExistsError

_MAY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH  # none of them: write-protected, on Windows too


@contextmanager
def replacing(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; rename it to ``path`` when the block ends without an exception.

    The temporary name has the suffix of ``path``. Missing folders are created. If the block fails or is interrupted,
    the temporary file is deleted and an existing file at ``path`` is unchanged.

    :param path: final name of the file.
    :param overwrite: replace an existing file.
    :raises OutputExistsError: if ``path`` exists and ``overwrite`` is false.
    :raises OutputError: in place of an OSError: unwritable folder, full disk, a name that the file system refuses.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "results", "volumes.csv")
    ...     with replacing(path) as temporary:
    ...         written = temporary.write_text("liver,1500")
    ...         print(path.exists())
    ...     print(path.read_text())
    False
    liver,1500
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    temporary = path.with_name(f".{secrets.token_hex(6)}{''.join(path.suffixes[-2:]).lower()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        refuse_existing(path, overwrite)  # another program may have written it while the block ran
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    except OutputError as error:  # of a file that was to become this one
        sentence = str(error).replace(str(temporary), str(path))
        raise error if sentence == str(error) else type(error)(sentence) from error
    finally:
        with suppress(OSError):  # the folder is at fault; the block's own exception already tells the caller
            temporary.unlink(missing_ok=True)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise an exception if a file must not be written to ``path``.

    :raises OutputExistsError: if the file exists and ``overwrite`` is false.
    :raises OutputError: if ``path`` is a folder, its name is not one in UTF-8, the file system cannot tell whether it
        exists, or nobody may write it: a rename would replace it nevertheless. A file that its owner alone may write is
        no such one: in a folder that several share, they replace those of each other.
    """
    _refuse_name(path)
    try:
        is_folder, exists = path.is_dir(), path.exists()
        is_protected = exists and not path.stat().st_mode & _MAY_WRITE
    except OSError as error:  # no permission to enter the folder, a name too long
        raise unwritable(path, error) from error
    if is_folder:
        raise OutputError(f"{path} is a folder; give the path of a file.")
    if exists and not overwrite:
        raise OutputExistsError(f"{path} already exists. Allow overwriting (--overwrite), or choose another name.")
    if is_protected:
        raise OutputError(f"{path} is write-protected. Take the protection away, or choose another name.")


def refuse_replacing(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse a result that would take the place of a file from which it is made, also if overwriting is allowed.

    :raises OutputError: naming it.
    """
    for source in inputs:
        with suppress(OSError):  # one of them is not there
            if path.samefile(source):
                raise OutputError(f"{path} would replace {source}, from which it is made. Choose another name.")


def _refuse_name(path: Path) -> None:
    """Refuse names that the libraries that write images cannot pass on; some end the process."""
    try:
        valid = bool(str(path).encode() and os.fsencode(path)) and "\0" not in str(path)
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise OutputError(f"{str(path)!a} is not a name in UTF-8, as results need. Choose another name or folder.")


def given_name(path: Path) -> str:
    """Return the last part of a path as it was given: the name of a link, not that of its target.

    :param path: of any file or folder. "." and ".." have the name of the folder that they mean.

    >>> given_name(Path("cases", "ct.nii.gz")), given_name(Path("series/."))
    ('ct.nii.gz', 'series')
    """
    if path.name not in ("", ".."):
        return path.name
    here = os.environ.get("PWD", "")  # as the shell shows it, with links; the system itself only knows their targets
    with suppress(OSError, ValueError):
        if path.name == "" and os.path.basename(here) and os.path.samefile(here, path):
            return os.path.basename(here)
    return os.path.basename(os.path.realpath(path))


def given_stem(path: Path, suffixes: Iterable[str]) -> str:
    """Return the name of a file, as it was given, without the first of these suffixes that it has, in any case.

    >>> given_stem(Path("cases", "ct.NII.gz"), (".nii.gz", ".nii")), given_stem(Path("ct.dcm"), (".nii",))
    ('ct', 'ct.dcm')
    """
    name = given_name(path)
    suffix = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def refuse_unwritable_folder(path: Path) -> None:
    """Raise an exception if no file can be created in the folder of ``path``, or in its nearest parent that exists.

    Creates a temporary file there and deletes it again.

    :param path: the file to be written; its folder need not exist.
    :raises OutputError: if the file cannot be created; the message names ``path``.
    """
    folder = next((parent for parent in path.absolute().parents if parent.exists()), None)
    try:
        # permission bits do not cover read-only mounts, network shares and Windows
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, reason: object) -> OutputError:
    """Return the exception for a file that cannot be written.

    :param path: the file.
    :param reason: an OSError, or a text with the cause.
    """
    text = (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
    if isinstance(reason, OSError) and reason.errno == errno.ENAMETOOLONG:
        return OutputError(f"{path} cannot be written ({text}). Choose a shorter name.")
    return OutputError(f"{path} cannot be written ({text}). Choose another folder, or make room there.")


def stamp_of(path: Path) -> tuple[int, int] | None:
    """Return size in bytes and time in ns of a file, which differ after it was written; ``None`` if there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns


def sha256_of(path: Path, between: Callable[[], object] = lambda: None) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits.

    :param between: called before every megabyte; an exception of it ends the reading.
    :raises OSError: if the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            between()
            digest.update(chunk)
    return digest.hexdigest()
