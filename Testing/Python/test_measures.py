"""Measures of classes against SciPy, SimpleITK, and shapes whose surface is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib.errors import ImageError
from ClassScaleSegLib.images import measures
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.measures import measure
from ClassScaleSegLib.images.statistics import measure_columns
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

ROTATION = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", ">i2", ">f4")


def grid(shape, spacing=(0.7, 1.3, 3.1), direction=ROTATION) -> Geometry:
    return Geometry(tuple(shape[::-1]), spacing, (-10.5, 20.25, 33.3), tuple(np.ravel(direction).tolist()))


def random_image(shape, dtype: str, seed: int) -> np.ndarray:
    """Intensities over the whole range of a type, or far from 0 with a small spread, where sums of squares cancel."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(1e6, 1, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, np.int64, endpoint=True).astype(dtype)


def check_against_scipy(labels, geometry, image) -> None:
    found = measure(labels, geometry, image)
    values = [value for value in np.unique(labels).tolist() if value]
    assert list(found) == values
    for value, boxes in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        assert (boxes is None) == (value not in found)
        if boxes is not None:
            ours = found[value]
            assert (ours.first, ours.last) == tuple(tuple(f(b) for b in boxes[::-1]) for f in (_start, _last))
            sides = zip(boxes, labels.shape, strict=True)
            ends = [(b.start == 0 or b.stop == size) and size > 1 for b, size in sides]
            assert ours.touches_edge is any(ends)
            assert ours.voxels == np.count_nonzero(labels == value)
            assert ours.volume_ml == pytest.approx(ours.voxels * geometry.voxel_volume / 1000, rel=1e-12)
            assert ours.surface_mm2 > 0
            index = ndimage.center_of_mass(labels == value)[::-1]
            lps = geometry.axes @ index + geometry.origin
            assert ours.centroid == pytest.approx((-lps[0], -lps[1], lps[2]), abs=1e-9)
            inside = image[labels == value].astype(np.float64)
            tolerance = 1e-12 * max(1.0, float(np.abs(inside).max()))
            assert ours.intensities.mean == pytest.approx(
                ndimage.mean(image.astype(float), labels, value), abs=tolerance
            )
            spread = inside.std(ddof=1) if len(inside) > 1 else 0.0
            assert ours.intensities.standard_deviation == pytest.approx(spread, rel=1e-10, abs=tolerance)
            percentiles = np.percentile(inside, (0, 5, 25, 50, 75, 95, 100))
            assert ours.intensities[2:] == pytest.approx(percentiles.tolist(), abs=tolerance)
            assert ours.intensities.median == pytest.approx(ndimage.median(image, labels, value), abs=tolerance)
            assert all(math.isfinite(column.cell(ours)) for column in measure_columns(intensities=True))


def _start(box: slice) -> int:
    return box.start


def _last(box: slice) -> int:
    return box.stop - 1


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(1, 8)),
    classes=st.sampled_from((1, 3, 40, 60_000)),
    dtype=st.sampled_from(TYPES),
    at_once=st.sampled_from((1, 60, 1 << 17)),
    seed=st.integers(0, 1000),
)
def test_random_label_maps_agree_with_scipy(shape, classes, dtype, at_once, seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(rng.integers(0, classes, 20, endpoint=True), shape).astype(np.uint16)
    labels[rng.random(shape) < rng.random()] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "_VOXELS_AT_ONCE", at_once)
        check_against_scipy(labels, grid(shape), random_image(shape, dtype, seed))


@pytest.mark.parametrize("dtype", TYPES)
def test_many_classes_in_many_slabs_agree_with_scipy(dtype, monkeypatch):
    monkeypatch.setattr(measures, "_VOXELS_AT_ONCE", 1 << 11)
    shape = (23, 31, 29)
    z, y, x = np.indices(shape) // 6
    labels = (z * 40 + y * 7 + x).astype(np.uint16)  # 0 in a corner, values without voxels between
    check_against_scipy(labels, grid(shape), random_image(shape, dtype, 0))


def test_an_image_that_is_not_contiguous_is_measured_in_place():
    labels = np.random.default_rng(0).integers(0, 5, (4, 5, 6)).astype(np.uint16)
    channels = np.random.default_rng(1).normal(size=(4, 5, 6, 2))
    assert measure(labels, grid(labels.shape), channels[..., 0]) == measure(
        labels, grid(labels.shape), channels[..., 0].copy()
    )


def test_shape_and_intensity_agree_with_simpleitk():
    labels = (np.indices((12, 14, 16)).sum(0) // 9).astype(np.uint16)
    geometry = grid(labels.shape)
    values = random_image(labels.shape, "int16", 5)
    image, intensities = sitk.GetImageFromArray(labels), sitk.GetImageFromArray(values)
    geometry.apply(image)
    geometry.apply(intensities)
    shapes, statistics = sitk.LabelShapeStatisticsImageFilter(), sitk.LabelStatisticsImageFilter()
    shapes.Execute(image)
    statistics.Execute(intensities, image)
    found = measure(labels, geometry, values)
    assert list(found) == list(shapes.GetLabels())
    for value, ours in found.items():
        x, y, z = shapes.GetCentroid(value)
        assert ours.centroid == pytest.approx((-x, -y, z), abs=1e-9)
        assert ours.voxels == shapes.GetNumberOfPixels(value)
        assert ours.volume_ml == pytest.approx(shapes.GetPhysicalSize(value) / 1000)
        first, size = shapes.GetBoundingBox(value)[:3], shapes.GetBoundingBox(value)[3:]
        assert (ours.first, ours.last) == (first, tuple(np.add(first, size) - 1))
        assert ours.intensities.mean == pytest.approx(statistics.GetMean(value))
        assert ours.intensities.standard_deviation == pytest.approx(statistics.GetSigma(value))
        assert ours.intensities.minimum == statistics.GetMinimum(value)
        assert ours.intensities.maximum == statistics.GetMaximum(value)


def ellipsoid_area(a: float, b: float, c: float) -> float:
    """Return the surface of an ellipsoid with these half axes, by integration over the unit sphere."""
    turn = np.arange(100_000) + 0.5
    z, angle = 1 - 2 * turn / len(turn), turn * math.pi * (1 + math.sqrt(5))
    x, y = np.sqrt(1 - z * z) * np.cos(angle), np.sqrt(1 - z * z) * np.sin(angle)
    return 4 * math.pi * float(np.sqrt((b * c * x) ** 2 + (a * c * y) ** 2 + (a * b * z) ** 2).mean())


def surface_of(inside, spacing, direction=ROTATION, size: float = 70.0) -> float:
    """Return the surface that is measured of the voxels in a cube of ``size`` mm whose distances x, y, z are inside."""
    shape = [math.ceil(size / step) for step in spacing[::-1]]
    z, y, x = ((np.arange(count) - count / 2 + 0.37) * step for count, step in zip(shape, spacing[::-1], strict=True))
    labels = inside(x, y[:, None], z[:, None, None]).astype(np.uint16)
    [found] = measure(labels, grid(shape, spacing, direction)).values()
    assert not found.touches_edge
    return found.surface_mm2


SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 1.0), (0.7, 0.7, 1.5), (0.8, 0.8, 3.0), (1.0, 2.0, 4.0), (0.7, 0.7, 5.0)]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("radius", [15.0, 30.0])
def test_the_surface_of_a_sphere(radius, spacing):
    area = surface_of(lambda x, y, z: x * x + y * y + z * z < radius**2, spacing)
    assert area == pytest.approx(4 * math.pi * radius**2, rel=0.02)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("half", [(30.0, 20.0, 15.0), (15.0, 25.0, 30.0)])
def test_the_surface_of_an_ellipsoid(half, spacing):
    a, b, c = half
    area = surface_of(lambda x, y, z: (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1, spacing)
    assert area == pytest.approx(ellipsoid_area(*half), rel=0.07 if spacing == (1.0, 2.0, 4.0) else 0.05)


@pytest.mark.parametrize("spacing, error", [((1.0, 1.0, 1.0), 0.10), ((0.8, 0.8, 1.0), 0.11), ((0.7, 0.7, 5.0), 0.25)])
def test_the_surface_of_a_box_along_the_grid_is_too_small_as_documented(spacing, error):
    area = surface_of(lambda x, y, z: (abs(x) < 20) & (abs(y) < 25) & (abs(z) < 30), spacing)
    exact = 8 * (20 * 25 + 20 * 30 + 25 * 30)
    assert (1 - error) * exact < area < exact


@pytest.mark.parametrize(
    "spacing, share", [((1.0, 1.0, 1.0), 0.927), ((0.8, 0.8, 3.0), 0.81), ((0.7, 0.7, 5.0), 0.725)]
)
def test_a_plane_along_the_slices_is_too_small_as_documented(spacing, share):
    def surface(rows: int, columns: int) -> float:
        shape = (6, rows, columns)
        return measure(np.ones(shape, np.uint16), grid(shape, spacing))[1].surface_mm2

    inner = surface(40, 40) - surface(40, 20) - surface(20, 40) + surface(20, 20)  # without the sides of the boxes
    assert inner == pytest.approx(share * 2 * 20 * 20 * spacing[0] * spacing[1], rel=0.006)


@pytest.mark.parametrize("spacing", SPACINGS[:3])
def test_the_surface_of_a_box_across_the_grid(spacing):
    def inside(x, y, z):
        a, b, c = (row[0] * x + row[1] * y + row[2] * z for row in ROTATION)
        return (abs(a) < 15) & (abs(b) < 20) & (abs(c) < 25)

    assert surface_of(inside, spacing, size=110.0) == pytest.approx(8 * (15 * 20 + 15 * 25 + 20 * 25), rel=0.06)


def test_the_surface_of_cubic_voxels_is_that_of_simpleitk():
    labels = (np.indices((24, 26, 28)).sum(0) // 9 % 5).astype(np.uint16)
    image, filter_ = sitk.GetImageFromArray(labels), sitk.LabelShapeStatisticsImageFilter()
    filter_.Execute(image)
    found = measure(labels, Geometry.from_image(image))
    for value, ours in found.items():
        assert ours.surface_mm2 == pytest.approx(filter_.GetPerimeter(value), rel=5e-4)


def test_the_surface_depends_neither_on_the_direction_nor_on_the_order_of_the_axes():
    def cone(x, y, z):
        return (x * x + y * y < (20 - z) ** 2 / 4) & (z > -25) & (z < 20)

    first = surface_of(cone, (0.9, 1.1, 1.7))
    assert surface_of(cone, (0.9, 1.1, 1.7), np.eye(3)) == pytest.approx(first, rel=1e-12)
    assert surface_of(lambda x, y, z: cone(y, z, x), (1.7, 0.9, 1.1)) == pytest.approx(first, rel=0.003)


def test_the_edge_of_the_image_is_surface():
    full = measure(np.ones((20, 20, 20), np.uint16), grid((20, 20, 20)))[1]
    padded = measure(np.pad(np.ones((20, 20, 20), np.uint16), 3), grid((26, 26, 26)))[1]
    assert full.surface_mm2 == pytest.approx(padded.surface_mm2, rel=1e-12)
    assert full.touches_edge and not padded.touches_edge


def test_in_a_single_slice_only_its_own_edges_cut_a_structure_off():
    labels = np.zeros((1, 8, 8), np.uint16)
    labels[0, 2:4, 2:4], labels[0, 6:, 2] = 1, 2
    found = measure(labels, grid((1, 8, 8)))
    assert (found[1].touches_edge, found[2].touches_edge) == (False, True)


def test_nothing_but_background_measures_nothing():
    labels = np.zeros((3, 4, 5), np.uint16)
    assert measure(labels, grid(labels.shape), labels) == {}


def test_a_cell_is_of_the_kind_of_its_column():
    labels = np.ones((3, 4, 5), np.uint16)
    found = measure(labels, grid(labels.shape), labels)[1]
    columns = measure_columns(intensities=True)
    assert [type(column.cell(found)) for column in columns] == [column.kind for column in columns]


@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf])
def test_intensities_that_are_not_finite_are_an_error_only_inside_a_class(fault):
    labels = np.zeros((3, 4, 5), np.uint16)
    labels[1, 1] = 4
    image = np.zeros((3, 4, 5), np.float32)
    image[2, 2, 2] = fault
    assert measure(labels, grid(labels.shape), image)[4].intensities.maximum == 0
    image[1, 1, 1] = fault
    with pytest.raises(ImageError, match="NaN or infinite. Replace them"):
        measure(labels, grid(labels.shape), image)


def test_an_image_of_another_shape_is_an_error():
    labels = np.ones((3, 4, 5), np.uint16)
    with pytest.raises(ImageError, match=r"The image has the shape \(5, 4, 3\)"):
        measure(labels, grid(labels.shape), np.zeros((5, 4, 3)))
