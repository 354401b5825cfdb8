"""The report where something is amiss: foreign files, other models, long names, damaged cases, thin structures."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ClassScaleSegLib.report import rendering


@pytest.fixture(autouse=True)
def simple_view(monkeypatch):
    """VTK has a test of its own; here it would take a second for each case."""
    monkeypatch.setattr(rendering, "_failed", ["is not tried in this test"])


def test_the_process_that_renders_runs_nothing_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path, str(tmp_path)])
    monkeypatch.setattr(rendering.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(rendering, "_failed", [])
    rendering.render(np.ones((4, 4, 4), np.uint16), (1.0, 1.0, 1.0), np.full((65536, 3), 200, np.uint8))
    assert not (tmp_path / "was run").exists()
