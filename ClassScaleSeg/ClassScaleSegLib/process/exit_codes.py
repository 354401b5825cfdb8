"""What the exit status of ``classscaleseg`` says: for shells, and for the process that started it."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from enum import IntEnum

from .. import errors


class ExitCode(IntEnum):
    """What the command's exit status says."""

    OK = 0
    SOME_FAILED = 1  # of several cases; the others are done
    USAGE = 2
    MODEL = 3  # the model cannot be used
    IMAGE = 4  # the image cannot be read or does not fit the model
    OUTPUT = 5  # the result cannot be written, or is there already
    OUT_OF_MEMORY = 6
    LABELS = 7  # a label table or a class name is wrong
    FAULT = 8  # any other fault that has a message
    CANCELLED = 130  # Ctrl-C or a termination signal


_CODES = (
    (errors.ModelError, ExitCode.MODEL),
    (errors.ImageError, ExitCode.IMAGE),
    (errors.OutputError, ExitCode.OUTPUT),
    (errors.OutOfMemoryError, ExitCode.OUT_OF_MEMORY),
    (errors.LabelTableError, ExitCode.LABELS),
    (errors.Cancelled, ExitCode.CANCELLED),
    (errors.ClassScaleError, ExitCode.FAULT),
)


def exit_code(error: errors.ClassScaleError) -> ExitCode:
    return next(code for kind, code in _CODES if isinstance(error, kind))


_MEANING = {
    ExitCode.OK: "without a result",
    ExitCode.USAGE: "because its command line was not understood",
    ExitCode.MODEL: "because the model cannot be used",
    ExitCode.IMAGE: "because the image cannot be used",
    ExitCode.OUTPUT: "because the result cannot be written",
    ExitCode.OUT_OF_MEMORY: "because memory ran out",
    ExitCode.LABELS: "because of a label table or a class name",
    ExitCode.CANCELLED: "because it was interrupted from outside",
}
_KILLED = (-9, 137)  # as Python and as a shell or launcher tell of SIGKILL
_WINDOWS_FAULT = 0xC0000000


def explain_exit(code: int, said: Sequence[str]) -> str:
    """One or two sentences on a child that ended with ``code`` and without a word of its own on why.

    :param said: the last lines it printed.
    """
    last = [line.strip() for line in said if line.strip()][-3:]
    missing = re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", "\n".join(last))
    if code in _KILLED:
        text = (
            f"The segmentation was killed ({code}), most likely by the system because memory ran out. Close other "
            "programs, crop the image, or set a memory limit."
        )
    elif missing:
        text = f"The Python of the segmentation lacks the package {missing[1]}: install ClassScaleSeg's dependencies."
    elif code < 0 or code >= _WINDOWS_FAULT:
        text = f"The segmentation crashed ({_signal_name(code)})."
    else:
        reason = _MEANING.get(code, "unexpectedly")
        text = f"The segmentation ended {reason} (exit code {code})."
    return f"{text} It said: {' / '.join(last)}" if last and not missing else text


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"0x{code:08X}"
    except ValueError:
        return f"signal {-code}"
