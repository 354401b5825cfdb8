"""Segmentations made from label images, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib.errors import ImageError, LabelTableError, LargeImageError
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.image_file import check_memory
from ClassScaleSegLib.images.segmentation import Segmentation
from ClassScaleSegLib.labels.table import LabelTable


@pytest.mark.parametrize(
    "pixel",
    [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64],
)
def test_label_images_of_any_type_are_taken(pixel):
    image = sitk.GetImageFromArray(np.array([[[0, 1, 5]]], pixel))
    image.SetSpacing((2.0, 3.0, 4.0))
    ours = Segmentation.from_image(image)
    assert ours.labels.dtype == np.uint16 and ours.labels.tolist() == [[[0, 1, 5]]]
    assert ours.table.names == {0: "background", 1: "label 1", 5: "label 5"}
    assert ours.to_image().GetSpacing() == (2.0, 3.0, 4.0) and ours.to_image().GetPixelID() == sitk.sitkUInt16


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (sitk.GetImageFromArray(np.full((2, 2, 2), -1, np.int16)), "range from -1 to -1"),
        (sitk.GetImageFromArray(np.full((2, 2, 2), 65536, np.int32)), "between 0 and 65535; these range from 65536"),
        (sitk.GetImageFromArray(np.full((2, 2, 2), 0.5, np.float32)), "must be whole numbers; these have 0.5"),
        (sitk.GetImageFromArray(np.full((2, 2, 2), np.nan)), "must be whole numbers; these have nan"),
        (sitk.GetImageFromArray(np.full((2, 2, 2), 1e30)), "must be whole numbers; these have 1e"),
        (sitk.GetImageFromArray(np.full((2, 2, 2), -1.0)), "range from -1 to -1"),
        (sitk.GetImageFromArray(np.ones((2, 2), np.uint8)), "has 2 dimensions; three are needed"),
        (sitk.GetImageFromArray(np.ones((2, 2, 2, 3), np.int16), isVector=True), "has 3 values in each voxel and does"),
        ("no/such/labels.nii.gz", "no/such/labels.nii.gz does not exist"),
    ],
)
def test_what_is_no_label_image_is_refused(image, message):
    with pytest.raises(ImageError, match=message):
        Segmentation.from_image(image)


def test_values_without_a_name_and_shapes_that_disagree_are_refused():
    table, geometry = LabelTable.from_names({1: "a"}), Geometry((3, 2, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    with pytest.raises(LabelTableError, match="contains 2, 7, which the label table does not name"):
        Segmentation(np.array([[[0, 1, 2], [7, 7, 7]]], np.uint16), table, geometry)
    with pytest.raises(ImageError, match=r"label map has the shape \(3, 2, 1\), the geometry has \(1, 2, 3\)"):
        Segmentation(np.zeros((3, 2, 1), np.uint16), table, geometry)
    with pytest.raises(ImageError, match="confidence map has the shape"):
        Segmentation(np.zeros((1, 2, 3), np.uint16), table, geometry, np.zeros((1, 2), np.float32))


@pytest.mark.parametrize(
    ("spacing", "origin", "direction", "message"),
    [
        ((0.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()), "not positive"),
        ((1.0, -1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()), "not positive"),
        ((np.nan, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()), "not positive"),
        ((1.0, 1.0, 1.0), (np.inf, 0.0, 0.0), tuple(np.eye(3).ravel()), "does not span a volume"),
        ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 1, 0, 0, 0, 0, 1), "does not span a volume"),
        ((1e30, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()), "has spacing .*; from 1e-07 to 100000 mm"),
        ((1.0, 1e-320, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()), "has spacing|does not span"),
        ((1.0, 1.0, 1.0), (0.0, -1e30, 0.0), tuple(np.eye(3).ravel()), r"has the origin .*; up to 1e\+09 mm"),
        ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (2, 0, 0, 0, 1, 0, 0, 0, 1), "not a rotation"),
        ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 1, 0, 0, 1e-5, 0, 0, 0, 1), "not a rotation"),
    ],
)
def test_a_geometry_that_is_none_is_refused(spacing, origin, direction, message):
    with pytest.raises(ImageError, match=message):
        Geometry((3, 2, 1), spacing, origin, direction)


def test_the_names_in_a_seg_nrrd_come_back_without_a_table(tmp_path):
    names = {0: "background", 1: "kidney_cyst_left", 2: "absent", 3: "strange := a|b~c^d&e"}
    labels = np.array([[[0, 1], [3, 3]]], np.uint16)
    ours = Segmentation(labels, LabelTable.from_names(names), Geometry((2, 2, 1), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)))
    ours.write(tmp_path / "case.seg.nrrd", keep_empty=True)
    again = Segmentation.from_image(str(tmp_path / "case.seg.nrrd"))
    ungrouped = tuple(replace(label, group=None) for label in ours.table.foreground)  # headings of lists are not kept
    assert again.table.labels == ungrouped and np.array_equal(again.labels, ours.labels)


def test_a_seg_nrrd_with_a_damaged_segment_is_refused():
    image = sitk.GetImageFromArray(np.zeros((2, 3, 4), np.uint8))
    image.SetMetaData("Segment0_ID", "Segment_1")
    image.SetMetaData("Segment0_LabelValue", "one")
    image.SetMetaData("Segment0_Color", "1 0 0")
    with pytest.raises(LabelTableError, match="Segment Segment_1 has no valid label value and colour .*one"):
        Segmentation.from_image(image)


def label_image(path, voxels=1, **segments):
    """Write an image with one labelled voxel, and what the header says of segments."""
    image = sitk.GetImageFromArray(np.full((1, 1, 1), voxels))
    for key, value in segments.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path))
    return path


SEGMENT = {"ID": "one", "LabelValue": "1", "Color": "1 0 0"}


@pytest.mark.parametrize(
    ("name", "voxels", "segments", "fault"),
    [
        ("a.nii.gz", np.uint8(2), [], "contains 2"),
        ("a.nii.gz", np.float32(1.5), [], "must be whole numbers"),
        ("a.mha", np.int16(-1), [], "between 0 and"),
        ("a.seg.nrrd", np.uint8(2), [SEGMENT], "contains 2"),
        ("a.seg.nrrd", np.uint8(1), [{**SEGMENT, "Color": "red"}], "no valid label value and colour"),
        ("a.seg.nrrd", np.uint8(1), [SEGMENT, {**SEGMENT, "ID": "two"}], "used twice"),
        ("a.seg.nrrd", np.uint8(1), [SEGMENT, {**SEGMENT, "LabelValue": "2"}], "used twice"),
    ],
)
def test_whatever_is_wrong_with_a_label_image_names_its_file(tmp_path, name, voxels, segments, fault):
    fields = {f"Segment{n}_{key}": value for n, fields in enumerate(segments) for key, value in fields.items()}
    path = label_image(tmp_path / name, voxels, **fields)
    table = None if segments else LabelTable.from_names({1: "liver"})
    with pytest.raises((ImageError, LabelTableError)) as caught:
        Segmentation.from_image(path, table)
    assert str(caught.value).startswith(f"{path}: ") and str(caught.value).count(str(path)) == 1
    assert fault in str(caught.value)


def test_a_label_without_a_name_names_the_table_that_lacks_it(tmp_path):
    LabelTable.from_names({1: "liver"}).to_csv(tmp_path / "names.csv")
    table = LabelTable.from_csv(tmp_path / "names.csv")
    assert table == LabelTable(table.labels)  # where it was read from does not count
    with pytest.raises(LabelTableError, match=r"a\.mha: .* contains 2, which .*names\.csv does not name"):
        Segmentation.from_image(label_image(tmp_path / "a.mha", np.uint8(2)), table)
    with pytest.raises(LabelTableError, match=r"called spleen; .*names\.csv has 1 labels"):
        table.by_name("spleen")


def test_without_psutil_no_image_is_too_large(monkeypatch):
    with pytest.raises(LargeImageError, match="of memory are free"):
        check_memory("a.nrrd", "9x9x9", 1 << 60)
    monkeypatch.setitem(sys.modules, "psutil", None)
    check_memory("a.nrrd", "9x9x9", 1 << 60)
