"""What the tests of the catalogue share: a server that misbehaves on request, a catalogue, a model to download."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from ClassScaleSegLib.catalog.catalog import Catalog
from ClassScaleSegLib.catalog.entries import Entry, Part
from conftest import TOY
from web import Page, serve

MODEL = TOY.read_bytes()
SHA256 = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture(scope="module")
def server():
    with serve() as site:
        yield site


@pytest.fixture
def site(server):
    server.pages.clear()
    server.requests.clear()
    server.pages["/a.zip"] = Page(MODEL)
    return server


@pytest.fixture
def catalog(tmp_path):
    return Catalog(tmp_path / "models")


@pytest.fixture
def entry(site):
    part = Part(f"{site.address}/a.zip")
    return Entry("model-a", "Model A", modality="CT", classes=120, licence="MIT", parts=(part,))


def known(entry, **facts):
    """The entry with other facts of its only part."""
    return replace(entry, parts=(replace(entry.parts[0], **facts),))
