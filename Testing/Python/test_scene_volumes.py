"""Volumes as files, and regions of them: written as ITK reads them, whatever turns them."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import ImageError, OutputError, Segmentation
from ClassScaleSegLib.scene.volume import geometry_of, region_of, uncrop, write_volume
from logic_fixtures import add_roi, scene  # noqa: F401  (fixtures)
from slicer_application import TURNED, add_volume, transform


def test_a_disk_that_fills_while_the_image_is_written_leaves_nothing(scene, tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("/dev/full is a device of Linux")
    volume = add_volume(np.zeros((40, 50, 60), np.int16))
    (tmp_path / "image.nrrd").symlink_to(full)
    with pytest.raises(OutputError, match="image.nrrd cannot be written .*make room there"):
        write_volume(volume, tmp_path / "image.nrrd")
    assert not (tmp_path / "image.nrrd").is_symlink()


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64, np.int32])
def test_an_oblique_volume_is_written_as_itk_reads_it(scene, tmp_path, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    volume = add_volume(array)
    volume.SetSpacing(0.5, 2.0, 3.0)
    volume.SetOrigin(10.0, -20.0, 30.0)
    volume.SetIJKToRASDirections(*np.ravel([row[:3] for row in TURNED[:3]]))
    write_volume(volume, tmp_path / "image.nrrd")
    image = sitk.ReadImage(str(tmp_path / "image.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(image), array)
    ras = np.array(image.TransformIndexToPhysicalPoint((3, 2, 1))) * (-1, -1, 1)
    expected = np.array(TURNED)[:3, :3] @ (3 * 0.5, 2 * 2.0, 1 * 3.0) + (10, -20, 30)
    np.testing.assert_allclose(ras, expected, atol=1e-9)
    transform(volume, TURNED)
    write_volume(volume, tmp_path / "turned.nrrd")
    image = sitk.ReadImage(str(tmp_path / "turned.nrrd"))
    ras = np.array(image.TransformIndexToPhysicalPoint((3, 2, 1))) * (-1, -1, 1)
    np.testing.assert_allclose(ras, (np.array(TURNED) @ [*expected, 1])[:3], atol=1e-9)
    np.testing.assert_allclose(image.GetSpacing(), (0.5, 2.0, 3.0))


def test_a_turned_region_holds_the_voxels_that_slicer_says_are_inside(scene):
    volume = add_volume(np.ones((20, 30, 25), np.uint8))
    volume.SetOrigin(-5, 3, 8)
    roi = add_roi((4.0, 14.0, 16.0), (11.0, 7.0, 30.0))
    transform(roi, TURNED)
    transform(volume, TURNED)  # both turned alike, so nothing changes between them; then the region once more
    roi.GetParentTransformNode().SetMatrixTransformToParent(
        _product(roi.GetParentTransformNode(), [[0.96, -0.28, 0, 3], [0.28, 0.96, 0, -4], [0, 0, 1, 0], [0, 0, 0, 1]])
    )
    region = region_of(volume, roi)
    geometry = geometry_of(volume)
    k, j, i = np.indices((20, 30, 25))
    lps = geometry.axes @ np.stack([i, j, k]).reshape(3, -1) + np.reshape(geometry.origin, (3, 1))
    ras = (lps * [[-1], [-1], [1]]).T
    inside = np.array([roi.IsPointInROIWorld(point.tolist()) for point in ras]).reshape(20, 30, 25)
    found = np.zeros_like(inside)
    found[region.box] = region.inside
    assert 300 < inside.sum() < 8000 and (found != inside).sum() == 0
    with pytest.raises(ImageError, match="contains no voxel of Small"):
        region_of(volume, add_roi((500.0, 0.0, 0.0), (5.0, 5.0, 5.0)))


def _product(node, rows):
    from slicer_application import vtk_matrix
    from vtk import vtkMatrix4x4

    matrix, result = vtkMatrix4x4(), vtkMatrix4x4()
    node.GetMatrixTransformToParent(matrix)
    vtkMatrix4x4.Multiply4x4(matrix, vtk_matrix(rows), result)
    return result


def test_outside_of_the_region_is_background_on_the_grid_of_the_volume(scene):
    from ClassScaleSegLib import LabelTable
    from ClassScaleSegLib.scene.volume import crop

    volume = add_volume(np.ones((6, 7, 8), np.uint8))
    region = region_of(volume, add_roi((3.0, 3.0, 2.0), (4.0, 2.0, 2.0)))
    geometry = geometry_of(volume)
    part = crop(geometry, region.box)
    inner = Segmentation(np.full(region.inside.shape, 3, np.uint16), LabelTable.from_names({0: "b", 3: "x"}), part)
    whole = uncrop(inner.labels, region, (6, 7, 8))
    assert whole.shape == (6, 7, 8) and (whole == 3).sum() == region.inside.sum() == 5 * 3 * 3
    assert whole[1:4, 2:5, 1:6].all()
