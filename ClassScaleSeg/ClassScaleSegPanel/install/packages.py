"""Install the packages that the child process needs into Slicer's Python, once the user has agreed.

torch is installed by the extension PyTorch, which chooses the build for this computer's GPU. The other packages come
from the Python Package Index, or all of them from a folder of wheels. Their installation must not replace Slicer's own
numpy, SimpleITK and requests.
"""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import slicer
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.images.dicom.seg import HIGHDICOM
from ClassScaleSegLib.images.tables import XLSXWRITER
from slicer.i18n import tr as _

from ..widgets.texts import ask
from .failures import Purpose, comparing, failed, saving_dicom, saving_excel, segmenting, with_next_step
from .missing import KEPT, PACKAGES_OF_CLIENT, TORCH, Wanted, is_installed, missing_packages, refuse_old_torch
from .wheels import plan_wheels


def ensure_dependencies(
    wanted: Wanted = Wanted(), wheels: str | Path | None = None, purpose: Purpose | None = None
) -> None:
    """Install the missing packages after asking the user. If none is missing, do nothing.

    The question stays until the packages are there or the user gives up: after a failure it says what went wrong and
    what to do.

    :param wheels: a folder of wheels to install from, without a network and without a question.
    :param purpose: what the packages are for; by default to segment.
    :raises ClassScaleError: if the user declines, or an installation from ``wheels`` fails; says what to do.
    """
    from .dialog import NETWORK, choose_source

    if wanted.here:
        refuse_old_torch()
    fault, purpose = "", purpose or segmenting()
    while missing := missing_packages(wanted):
        source = choose_source(missing, fault) if wheels is None else Path(wheels)
        if source is None:
            raise ClassScaleError(fault or purpose.declined.format(packages=", ".join(missing)))
        try:
            if source == NETWORK:
                _install_from_network(missing)
            else:
                install_wheels(Path(source), missing)
            if still := missing_packages(wanted):
                reason = _("{packages} cannot be imported after the installation").format(packages=", ".join(still))
                raise ClassScaleError(failed(reason, purpose))
        except ClassScaleError as error:
            if wheels is not None or isinstance(error, RestartNeeded):
                raise
            fault = str(error)


class RestartNeeded(ClassScaleError):
    """Slicer must be restarted before the installation can go on."""


def _install_from_network(missing: Sequence[str]) -> None:
    refuse_full_disk(missing)
    if any(requirement.startswith("torch>") for requirement in missing):
        _install_torch()
    if others := [requirement for requirement in missing if not requirement.startswith("torch>")]:
        _install(others, segmenting(), asked=True)


def install_wheels(folder: Path, missing: Sequence[str]) -> None:
    """Install packages from a folder of wheels, without a network.

    :raises ClassScaleError: before anything is installed, if the folder lacks wheels; names them. Also if pip fails.
    """
    plan = plan_wheels(folder, missing, KEPT)
    if plan.lacking:
        text = _(
            "{folder} lacks wheels for this Python {python} on {system}: {packages}. Nothing was installed. On a "
            "computer with a network, the same system and the same Python, type: pip wheel -w FOLDER {wanted}"
        ).format(
            folder=folder,
            python=".".join(map(str, sys.version_info[:2])),
            system=platform.system(),
            packages=", ".join(plan.lacking),
            wanted=" ".join(f'"{requirement}"' for requirement in missing),
        )
        if plan.sources:
            text += " " + _("Source archives, as of {packages}, are not enough.").format(
                packages=", ".join(plan.sources)
            )
        raise ClassScaleError(text)
    if plan.files:
        with_next_step(
            lambda: slicer.util.pip_install(["--no-index", "--no-deps", *map(str, plan.files)]), segmenting()
        )


def refuse_full_disk(missing: Sequence[str]) -> None:
    """Refuse to begin an installation for which the disk has no room.

    :raises ClassScaleError: if it has none; says how much is needed.
    """
    from .dialog import needs

    place, need = Path(sysconfig.get_path("purelib")), needs(missing).disk
    free = shutil.disk_usage(place).free
    if free < need:
        text = _("{folder} has {free} GB free, and the packages need about {need} GB. Make room there, and try again.")
        raise ClassScaleError(text.format(folder=place, free=f"{free / 1e9:.1f}", need=f"{need / 1e9:.1f}"))


def ensure_dicom() -> None:
    """Install the package that writes DICOM segmentations, as :func:`ensure_all` does."""
    ensure_all([HIGHDICOM], saving_dicom())


def ensure_excel() -> None:
    """Install the package that writes Excel workbooks, as :func:`ensure_all` does."""
    ensure_all([XLSXWRITER], saving_excel())


def ensure_comparing() -> None:
    """Install the packages that comparisons need, as :func:`ensure_all` does. A run installs them, too."""
    ensure_all(PACKAGES_OF_CLIENT, comparing())


def ensure_all(requirements: Sequence[str], purpose: Purpose) -> None:
    """Install packages when they are first needed, after asking the user. If they are there, do nothing.

    :raises ClassScaleError: if the user declines, or the installation fails; says what to do.
    """
    if missing := [requirement for requirement in requirements if not is_installed(requirement)]:
        _install(missing, purpose)
        if still := [requirement for requirement in missing if not is_installed(requirement)]:
            reason = _("{packages} cannot be imported after the installation").format(packages=", ".join(still))
            raise ClassScaleError(failed(reason, purpose))


def _install_torch() -> None:
    try:
        import PyTorchUtils
    except ModuleNotFoundError:
        _install_torch_extension()
        return
    logic = PyTorchUtils.PyTorchUtilsLogic()
    torch = with_next_step(
        lambda: logic.installTorch(askConfirmation=False, torchVersionRequirement=TORCH), segmenting()
    )
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
    raise RestartNeeded(_("The extension PyTorch is installed. Restart Slicer, and press Apply again."))


def _install(missing: list[str], purpose: Purpose, asked: bool = False) -> None:
    """Install packages, and ask before unless the user was ``asked``."""
    if not asked:
        question = _("This module needs these Python packages. Install them into Slicer?\n{packages}")
        if not ask(question.format(packages="\n".join(missing)), _("Python packages")):
            raise ClassScaleError(purpose.declined.format(packages=", ".join(missing)))
    if importlib.util.find_spec("slicer.packaging") is not None:
        from slicer.packaging import pip_ensure

        with_next_step(
            lambda: pip_ensure(missing, prompt_install=False, skip_packages=list(KEPT), requester="ClassScaleSeg"),
            purpose,
        )
    else:
        with_next_step(lambda: _install_in_older_slicer(missing), purpose)


def _install_in_older_slicer(missing: list[str]) -> None:
    """Slicer up to 5.10 cannot skip packages, so those to keep are pinned."""
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
