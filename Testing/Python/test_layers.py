"""Classes that overlap, in layers: what is computed of them, and the files that hold them or are refused."""

from __future__ import annotations

import csv
import json

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import LabelTable, Segmentation
from ClassScaleSegLib.errors import ImageError, LabelTableError, OutputError
from ClassScaleSegLib.images.dicom.seg import DicomSeg
from ClassScaleSegLib.images.formats import refuse_overlaps
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.layers import MOST_LAYERS, LayerBuilder
from ClassScaleSegLib.images.suffixes import IMAGE_SUFFIXES
from dicom_results import series
from hypothesis import given, settings
from hypothesis import strategies as st

SHAPE = (9, 11, 13)
GRID = Geometry(SHAPE[::-1], (1.0, 2.0, 3.0), (-10.0, 20.0, 5.0))
TABLE = LabelTable.from_names({0: "background", 1: "liver", 2: "tumour", 3: "vessel", 4: "absent", 300: "body"})


def box(value: int, *bounds: int) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint16)
    labels[tuple(slice(low, high) for low, high in zip(bounds[::2], bounds[1::2], strict=True))] = value
    return labels


def overlapping(geometry: Geometry = GRID) -> Segmentation:
    """A liver with a tumour and a vessel inside, the vessel also through the tumour, and the body around all."""
    liver, tumour = box(1, 2, 7, 2, 8, 3, 10), box(2, 3, 5, 4, 7, 5, 8)
    vessel, body = box(3, 3, 4, 1, 10, 6, 7), box(300, 1, 9, 0, 11, 1, 12)
    return Segmentation(liver, TABLE, geometry, more_layers=(tumour, vessel, body))


def masks(result: Segmentation) -> dict[str, np.ndarray]:
    """The voxels of each class that occurs, by name."""
    found = {}
    for label in result.table.foreground:
        (inside,) = [layer == label.value for layer in result.layers if (layer == label.value).any()] or [None]
        if inside is not None:
            found[label.name] = inside
    return found


def assert_same(one: Segmentation, other: Segmentation) -> None:
    first, second = masks(one), masks(other)
    assert first.keys() == second.keys()
    for name, inside in first.items():
        assert np.array_equal(inside, second[name]), name


def test_every_class_is_counted_and_measured_in_its_own_layer():
    result = overlapping()
    expected = {name: int(inside.sum()) for name, inside in masks(result).items()}
    assert expected == {"liver": 210, "tumour": 18, "vessel": 9, "body": 968}
    assert {row.name: row.voxels for row in result.statistics()} == expected | {"absent": 0}
    image = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    measured = result.measures(image)
    assert list(measured) == [1, 2, 3, 300]
    for value, layer in zip((1, 2, 3, 300), result.layers, strict=True):
        alone = Segmentation(layer, TABLE, GRID).measures(image)
        assert alone == {value: measured[value]}


def test_without_overlaps_there_is_one_layer():
    result = Segmentation(box(1, 2, 7, 2, 8, 3, 10), TABLE, GRID)
    assert result.more_layers == () and len(result.layers) == 1 and result.layers[0] is result.labels


@pytest.mark.parametrize(
    ("layer", "kind", "said"),
    [
        (box(1, 0, 1, 0, 1, 0, 1), ImageError, "label values 1 occur in several layers"),
        (box(7, 0, 1, 0, 1, 0, 1), LabelTableError, "contains 7, which the label table does not name"),
        (np.zeros((1, 2, 3), np.uint16), ImageError, "further layer of labels has the shape"),
        (np.zeros(SHAPE), ImageError, "must be integers"),
    ],
)
def test_layers_that_cannot_be_right_are_refused(layer, kind, said):
    with pytest.raises(kind, match=said):
        Segmentation(box(1, 2, 7, 2, 8, 3, 10), TABLE, GRID, more_layers=(layer,))


def test_each_layer_is_cleaned_up_by_itself():
    liver, tumour = box(1, 2, 7, 2, 8, 3, 10), box(2, 3, 5, 4, 7, 5, 8)
    liver[0, 0, 0], tumour[8, 10, 12] = 1, 2
    told = []
    result = Segmentation(liver, TABLE, GRID, more_layers=(tumour,))
    cleaned = result.cleaned(1.0, 10.0, ["liver", "tumour"], lambda done, total: told.append(done / total))
    for layer, value in zip(result.layers, (1, 2), strict=True):
        alone = Segmentation(layer, TABLE, GRID).cleaned(1.0, 10.0, ["liver", "tumour"])
        assert np.array_equal(alone.labels, cleaned.layers[value - 1])
        assert alone.changes == tuple(change for change in cleaned.changes if change.value == value) != ()
    assert told == sorted(told) and told[-1] == 1


def test_a_single_image_of_several_layers_is_refused():
    with pytest.raises(ImageError, match="in 4 layers"):
        overlapping().to_image()


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_images_of_one_label_are_refused_and_nothing_is_written(tmp_path, suffix):
    with pytest.raises(OutputError, match=r"holds one class in each voxel.*\.seg\.nrrd.*binary"):
        overlapping().write(tmp_path / f"a{suffix}")
    with pytest.raises(OutputError, match="holds one class"):
        refuse_overlaps(tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_written_segmentation_is_read_again(tmp_path):
    ours = overlapping()
    ours.write(tmp_path / "a.seg.nrrd", keep_empty=True)
    read = Segmentation.from_image(tmp_path / "a.seg.nrrd")
    assert_same(ours, read)
    assert read.table.names == {label.value: label.name for label in TABLE.foreground}
    assert read.geometry.distance(GRID) < 1e-9 and read.labels.dtype == np.uint16
    for first, second in zip(ours.layers, read.layers, strict=True):
        assert np.array_equal(first, second)


def test_slicer_reads_the_layers_and_we_read_what_slicer_writes(tmp_path):
    from mrml import label_map, read_segmentation, segments, slicer

    ours = overlapping()
    ours.write(tmp_path / "a.seg.nrrd")
    node = read_segmentation(tmp_path / "a.seg.nrrd")
    assert node.GetSegmentation().GetNumberOfLayers() == 4
    found = segments(node)
    assert [segment.GetName() for segment in found.values()] == ["liver", "tumour", "vessel", "body"]
    for segment in found.values():
        inside = label_map(segment, GRID.size) == segment.GetLabelValue()
        assert np.array_equal(inside, masks(ours)[segment.GetName()])
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "theirs.seg.nrrd"))
    assert storage.WriteData(node)
    values = [segment.GetLabelValue() for segment in found.values()]
    assert len(set(values)) < 4  # Slicer numbers the segments of each layer anew
    theirs = Segmentation.from_image(tmp_path / "theirs.seg.nrrd")
    assert len(theirs.layers) == 4 and len(set(theirs.table.names)) == 4
    assert {row.name: row.voxels for row in theirs.statistics()} == {
        row.name: row.voxels for row in ours.statistics() if row.voxels
    }


def edited(file, change) -> Segmentation:
    """Read a file whose header ``change`` has changed, a bytes object without the voxels."""
    header, voxels = file.read_bytes().split(b"\n\n", 1)
    other = file.with_name("changed.seg.nrrd")
    other.write_bytes(change(header) + b"\n\n" + voxels)
    return Segmentation.from_image(other)


def without(header: bytes, *fields: bytes) -> bytes:
    return b"\n".join(line for line in header.split(b"\n") if not any(field in line for field in fields))


def test_files_of_old_slicers_have_a_segment_in_each_component(tmp_path):
    first, second = box(1, 2, 7, 2, 8, 3, 10), box(2, 3, 5, 4, 7, 5, 8)
    Segmentation(first, TABLE, GRID, more_layers=(second,)).write(tmp_path / "a.seg.nrrd")
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.seg.nrrd")))
    assert image.shape == (*SHAPE, 2)

    def old(header: bytes) -> bytes:  # their voxels are 0 or 1, and nothing is said of layers and label values
        return without(header, b"_Layer", b"_LabelValue")

    with pytest.raises(ImageError, match=r"changed.seg.nrrd: Layer 1 has the label value 2, which is that of no"):
        edited(tmp_path / "a.seg.nrrd", old)
    one = LabelTable.from_names({0: "background", 1: "tumour"})
    Segmentation(second // 2, one, GRID).write(tmp_path / "b.seg.nrrd")
    both = np.stack([first, second // 2], -1).astype(np.uint8)
    vector = sitk.GetImageFromArray(both, isVector=True)
    GRID.apply(vector)
    for index, name in enumerate(("liver", "tumour")):
        fields = {"ID": f"S{index}", "Name": name, "Color": "1 0 0"}
        for key, text in fields.items():
            vector.SetMetaData(f"Segment{index}_{key}", text)
    assert_same(Segmentation.from_image(vector), Segmentation(first, TABLE, GRID, more_layers=(second,)))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"Segment1_Layer:=1", b"Segment1_Layer:=9", "is in layer 9, and the file has 4 layers"),
        (b"Segment1_Layer:=1", b"Segment1_Layer:=x", "no valid label value"),
        (b"Segment1_LabelValue:=2", b"Segment1_LabelValue:=0", "label value 0"),
        (b"Segment1_LabelValue:=2", b"Segment1_LabelValue:=99999", "label value 99999"),
        (b"Segment1_Layer:=1", b"Segment1_Layer:=2", "Layer 1 has the label value 2"),
        (b"Segment0_ID", b"Segment9_ID", "4 values in each voxel and does not say which segments"),
    ],
)
def test_headers_that_contradict_the_voxels_are_refused(tmp_path, old, new, said):
    overlapping().write(tmp_path / "a.seg.nrrd")
    with pytest.raises((ImageError, LabelTableError), match=said):
        edited(tmp_path / "a.seg.nrrd", lambda header: header.replace(old, new))


def test_a_layer_without_segments_is_left_out(tmp_path):
    empty = Segmentation(box(0), TABLE, GRID, more_layers=(box(1, 2, 7, 2, 8, 3, 10), box(2, 3, 5, 4, 7, 5, 8)))
    empty.write(tmp_path / "a.seg.nrrd")
    read = Segmentation.from_image(tmp_path / "a.seg.nrrd")
    assert len(read.layers) == 2
    assert_same(read, empty)


@pytest.fixture
def source(tmp_path):
    return series(tmp_path)


def of_series(source) -> Segmentation:
    from ClassScaleSegLib.images.reading import read_image

    grid = read_image(source, 1).geometry
    shape = grid.size[::-1]
    first, second = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    first[1:, 1:, 1:], second[:2, :2, 1:] = 1, 2
    return Segmentation(first, TABLE, grid, more_layers=(second,))


def test_a_binary_dicom_segmentation_holds_overlaps_and_a_label_map_does_not(tmp_path, source):
    ours = of_series(source)
    ours.write(tmp_path / "a.seg.dcm", source=DicomSeg(source, "binary"))
    assert_same(Segmentation.from_image(tmp_path / "a.seg.dcm"), ours)
    import highdicom

    theirs = highdicom.seg.segread(tmp_path / "a.seg.dcm")
    for number, (name, inside) in enumerate(masks(ours).items(), start=1):
        assert theirs.get_segment_description(number).segment_label == name
        assert theirs.get_volume(segment_numbers=[number]).array.sum() == inside.sum()
    with pytest.raises(OutputError, match="kind labelmap holds one class"):
        ours.write(tmp_path / "b.seg.dcm", source=source)
    assert not (tmp_path / "b.seg.dcm").exists()


def test_a_structured_report_refers_to_every_segment(tmp_path, source):
    ours = of_series(source)
    ours.write(tmp_path / "a.seg.dcm", source=DicomSeg(source, "binary"))
    ours.write_statistics(tmp_path / "a.sr.dcm", segmentation=tmp_path / "a.seg.dcm")
    text = json.dumps(pydicom.dcmread(tmp_path / "a.sr.dcm").to_json_dict())
    for row in ours.statistics():
        assert (f'"{row.name}"' in text) == bool(row.voxels)


def test_a_structure_set_has_the_contours_of_each_structure(tmp_path, source):
    from dicom_phantom import planes
    from test_dicom_rtstruct import filled, planes_of_files

    ours, volume = of_series(source), planes()
    ours.write(tmp_path / "a.rtstruct.dcm", source=source)
    found = pydicom.dcmread(tmp_path / "a.rtstruct.dcm")
    assert [item.ROIName for item in found.StructureSetROISequence] == ["liver", "tumour"]
    whole = list(found.ROIContourSequence)
    for value, layer in zip((1, 2), ours.layers, strict=True):
        found.ROIContourSequence = [item for item in whole if item.ReferencedROINumber == value]
        assert np.array_equal(filled(found, volume, planes_of_files(source)), layer)


def test_tables_list_every_class(tmp_path):
    ours = overlapping()
    ours.write_statistics(tmp_path / "a.csv", image=np.ones(SHAPE))
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert {name: int(row["Voxels"]) for name, row in rows.items()} == {
        row.name: row.voxels for row in ours.statistics()
    }
    assert all(row["Mean"] == "1" for name, row in rows.items() if name != "absent")


def test_pictures_show_structures_under_others():
    pytest.importorskip("PIL")
    import base64
    import io

    from ClassScaleSegLib.report.pictures import pictures_of
    from PIL import Image

    under, over = box(1, 1, 8, 1, 10, 1, 6), box(2, 1, 8, 1, 10, 1, 12)
    both = Segmentation(under, TABLE, GRID, more_layers=(over,))
    axial, *_, solid, _sheet = pictures_of(both, None, ct=False)
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(axial.data)))).astype(int)
    middle, quarter = drawn.shape[0] // 2, drawn.shape[1] // 4
    two, one = drawn[middle, quarter], drawn[middle, 3 * quarter]
    assert np.abs(one - 0.4 * np.array(TABLE[2].color)).max() < 12
    assert np.abs(two - 0.4 * np.array(TABLE[2].color) - 0.24 * np.array(TABLE[1].color)).max() < 12
    assert "where some overlap, one of them" in solid.text


def test_a_result_that_was_read_is_put_onto_the_grid_of_its_image_layer_by_layer(tmp_path):
    from ClassScaleSegLib.commands.results import _on_grid

    ours = overlapping()
    part = Segmentation(
        ours.labels[1:],
        TABLE,
        Geometry((13, 11, 8), GRID.spacing, (-10.0, 20.0, 8.0)),
        more_layers=tuple(layer[1:] for layer in ours.more_layers),
    )
    assert_same(_on_grid(part, GRID, None), ours)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 5)] * 6), min_size=1, max_size=12))
def test_no_class_loses_a_voxel_in_few_layers(boxes):
    builder, expected = LayerBuilder((6, 6, 6)), {}
    for value, (a, b, c, d, e, f) in enumerate(boxes, start=1):
        mask = np.zeros((6, 6, 6), bool)
        mask[min(a, b) : max(a, b) + 1, min(c, d) : max(c, d) + 1, min(e, f) : max(e, f) + 1] = True
        expected[value] = mask
        if value % 2:
            rows = np.flatnonzero(mask.any((1, 2)))
            builder.add([(int(row), np.flatnonzero(mask[row])) for row in rows], value)
        else:
            builder.add_box((slice(0, 6),) * 3, (mask * value).astype(np.uint16))
    most = np.sum([*expected.values()], axis=0).max()
    assert len(builder.layers) >= most and (len(builder.layers) == 1) == (most == 1)
    for value, mask in expected.items():
        assert np.array_equal(np.any([layer == value for layer in builder.layers], axis=0), mask)


def test_too_many_overlaps_are_refused_before_they_take_the_memory():
    builder = LayerBuilder((1, 1, 1))
    with pytest.raises(ImageError, match=f"More than {MOST_LAYERS} segments overlap"):
        for value in range(1, MOST_LAYERS + 2):
            builder.add([(0, np.array([0]))], value)
