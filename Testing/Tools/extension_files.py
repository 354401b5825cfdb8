"""List the files that are installed into Slicer, and where. Packaging and its test both use this list.

Slicer's own build installs the files that ``ClassScaleSeg/CMakeLists.txt`` lists, and those of the trainer. Here all
are found in the folders.
"""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_INSTALLED = {"Icons", "Screenshots"}  # in the top-level Resources; only the catalogue and the readme use them


def installed_files(repository: Path = REPOSITORY) -> dict[str, Path]:
    """Return the files to install, by path below Slicer's ``qt-scripted-modules``, sorted by path.

    :param repository: a checkout of the repository.
    """
    module, resources, training = (repository / name for name in ("ClassScaleSeg", "Resources", "training"))
    files = {file.relative_to(module): file for file in module.rglob("*.py")}
    files |= {file.relative_to(module): file for file in (module / "Resources").rglob("*")}
    for folder in resources.iterdir():
        if folder.name not in NOT_INSTALLED:
            files |= {file.relative_to(repository): file for file in folder.rglob("*")}
    package = training / "classscale_training"
    files |= {file.relative_to(training): file for kind in ("*.py", "*.csv") for file in package.rglob(kind)}
    trainers = training / "nnunet_trainers"
    files |= {package.relative_to(training) / file.relative_to(training): file for file in trainers.rglob("*.py")}
    return {
        path.as_posix(): files[path]
        for path in sorted(files)
        if files[path].is_file() and not any(part.startswith((".", "__pycache__")) for part in path.parts)
    }


def extension_metadata(repository: Path = REPOSITORY) -> dict[str, str]:
    """Return the values of ``set(EXTENSION_X "...")`` in the top-level ``CMakeLists.txt``, by X in lower case.

    :param repository: a checkout of the repository.
    """
    text = (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    return {name.lower(): value for name, value in re.findall(r'set\(EXTENSION_([A-Z]+)\s+"([^"]*)"\s*\)', text)}
