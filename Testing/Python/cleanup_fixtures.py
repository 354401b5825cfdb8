"""What the tests of smoothing and of islands share: label maps, and the report that must say what changed."""

from __future__ import annotations

import numpy as np
from ClassScaleSegLib import Geometry, LabelTable, Segmentation
from ClassScaleSegLib.images import cleanup
from hypothesis import strategies as st

SPACINGS = ((1.0, 1.0, 1.0), (0.7, 1.3, 3.1), (0.1, 0.1, 0.1), (2.0, 0.5, 0.9))
SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(1, 8))


def result_of(labels, spacing=(1.0, 1.0, 1.0), confidence=None) -> Segmentation:
    """The spacing is that of x, y, z; classes are named ``class 1``, ``class 2`` and so on."""
    values = {*np.unique(labels).tolist(), 1, 2} - {0}
    table = LabelTable.from_names({value: f"class {value}" for value in sorted(values)})
    grid = Geometry(labels.shape[::-1], spacing, (-10.5, 20.25, 33.3))
    return Segmentation(labels, table, grid, confidence)


def random_labels(shape, classes: int, seed: int) -> np.ndarray:
    """Speckle of some of the values up to ``classes``, of which neighbours are often the same."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, classes, 5, endpoint=True)
    values[0] = classes
    labels = rng.choice(values, shape).astype(np.uint16)
    labels[:, :, 1::2] = np.where(rng.random(labels[:, :, 1::2].shape) < 0.6, labels[:, :, : shape[2] // 2 * 2 : 2], 0)
    return labels


def check_report(before: Segmentation, after: Segmentation, islands: dict[int, int]) -> None:
    """The report has every class that changed, in table order, with exactly what changed."""
    expected = []
    for label in before.table.foreground:
        old, new = before.labels == label.value, after.labels == label.value
        lost, gained, removed = int((old & ~new).sum()), int((new & ~old).sum()), islands.get(label.value, 0)
        if lost or gained or removed:
            name = f"class {label.value}"
            numbers = (int(old.sum()), int(new.sum()), lost, gained, removed)
            expected.append(cleanup.ClassChange(label.value, name, *numbers))
    assert list(after.changes) == expected
