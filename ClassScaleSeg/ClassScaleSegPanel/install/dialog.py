"""The one question before Python packages are installed: what is missing, what it takes, and where it comes from."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import qt
import slicer
from slicer.i18n import tr as _

NETWORK = Path("network:")  # a source that is no folder
# Megabytes (10^6 bytes) to download, and installed. nnunetv2 2.8.1 with all that it needs but numpy, SimpleITK,
# requests, torch and torchvision was measured in November 2026 on Linux: the files that `pip download` gets, and those
# that RECORD lists. So was torch for the CPU once installed; the other sizes of torch are orders of magnitude.
OTHERS = (170, 530)
CPU_TORCH = (200, 700)
CUDA_TORCH = (3000, 7000)
_SLOW, _FAST = 2.0, 20.0  # MB a second of network and disk together


class Needs(NamedTuple):
    """What an installation takes: bytes to download, bytes of disk, and minutes, from the least to the most."""

    download: tuple[int, int]
    disk: int
    minutes: tuple[int, int]


def needs(missing: Sequence[str]) -> Needs:
    """Estimate what the installation of requirements takes.

    >>> needs(["psutil"]).minutes
    (1, 1)
    """
    torch = any(requirement.startswith("torch>") for requirement in missing)
    many = any(requirement.startswith("nnunetv2") for requirement in missing)
    least = (many * OTHERS[0] + torch * CPU_TORCH[0]) or 5
    most = (many * OTHERS[0] + torch * CUDA_TORCH[0]) or 5
    disk = (many * OTHERS[1] + torch * CPU_TORCH[1]) or 20
    minutes = (max(1, round(least / _FAST / 60)), max(1, round(most / _SLOW / 60)))
    return Needs((least * 10**6, most * 10**6), disk * 10**6, minutes)


def question(missing: Sequence[str], fault: str = "") -> str:
    """Return the text of the question.

    :param missing: requirements.
    :param fault: why the last attempt failed, and what to do.
    """
    need = needs(missing)
    sizes, minutes = (
        str(low) if low == high else _("{low} to {high}").format(low=low, high=high)
        for low, high in (tuple(round(size / 1e6) for size in need.download), need.minutes)
    )
    parts = [fault, _("This module needs Python packages that Slicer lacks:"), ""]
    parts += [f"- {requirement}" for requirement in missing]
    parts += [
        "",
        _("About {size} MB are downloaded; it takes {minutes} min.").format(size=sizes, minutes=minutes),
        _("Slicer's own numpy, SimpleITK and requests are not replaced."),
    ]
    if any(requirement.startswith("torch>") for requirement in missing):
        if importlib.util.find_spec("PyTorchUtils") is None:
            parts.append(
                _(
                    "torch is installed by the extension PyTorch, which is missing too: it is installed first, and "
                    "Slicer restarts. Save your scene before."
                )
            )
        else:
            parts.append(_("torch is installed by the extension PyTorch, in the build for this computer's GPU."))
    parts.append(
        _(
            "Without a network, choose a folder with wheels of the packages; what it lacks is named before anything "
            "is installed."
        )
    )
    return "\n".join(parts if fault else parts[1:])


def choose_source(missing: Sequence[str], fault: str = "") -> Path | None:
    """Ask the user, and return where the packages come from: `NETWORK`, a folder of wheels, or ``None``: nowhere.

    :param missing: requirements.
    :param fault: why the last attempt failed, and what to do.
    """
    pressed = show(question(missing, fault), _("Try again") if fault else _("Install"))
    if pressed == "folder":
        chosen = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder with wheels"))
        return Path(str(chosen)) if chosen else choose_source(missing, fault)
    return NETWORK if pressed == "network" else None


def show(text: str, install: str) -> str:
    """Show the question, and return which button was pressed: "network", "folder" or "" (Cancel).

    :param install: the text of the button that installs.
    """
    box = qt.QMessageBox(slicer.util.mainWindow())
    box.windowTitle, box.text = _("Python packages"), text
    box.textFormat, box.icon = qt.Qt.PlainText, qt.QMessageBox.Question
    network = box.addButton(install, qt.QMessageBox.AcceptRole)
    folder = box.addButton(_("From a folder..."), qt.QMessageBox.ActionRole)
    box.addButton(qt.QMessageBox.Cancel)
    (getattr(box, "exec_", None) or box.exec)()
    pressed = box.clickedButton()
    name = "network" if pressed == network else "folder" if pressed == folder else ""
    box.deleteLater()
    return name
