"""What the tests of a report's page share: a report of seven cases, one with an evil name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib import Geometry, LabelTable, Segmentation
from ClassScaleSegLib.images.cleanup import ClassChange
from ClassScaleSegLib.images.dicom.seg import UsedModel
from ClassScaleSegLib.report import rendering
from ClassScaleSegLib.report.facts import Run
from ClassScaleSegLib.report.report import Report

EVIL = "</script><script>document.title='evil'</script><img src=x onerror=\"document.title='evil'\"> & 'ü'"
NAMES = {0: "background", 1: "kidney_left", 2: "kidney_right", 3: EVIL, 4: "spleen", 5: "cell 10", 6: "cell 9"}
GRID = Geometry((24, 24, 24), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))


def segmentation(odd: bool = False) -> Segmentation:
    labels = np.zeros((24, 24, 24), np.uint16)
    for value in range(1, 7):
        labels[3 * value : 3 * value + 2, 4:20, 4 : 8 + value] = value
    if odd:
        labels[3:5] = 0
        labels[9:11, 4:20, 4:24] = 3
    changes = (ClassChange(4, "spleen", 2000, 1970, 50, 20, 2),) if odd else None
    return Segmentation(labels, LabelTable.from_names(NAMES), GRID, changes=changes)


@pytest.fixture(scope="module", autouse=True)
def simple_view() -> Iterator[None]:
    before = list(rendering._failed)
    rendering._failed[:] = ["is not tried in this test"]
    yield
    rendering._failed[:] = before


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Seven cases, of which one is odd, one has an evil name, and one failed."""
    written = Report(tmp_path_factory.mktemp("cohort"))
    image = np.arange(24**3, dtype=np.int16).reshape(24, 24, 24)
    for number in range(5):
        written.add(f"case {number + 8}", segmentation(), image)
    run = Run("2026-11-28T12:00:00+00:00", 12.3, {"read": 1.0}, "cpu", EVIL, 2**30, None, {"torch": "2"}, ())
    model = UsedModel("Organs", "CC0-1.0", "ab" * 32)
    more = {"warnings": [EVIL], "messages": [EVIL], "modality": "MR", "images": ["evil.nii.gz"]}
    written.add(EVIL, segmentation(odd=True), image, run=Run(**{**vars(run), "models": (model,)}), **more)
    written.add_failed("broken", f"It is empty. {EVIL}")
    return written.write()
