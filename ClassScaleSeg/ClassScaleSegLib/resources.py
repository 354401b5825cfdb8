"""Where the files of the top-level folder ``Resources`` lie: label tables, embedded models, sample data."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """Path of a file or folder below ``Resources``, for example ``resource("LabelTables", "totalsegmentator.csv")``.

    Looked for where the three ways to install put it: inside this package (pip), beside it (Slicer extension), and at
    the top of a checkout of the repository.

    :raises FileNotFoundError: a sentence naming the file and the folders searched.
    """
    folders = [_HERE / "Resources", _HERE.parent / "Resources", _HERE.parents[1] / "Resources"]
    for folder in folders:
        path = folder.joinpath(*parts)
        if path.exists():
            return path
    searched = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(
        f"{'/'.join(parts)} was not found in any of {searched}: the installation of ClassScaleSeg is incomplete, "
        "install it again."
    )
