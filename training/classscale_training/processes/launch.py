"""Run a function in several processes that train together: one for each GPU, or several on the CPU.

Either this command starts the processes, all on this machine, or ``torchrun`` has started this process as one of them,
on one machine or on several. PyTorch starts, connects and ends them.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from ClassScaleSegLib.errors import ClassScaleError, reason
from ClassScaleSegLib.process.terminal import any_letters
from torch.distributed import FileStore
from torch.multiprocessing.spawn import ProcessContext, ProcessException, start_processes

from .device import usable_device
from .group import TIMEOUT, LostProcessError, Rank, joined
from .parent import end_with_parent, forked_end_with_parent

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_CONTINUE = "Run the command again with --c to continue from the latest checkpoint."
_SECONDS_TO_END = 10.0  # of the processes that are ended, before they are killed


def launch(
    function: Callable[..., None],
    arguments: tuple,
    processes: int,
    device: str,
    advice: str = _CONTINUE,
    timeout: timedelta = TIMEOUT,
) -> None:
    """Call ``function(rank, *arguments)`` in each process, and return when it has returned in all of them.

    If one process fails, the others are ended. With one process, the function is called in this one, without a group.
    In a process that ``torchrun`` has started, it is called in this one, too, as a member of the group of all.

    :param function: takes a :class:`.Rank` first. It must be importable, because processes are spawned.
    :param arguments: picklable.
    :param processes: how many to start on this machine; 1 under ``torchrun``.
    :param device: "cuda", "cpu" or "mps". Several processes take a GPU each, or share the cores.
    :param advice: a sentence that says what to do after a process was killed.
    :param timeout: how long a process waits for the others in one exchange.
    :raises ClassScaleError: if so many processes are not possible, or one was killed or ended without a reason.
    :raises LostProcessError: if a process does not answer, or under ``torchrun`` if another one has ended.
    :raises Exception: whatever the function raised in the process that failed first.
    """
    if processes < 1:
        raise ClassScaleError(f"{processes} processes cannot train: start at least one.")
    forked_end_with_parent()
    if _is_under_torchrun():
        if processes > 1:
            raise ClassScaleError("torchrun starts the processes: give it --nproc_per_node, and leave -num_gpus out.")
        end_with_parent()
        number, count, local, here = (int(os.environ[name]) for name in _TORCHRUN)
        rank = Rank(number, count, _device(device, local, here))
        with joined(rank, timeout):
            function(rank, *arguments)
    elif processes == 1:
        _device(device, 0, 1)  # without its number, PyTorch takes the current one
        function(Rank(0, 1, torch.device(device)), *arguments)
    else:
        _device(device, 0, processes)
        with TemporaryDirectory(prefix="classscaleseg-") as folder:
            more = (folder, processes, device, timeout, function, arguments)
            context = start_processes(_begin, more, processes, join=False)
            _wait_for_all(context, Path(folder), advice)


def _is_under_torchrun() -> bool:
    return all(os.environ.get(name) for name in _TORCHRUN) and int(os.environ["WORLD_SIZE"]) > 1


def _device(device: str, number: int, processes: int) -> torch.device:
    """Return the device of a process of this machine, and give it its part of the cores.

    :raises ClassScaleError: if the machine has not so many devices.
    """
    # As nnUNetv2_train does: all cores when training on a CPU, one core when training on a GPU.
    cores = int(os.environ.get("OMP_NUM_THREADS", max(1, (os.cpu_count() or 1) // processes)))
    torch.set_num_threads(cores if device == "cpu" else 1)
    if device == "mps" or not torch.cuda.device_count():
        usable_device(device, "-device")
    found = {"cpu": processes, "cuda": torch.cuda.device_count()}.get(device, 1)
    if found < processes:
        raise ClassScaleError(
            f"PyTorch finds {found} GPUs (device {device}), fewer than the processes to be started ({processes}). "
            "Start fewer, or use -device cpu."
        )
    return torch.device(device, number) if device == "cuda" else torch.device(device)


def _begin(
    number: int,
    folder: str,
    processes: int,
    device: str,
    timeout: timedelta,
    function: Callable[..., None],
    arguments: tuple,
) -> None:
    """Run the function in a process that :func:`launch` has started; if it fails, note why, and end."""
    end_with_parent()
    multiprocessing.set_start_method(None, force=True)  # what it starts is forked where it would be without it
    forked_end_with_parent()
    rank = Rank(number, processes, _device(device, number, processes))
    try:
        store = FileStore(str(Path(folder) / "store"), processes)  # no port, so that two trainings never want the same
        with any_letters(), joined(rank, timeout, store):
            function(rank, *arguments)
    except Exception as error:
        _note(error, Path(folder) / "reason")
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(1)  # whatever threads wait for


def _note(error: Exception, file: Path) -> None:
    """Write an exception to a file, unless another process has done so before."""
    text = "".join(traceback.format_exception(error))
    try:
        content = pickle.dumps((error, text))
        pickle.loads(content)
    except Exception:  # whatever classes of exceptions do when they are pickled
        content = pickle.dumps((RuntimeError(f"{type(error).__name__}: {reason(error)}"), text))
    with suppress(FileExistsError), open(file, "xb") as stream:
        stream.write(content)


def _wait_for_all(context: ProcessContext, folder: Path, advice: str) -> None:
    """Wait until all processes have ended; if one fails, end the others.

    :raises ClassScaleError: as :func:`launch`, and whatever a process raised.
    """
    codes: list[int | None] = []
    try:
        while True:
            for ended in multiprocessing.connection.wait(list(context.sentinels)):
                context.processes[context.sentinels[ended]].join()
            codes = [process.exitcode for process in context.processes]  # before the others are ended
            if context.join(grace_period=_SECONDS_TO_END if any(codes) else None):
                return
    except ProcessException as error:
        if not any(codes):
            codes[error.error_index] = getattr(error, "exit_code", 1)
        _raise_reason(folder, codes, advice)
    finally:  # after Ctrl-C, which they have got too; otherwise all have ended
        end = time.monotonic() + _SECONDS_TO_END
        for process in context.processes:
            process.join(max(0.0, end - time.monotonic()))
            process.kill()


def _raise_reason(folder: Path, codes: list[int | None], advice: str) -> None:
    error: Exception | None = None
    with suppress(OSError, EOFError, pickle.UnpicklingError):
        error, text = pickle.loads((folder / "reason").read_bytes())
    # a process that has noted why ends with code 1
    silent = next(((index, code) for index, code in enumerate(codes) if code not in (None, 0, 1)), None)
    if silent is None and error is None:
        silent = next((index, code) for index, code in enumerate(codes) if code)
    if silent is not None and (error is None or isinstance(error, LostProcessError)):
        raise ClassScaleError(f"{_how_it_ended(*silent, len(codes))} The others were ended. {advice}") from None
    if isinstance(error, ClassScaleError):
        raise error from None
    if error is not None:
        raise error from RuntimeError(text)


def _how_it_ended(index: int, code: int | None, processes: int) -> str:
    name = Rank(index, processes, torch.device("cpu"))
    if code is None or code >= 0:
        return f"{name} ended with exit code {code}, and did not say why."
    known = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
    memory = ", as Linux does when memory has run out" if code == -9 else ""
    return f"{name} was killed by signal {-code} ({known}){memory}."
