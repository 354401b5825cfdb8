"""Why an installation of Python packages failed, and what to do."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

_T = TypeVar("_T")


class Purpose(NamedTuple):
    """What packages are for.

    :ivar declined: what to say if the user does not want them.
    :ivar undo: the packages to remove, to undo their installation.
    """

    declined: str
    undo: str


def segmenting() -> Purpose:
    text = _("The module cannot segment without these Python packages: {packages}. To install them, press Apply again.")
    return Purpose(text, "nnunetv2 safetensors")


def training() -> Purpose:
    text = _("The module cannot train without these Python packages: {packages}. To install them, press Start again.")
    return Purpose(text, "nnunetv2 safetensors")


def saving_dicom() -> Purpose:
    text = _(
        "DICOM segmentations cannot be saved without these Python packages: {packages}. To install them, save again."
    )
    return Purpose(text, "highdicom")


def saving_excel() -> Purpose:
    text = _(
        "Excel workbooks cannot be saved without these Python packages: {packages}. To install them, save again. Or "
        "save as .csv."
    )
    return Purpose(text, "XlsxWriter")


def comparing() -> Purpose:
    text = _(
        "Segmentations cannot be compared without these Python packages: {packages}. To install them, press the button "
        "again."
    )
    return Purpose(text, "psutil")


def comparing_models() -> Purpose:
    text = _(
        "Models cannot be compared without these Python packages: {packages}. To install them, press Compare again."
    )
    return Purpose(text, "nnunetv2 safetensors")


def asking_archives() -> Purpose:
    text = _(
        "Archives cannot be asked without these Python packages: {packages}. To install them, press the button again."
    )
    return Purpose(text, "psutil")


def with_next_step(work: Callable[[], _T], purpose: Purpose) -> _T:
    """Return ``work()``; what pip prints meanwhile tells why it failed, because its exception has the command alone.

    :raises ClassScaleError: if it fails; says why and what to do.
    """
    heard = Heard(sys.stdout)
    try:
        with contextlib.redirect_stdout(heard):
            return work()
    except ClassScaleError:
        raise
    except Exception as error:  # pip, the network, the disk or the driver: for any reason
        raise ClassScaleError(failed(str(error), purpose, next_step(f"{heard.text}\n{error}"))) from error


def failed(reason: str, purpose: Purpose, step: str = "") -> str:
    text = _(
        "The Python packages could not be installed: {reason}. Slicer's own packages were not changed. {step} To "
        'undo the installation, type slicer.util.pip_uninstall("{packages}") into the Python console.'
    )
    step = step or _("Try again: what has arrived is kept.")
    return text.format(reason=reason.strip().rstrip("."), packages=purpose.undo, step=step)


class Heard:
    """A text stream that passes everything on, and keeps the end of it."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.text = stream, ""

    def write(self, text: str) -> int:
        self.text = (self.text + text)[-20_000:]
        self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if hasattr(self._stream, "flush"):  # PythonQt's has none
            self._stream.flush()


def next_step(said: str) -> str:
    """Return what to do after a failure, in a sentence, from what pip has said; empty if that is not known.

    >>> next_step("OSError: [Errno 28] No space left on device")
    'The disk is full: make room, and try again.'
    """
    for patterns, sentence in _next_steps():
        if any(re.search(pattern, said, re.IGNORECASE) for pattern in patterns):
            return sentence
    return ""


def _next_steps() -> list[tuple[tuple[str, ...], str]]:
    """The first that is found counts: without a network, pip also says that it finds no version."""
    return [
        ((r"No space left", r"Errno 28\b", r"not enough space"), _("The disk is full: make room, and try again.")),
        (
            (r"\b407\b", r"Proxy Authentication", r"Cannot connect to proxy", r"ProxyError"),
            _(
                "A proxy is between this computer and the network: set the environment variable HTTPS_PROXY to "
                "http://USER:PASSWORD@HOST:PORT, restart Slicer, and try again. Or install from a folder of wheels."
            ),
        ),
        (
            (r"CERTIFICATE_VERIFY_FAILED", r"SSLError", r"SSLCertVerification"),
            _(
                "The certificate of the server is not known here, as behind a proxy that inspects traffic: set the "
                "environment variable PIP_CERT to the file of its certificate, restart Slicer, and try again."
            ),
        ),
        (
            (
                r"Read-only file system",
                r"Permission denied",
                r"Errno (13|30)\b",
                r"WinError 5\b",
                r"Access is denied",
            ),
            _(
                "The folder of Slicer cannot be written: install Slicer in a folder of your own, or ask who "
                "administers this computer to install the packages."
            ),
        ),
        (
            (
                r"Failed to establish a new connection",
                r"NewConnectionError",
                r"NameResolutionError",
                r"getaddrinfo failed",
                r"Name or service not known",
                r"Temporary failure in name resolution",
                r"Network is unreachable",
                r"timed out",
                r"Connection (was )?(reset|refused|aborted)",
            ),
            _("There is no network: connect this computer and try again, or install from a folder of wheels."),
        ),
        (
            (
                r"No matching distribution",
                r"Could not find a version",
                r"not a supported wheel",
                r"Failed building wheel",
                r"subprocess-exited-with-error",
            ),
            _("A package has no build for this Python and system: update Slicer to a current version, and try again."),
        ),
    ]
