"""Where two segmentations differ: voxel by voxel, in the scene, from the panel and from the console."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import vtk
from ClassScaleSegLib import ImageError, LabelTable, Segmentation
from ClassScaleSegLib.images.comparison import ClassComparison, compare, onto_grid
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.scene.differences import densest_place, differences
from ClassScaleSegLib.scene.segmentation_reader import open_segmentation
from panel_scene import add_view
from slicer_application import TURNED, application, module, slicer, transform
from test_module_compare import SHAPE, compared, labels, panel, scene, segmentation, select  # noqa: F401

GRID = Geometry((11, 9, 7), (1.0, 1.5, 2.0), (3.0, -4.0, 5.0), (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
NAMES = ("drawn", "found")
SEGMENTS = ("both", "reference", "other")


def several_layers(seed: int, values: range, count: int, geometry=GRID) -> Segmentation:
    """Random structures with the names "s VALUE", which overlap."""
    generator, shape = np.random.default_rng(seed), geometry.size[::-1]
    layers = []
    for own in np.array_split(np.array(values), count):
        layers.append(generator.choice([0, 0, *own], shape).astype(np.uint16))
    table = LabelTable.from_names({0: "background", **{value: f"s {value}" for value in values}})
    return Segmentation(layers[0], table, geometry, more_layers=tuple(layers[1:]))


def sets_of(segmentation: Segmentation, names, place=None) -> np.ndarray:
    """The set of names of wanted structures at each voxel."""
    found = np.frompyfunc(lambda _: set(), 1, 1)(np.zeros(GRID.size[::-1]))
    for layer in segmentation.layers:
        for index, value in np.ndenumerate(layer if place is None else place(layer)):
            if value and segmentation.table[int(value)].name in names:
                found[index].add(segmentation.table[int(value)].name)
    return found


def masks_of(found: Segmentation) -> list[np.ndarray]:
    return [np.any([layer == value for layer in found.layers], axis=0) for value in (1, 2, 3)]


@pytest.mark.parametrize("other_grid", [False, True])
@pytest.mark.parametrize("at_once", [1, 200, 1 << 20])
def test_each_voxel_is_where_the_sets_of_its_structures_put_it(monkeypatch, other_grid, at_once):
    from ClassScaleSegLib.images import dense_place

    monkeypatch.setattr(dense_place, "VOXELS_AT_ONCE", at_once)
    grid = Geometry((8, 8, 8), (2.0, 1.0, 2.0), (2.0, -3.0, 6.0)) if other_grid else GRID
    one, two = several_layers(1, range(1, 7), 2), several_layers(2, range(3, 10), 3, grid)
    rows = compare(one, two).rows
    assert {row.name for row in rows} == {f"s {value}" for value in range(1, 10)}
    for wanted in (rows, rows[:3], [row for row in rows if row.value is None], [rows[4]]):
        names = {row.name for row in wanted}
        first, second = sets_of(one, names), sets_of(two, names, onto_grid(two.geometry, one.geometry))
        both, alone, there = masks_of(differences(one, two, wanted, NAMES))
        for index in np.ndindex(*GRID.size[::-1]):
            a, b = first[index], second[index]
            expected = (bool(a) and a == b, bool(a - b), bool(b - a))
            assert (bool(both[index]), bool(alone[index]), bool(there[index])) == expected


def test_voxels_that_each_calls_another_structure_are_in_two_segments_and_otherwise_there_is_one_layer():
    table = LabelTable.from_names({1: "a", 2: "b"})
    line = Geometry((4, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    one, two = (
        Segmentation(np.array(voxels, np.uint16).reshape(1, 1, 4), table, line)
        for voxels in ([1, 1, 2, 0], [1, 2, 0, 1])
    )
    rows = compare(one, two).rows
    found = differences(one, two, rows, NAMES)
    assert [layer.ravel().tolist() for layer in found.layers] == [[1, 2, 2, 0], [0, 3, 0, 3]]
    [only_a] = differences(one, two, rows[:1], NAMES).layers
    assert only_a.ravel().tolist() == [1, 2, 0, 3]
    assert [label.name for label in found.table] == ["In both", "Only in drawn", "Only in found"]
    assert [label.id for label in found.table] == list(SEGMENTS)


def test_the_place_is_where_most_differs_and_not_a_thin_shell():
    shape = (40, 50, 60)
    z, y, x = np.indices(shape)
    radius = np.sqrt((z - 18) ** 2 + (y - 18) ** 2 + (x - 18) ** 2)
    drawn, found = (np.where(radius < size, 1, 0).astype(np.uint16) for size in (16, 15))
    drawn[28:36, 38:46, 48:56] = 1
    assert (drawn != found).sum() - 8**3 > 4 * 8**3, "the shell has more voxels than the lesion"
    table, grid = LabelTable.from_names({1: "liver"}), Geometry(shape[::-1], (1.0,) * 3, (0.0,) * 3)
    one, two = Segmentation(drawn, table, grid), Segmentation(found, table, grid)
    left, posterior, superior = densest_place(differences(one, two, compare(one, two).rows, NAMES))
    assert 48 <= -left < 56 and 38 <= -posterior < 46 and 28 <= superior < 36
    assert densest_place(differences(one, one, compare(one, one).rows, NAMES)) is None


@pytest.mark.parametrize("spacing", [(0.01, 0.01, 0.01), (25.0, 3.0, 80.0)])
def test_the_place_is_a_voxel_that_differs_whatever_the_spacing(spacing):
    grid = Geometry((11, 9, 7), spacing, (0.0, 0.0, 0.0))
    one, two = several_layers(1, range(1, 4), 1, grid), several_layers(2, range(1, 4), 1, grid)
    found = differences(one, two, compare(one, two).rows, NAMES)
    x, y, z = np.rint(np.array(densest_place(found)) * (-1, -1, 1) / spacing).astype(int)
    assert any(layer[z, y, x] > 1 for layer in found.layers)


def test_the_memory_is_that_of_the_result_and_what_does_not_fit_is_refused(monkeypatch):
    import psutil

    size = 220
    generator = np.random.default_rng(0)
    table = LabelTable.from_names({value: f"s {value}" for value in range(1, 201)})
    grid = Geometry((size,) * 3, (1.0,) * 3, (0.0,) * 3)
    one, two = (
        Segmentation(generator.integers(0, 200, (size,) * 3, dtype=np.uint16), table, grid)
        for _segmentation in range(2)
    )
    rows = compare(one, two).rows
    tracemalloc.start()
    found = differences(one, two, rows, NAMES)
    densest_place(found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    layers = 2 * 2 * size**3
    assert layers < peak < layers + (96 << 20), "two layers, and a few slices"
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": layers - 1}))
    with pytest.raises(ImageError, match="The segmentation has 220x220x220 voxels"):
        differences(one, two, rows, NAMES)
    many = [ClassComparison(f"{n}", n % 60000, None, None, 1.0, None) for n in range(65536)]
    with pytest.raises(ImageError, match="There are 65536 structures. At most 65535"):
        differences(one, two, many, NAMES)


# --- in the scene


def voxels_of(node) -> dict[str, int]:
    opened = open_segmentation(node)
    return {opened.ids[row.value]: row.voxels for row in opened.statistics}


def differences_nodes(scene):  # noqa: F811
    return [node for node in scene.GetNodes() if node.GetName().startswith("Reference differences")]


def shown_nodes(scene):  # noqa: F811
    """The nodes that users see in the module Data."""
    return [node.GetName() for node in scene.GetNodes() if not node.GetHideFromEditors()]


def tick(panel, *rows):  # noqa: F811
    panel.comparing.table.tick(map(str, rows))


@pytest.fixture
def centre(scene):  # noqa: F811
    """A function that returns the centre of a slice view, RAS in mm."""
    view = add_view()
    yield lambda: [view.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    scene.RemoveNode(view)


def test_the_panel_shows_the_differences_of_the_ticked_structures_or_of_all(scene, panel, centre):  # noqa: F811
    assert not panel.ui.differencesButton.enabled
    reference, other = compared(scene, panel)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Patient")
    hierarchy.CreateItem(folder, reference)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def list_it(caller, event, node):  # as the application does by itself
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    tag = scene.AddObserver(scene.NodeAddedEvent, list_it)
    went = [centre()]
    before, held = shown_nodes(scene), panel.comparing.rows
    panel.ui.differencesButton.click()
    scene.RemoveObserver(tag)
    [node] = differences_nodes(scene)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == folder
    ours, theirs = labels(), labels(1)
    both = (ours == theirs) & (ours > 0) & (ours != 3)  # the third one is another structure in each
    alone, there = (ours > 0) & ~both, (theirs > 0) & ~both
    assert voxels_of(node) == dict(zip(SEGMENTS, (both.sum(), alone.sum(), there.sum()), strict=True))
    assert [node.GetSegmentation().GetSegment(i).GetName() for i in SEGMENTS] == [
        "In both",
        "Only in Reference",
        "Only in Other",
    ]
    colors = [tuple(round(255 * part) for part in node.GetSegmentation().GetSegment(i).GetColor()) for i in SEGMENTS]
    assert colors == [(0, 158, 115), (230, 159, 0), (86, 180, 233)]
    text = f"The differences are in the segmentation {node.GetName()}: 0.172 mL in both, 0.064 mL only in Reference, "
    assert panel.comparing.text.startswith(text + "0.064 mL only in Other.")
    went.append(centre())
    assert went[1] != went[0] and panel.comparing.rows is held, "the comparison stays listed"

    tick(panel, 0)
    panel.ui.differencesButton.click()
    assert differences_nodes(scene) == [node]
    assert voxels_of(node) == {"both": 112, "reference": 28, "other": 28}
    x, y, z = np.rint(centre()).astype(int)
    assert (ours[z, y, x] == 1) != (theirs[z, y, x] == 1)
    tick(panel, 1)
    panel.ui.differencesButton.click()
    assert voxels_of(node) == {"both": 60, "reference": 0, "other": 0}
    assert np.rint(centre()).astype(int).tolist() == [x, y, z], "no difference to go to"
    scene.RemoveNode(node)
    assert panel.comparing.rows is held
    assert shown_nodes(scene) == before, "nothing but the node was added"


def test_the_node_that_is_compared_is_never_filled(scene, panel):  # noqa: F811
    reference, _other = compared(scene, panel)
    panel.ui.differencesButton.click()
    [node] = differences_nodes(scene)
    held = voxels_of(node)
    select(panel.ui.compareSelector, node)
    panel.ui.compareButton.click()
    panel.ui.differencesButton.click()
    application.processEvents()
    assert len(differences_nodes(scene)) == 2 and voxels_of(node) == held and panel.comparing.rows


def test_a_copy_of_a_segmentation_leaves_the_nodes_of_the_original_alone(scene, panel):  # noqa: F811
    def press_all():
        panel.ui.differencesButton.click()
        panel.ui.compareTableButton.click()
        panel.results.statistics.menu.actions()[0].trigger()

    reference, _other = compared(scene, panel)
    press_all()
    copy = slicer.vtkMRMLSegmentationNode()
    copy.Copy(reference)  # as the module Data does
    copy.SetName("Copy")
    scene.AddNode(copy)
    select(panel.ui.resultSelector, copy)
    panel.ui.compareButton.click()
    for _twice in range(2):
        press_all()
    assert [node.GetName() for node in scene.GetNodes() if node.GetName().startswith(("Reference ", "Copy "))] == [
        f"{name} {what}" for name in ("Reference", "Copy") for what in ("differences", "comparison", "statistics")
    ]


def test_two_segmentations_of_one_name_are_told_apart(scene, panel):  # noqa: F811
    reference, other = compared(scene, panel)
    for node in (reference, other):
        node.SetName("CT segmentation")
    panel.ui.compareButton.click()
    assert "1 only in CT segmentation (reference); 1 only in CT segmentation (other)." in panel.comparing.text
    panel.ui.differencesButton.click()
    assert "0.064 mL only in CT segmentation (reference), 0.064 mL only in CT segmentation (other)." in (
        panel.comparing.text
    )
    inside = scene.GetFirstNodeByName("CT segmentation differences").GetSegmentation()
    assert [inside.GetSegment(i).GetName() for i in SEGMENTS[1:]] == [
        "Only in CT segmentation (reference)",
        "Only in CT segmentation (other)",
    ]


def test_too_little_memory_is_told_and_changes_nothing(scene, panel, monkeypatch):  # noqa: F811
    from ClassScaleSegLib.scene import differences as module_of_differences

    def fails(*given, **more):
        raise MemoryError

    compared(scene, panel)
    told, before = [], scene.GetNumberOfNodes()
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: told.append(text))
    monkeypatch.setattr(module_of_differences, "fill_segmentation_node", fails)
    panel.ui.differencesButton.click()
    assert told == ["There is not enough memory to show the differences."]
    assert scene.GetNumberOfNodes() == before and panel.comparing.rows and panel.ui.differencesButton.enabled


def test_the_console_shows_differences_in_the_world_on_the_grid_of_the_reference(scene):  # noqa: F811
    logic = module.ClassScaleSegLogic()
    one = segmentation(scene, "Reference")
    two = segmentation(scene, "Fine", labels(1).repeat(2, 0).repeat(2, 1).repeat(2, 2), spacing=0.5)
    move = np.eye(4)
    move[:3, 3] = -0.25
    transform(two, move)
    node = logic.showDifferences(one, two, [row for row in logic.compare(one, two).rows if row.dice < 0.9])
    assert voxels_of(node)["both"] == ((labels() == labels(1)) & (labels() == 1)).sum()
    for turned in (one, two):
        turned.SetAndObserveTransformNodeID(None)
        transform(turned, np.array(TURNED) if turned is one else np.array(TURNED) @ move)
    again = logic.showDifferences(one, two)
    assert again is node and node.GetParentTransformNode() is None
    found, reference = open_segmentation(node).segmentation, open_segmentation(one).segmentation
    assert found.geometry.size == SHAPE[::-1] and found.geometry.distance(reference.geometry) < 1e-4
    assert voxels_of(node) == {
        "both": ((labels() == labels(1)) & (labels() > 0)).sum(),
        "reference": ((labels() != labels(1)) & (labels() > 0)).sum(),
        "other": ((labels() != labels(1)) & (labels(1) > 0)).sum(),
    }
    empty = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Nothing")
    with pytest.raises(ImageError, match="no structure in Nothing"):
        logic.showDifferences(one, empty)
