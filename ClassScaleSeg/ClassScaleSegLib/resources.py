"""Find the files of the top-level folder ``Resources``: label tables, embedded models, sample data."""

from __future__ import annotations

from pathlib import Path


def resource(*parts: str) -> Path:
    """Return the path of a file or folder in ``Resources``.

    Each way to install puts ``Resources`` in a different place: inside this package (pip), in the folder that contains
    this package (Slicer extension), or at the top of the repository (checkout). All three are searched in this order.

    :param parts: the path below ``Resources``, one name for each level.
    :returns: absolute path of the file or folder.
    :raises FileNotFoundError: if it is in none of them; the message names the file and the folders searched.

    >>> resource("Models", "toy-120.zip").is_file()
    True
    """
    folders = [folder / "Resources" for folder in Path(__file__).resolve().parents[:3]]
    for folder in folders:
        path = folder.joinpath(*parts)
        if path.exists():
            return path
    searched = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(
        f"{'/'.join(parts)} was not found in any of {searched}: the installation of ClassScaleSeg is incomplete; "
        "install it again."
    )
