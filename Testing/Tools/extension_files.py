"""Which files of the repository belong into Slicer, and where: the one rule that packaging and its test share.

Slicer's own build installs what ``ClassScaleSeg/CMakeLists.txt`` lists; here the same is found by looking.
"""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_INSTALLED = {"Icons", "Screenshots"}  # of the top-level Resources: for the catalogue and the readme


def installed_files(repository: Path = REPOSITORY) -> dict[str, Path]:
    """Path below Slicer's ``qt-scripted-modules`` -> file, sorted by path."""
    module, resources = repository / "ClassScaleSeg", repository / "Resources"
    files = {file.relative_to(module): file for file in module.rglob("*.py")}
    files |= {file.relative_to(module): file for file in (module / "Resources").rglob("*")}
    for folder in resources.iterdir():
        if folder.name not in NOT_INSTALLED:
            files |= {file.relative_to(repository): file for file in folder.rglob("*")}
    return {
        path.as_posix(): files[path]
        for path in sorted(files)
        if files[path].is_file() and not any(part.startswith((".", "__pycache__")) for part in path.parts)
    }


def extension_metadata(repository: Path = REPOSITORY) -> dict[str, str]:
    """The fields ``set(EXTENSION_X "...")`` of the top ``CMakeLists.txt``, by X in lower case."""
    text = (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    return {name.lower(): value for name, value in re.findall(r'set\(EXTENSION_([A-Z]+)\s+"([^"]*)"\s*\)', text)}
