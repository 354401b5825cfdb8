"""What the child process needs in Slicer's Python, installed when Apply is first pressed and the user agrees.

torch comes through the extension PyTorch, which knows the build for this computer's GPU. The rest comes from the Python
package index, and must not replace what Slicer brings along: its numpy, SimpleITK and requests.
"""

from __future__ import annotations

import importlib.util
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import slicer
from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

# name to import: requirement
PACKAGES = {
    "nnunetv2": "nnunetv2>=2.7",
    "psutil": "psutil",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "tqdm": "tqdm",
}
KEPT = ("numpy", "SimpleITK", "requests", "torch")
TORCH = ">=2.2"


def missing_packages() -> list[str]:
    """Requirements that are not there or too old, torch apart; looks for files only, and imports none of them."""
    importlib.invalidate_caches()
    return [requirement for name, requirement in PACKAGES.items() if not _is_installed(name, requirement)]


def has_torch() -> bool:
    """Whether torch is there and new enough."""
    importlib.invalidate_caches()
    return _is_installed("torch", f"torch{TORCH}")


def _is_installed(name: str, requirement: str) -> bool:
    from packaging.requirements import Requirement  # Slicer has it

    if importlib.util.find_spec(name) is None:
        return False
    wanted = Requirement(requirement)
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:  # put there without pip, so nobody knows which version it is
        return True


def refuse_missing_dependencies() -> None:
    """For scripts, which nobody may be there to answer.

    :raises ClassScaleError: a sentence naming what is missing, and how it is installed.
    """
    missing = ([] if has_torch() else [f"torch{TORCH}"]) + missing_packages()
    if missing:
        text = _(
            "These Python packages are needed first: {packages}. Press Apply once in the module, or call "
            "ClassScaleSegLogic().installDependencies()."
        )
        raise ClassScaleError(text.format(packages=", ".join(missing)))


def ensure_dependencies() -> None:
    """Do nothing if all is there; else ask, and install.

    :raises ClassScaleError: a sentence with what to do, if the user declines or an installation fails.
    """
    if not has_torch():
        _install_torch()
        if not has_torch():
            text = _(
                "PyTorch {found} is installed, and {wanted} is needed. Uninstall it in the module PyTorch, restart "
                "Slicer, and press Apply again."
            )
            raise ClassScaleError(text.format(found=version("torch"), wanted=TORCH))
    missing = missing_packages()
    if missing:
        _install(missing)
        if still := missing_packages():
            raise ClassScaleError(
                _failed(_("{packages} could not be imported afterwards").format(packages=", ".join(still)))
            )


def _install_torch() -> None:
    try:
        import PyTorchUtils
    except ModuleNotFoundError:
        _install_torch_extension()
        return
    logic = PyTorchUtils.PyTorchUtilsLogic()
    try:
        torch = logic.installTorch(askConfirmation=True, torchVersionRequirement=TORCH)
    except Exception as error:  # pip, the network, the driver: the extension raises what they raise
        raise ClassScaleError(_failed(str(error))) from error
    if torch is None:
        raise ClassScaleError(_("PyTorch was not installed, and nothing can be segmented without it."))


def _install_torch_extension() -> None:
    by_hand = _("Install the extension PyTorch in the Extensions Manager, restart Slicer, and press Apply again.")
    question = _(
        "This module computes with PyTorch, which Slicer gets through its extension PyTorch. Install that extension "
        "now and restart Slicer? Save your scene first."
    )
    if not slicer.util.confirmOkCancelDisplay(question, windowTitle=_("Extension PyTorch")):
        raise ClassScaleError(by_hand)
    manager = slicer.app.extensionsManagerModel()
    interactive = manager.interactive
    manager.interactive = False
    try:
        installed = manager.installExtensionFromServer("PyTorch", True)
    finally:
        manager.interactive = interactive
    if not installed:
        raise ClassScaleError(_("The extension PyTorch could not be installed.") + " " + by_hand)
    raise ClassScaleError(_("The extension PyTorch is installed. Restart Slicer, and press Apply again."))


def _install(missing: list[str]) -> None:
    try:
        if importlib.util.find_spec("slicer.packaging") is not None:
            from slicer.packaging import pip_ensure

            pip_ensure(missing, skip_packages=list(KEPT), requester="ClassScaleSeg")
            return
        question = _("These Python packages are needed and will be installed into Slicer:\n{packages}")
        if not slicer.util.confirmOkCancelDisplay(question.format(packages="\n".join(missing))):
            raise ClassScaleError(_("Without {packages} nothing can be segmented.").format(packages=", ".join(missing)))
        with tempfile.TemporaryDirectory() as folder:  # Slicer 5.10 cannot skip packages; pip keeps what is pinned
            pins = Path(folder) / "constraints.txt"
            pins.write_text(constraints())
            slicer.util.pip_install(["-c", str(pins), *missing])
    except ClassScaleError:
        raise
    except Exception as error:  # the user said no, or pip failed in any of its ways
        raise ClassScaleError(_failed(str(error))) from error


def constraints() -> str:
    """Lines that pin the packages of Slicer that must stay as they are."""
    lines = []
    for name in KEPT:
        try:
            lines.append(f"{name}=={version(name).partition('+')[0] if name != 'torch' else version(name)}")
        except PackageNotFoundError:
            pass  # Slicer does not have it, so there is nothing to keep
    return "\n".join(lines) + "\n"


def _failed(reason: str) -> str:
    text = _(
        "The Python packages are not installed: {reason}. Slicer's own packages were left as they are. "
        'Try again, or undo with slicer.util.pip_uninstall("nnunetv2 safetensors") in the Python console.'
    )
    return text.format(reason=reason.strip().rstrip("."))
