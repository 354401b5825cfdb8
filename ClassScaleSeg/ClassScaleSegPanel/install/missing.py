"""Which Python packages a run needs, and which of them are missing. Nothing is imported to find out."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ClassScaleSegLib.errors import ClassScaleError
from slicer.i18n import tr as _

from .wheels import unmet

if TYPE_CHECKING:
    from ClassScaleSegLib.options import Options

PACKAGES = ["nnunetv2>=2.7", "psutil", "safetensors", "scipy", "tqdm"]
TRAINING = "nnunetv2>=2.8"  # of which trainers are
PACKAGES_OF_CLIENT = ["psutil", "scipy"]  # if a server segments
KEPT = ("numpy", "SimpleITK", "requests", "torch")  # whatever is installed
NOT_NEEDED = (*KEPT, "torchvision")  # segmenting does without, or Slicer has it
TORCH = ">=2.2"


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
    missing = [requirement for requirement in names if not is_installed(requirement)]
    return torch + missing + unmet(names, NOT_NEEDED)


def has_torch() -> bool:
    """Return whether torch is installed and new enough."""
    return is_installed(f"torch{TORCH}")


def is_installed(requirement: str) -> bool:
    """Look for files only, without an import; `slicer.packaging.pip_check` would refuse pre-releases, as of torch."""
    from packaging.requirements import Requirement  # Slicer has it

    importlib.invalidate_caches()
    wanted = Requirement(requirement)
    # as modules are named, also those of XlsxWriter and dicomweb-client
    if importlib.util.find_spec(wanted.name.lower().replace("-", "_")) is None:
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


def refuse_old_torch() -> None:
    """Refuse a torch that is too old, which the extension PyTorch does not replace.

    :raises ClassScaleError: if it is; says what to do.
    """
    if not has_torch() and importlib.util.find_spec("torch") is not None:
        text = _(
            "PyTorch {found} is installed, but {wanted} is needed. Uninstall it in the module PyTorch, restart Slicer, "
            "and press Apply again."
        )
        raise ClassScaleError(text.format(found=version("torch"), wanted=TORCH))
