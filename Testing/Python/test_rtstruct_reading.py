"""Structure sets are read as planning systems write them, filled on the grid of an image, and compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib import Code, Geometry, ImageError, Segmentation
from ClassScaleSegLib.images.contour_filling import fill, inside
from ClassScaleSegLib.images.dicom.rtstruct_reader import read_structure_set
from ClassScaleSegLib.images.structures_on_grid import structures_on_grid

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")

from dicom_results import OBLIQUE, TABLES, VOLUMES, comparable, segmented, series  # noqa: E402
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian  # noqa: E402
from structure_sets import Contour, Drawn, rectangle, write_structures  # noqa: E402

GRID = Geometry((20, 16, 12), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
NAME = "a.rtstruct.dcm"


def on_grid(path, geometry: Geometry = GRID, frame: str = ""):
    return structures_on_grid(read_structure_set(path), geometry, "ct.nii.gz", frame)


def voxels(found, value: int = 1) -> np.ndarray:
    """Return which voxels have a label, in any layer."""
    return np.any([layer == value for layer in found.layers], axis=0)


def slabs(path, contours: list[Contour], geometry: Geometry = GRID) -> tuple[list[int], tuple[str, ...]]:
    """Return the slices that a structure fills, and what is said of it."""
    found = on_grid(write_structures(path / NAME, [Drawn("a", contours)]), geometry)
    return np.flatnonzero(voxels(found).any((1, 2))).tolist(), found.notices


def squares(*heights: float) -> list[Contour]:
    return [rectangle(height, (1.5, 5.5), (2.5, 8.5)) for height in heights]


@pytest.mark.parametrize("name", VOLUMES)
def test_what_we_write_comes_back_voxel_by_voxel(tmp_path, name):
    pytest.importorskip("contourpy")
    source = series(tmp_path, VOLUMES[name])
    ours = segmented(source, TABLES["16 bit"])
    if (
        name == "one column"
    ):  # noise on every second slice is one structure there, as contours on every second slice are
        ours.labels[:] = ours.labels[2]
    ours.write(tmp_path / NAME, source=source)
    found = read_structure_set(tmp_path / NAME)
    placed = structures_on_grid(found, ours.geometry, "it", "1.2.826.0.1.3680043.8.498.7")
    assert len(placed.layers) == 1 and np.array_equal(placed.layers[0], ours.labels)
    assert placed.geometry == ours.geometry
    present = set(np.unique(ours.labels).tolist())
    assert comparable(placed.table) == [row for row in comparable(ours.table) if row[0] in present]


def test_smooth_outlines_give_the_volume_that_they_enclose(tmp_path):
    """Circles as a person draws them: their area is known, and the voxels must have it."""
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    circles = [
        Contour(np.stack([10.3 + 6.2 * np.cos(turn), 8.1 + 6.2 * np.sin(turn), np.full(90, z)], 1))
        for z in range(2, 10)
    ]
    fine = Geometry((200, 160, 12), (0.1, 0.1, 1.0), (0.0, 0.0, 0.0))
    found = on_grid(write_structures(tmp_path / NAME, [Drawn("ball", circles)]), fine)
    assert voxels(found).sum() * fine.voxel_volume == pytest.approx(8 * 45 * np.sin(np.pi / 45) * 6.2**2, rel=2e-3)


def test_holes_by_keyhole_by_nesting_and_by_xor(tmp_path):
    keyhole = [(1, 1), (9, 1), (9, 9), (1, 9), (1, 5), (3, 5), (3, 7), (7, 7), (7, 3), (3, 3), (3, 5), (1, 5)]
    outer, inner = (1, 9), (3, 7)
    drawn = [
        Drawn("keyhole", [Contour([(x, y, 4) for x, y in keyhole])]),
        Drawn("nested", [rectangle(4, inner, inner), rectangle(4, outer, outer), rectangle(4, (4.2, 5.2), (4.2, 5.2))]),
        Drawn("xor", [rectangle(4, span, span, "CLOSEDPLANAR_XOR") for span in (outer, inner)]),
    ]
    shifted = Geometry(GRID.size, GRID.spacing, (0.5, 0.5, 0.0))  # no centre is on a line
    found = on_grid(write_structures(tmp_path / NAME, drawn), shifted)
    ring = np.zeros((16, 20), bool)
    ring[1:9, 1:9], ring[3:7, 3:7] = True, False
    assert np.array_equal(voxels(found, 1)[4], ring) and np.array_equal(voxels(found, 3)[4], ring)
    ring[4, 4] = True
    assert np.array_equal(voxels(found, 2)[4], ring)
    assert found.notices == ("Contours of nested lie inside of others; they are taken as holes.",)


def test_a_contour_that_is_there_twice_counts_once_and_crossing_ones_are_told(tmp_path):
    square = rectangle(4, (1.5, 5.5), (1.5, 5.5))
    found = on_grid(write_structures(tmp_path / NAME, [Drawn("twice", [square, square])]))
    assert voxels(found).sum() == 16 and not found.notices
    crossing = [square, rectangle(4, (3.5, 7.5), (1.5, 5.5))]
    found = on_grid(write_structures(tmp_path / NAME, [Drawn("crossing", crossing)]))
    assert voxels(found).sum() == 16  # two columns of four voxels on both sides
    assert found.notices == ("Contours of crossing overlap in part; what is in both of two is left out.",)


def test_a_polygon_has_the_voxels_that_other_libraries_find():
    from matplotlib.path import Path as Polygon

    random = np.random.default_rng(3)
    centres = np.indices((40, 50))[::-1].reshape(2, -1).T
    for _ in range(20):
        turn = np.sort(random.random(30)) * 2 * np.pi
        radius = 5 + 25 * random.random(30)
        star = np.stack([25 + radius * np.cos(turn), 20 + radius * np.sin(turn)], 1)
        expected = Polygon(star).contains_points(centres).reshape(40, 50)
        assert np.array_equal(inside(star, (0, 0), (40, 50)), expected)
        assert np.array_equal(fill([star], (7, 9), (20, 30)).mask, expected[7:27, 9:39])


def test_polygons_with_a_common_side_share_no_voxel():
    left, right = ([(x, 0.0), (x + 4, 0.0), (x + 4, 6.0), (x, 6.0)] for x in (1.0, 5.0))
    masks = [inside(np.array(points), (0, 0), (8, 12)) for points in (left, right)]
    assert not (masks[0] & masks[1]).any() and (masks[0] | masks[1]).sum() == 8 * 6


def test_contours_between_the_slices_and_on_some_of_them(tmp_path):
    every = list(range(2, 11))
    assert slabs(tmp_path, squares(*every)) == (every, ())
    assert slabs(tmp_path, squares(*(z + 0.04 for z in every))) == (every, ())
    filled, said = slabs(tmp_path, squares(*(z + 0.5 for z in every[:-1])))
    assert len(filled) == 8 and "of a lie between the slices of ct.nii.gz: each counts for the nearest one" in said[0]
    for step in (2, 3):
        heights = range(2, 11, step)
        filled, said = slabs(tmp_path, squares(*heights))
        assert len(filled) == step * len(heights) and filled == list(range(filled[0], filled[-1] + 1))
        assert said[0] == (
            f"Contours of a are up to {step} mm apart, {step} slices of ct.nii.gz: each counts for the slices nearest "
            "to it."
        )
    coarse = Geometry((20, 16, 4), (1.0, 1.0, 3.0), (0.0, 0.0, 1.0))
    filled, said = slabs(tmp_path, squares(*every), coarse)
    assert filled == [1, 2, 3]  # at 4, 7 and 10 mm
    assert "Contours of a are denser than the slices of ct.nii.gz" in said[0]


def test_a_plane_that_no_slice_takes_is_told(tmp_path):
    filled, said = slabs(tmp_path, squares(2, 3, 3.2, 4, 5))
    assert filled == [2, 3, 4, 5]
    assert said == ("Contours of a are denser than the slices of ct.nii.gz, which take the nearest ones.",)


def test_lines_through_the_centres_of_voxels_do_not_depend_on_rounding(tmp_path):
    """Each of 40 rectangles goes through centres; rounding at the 13th digit must not move its sides."""
    grid = Geometry((20, 16, 40), (0.7, 0.9, 1.3), (-17.3, 5.1, 2.7))
    x, y, z = ([origin + step * n for n in range(40)] for origin, step in zip(grid.origin, grid.spacing, strict=True))
    drawn = [rectangle(height, (x[3], x[9]), (y[2], y[7])) for height in z]
    found = on_grid(write_structures(tmp_path / NAME, [Drawn("a", drawn)]), grid)
    expected = np.zeros((16, 20), bool)
    expected[2:7, 3:9] = True
    assert all(np.array_equal(plane, expected) for plane in voxels(found))


def test_real_gaps_stay_empty_and_are_told(tmp_path):
    filled, said = slabs(tmp_path, squares(1, 2, 3, 8, 9))
    assert filled == [1, 2, 3, 8, 9]
    assert said == ("Slices between contours of a have none, and are taken as empty.",)
    filled, said = slabs(tmp_path, squares(0, 2, 4, 10))  # neighbours are 2 mm apart, and 10 is another part
    assert filled == [0, 1, 2, 3, 4, 9, 10] and len(said) == 2 and said[1].startswith("Slices between contours of a")


def test_one_contour_is_as_thick_as_the_planes_of_the_others_are_apart(tmp_path):
    drawn = [Drawn("sparse", squares(1, 4, 7)), Drawn("single", squares(4))]
    found = on_grid(write_structures(tmp_path / NAME, drawn))
    assert np.flatnonzero(voxels(found, 2).any((1, 2))).tolist() == [3, 4, 5]
    # a structure whose own planes are farther apart than those of the others keeps its own distance
    more = on_grid(write_structures(tmp_path / NAME, [drawn[0], Drawn("dense", squares(*range(12)))]))
    assert np.flatnonzero(voxels(more, 1).any((1, 2))).tolist() == list(range(9))
    found = on_grid(write_structures(tmp_path / NAME, drawn[1:]))
    assert np.flatnonzero(voxels(found, 1).any((1, 2))).tolist() == [4]


def test_structures_that_overlap_stay_whole(tmp_path):
    target, organ = Drawn("PTV", [rectangle(4, (1.5, 9.5), (1.5, 9.5))]), Drawn("organ", squares(4))
    found = on_grid(write_structures(tmp_path / NAME, [target, organ, Drawn("empty")]))
    assert len(found.layers) == 2 and voxels(found, 1).sum() == 64 and voxels(found, 2).sum() == 4 * 6


def test_contours_beyond_the_grid_enlarge_it(tmp_path):
    contours = [rectangle(z, (-3.5, 5.5), (2.5, 8.5)) for z in range(-2, 15)]
    found = on_grid(write_structures(tmp_path / NAME, [Drawn("body", contours)]))
    assert found.geometry.size == (23, 16, 17) and found.geometry.origin == (-3.0, 0.0, -2.0)
    assert voxels(found).sum() == 17 * 9 * 6
    assert found.notices == ("Contours of body reach up to 3.0 mm beyond ct.nii.gz, and count there too.",)
    far = [rectangle(4, (5000, 5005), (2, 8))]
    with pytest.raises(ImageError, match="body are up to 4,985 mm outside of ct.nii.gz: they are of another image"):
        on_grid(write_structures(tmp_path / NAME, [Drawn("body", far)]))


def test_slices_along_any_axis_and_oblique_ones(tmp_path):
    labels = np.zeros(GRID.size[::-1], np.uint16)
    labels[3:9, 2:5, 4:11] = 1
    path = write_structures(
        tmp_path / NAME, [Drawn("box", [rectangle(z, (3.5, 10.5), (1.5, 4.5)) for z in range(3, 9)])]
    )
    for orientation in ("LPS", "SRA", "PIR", "ASL"):
        grid, turn = GRID.turned(orientation)
        found = on_grid(path, grid)
        assert np.array_equal(found.layers[0], turn.apply(labels)), orientation
        assert not found.notices
    oblique = Geometry(
        GRID.size,
        GRID.spacing,
        GRID.origin,
        tuple(np.array([*OBLIQUE, *np.cross(OBLIQUE[:3], OBLIQUE[3:])]).reshape(3, 3).T.ravel().tolist()),
    )
    with pytest.raises(ImageError, match=r"Contours of box do not lie in slices of ct.nii.gz: they reach .* Name the"):
        on_grid(path, oblique)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_names_numbers_colours_and_codes(tmp_path, syntax):
    liver = {"RTROIIdentificationCodeSequence": ("SCT", "10200004", "Liver")}
    local = {"RTROIIdentificationCodeSequence": ("99VMS_STRUCTCODE", "PTV_High", "PTV High")}
    drawn = [
        Drawn("Größe 肝臓\n=1+1", squares(4), number=7, color=(1, 254, 300), codes=liver),
        Drawn("", squares(4), number=70000, color=None, codes=local),
        Drawn("", number=-3),
        Drawn("a" * 300, squares(4), number=0),
    ]
    path = write_structures(tmp_path / "RS.1.2.3.dcm", drawn, syntax)
    found = read_structure_set(path)
    labels = [structure.label for structure in found.structures]
    assert [label.name for label in labels] == ["Größe 肝臓 =1+1", "structure 70000", "structure -3", "a" * 300]
    assert (
        labels[0].value == 7
        and len({label.value for label in labels}) == 4
        and min(label.value for label in labels) > 0
    )
    assert labels[0].color == (1, 254, 255) and labels[0].type == Code("SCT", "10200004", "Liver")
    assert labels[1].type is None  # a local code
    assert [len(structure.contours) for structure in found.structures] == [1, 1, 0, 1]
    assert structures_on_grid(found, GRID, "x").layers[0].any()


def test_sequences_of_undefined_length(tmp_path):
    path = write_structures(tmp_path / NAME, [Drawn("a", squares(4)), Drawn("b", squares(6))])
    dataset = pydicom.dcmread(path)
    for item in dataset.ROIContourSequence:
        item.is_undefined_length_sequence_item = True
        for element in item:
            element.is_undefined_length = element.VR == "SQ"
    for element in dataset:
        element.is_undefined_length = element.VR == "SQ"
    dataset.save_as(tmp_path / "b.dcm")
    assert b"\xfe\xff\xdd\xe0" in (tmp_path / "b.dcm").read_bytes()
    assert np.array_equal(on_grid(path).layers[0], on_grid(tmp_path / "b.dcm").layers[0])


def test_points_and_open_lines_are_left_out_with_a_word(tmp_path):
    contours = [
        *squares(4),
        Contour([(1, 2, 4)], "POINT"),
        Contour([(1, 2, 4), (3, 4, 5)], "OPEN_NONPLANAR"),
        Contour([(1, 2, 9), (3, 4, 9)]),
    ]
    found = read_structure_set(write_structures(tmp_path / NAME, [Drawn("a", contours)]))
    assert [len(structure.contours) for structure in found.structures] == [1]
    assert found.notices == (
        "It has points and open lines, which enclose nothing; left out: 2.",
        "It has contours of less than three points; left out: 1.",
    )


def test_frames_of_reference(tmp_path):
    two = [Drawn("a", squares(4)), Drawn("b", squares(4), frame="1.2.3"), Drawn("c", frame="1.2.4")]
    path = write_structures(tmp_path / NAME, two)
    found = on_grid(path, frame="1.2.3")
    assert not voxels(found, 1).any() and voxels(found, 2).any()
    assert found.table.names == {2: "b"}  # what was left out is not known to be absent
    assert found.notices == ("Structures of another frame of reference than ct.nii.gz are left out: 2.",)
    with pytest.raises(ImageError, match="structures of 2 frames of reference .* ct.nii.gz does not say"):
        on_grid(path)
    with pytest.raises(ImageError, match="It has another frame of reference .* than ct.nii.gz"):
        on_grid(path, frame="1.2.5")


def test_a_file_of_a_planning_system():
    """Of pydicom's examples: three contours at 10 mm, some with their first point twice, and two isocentres."""
    from pydicom.data import get_testdata_file

    path = Path(str(get_testdata_file("rtstruct.dcm")))
    found = read_structure_set(path)
    assert [structure.label.name for structure in found.structures] == ["patient"]  # the points enclose nothing
    assert found.structures[0].label.color == (220, 160, 120)
    assert found.notices == ("It has points and open lines, which enclose nothing; left out: 2.",)
    grid = Geometry((100, 100, 100), (5.0, 5.0, 5.0), (-250.0, -250.0, -250.0))
    placed = structures_on_grid(found, grid, "x")
    assert voxels(placed).sum() * 5**3 == 3 * 400 * 300 * 10
    with pytest.raises(ImageError, match="is a structure set, which has contours and no voxels"):
        Segmentation.from_image(path)
