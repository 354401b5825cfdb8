"""Install the packages that the child process needs into Slicer's Python, once the user has agreed.

torch is installed by the extension PyTorch, which chooses the build for this computer's GPU. The other packages come
from the Python Package Index, or all of them from a folder of wheels. Their installation must not replace Slicer's own
numpy, SimpleITK and requests.
"""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import slicer
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.images.dicom_seg import HIGHDICOM
from slicer.i18n import tr as _

from ..widgets.texts import ask
from .wheels import plan_wheels, unmet

if TYPE_CHECKING:
    from ClassScaleSegLib.options import Options

PACKAGES = ["nnunetv2>=2.7", "psutil", "safetensors", "scipy", "tqdm"]
PACKAGES_OF_CLIENT = ["psutil", "scipy"]  # if a server segments
KEPT = ("numpy", "SimpleITK", "requests", "torch")
NOT_NEEDED = (*KEPT, "torchvision")  # segmenting does without, or Slicer has it
TORCH = ">=2.2"
_T = TypeVar("_T")


class Purpose(NamedTuple):
    """What packages are for.

    :ivar declined: what to say if the user does not want them.
    :ivar undo: the packages to remove, to undo their installation.
    """

    declined: str
    undo: str


class Wanted(NamedTuple):
    """What a run needs to be installed.

    :ivar more: requirements of its models beyond those of every run, such as monai.
    :ivar here: this computer segments; if a server does, it needs neither torch nor nnunetv2.
    """

    more: tuple[str, ...] = ()
    here: bool = True


def wanted_by(models: Sequence[str | Path], options: Options | None = None) -> Wanted:
    """Return what a run needs to be installed.

    :param models: their paths, or their ids or names in the catalogue.
    :param options: of the run; they may name a server, or a model that locates, which has requirements too.
    :raises ClassScaleError: if a model does not exist, is not downloaded, or cannot be used.
    """
    from ClassScaleSegLib.catalog.chosen import choose
    from ClassScaleSegLib.options import Options
    from ClassScaleSegLib.remote.address import server_of

    if options is not None and server_of(options.device) is not None:
        return Wanted(here=False)
    summaries = choose(models, options or Options()).summaries
    return Wanted(tuple(dict.fromkeys(package for summary in summaries for package in summary.packages)))


def missing_packages(wanted: Wanted = Wanted()) -> list[str]:
    """Return the requirements that are not installed or too old, torch first, and what installed ones lack."""
    torch = [f"torch{TORCH}"] if wanted.here and not has_torch() else []
    names = (*(PACKAGES if wanted.here else PACKAGES_OF_CLIENT), *wanted.more)
    missing = [requirement for requirement in names if not _is_installed(requirement)]
    return torch + missing + unmet(names, NOT_NEEDED)


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


def refuse_missing_dependencies(wanted: Wanted = Wanted()) -> None:
    """Raise an error if packages are missing. For scripts, where nobody may be present to answer a question.

    :raises ClassScaleError: if packages are missing; names them, and the call that installs them.
    """
    if missing := missing_packages(wanted):
        text = _(
            "Python packages are missing: {packages}. To install them, press Apply in the module ClassScaleSeg, or "
            "call ClassScaleSegLogic().installDependencies()."
        )
        raise ClassScaleError(text.format(packages=", ".join(missing)))


def ensure_dependencies(wanted: Wanted = Wanted(), wheels: str | Path | None = None) -> None:
    """Install the missing packages after asking the user. If none is missing, do nothing.

    The question stays until the packages are there or the user gives up: after a failure it says what went wrong and
    what to do.

    :param wheels: a folder of wheels to install from, without a network and without a question.
    :raises ClassScaleError: if the user declines, or an installation from ``wheels`` fails; says what to do.
    """
    from .dialog import NETWORK, choose_source

    if wanted.here and not has_torch() and importlib.util.find_spec("torch") is not None:
        text = _(
            "PyTorch {found} is installed, but {wanted} is needed. Uninstall it in the module PyTorch, restart Slicer, "
            "and press Apply again."
        )
        raise ClassScaleError(text.format(found=version("torch"), wanted=TORCH))
    fault = ""
    while missing := missing_packages(wanted):
        source = choose_source(missing, fault) if wheels is None else Path(wheels)
        if source is None:
            raise ClassScaleError(fault or _segmenting().declined.format(packages=", ".join(missing)))
        try:
            if source == NETWORK:
                _install_from_network(missing)
            else:
                install_wheels(Path(source), missing)
            if still := missing_packages(wanted):
                reason = _("{packages} cannot be imported after the installation").format(packages=", ".join(still))
                raise ClassScaleError(_failed(reason, _segmenting()))
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
        _install(others, _segmenting(), asked=True)


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
        _with_next_step(
            lambda: slicer.util.pip_install(["--no-index", "--no-deps", *map(str, plan.files)]), _segmenting()
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
    torch = _with_next_step(
        lambda: logic.installTorch(askConfirmation=False, torchVersionRequirement=TORCH), _segmenting()
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

        _with_next_step(
            lambda: pip_ensure(missing, prompt_install=False, skip_packages=list(KEPT), requester="ClassScaleSeg"),
            purpose,
        )
    else:
        _with_next_step(lambda: _install_in_older_slicer(missing), purpose)


def _install_in_older_slicer(missing: list[str]) -> None:
    """Slicer up to 5.10 cannot skip packages, so those to keep are pinned."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text(constraints())
        slicer.util.pip_install(["-c", str(pins), *missing])


def _with_next_step(work: Callable[[], _T], purpose: Purpose) -> _T:
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
        raise ClassScaleError(_failed(str(error), purpose, next_step(f"{heard.text}\n{error}"))) from error


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


def _failed(reason: str, purpose: Purpose, step: str = "") -> str:
    text = _(
        "The Python packages could not be installed: {reason}. Slicer's own packages were not changed. {step} To "
        'undo the installation, type slicer.util.pip_uninstall("{packages}") into the Python console.'
    )
    step = step or _("Try again: what has arrived is kept.")
    return text.format(reason=reason.strip().rstrip("."), packages=purpose.undo, step=step)
