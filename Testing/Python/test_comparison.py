"""Two segmentations compared, class by class: matching, Dice, volumes, other grids, and the file."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib import LabelTable, OutputExistsError, Segmentation
from ClassScaleSegLib.images.comparison import COLUMNS, compare, write_comparison
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.labels.label import Code, Label

SHAPE = (10, 12, 14)
GRID = Geometry(SHAPE[::-1], (1.0, 1.0, 2.0), (-5.0, 7.0, 3.0))
TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


def boxes(names: dict[int, str], *placed: tuple[int, slice, slice, slice], geometry=GRID) -> Segmentation:
    labels = np.zeros(geometry.size[::-1], np.uint16)
    for value, *box in placed:
        labels[tuple(box)] = value
    return Segmentation(labels, LabelTable.from_names(names), geometry)


def by_name(found) -> dict:
    return {row.name: row for row in found.rows}


def test_dice_and_volumes_are_those_of_the_voxels():
    generator = np.random.default_rng(0)
    table = LabelTable.from_names({0: "background", **{value: f"cell {value}" for value in range(1, 40)}})
    one, two = (Segmentation(generator.integers(0, 40, SHAPE).astype(np.uint16), table, GRID) for _ in range(2))
    two.labels[:5] = one.labels[:5]
    found = compare(one, two)
    assert not found.resampled and len(found.rows) == 39
    for row in found.rows:
        a, b = one.labels == row.value, two.labels == row.other_value
        assert row.dice == 2 * (a & b).sum() / (a.sum() + b.sum())
        assert row.volume_ml == pytest.approx(a.sum() * 0.002) and row.other_volume_ml == pytest.approx(b.sum() * 0.002)
        assert row.difference_ml == pytest.approx((int(b.sum()) - int(a.sum())) * 0.002)
    assert [row.dice for row in compare(one, one).rows] == [1.0] * 39


def test_classes_are_matched_by_code_else_by_name():
    rows = [slice(n, n + 1) for n in range(6)]
    whole = slice(None)
    one = boxes(
        {1: "kidney_left", 2: "my cyst", 3: "only here", 4: "absent"},
        *[(value, rows[value], whole, whole) for value in (1, 2, 3)],
    )
    two = boxes(
        {9: "Left kidney", 8: "My-Cyst", 7: "only there", 6: "kidney_right"},
        *[(value, rows[place], whole, whole) for value, place in ((9, 1), (8, 2), (7, 3), (6, 4))],
    )
    found = by_name(compare(one, two))
    assert {name: (row.value, row.other_value, row.dice) for name, row in found.items()} == {
        "kidney_left": (1, 9, 1.0),
        "my cyst": (2, 8, 1.0),
        "only here": (3, None, None),
        "only there": (None, 7, None),
        "kidney_right": (None, 6, None),
    }
    assert found["only here"].difference_ml is None and found["only there"].volume_ml is None


def test_codes_that_say_nothing_and_names_that_repeat_decide_nothing():
    tissue = Code("SCT", "85756007", "Tissue")  # Slicer gives it to every new segment
    labels = [Label(value, f"S{value}", name, (1, 2, 3), tissue, tissue) for value, name in ((1, "a"), (2, "b"))]
    voxels = np.zeros(SHAPE, np.uint16)
    voxels[0], voxels[1] = 1, 2
    one = Segmentation(voxels, LabelTable(tuple(labels)), GRID)
    swapped = [replace(label, name=name) for label, name in zip(labels, ("b", "a"), strict=True)]
    two = Segmentation(voxels, LabelTable(tuple(swapped)), GRID)
    assert {row.name: row.other_value for row in compare(one, two).rows} == {"a": 2, "b": 1}
    same = [replace(label, name="a") for label in labels]
    three = Segmentation(voxels, LabelTable(tuple(same)), GRID)
    assert [(row.name, row.dice) for row in compare(three, three).rows] == [("a", None)] * 4


def test_a_side_may_be_shortened():
    """As in the names of structures in radiotherapy, which TG-263 standardises."""
    rows, whole = [slice(n, n + 1) for n in range(5)], slice(None)
    drawn, found = (
        boxes(dict(enumerate(names, first)), *[(first + n, rows[n], whole, whole) for n in range(5)])
        for first, names in (
            (1, ("Kidney_L", "Rt lung", "my cyst R", "my L cyst", "L")),
            (6, ("kidney_left", "right lung", "right my cyst", "my left cyst", "left")),
        )
    )
    matched = {row.name: row.other_value for row in compare(drawn, found).rows if row.dice}
    assert matched == {"Kidney_L": 6, "Rt lung": 7, "my cyst R": 8}


def test_classes_that_overlap_are_compared_in_their_layers():
    body = np.ones(SHAPE, np.uint16)
    organ = np.zeros(SHAPE, np.uint16)
    organ[2:4] = 2
    table = LabelTable.from_names({1: "body", 2: "organ"})
    one = Segmentation(body, table, GRID, more_layers=(organ,))
    two = Segmentation(organ, table, GRID, more_layers=(np.where(np.indices(SHAPE)[0] < 5, body, 0),))
    found = by_name(compare(one, two))
    assert found["organ"].dice == 1 and found["body"].dice == pytest.approx(2 / 3)


@pytest.mark.parametrize("turned", ["RAS", "LPS", "SAR", "PIR"])
def test_the_same_voxels_in_another_order_are_the_same(turned):
    one = boxes(
        {1: "a", 2: "b"}, (1, slice(1, 4), slice(2, 9), slice(3, 5)), (2, slice(5, 9), slice(0, 3), slice(6, 14))
    )
    geometry, turn = GRID.turned(turned)
    two = Segmentation(np.ascontiguousarray(turn.apply(one.labels)), one.table, geometry)
    assert [row.dice for row in compare(one, two).rows] == [1.0, 1.0]


def test_a_cropped_segmentation_is_put_where_it_belongs():
    one = boxes({1: "a"}, (1, slice(4, 8), slice(5, 9), slice(6, 10)))
    part = one.labels[3:, 4:, 5:]
    geometry = Geometry(part.shape[::-1], GRID.spacing, (0.0, 11.0, 9.0))
    found = compare(one, Segmentation(part, one.table, geometry))
    assert found.resampled and found.rows[0].dice == 1.0
    other_way = compare(Segmentation(part, one.table, geometry), one)
    assert other_way.rows[0].dice == 1.0
    away = compare(one, Segmentation(part, one.table, replace(geometry, origin=(500.0, 0.0, 0.0))))
    assert away.rows[0].dice == 0.0 and away.rows[0].difference_ml == 0.0


@pytest.mark.parametrize(
    ("spacing", "direction"),
    [((0.5, 0.5, 1.0), None), ((2.0, 2.0, 4.0), None), ((0.7, 0.9, 1.3), None), ((0.5, 0.5, 0.5), TURN)],
)
def test_a_ball_on_another_grid_is_nearly_the_same(spacing, direction):
    centre, radius = np.array([3.0, 2.0, 1.0]), 9.0

    def ball(geometry: Geometry) -> Segmentation:
        x, y, z = np.meshgrid(*map(np.arange, geometry.size), indexing="ij")
        points = np.stack([x, y, z], -1) @ geometry.axes.T + geometry.origin
        inside = (np.square(points - centre).sum(-1) < radius**2).astype(np.uint16)
        return Segmentation(inside.transpose(2, 1, 0), LabelTable.from_names({1: "ball"}), geometry)

    size = tuple(int(np.ceil(40 / step)) for step in spacing)
    turn = np.eye(3) if direction is None else direction
    origin = centre - turn @ (np.multiply(spacing, np.subtract(size, 1)) / 2)
    one = ball(Geometry((40, 40, 20), (1.0, 1.0, 2.0), (-16.5, -17.5, -18.0)))
    two = ball(Geometry(size, spacing, tuple(origin.tolist()), tuple(np.ravel(turn).tolist())))
    for found in (compare(one, two), compare(two, one)):
        assert found.resampled and found.rows[0].dice > 0.9
        assert abs(found.rows[0].difference_ml) < 0.05 * found.rows[0].volume_ml


def test_a_comparison_becomes_a_file(tmp_path):
    one = boxes(
        {1: "a", 2: 'b, "c"'}, (1, slice(0, 2), slice(None), slice(None)), (2, slice(3, 4), slice(0, 1), slice(0, 1))
    )
    two = boxes({5: "A"}, (5, slice(0, 1), slice(None), slice(None)))
    write_comparison(tmp_path / "a.csv", compare(one, two).rows)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        list(COLUMNS),
        ["a", "1", "5", "0.666667", "0.672", "0.336", "-0.336"],
        ["b, 'c'", "2", "", "", "0.002", "", ""],
    ]
    with pytest.raises(OutputExistsError):
        write_comparison(tmp_path / "a.csv", [])
