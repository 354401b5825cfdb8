"""What tests of `RemoteSegmenter` share: a server that is empty after each test, an image, and what becomes of it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import RemoteSegmenter, Segmentation
from ClassScaleSegLib.images.reading import read_image
from ClassScaleSegLib.remote import connection
from ClassScaleSegLib.server.offers import Offers
from remote_fixtures import Quick, quick_server

MIB = 1 << 20


@pytest.fixture(scope="module")
def offers():
    return Offers(["toy-120", "toy-1000"])


@pytest.fixture
def quick():
    return Quick()


@pytest.fixture
def api(tmp_path, offers, quick, monkeypatch):
    """A server that is empty after each test."""
    monkeypatch.setattr(connection, "_PAUSES", (0.05,) * 7)
    with quick_server(tmp_path / "server", offers, quick, monkeypatch) as api:
        yield api
        deadline = time.monotonic() + 30
        while api.files() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert api.files() == []


@pytest.fixture
def image(tmp_path) -> Path:
    """An image of 2 MB whose file has the name of a patient."""
    return written(tmp_path / "Doe^John.nrrd")


def written(file: Path, side: int = 100) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(volume(side), file)
    return file


def volume(side: int = 100) -> sitk.Image:
    voxels = np.random.default_rng(7).normal(0, 100, (side, side, side)).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 0.8, 1.5))
    image.SetOrigin((-31.7, 1 / 3, 1000.125))
    return image


def expected(image, value: int = 1) -> np.ndarray:
    read = read_image(image, 1)
    voxels = read.voxels[0]  # a view of what ``read`` owns
    return np.where(voxels > voxels.mean(), value, 0)


def segmented(address: str, image, **more) -> Segmentation:
    with RemoteSegmenter(address, patience=20) as segmenter:
        return segmenter.segment(image, "toy-120", **more)
