"""Archives that are only ours, a series to send to one, and no credentials of the person who runs the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from archive_server import archive_server
from reading_server import reading_server


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch):
    for name in ("PASSWORD", "TOKEN", "TO_PASSWORD", "TO_TOKEN"):
        monkeypatch.delenv(f"CLASSSCALESEG_DICOM_{name}", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server():
    with archive_server() as archive:
        yield archive


@pytest.fixture
def shelf():
    with reading_server() as archive:
        yield archive


@pytest.fixture
def series(tmp_path) -> Path:
    from dicom_phantom import planes, write_series

    return write_series(tmp_path / "series", planes(4))
