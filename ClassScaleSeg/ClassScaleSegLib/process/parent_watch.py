"""The child's side of `process.py`: stop when asked to, and when the program that started it is gone.

The parent asks by a file in the work folder, and the child looks whether the parent's process still exists. Neither
needs a pipe: `PythonSlicer` stands between the two, and hands its standard input on to Python on Unix alone. Nor a
signal: Windows has none for a process without a console.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from typing import Any

from ..errors import ClassScaleError
from .exit_codes import ExitCode
from .tree import descendants, is_alive, kill_all
from .work_folder import CANCEL_FILE, checked_work_folder, remove_work_folder

_SECONDS_BETWEEN = 0.1
_SECONDS_TO_CLEAN_UP = 1.0


class ParentWatch:
    """While its block runs, ``CANCEL_FILE`` in ``folder`` interrupts the main thread as a termination signal does.

    So does the end of process ``pid``. When the block is left then, the folder is removed and this process ended with
    all it has started; without its parent, that happens a second later even if the block goes on.
    """

    def __init__(self, pid: str, folder: str):
        import psutil

        if not pid.isdecimal():
            raise ClassScaleError(f"{pid} is not the number of a process.")
        self._folder, self._left, self._asked = checked_work_folder(folder), threading.Event(), False
        try:
            self._parent = psutil.Process(int(pid))
        except psutil.Error:
            self._parent = None

    def __enter__(self) -> ParentWatch:
        threading.Thread(target=self._watch, daemon=True, name="ParentWatch").start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._left.set()
        # a process that is being killed loses its pipes a moment before it counts as ended
        unheard = isinstance(error, BrokenPipeError)
        if unheard or self._asked or self._orphaned():
            self._end()  # Python with torch takes most of a second to leave in its own way

    def _orphaned(self) -> bool:
        return self._parent is None or not is_alive(self._parent)

    def _watch(self) -> None:
        while not self._left.wait(_SECONDS_BETWEEN):
            orphaned = self._orphaned()
            # once: a second interruption could hit the cleaning up after the first
            if not self._asked and (orphaned or (self._folder / CANCEL_FILE).exists()):
                self._asked = True
                _thread.interrupt_main(signal.SIGTERM)
            if orphaned:
                self._left.wait(_SECONDS_TO_CLEAN_UP)
                self._end()

    def _end(self) -> None:
        kill_all(descendants(os.getpid()))
        remove_work_folder(self._folder)
        os._exit(ExitCode.CANCELLED)
