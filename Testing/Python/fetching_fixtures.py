"""What the tests of fetching from an archive share: files that it has, the command, and answers that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from reading_server import run

STUDY = "1.2.826.0.1.3680043.8.498.1"  # as dicom_phantom writes it


@pytest.fixture
def given(shelf, series):
    """The content of each file that the archive has, by its SOPInstanceUID."""
    shelf.add(series)
    return {data.SOPInstanceUID: content for content, data in shelf.files}


@pytest.fixture
def uid(given, shelf) -> str:
    return shelf.files[0][1].SeriesInstanceUID


def fetch(shelf, folder, *words) -> int:
    return run("fetch", "--from", shelf.address, "-o", folder, *words)


def fetched(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder, also of hidden ones, by its name without suffix."""
    return {file.stem: file.read_bytes() for file in folder.iterdir()}


def files(path: str) -> bool:
    """Whether a path is that of files, not of a search."""
    return path.count("/") in (4, 6)


def of_series(path: str) -> bool:
    return path.count("/") == 4


def answering(shelf, which, answer):
    """Give this answer to requests of which the path is such."""
    shelf.answer = lambda path, *_: answer if which(path) else None
