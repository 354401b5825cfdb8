"""The child's side of `child.py`: stop on request, and when the program that started the child has ended.

The parent requests a stop with a file in the work folder, and the child checks whether the parent's process still
exists. Pipes would not work everywhere: the launcher `PythonSlicer` is between the two, and passes its standard input
on to Python only on Unix. Nor would signals: Windows has none for a process without a console.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ClassScaleError
from .exit_codes import ExitCode
from .process_tree import descendants, is_alive, kill_all
from .work_folder import CANCEL_FILE, PREFIX, remove_work_folder

if TYPE_CHECKING:
    import psutil

_SECONDS_BETWEEN = 0.1
_SECONDS_TO_CLEAN_UP = 1.0


class ParentWatch:
    """Interrupt the main thread, as a termination signal does, when the parent requests it or has ended.

    When the block ends after that, the work folder is removed, and this process ends with all that it has started. If
    the parent has ended, this happens a second later even if the block still runs.

    :param pid: process id of the parent.
    :param folder: the work folder that the parent has made.
    :raises ClassScaleError: if ``pid`` is not a number, or ``folder`` is not named like a work folder.
    """

    def __init__(self, pid: str, folder: str):
        import psutil

        if not pid.isdecimal():
            raise ClassScaleError(f"{pid} is not a process id. Give the number of the process that is to be watched.")
        if not Path(folder).name.startswith(PREFIX):
            raise ClassScaleError(
                f"{folder} is not a temporary folder of ClassScaleSeg, and would be removed at the end. Name another "
                "folder."
            )
        self._folder, self._left, self._asked = Path(folder), threading.Event(), False
        self._parent: psutil.Process | None = None
        with contextlib.suppress(psutil.Error):  # it has ended already
            self._parent = psutil.Process(int(pid))

    def __enter__(self) -> ParentWatch:
        threading.Thread(target=self._watch, daemon=True, name="ParentWatch").start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._left.set()
        # the pipes of a parent that is being killed break a moment before its process counts as ended
        if isinstance(error, BrokenPipeError) or self._asked or self._orphaned():
            self._end()  # at once: a normal exit of Python with torch takes most of a second

    def _orphaned(self) -> bool:
        return self._parent is None or not is_alive(self._parent)

    def _watch(self) -> None:
        while not self._left.wait(_SECONDS_BETWEEN):
            orphaned = self._orphaned()
            # interrupt only once: a second interruption could stop the clean-up after the first
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
