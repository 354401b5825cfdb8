"""Install the packages that the child process needs into Slicer's Python, once the user has agreed.

torch is installed by the extension PyTorch, which chooses the build for this computer's GPU. The other packages come
from the Python Package Index. Their installation must not replace Slicer's own numpy, SimpleITK and requests.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import slicer
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.images.dicom_seg import HIGHDICOM
from slicer.i18n import tr as _

from .texts import ask

if TYPE_CHECKING:
    from ClassScaleSegLib.options import Options

PACKAGES = ["nnunetv2>=2.7", "psutil", "safetensors", "scipy", "tqdm"]
KEPT = ("numpy", "SimpleITK", "requests", "torch")
TORCH = ">=2.2"


class Purpose(NamedTuple):
    """What packages are for.

    :ivar declined: what to say if the user does not want them.
    :ivar undo: the packages to remove, to undo their installation.
    """

    declined: str
    undo: str


def packages_of(models: Sequence[str | Path], options: Options | None = None) -> tuple[str, ...]:
    """Return the requirements that a run has beyond those of every run, such as monai.

    :param models: their paths, or their ids or names in the catalogue.
    :param options: of the run; they may name a model that locates, which has requirements too.
    :raises ClassScaleError: if a model does not exist, is not downloaded, or cannot be used.
    """
    from ClassScaleSegLib.catalog.chosen import chosen_summaries
    from ClassScaleSegLib.options import Options

    summaries = chosen_summaries(models, options or Options())
    return tuple(dict.fromkeys(package for summary in summaries for package in summary.packages))


def missing_packages(more: Sequence[str] = ()) -> list[str]:
    """Return the requirements, other than torch, that are not installed or too old.

    :param more: requirements of a model, as `packages_of` returns them.
    """
    return [requirement for requirement in (*PACKAGES, *more) if not _is_installed(requirement)]


def has_torch() -> bool:
    """Return whether torch is installed and new enough."""
    return _is_installed(f"torch{TORCH}")


def _is_installed(requirement: str) -> bool:
    """Look for files only, without an import; `slicer.packaging.pip_check` would refuse pre-releases, as of torch."""
    from packaging.requirements import Requirement  # Slicer has it

    importlib.invalidate_caches()
    wanted = Requirement(requirement)
    if importlib.util.find_spec(wanted.name) is None:
        return False
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:  # installed without pip, so its version is unknown
        return True


def refuse_missing_dependencies(more: Sequence[str] = ()) -> None:
    """Raise an error if packages are missing. For scripts, where nobody may be present to answer a question.

    :param more: requirements of the model.
    :raises ClassScaleError: if packages are missing; names them, and the call that installs them.
    """
    missing = ([] if has_torch() else [f"torch{TORCH}"]) + missing_packages(more)
    if missing:
        text = _(
            "Python packages are missing: {packages}. To install them, press Apply in the module ClassScaleSeg, or "
            "call ClassScaleSegLogic().installDependencies()."
        )
        raise ClassScaleError(text.format(packages=", ".join(missing)))


def ensure_dependencies(more: Sequence[str] = ()) -> None:
    """Install the missing packages after asking the user. If none is missing, do nothing.

    :param more: requirements of the model.
    :raises ClassScaleError: if the user declines, or an installation fails; says what to do.
    """
    if not has_torch():
        _install_torch()
        if not has_torch():
            text = _(
                "PyTorch {found} is installed, but {wanted} is needed. Uninstall it in the module PyTorch, restart "
                "Slicer, and press Apply again."
            )
            raise ClassScaleError(text.format(found=version("torch"), wanted=TORCH))
    missing = missing_packages(more)
    if missing:
        _install(missing, _segmenting())
        if still := missing_packages(more):
            reason = _("{packages} cannot be imported after the installation").format(packages=", ".join(still))
            raise ClassScaleError(_failed(reason, _segmenting()))


def ensure_dicom() -> None:
    """Install the package that writes DICOM segmentations, after asking the user. If it is there, do nothing.

    :raises ClassScaleError: if the user declines, or the installation fails; says what to do.
    """
    if not _is_installed(HIGHDICOM):
        _install([HIGHDICOM], _saving_dicom())
        if not _is_installed(HIGHDICOM):
            reason = _("{packages} cannot be imported after the installation").format(packages=HIGHDICOM)
            raise ClassScaleError(_failed(reason, _saving_dicom()))


def _install_torch() -> None:
    try:
        import PyTorchUtils
    except ModuleNotFoundError:
        _install_torch_extension()
        return
    logic = PyTorchUtils.PyTorchUtilsLogic()
    try:
        torch = logic.installTorch(askConfirmation=True, torchVersionRequirement=TORCH)
    except Exception as error:  # the extension passes on what pip, the network or the driver raise
        raise ClassScaleError(_failed(str(error), _segmenting())) from error
    if torch is None:
        text = _("PyTorch was not installed. The module cannot segment without it. To install it, press Apply again.")
        raise ClassScaleError(text)


def _install_torch_extension() -> None:
    by_hand = _("Install the extension PyTorch in the Extensions Manager, restart Slicer, and press Apply again.")
    question = _(
        "This module needs the extension PyTorch. Install it now and restart Slicer? If your scene is not saved, press "
        "Cancel and save it first."
    )
    if not ask(question, _("Extension PyTorch")):
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


def _install(missing: list[str], purpose: Purpose) -> None:
    try:
        if importlib.util.find_spec("slicer.packaging") is not None:
            from slicer.packaging import pip_ensure

            pip_ensure(missing, skip_packages=list(KEPT), requester="ClassScaleSeg")
        else:
            _install_in_older_slicer(missing, purpose)
    except ClassScaleError:
        raise
    except Exception as error:  # the user declined, or pip failed for any reason
        raise ClassScaleError(_failed(str(error), purpose)) from error


def _install_in_older_slicer(missing: list[str], purpose: Purpose) -> None:
    """Ask and install. Slicer up to 5.10 cannot skip packages, so those to keep are pinned."""
    question = _("This module needs these Python packages. Install them into Slicer?\n{packages}")
    if not ask(question.format(packages="\n".join(missing)), _("Python packages")):
        raise ClassScaleError(purpose.declined.format(packages=", ".join(missing)))
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text(constraints())
        slicer.util.pip_install(["-c", str(pins), *missing])


def constraints() -> str:
    """Return the lines of a pip constraints file that pins the packages of Slicer that must not be replaced."""
    lines = []
    for name in KEPT:
        with contextlib.suppress(PackageNotFoundError):  # not installed, so there is nothing to protect
            lines.append(f"{name}=={version(name).partition('+')[0] if name != 'torch' else version(name)}")
    return "\n".join(lines) + "\n"


def _segmenting() -> Purpose:
    text = _("The module cannot segment without these Python packages: {packages}. To install them, press Apply again.")
    return Purpose(text, "nnunetv2 safetensors")


def _saving_dicom() -> Purpose:
    text = _(
        "DICOM segmentations cannot be saved without these Python packages: {packages}. To install them, save again."
    )
    return Purpose(text, "highdicom")


def _failed(reason: str, purpose: Purpose) -> str:
    text = _(
        "The Python packages could not be installed: {reason}. Slicer's own packages were not changed. Try again. To "
        'undo the installation, type slicer.util.pip_uninstall("{packages}") into the Python console.'
    )
    return text.format(reason=reason.strip().rstrip("."), packages=purpose.undo)
