"""Smoothing against the blurred indicators of all classes at once."""

from __future__ import annotations

import numpy as np
import pytest
from ClassScaleSegLib.images import smoothing
from cleanup_fixtures import SHAPES, SPACINGS, check_report, random_labels, result_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage


def check_smoothing(labels, spacing, mm: float, chosen: list[int] | None) -> None:
    """Compare with the blurred indicator of every class, in float64, except where two have the same weight."""
    before = result_of(labels, spacing)
    after = before.smoothed(mm, chosen)
    candidates = [0, *(sorted({*np.unique(labels).tolist()} - {0}) if chosen is None else chosen)]
    sigmas = [mm / step for step in spacing[::-1]]
    weights = np.stack(
        [
            ndimage.gaussian_filter((labels == value).astype(float), sigmas, mode="constant", truncate=3)
            for value in candidates
        ]
    )
    own = np.stack([labels == value for value in candidates])
    best = weights.max(0)
    may_change = own.any(0)
    np.testing.assert_array_equal(after.labels[~may_change], labels[~may_change])
    index = np.searchsorted(candidates, after.labels)
    got = np.take_along_axis(weights, np.where(may_change, index, 0)[None], 0)[0]
    assert np.isin(after.labels[may_change], candidates).all()
    assert (got >= best - 2e-5)[may_change].all()
    kept = (np.where(own, weights, 0).max(0) >= best - 5e-6) & may_change  # a tie changes nothing
    np.testing.assert_array_equal(after.labels[kept], labels[kept])
    check_report(before, after, {})


@settings(max_examples=150, deadline=None)
@given(
    shape=SHAPES,
    classes=st.sampled_from((1, 3, 300, 65535)),
    spacing=st.sampled_from(SPACINGS),
    mm=st.sampled_from((0.05, 0.4, 1, 2.5)),
    block=st.sampled_from((1, 3, 32)),
    few=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_smoothing_is_the_vote_of_all_blurred_classes(shape, classes, spacing, mm, block, few, seed):
    labels = random_labels(shape, classes, seed)
    chosen = sorted({*np.unique(labels).tolist()} - {0})[:2] if few else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoothing, "_BLOCK", block)
        patch.setattr(smoothing, "_LARGEST_BLOCK", 5)
        check_smoothing(labels, spacing, mm, chosen or None)


@pytest.mark.parametrize("mm", [0.8, 3.0])
@pytest.mark.parametrize("chosen", [None, [1, 9, 30]])
def test_many_classes_in_many_blocks(mm, chosen):
    rng = np.random.default_rng(0)
    z, y, x = (np.indices((50, 70, 60)) + rng.integers(-2, 3, (3, 50, 70, 60))).clip(0) // 14
    labels = (z * 25 + y * 5 + x).astype(np.uint16)  # 0 in a corner
    check_smoothing(labels, (0.9, 1.1, 1.6), mm, chosen)


def test_the_size_of_the_blocks_makes_no_difference(monkeypatch):
    labels = random_labels((20, 30, 25), 40, 1)
    results = []
    for block in (4, 17, 64):
        monkeypatch.setattr(smoothing, "_BLOCK", block)
        results.append(result_of(labels).smoothed(1.2).labels)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_straight_borders_between_many_classes_stay_without_gaps():
    z, y, x = np.indices((24, 24, 24)) // 8
    labels = (z * 9 + y * 3 + x + 1).astype(np.uint16)
    assert not (result_of(labels).smoothed(1.5).labels == 0).any()
    halves = (np.indices((8, 8, 8))[0] // 4 + 1).astype(np.uint16)
    assert result_of(halves).smoothed(2).changes == ()


def test_steps_between_two_classes_become_smaller_without_a_gap():
    z, y, x = np.indices((30, 30, 30))
    noise = np.random.default_rng(2).normal(0, 2, (30, 30, 30))
    labels = np.where(x + noise < 15, 1, 2).astype(np.uint16)
    after = result_of(labels).smoothed(1.5)
    clean = np.where(x < 15, 1, 2)
    assert not (after.labels == 0).any()
    assert (after.labels != clean).sum() < (labels != clean).sum() / 3
    assert [change.name for change in after.changes] == ["class 1", "class 2"]
    assert after.changes[0].gained == after.changes[1].lost


@pytest.mark.parametrize("axes, width", [(1, 1.4), (2, 2.4), (3, 3.1)], ids=["sheet", "tube", "ball"])
def test_structures_below_the_documented_widths_vanish(axes, width):
    sigma, places = 4.0, np.arange(-22, 23) - 0.25
    squares = np.meshgrid(*[places**2 if axis < axes else 0 * places for axis in range(3)], indexing="ij")
    distance = np.sqrt(sum(squares))
    for factor, stays in ((0.94, False), (1.06, True)):
        labels = (distance < factor * width * sigma / 2).astype(np.uint16)
        centre = result_of(labels).smoothed(sigma).labels[15:30, 15:30, 15:30]
        assert labels.any() and centre.any() == stays
