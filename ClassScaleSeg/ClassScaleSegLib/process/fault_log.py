"""Keep what is needed to find a fault that nobody foresaw, and tell the user in one sentence where it is."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ..errors import ClassScaleError, OutOfMemoryError, reason

_PACKAGES = ("classscaleseg", "torch", "numpy", "SimpleITK", "pydicom", "nnunetv2", "safetensors", "psutil")


class FaultLog:
    """The log of one command. Its file is made in the system's temporary folder when the first fault is added.

    :ivar file: the file; ``None`` as long as there is none.
    :param command: name of the command.
    :param arguments: of its command line; ``None`` for those of this process.
    """

    def __init__(self, command: str, arguments: Sequence[str] | None = None) -> None:
        self._command = [command, *(sys.argv[1:] if arguments is None else arguments)]
        self.file: Path | None = None

    def sentence(self, what: str, error: BaseException) -> ClassScaleError:
        """Log an exception that nobody foresaw, and return one whose message tells the user.

        If no log can be written, the traceback goes to standard error.

        :param what: subject of the sentence, such as "The command" or the name of a case.
        :param error: the exception.
        """
        if isinstance(error, MemoryError):
            return OutOfMemoryError("Memory ran out. Close other programs or crop the image.")
        kind = f"{type(error).__name__}: {reason(error)}"
        if self._add(error):
            details = f"The details are in {self.file}; please report it with that file."
        else:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # no standard error
                print("".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
            details = "No log could be written; please report it with the lines on standard error."
        if isinstance(error, ModuleNotFoundError):
            details = f"Install ClassScaleSeg with its dependencies. {details}"
        return ClassScaleError(f"{what} failed unexpectedly ({kind}). {details}")

    def _add(self, error: BaseException) -> bool:
        """Append a traceback to the file, and return whether that was possible."""
        text = "".join(traceback.format_exception(error))
        try:
            if self.file is None:
                number, name = tempfile.mkstemp(
                    f"-{os.getpid()}.log", time.strftime("classscaleseg-fault-%Y%m%d-%H%M%S-")
                )
                os.close(number)
                self.file, text = Path(name), f"{self._head()}\n{text}"
            with self.file.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{text}\n")
        except OSError:
            return False
        return True

    def _head(self) -> str:
        versions = [f"Python {platform.python_version()} on {platform.platform()}"]
        for package in _PACKAGES:
            with contextlib.suppress(Exception):  # not installed, or its metadata is damaged
                versions.append(f"{package} {metadata.version(package)}")
        return "\n".join([time.strftime("%Y-%m-%d %H:%M:%S"), shlex.join(self._command), ", ".join(versions), ""])
