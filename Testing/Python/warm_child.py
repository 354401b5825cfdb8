"""A process that has loaded what a run needs, and becomes a child of ``child.py`` as often as it is asked to.

Loading torch, nnU-Net and the library takes most of the CPU time of a small run. Tests of the panel make hundreds of
runs, so they fork their children from this process (`warm_children.py`). What a child does is the same; how Slicer
starts it is tested in `test_process.py`. Only reports lack VTK's picture, which takes a process of its own for each
case, and is tested in `test_report.py`; and one that is cancelled waits longer for the server that it tells so, because
machines that run tests stand still at times.

It reads requests from the socket whose number is its argument. A request comes with three sockets and pipes: for the
process id and exit code, for standard output, and for standard error.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import tempfile

from ClassScaleSegLib.remote import removing
from ClassScaleSegLib.report import rendering

LOADED = (
    "SimpleITK",
    "psutil",
    "pydicom",
    "torch",
    "safetensors.torch",
    "dynamic_network_architectures.architectures.unet",
    "dynamic_network_architectures.building_blocks.residual",
    "nnunetv2.inference.sliding_window_prediction",
    "nnunetv2.preprocessing.preprocessors.default_preprocessor",
    "nnunetv2.preprocessing.resampling.resample_torch",
    "nnunetv2.utilities.get_network_from_plans",
    "nnunetv2.utilities.plans_handling.plans_handler",
    "ClassScaleSegLib.commands.main",
    "ClassScaleSegLib.inference.backbone",
    "ClassScaleSegLib.inference.preprocess",
    "ClassScaleSegLib.inference.rolling_accumulator",
    "ClassScaleSegLib.inference.windows",
    "ClassScaleSegLib.models.network",
)


def wait_for_requests(control: socket.socket) -> dict:
    """Fork at each request. Return the request in the child that is to do it; never return in this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers leave no zombies
    while True:
        data, pipes, _, _ = socket.recv_fds(control, 1 << 20, 3)
        if not data:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            return keep(json.loads(data), *pipes)
        for pipe in pipes:
            os.close(pipe)


def keep(request: dict, report: int, output: int, error: int) -> dict:
    """Fork again and return in the child. This process tells the child's process id and, at the end, its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(report)
        os.setsid()
        os.dup2(output, 1)
        os.dup2(error, 2)
        os.close(output)
        os.close(error)
        return request
    os.close(output)
    os.close(error)
    os.write(report, str(child).encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(report, str(code).encode())
    os._exit(0)


if __name__ == "__main__":
    for module in LOADED:
        importlib.import_module(module)
    rendering._failed.append("is not tried in this test")
    removing._SECONDS = 30.0
    gc.freeze()  # otherwise, each child copies all of it when it collects garbage
    request = wait_for_requests(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, errors="backslashreplace", closefd=False)
    sys.path[0] = request["folder"]  # as python -m does
    tempfile.tempdir = None
    sys.argv = request["arguments"]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
