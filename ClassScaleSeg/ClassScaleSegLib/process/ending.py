"""End a command with a sentence and an exit code, whatever happens in it."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from ..errors import Cancelled, ClassScaleError, OutputError
from .exit_codes import ExitCode, exit_code
from .fault_log import FaultLog
from .terminal import NobodyReads, any_letters, flush


def run_command(
    run: Callable[[], int | None], tell: Callable[[ClassScaleError], None], faults: FaultLog, cancelled: str
) -> int:
    """Run a command; no exception but SystemExit gets out of it.

    :param run: the command, which returns its exit code; ``None`` stands for ``ExitCode.OK``.
    :param tell: called with the error that ended the command.
    :param faults: for exceptions that nobody foresaw.
    :param cancelled: the sentence after Ctrl-C or a termination signal.
    :returns: the value of an :class:`.ExitCode`.

    >>> def run():
    ...     raise ClassScaleError("There is no sample.")
    >>> run_command(run, print, FaultLog("example", ()), "Cancelled.")
    There is no sample.
    8
    """
    with any_letters():
        try:
            code = int(run() or ExitCode.OK)
            flush()
            return code
        except SystemExit:
            raise
        except KeyboardInterrupt:
            error: ClassScaleError = Cancelled(cancelled)
        except BaseException as fault:  # a fault in Rust, such as in safetensors, is no Exception
            try:
                error = _error(fault, faults)
            except NobodyReads:  # as in "classscaleseg models list | head -1"
                return int(ExitCode.CANCELLED)
        with contextlib.suppress(OSError):
            tell(error)
        return int(exit_code(error))


def leave(code: int) -> NoReturn:
    """End this process as ``sys.exit`` does, but leave its objects to the system.

    With torch and nnU-Net, Python would search hundreds of thousands of them for cycles, for most of a second. It must
    do so after Triton was loaded, whose bindings would report everything that is left as a leak.
    """
    if code == ExitCode.CANCELLED:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C again ends it at once, without a traceback
    if "triton._C.libtriton" not in sys.modules:
        gc.disable()
        gc.freeze()
    sys.exit(code)


def _error(fault: BaseException, faults: FaultLog) -> ClassScaleError:
    """Return the error to tell the user.

    :raises NobodyReads: if nobody reads what the command prints, and so there is nobody to tell.
    """
    if isinstance(fault, ClassScaleError):
        return fault
    if isinstance(fault, NobodyReads):
        raise fault
    if isinstance(fault, OSError):
        try:
            flush(fault)  # standard output may be what has failed
        except OutputError as error:
            return error
    return faults.sentence("The command", fault)
