"""The exit codes of ``classscaleseg``, and sentences that explain how a child process ended."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from enum import IntEnum

from .. import errors


class ExitCode(IntEnum):
    """The exit codes of ``classscaleseg``.

    >>> ExitCode(3).name
    'MODEL'
    """

    OK = 0  # everything was done
    SOME_FAILED = 1  # some of several cases failed; the others are done
    USAGE = 2  # the command line is not valid
    MODEL = 3  # the model cannot be used
    IMAGE = 4  # the image cannot be read, or does not fit the model
    OUTPUT = 5  # the result cannot be written, or exists already
    OUT_OF_MEMORY = 6
    LABELS = 7  # a label table or a class name is wrong
    FAULT = 8  # any other error, also one that nobody foresaw; its sentence names a log
    CANCELLED = 130  # Ctrl-C was pressed, or a termination signal arrived


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
    """Return the exit code that belongs to an error.

    >>> exit_code(errors.ImageError("ct.nrrd does not exist.")).name
    'IMAGE'
    """
    return next(code for kind, code in _CODES if isinstance(error, kind))


_MEANING: dict[int, str] = {
    ExitCode.OK: "without a result",
    ExitCode.USAGE: "because its command line was not understood",
    ExitCode.MODEL: "because the model cannot be used",
    ExitCode.IMAGE: "because the image cannot be used",
    ExitCode.OUTPUT: "because the result cannot be written",
    ExitCode.OUT_OF_MEMORY: "because memory ran out",
    ExitCode.LABELS: "because of a label table or a class name",
    ExitCode.FAULT: "because of an error",
    ExitCode.CANCELLED: "because it was interrupted from outside",
}
_KILLED = (-9, 137)  # how Python, and a shell or launcher, report SIGKILL
_WINDOWS_FAULT = 0xC0000000


def explain_exit(code: int, output: Sequence[str], memory: str) -> str:
    """Explain in one or two sentences how a child process ended that reported no error itself.

    :param code: the exit code as :mod:`subprocess` returns it: negative for a signal.
    :param output: the last lines that the child printed; up to three of them are quoted.
    :param memory: a sentence on what to do if memory ran out.

    >>> explain_exit(4, [], "")
    'The run ended because the image cannot be used (exit code 4).'
    >>> explain_exit(1, ["ModuleNotFoundError: No module named 'torch'"], "")
    "The Python of the run lacks the package torch. Install ClassScaleSeg's dependencies."
    """
    last = [line.strip() for line in output if line.strip()][-3:]
    missing = re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", "\n".join(last))
    if code in _KILLED:
        text = f"The run was killed ({code}), most likely by the system because memory ran out. {memory}"
    elif missing:
        text = f"The Python of the run lacks the package {missing[1]}. Install ClassScaleSeg's dependencies."
    elif code < 0 or code >= _WINDOWS_FAULT:
        text = f"The run crashed ({_signal_name(code)})."
    else:
        reason = _MEANING.get(code, "unexpectedly")
        text = f"The run ended {reason} (exit code {code})."
    return f"{text} Its last output was: {' / '.join(last)}" if last and not missing else text


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"0x{code:08X}"
    except ValueError:
        return f"signal {-code}"
