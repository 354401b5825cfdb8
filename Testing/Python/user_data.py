"""A user of the tests, whose data folder is not that of whoever runs them."""

import sys
from pathlib import Path


def data_environment(folder: Path) -> dict[str, str]:
    """Return the environment variables by which a folder is that with the user's data."""
    home = {"HOME": str(folder)} if sys.platform == "darwin" else {}
    return {"XDG_DATA_HOME": str(folder), "LOCALAPPDATA": str(folder), **home}
