"""Results again: any segmentation in the table of results, its statistics, and two segmentations compared."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from ClassScaleSegLib import ImageError, LabelTable, Segmentation
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node
from ClassScaleSegLib.scene.segmentation_reader import open_segmentation
from logic_fixtures import add_segment
from slicer_application import TURNED, add_volume, application, module, qt, slicer, transform

from ClassScaleSegPanel.install import missing, packages  # isort: skip  needs the stand-ins
from ClassScaleSegPanel.widgets import saving  # isort: skip

NAMES = {0: "background", 1: "liver", 2: "spleen", 3: "kidney_left"}
SHAPE = (12, 14, 16)


@pytest.fixture
def scene():
    slicer.mrmlScene.Clear()
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear()


@pytest.fixture
def panel(scene, monkeypatch, tmp_path_factory):
    from ClassScaleSegPanel.results import result_panel

    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path_factory.mktemp("models")))  # not those of the user
    monkeypatch.setattr(result_panel, "SETTLE_MILLISECONDS", 0)
    opened = application.make_widget(module)
    yield opened.panel
    opened.cleanup()


def labels(shift: int = 0) -> np.ndarray:
    found = np.zeros(SHAPE, np.uint16)
    found[1:5, 2:9, 2 + shift : 7 + shift], found[6:9, 1:6, 4:8], found[6:9, 8:12, 9:12] = 1, 2, 3
    return found


def segmentation(scene, name, voxels=None, names=NAMES, spacing=1.0):
    voxels = labels() if voxels is None else voxels
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    geometry = Geometry(voxels.shape[::-1], (spacing,) * 3, (0.0, 0.0, 0.0), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    fill_segmentation_node(node, Segmentation(voxels, LabelTable.from_names(names), geometry))
    return node


def shown(table) -> list[list[str]]:
    proxy = table.proxy
    columns = [column for column in range(proxy.columnCount()) if not table.view.isColumnHidden(column)]
    return [[proxy.data(proxy.index(row, column)) for column in columns] for row in range(proxy.rowCount())]


def select(selector, node) -> None:
    selector.setCurrentNode(node)
    application.processEvents()


def test_any_segmentation_can_be_chosen_for_the_table(scene, panel):
    mine, theirs = segmentation(scene, "Mine"), scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Theirs")
    for first, name in (((0, 0, 0), "a"), ((1, 1, 1), "b"), ((9, 0, 0), None)):
        add_segment(theirs, np.ones((3, 4, 5), np.uint8), 1, first, name=name)
    selector, table = panel.ui.resultSelector, panel.results.table
    assert selector.currentNode() is None and not panel.ui.tableButton.enabled
    select(selector, theirs)
    assert [row[1] for row in shown(table)] == ["0.060"] * 3
    assert [row[0] for row in shown(table)][:2] == ["a", "b"]
    assert table.keys() == ["Segment_1", "Segment_2", "Segment_3"]
    select(selector, mine)
    assert [row[0] for row in shown(table)] == ["liver", "spleen", "kidney_left"]
    panel.render()
    assert selector.currentNode() is mine, "it is not the segmentation to fill, and must stay listed"
    panel.state.parameters.segmentation = theirs
    assert selector.currentNode() is theirs and len(table.keys()) == 3
    select(selector, None)
    assert not table.keys() and not panel.ui.saveButton.enabled


def test_the_place_in_the_table_stays_when_a_segment_is_edited(scene, panel):
    node = segmentation(scene, "Mine")
    select(panel.ui.resultSelector, node)
    table, view = panel.results.table, panel.results.table.view
    view.sortByColumn(0, qt.Qt.DescendingOrder)
    view.selectRow(1)
    assert [row[0] for row in shown(table)] == ["spleen", "liver", "kidney_left"]
    node.GetSegmentation().GetSegment("Segment_2").SetName("a spleen")
    panel.results.follow()
    assert [row[0] for row in shown(table)] == ["liver", "kidney_left", "a spleen"]
    assert view.currentIndex().row() == 0, "liver"
    select(panel.ui.resultSelector, segmentation(scene, "Another"))
    assert [row[0] for row in shown(table)] == ["liver", "spleen", "kidney_left"], "in its own order"


def surfaces_alone(scene):
    node = segmentation(scene, "Surfaces")
    inside = node.GetSegmentation()
    inside.SetConversionParameter("Smoothing factor", "0")
    assert inside.CreateRepresentation("Closed surface")
    inside.SetSourceRepresentationName("Closed surface")
    inside.RemoveRepresentation("Binary labelmap")
    return node


def fractional(scene):
    from vtk.util.numpy_support import numpy_to_vtk

    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Fractional")
    node.GetSegmentation().SetSourceRepresentationName("Fractional labelmap")
    for value in (1, 2, 3):
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(*SHAPE[::-1])
        voxels = np.where(labels() == value, 108, -108).astype(np.int8)
        image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True))
        segment = slicer.vtkSegment()
        segment.SetName(NAMES[value])
        segment.AddRepresentation("Fractional labelmap", image)
        node.GetSegmentation().AddSegment(segment, f"F{value}")
    return node


@pytest.mark.parametrize("make", [surfaces_alone, fractional])
def test_other_representations_are_converted_in_a_copy(scene, panel, make):
    node = make(scene)
    before = node.GetSegmentation().GetSourceRepresentationName()
    select(panel.ui.resultSelector, node)
    found = {row[0]: float(row[1]) for row in shown(panel.results.table)}
    assert found.keys() == {"liver", "spleen", "kidney_left"}
    for value in (1, 2, 3):
        assert found[NAMES[value]] == pytest.approx((labels() == value).sum() / 1000, rel=0.35)
    assert node.GetSegmentation().GetSourceRepresentationName() == before != "Binary labelmap"
    assert not node.GetSegmentation().ContainsRepresentation("Binary labelmap")


def test_segments_on_several_grids_come_onto_the_first(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Grids")
    add_segment(node, np.ones((8, 8, 8), np.uint8), 1, (0, 0, 0), 1.0, "fine")
    add_segment(node, np.ones((4, 4, 4), np.uint8), 1, (5, 5, 5), 2.0, "coarse")
    opened = open_segmentation(node)
    volumes = {row.name: row.volume_ml for row in opened.statistics}
    assert volumes["fine"] == pytest.approx(0.512) and volumes["coarse"] == pytest.approx(0.512, rel=0.3)
    assert opened.ids == {1: "Segment_1", 2: "Segment_2"} and len(opened.segmentation.layers) == 1


def test_ids_values_and_colours_that_files_cannot_hold_are_still_listed(scene, panel, monkeypatch):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Odd")
    ids = ('a "b"', "a 'b'", "a\n'b'")
    for place, identifier in enumerate(ids):
        add_segment(node, np.full((2, 2, 2), 5, np.uint8), 5, (3 * place, 0, 0), name="x")
        inside = node.GetSegmentation()
        segment = slicer.vtkSegment()
        segment.DeepCopy(inside.GetNthSegment(place))
        inside.RemoveSegment(inside.GetNthSegmentID(place))
        segment.SetColor(2.0, -1.0, 0.5)
        inside.AddSegment(segment, identifier)
    assert list(inside.GetSegmentIDs()) == list(ids)
    select(panel.ui.resultSelector, node)
    assert panel.results.table.keys() == list(ids)
    went = []
    monkeypatch.setattr(panel.logic, "centerViews", lambda node, identifier: went.append(identifier))
    for row in range(3):
        panel.results.table.view.clicked.emit(panel.results.table.proxy.index(row, 0))
    assert went == list(ids)
    table = open_segmentation(node).segmentation.table
    assert len({label.id for label in table}) == 3 and table.labels[0].color == (255, 0, 128)


def test_transforms_count(scene):
    node = segmentation(scene, "Moved")
    before = open_segmentation(node).segmentation
    matrix = np.array(TURNED)
    transform(node, TURNED)
    after = open_segmentation(node).segmentation
    place = np.diag([-1, -1, 1.0]) @ (
        matrix[:3, :3] @ (np.diag([-1, -1, 1.0]) @ before.geometry.origin) + matrix[:3, 3]
    )
    np.testing.assert_allclose(after.geometry.origin, place, atol=1e-6)
    bent = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Bent")
    import vtk

    bent.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    node.SetAndObserveTransformNodeID(bent.GetID())
    with pytest.raises(ImageError, match="non-linear transform Bent. Harden"):
        open_segmentation(node)


def test_statistics_fill_a_table_with_intensities_of_a_volume_on_the_grid(scene, panel):
    node = segmentation(scene, "Last week")
    select(panel.ui.resultSelector, node)
    panel.results.statistics.menu.actions()[0].trigger()
    [table] = [n for n in scene.GetNodes() if n.IsA("vtkMRMLTableNode") and "statistics" in n.GetName()]
    assert table.GetNumberOfRows() == 3 and table.GetTable().GetColumnByName("Mean") is None
    assert table.GetTable().GetColumnByName("Voxels").GetValue(0) == (labels() == 1).sum()
    panel.state.parameters.inputVolume = add_volume(np.full(SHAPE, 7, np.int16), "CT")
    panel.results.statistics.menu.actions()[0].trigger()
    assert table.GetTable().GetColumnByName("Mean").GetValue(0) == 7
    assert len([n for n in scene.GetNodes() if n.IsA("vtkMRMLTableNode") and "statistics" in n.GetName()]) == 1
    assert "Intensities are those of CT" in panel.results.text
    assert table.GetName() in panel.results.text


def compared(scene, panel):
    reference = segmentation(scene, "Reference")
    other = segmentation(scene, "Other", labels(1), {0: "background", 1: "Liver", 2: "spleen", 3: "tumour"})
    select(panel.ui.resultSelector, reference)
    select(panel.ui.compareSelector, other)
    panel.ui.compareButton.click()
    return reference, other


def test_two_segmentations_are_compared_in_a_table(scene, panel):
    compared(scene, panel)
    table = panel.comparing.table
    assert shown(table) == [
        ["liver", "0.800", "0.140", "0.140", "0.000"],
        ["spleen", "1.000", "0.060", "0.060", "0.000"],
        ["kidney_left", "–", "0.036", "–", "–"],
        ["tumour", "–", "–", "0.036", "–"],
    ]
    said = panel.comparing.text
    assert said == "2 structures in both, mean Dice 0.900; 1 only in Reference; 1 only in Other."
    table.search.text = "liv"
    assert [row[0] for row in shown(table)] == ["liver"]
    table.search.text = ""
    table.proxy.sort(1, qt.Qt.DescendingOrder)
    assert [row[0] for row in shown(table)][:2] == ["spleen", "liver"]


def test_a_row_leads_to_its_structure_in_the_segmentation_that_has_it(scene, panel, monkeypatch):
    reference, other = compared(scene, panel)
    went = []
    monkeypatch.setattr(panel.logic, "centerViews", lambda node, identifier: went.append((node, identifier)))
    table = panel.comparing.table
    for row in range(4):
        table.view.clicked.emit(table.proxy.index(row, 0))
    assert went == [(reference, "Segment_1"), (reference, "Segment_2"), (reference, "Segment_3"), (other, "Segment_3")]


def test_a_comparison_is_saved_and_becomes_a_table_node(scene, panel, tmp_path, monkeypatch):
    compared(scene, panel)
    monkeypatch.setattr(saving, "show", lambda title, proposed, filters: (str(tmp_path / "qa"), filters[0]))
    panel.ui.compareSaveButton.click()
    assert panel.comparing.text == "The comparison is in the file qa.csv."
    with (tmp_path / "qa.csv").open(newline="", encoding="utf-8") as file:
        assert [row["Dice"] for row in csv.DictReader(file)] == ["0.8", "1", "", ""]
    for _twice in range(2):
        panel.ui.compareTableButton.click()
    [table] = [n for n in scene.GetNodes() if n.IsA("vtkMRMLTableNode") and "comparison" in n.GetName()]
    dice = table.GetTable().GetColumnByName("Dice")
    assert [dice.GetValue(row) for row in range(2)] == [0.8, 1.0] and np.isnan(dice.GetValue(2))


FILTERS = ["Table (*.csv)", "Excel workbook (*.xlsx)"]
SAVED = {"compare": "Mine comparison", "statistics": "Mine statistics"}  # by section: the name that is proposed


def press_save(panel, section):
    if section == "compare":
        panel.ui.compareSaveButton.click()
    else:
        panel.results.statistics.menu.actions()[1].trigger()


def titles_of(book):
    """The first row of a workbook, read as the zip of XML files that it is."""
    with zipfile.ZipFile(book) as archive:
        strings = ElementTree.fromstring(archive.read("xl/sharedStrings.xml"))
    return [text.text for text in strings.iter("{http://schemas.openxmlformats.org/spreadsheetml/2006/main}t")]


@pytest.fixture
def told(monkeypatch):
    """What message boxes have said; questions are answered with Cancel."""
    found: list[str] = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: found.append(text))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: found.append(text))
    return found


@pytest.mark.parametrize("section", SAVED)
def test_tables_are_saved_as_csv_or_as_a_workbook(scene, panel, tmp_path, monkeypatch, told, section):
    reference, _other = compared(scene, panel)
    reference.SetName("Mine")
    panel.ui.compareButton.click()
    answers = {
        ("a", FILTERS[0]): "a.csv",
        ("b", FILTERS[1]): "b.xlsx",
        ("c.xlsx", FILTERS[0]): "c.xlsx",
        ("d.CSV", FILTERS[1]): "d.CSV",
        ("e.seg.nrrd", FILTERS[1]): "e.xlsx",
        ("", ""): None,
    }
    offered = []
    for (typed, chosen), written in answers.items():
        path = typed and str(tmp_path / typed)
        monkeypatch.setattr(
            saving, "show", lambda *given, path=path, chosen=chosen: offered.append(given) or (path, chosen)
        )
        press_save(panel, section)
        if written is not None:
            file, said = tmp_path / written, panel.comparing.text if section == "compare" else panel.results.text
            assert f"in the file {written}." in said
            titles = titles_of(file) if written.endswith("x") else file.read_text(encoding="utf-8").split("\n")[0]
            assert "Name" in titles and "LabelValue" in titles
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(name for name in answers.values() if name)
    assert [Path(proposed).name for _title, proposed, _filters in offered] == [SAVED[section]] * len(answers)
    assert all(filters == FILTERS for _title, _proposed, filters in offered) and told == []


@pytest.mark.parametrize("section", SAVED)
def test_what_was_listed_when_the_dialogue_opened_is_saved(scene, panel, tmp_path, monkeypatch, told, section):
    compared(scene, panel)
    small = np.zeros(SHAPE, np.uint16)
    small[2, 2, 2] = 1
    result = segmentation(scene, "Result of a run", small)

    def show(*_given):  # the run ends meanwhile
        select(panel.ui.resultSelector, result)
        return str(tmp_path / "a"), FILTERS[0]

    monkeypatch.setattr(saving, "show", show)
    press_save(panel, section)
    assert panel.state.node is result and told == []
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        volumes = {row["Name"]: row["Volume_mL"] for row in csv.DictReader(file)}
    assert {name: volumes[name] for name in ("liver", "spleen")} == {"liver": "0.14", "spleen": "0.06"}


@pytest.mark.parametrize("section", SAVED)
def test_the_package_for_workbooks_is_installed_after_a_question(scene, panel, tmp_path, monkeypatch, told, section):
    compared(scene, panel)
    (tmp_path / "a.xlsx").write_text("precious")
    monkeypatch.setattr(saving, "show", lambda *given: (str(tmp_path / "a.xlsx"), FILTERS[0]))
    real, there, installed = missing.is_installed, [False], []
    monkeypatch.setattr(packages, "is_installed", lambda one: there[0] if one.startswith("Xlsx") else real(one))
    monkeypatch.setattr(slicer.util, "pip_install", installed.append, raising=False)
    press_save(panel, section)
    question, refused = told
    assert "XlsxWriter>=3.1" in question and refused.startswith("Excel workbooks cannot be saved without")
    assert (tmp_path / "a.xlsx").read_text() == "precious" and installed == []
    told.clear()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: True)
    monkeypatch.setattr(
        packages, "with_next_step", lambda work, purpose: installed.append(purpose.undo) or there.__setitem__(0, True)
    )
    press_save(panel, section)
    assert installed == ["XlsxWriter"] and told == [] and "Name" in titles_of(tmp_path / "a.xlsx")


def test_statistics_that_cannot_be_written_are_told(scene, panel, tmp_path, monkeypatch, told):
    select(panel.ui.resultSelector, segmentation(scene, "Mine"))
    before = panel.results.text
    monkeypatch.setattr(saving, "show", lambda *given: (str(tmp_path / "file" / "a"), FILTERS[0]))
    (tmp_path / "file").write_text("no folder")
    press_save(panel, "statistics")
    assert len(told) == 1 and "cannot be written" in told[0] and panel.results.text == before


def test_the_dialogue_tells_the_name_and_the_filter(panel, tmp_path):
    """Qt's own dialogue, which a timer fills in as a user would."""

    def fill_in(name, chosen):
        dialog = qt.QApplication.activeModalWidget()
        line = dialog.findChild(qt.QLineEdit)
        offered.append((dialog.nameFilters(), line.text, Path(dialog.directory().absolutePath())))
        line.setText(name)
        dialog.findChild(qt.QComboBox, "fileTypeCombo").setCurrentIndex(1)
        dialog.accept() if chosen else dialog.reject()

    offered: list[tuple[list[str], str, Path]] = []
    timer = qt.QTimer()
    timer.setSingleShot(True)
    for name, chosen, wanted in (("a", True, (str(tmp_path / "a"), FILTERS[1])), ("b", False, ("", ""))):
        timer.connect("timeout()", lambda name=name, chosen=chosen: fill_in(name, chosen))
        timer.start(0)
        path, kind = saving.show("Save", str(tmp_path / "Mine"), FILTERS)
        assert (path and str(Path(path)), kind) == wanted
        timer.disconnect("timeout()")
    assert offered == [(FILTERS, "Mine", tmp_path)] * 2


def recolour(scene, reference, other):
    other.GetSegmentation().GetSegment("Segment_1").SetName("renamed")


def erase(scene, reference, other):
    array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(reference, "Segment_1")
    array[array == 1] = 0
    reference.GetSegmentation().GetSegment("Segment_1").GetRepresentation("Binary labelmap").Modified()
    reference.GetSegmentation().InvokeEvent(reference.GetSegmentation().SourceRepresentationModified)


CHANGES = {
    "a name": recolour,
    "voxels": erase,
    "a segment less": lambda scene, reference, other: other.GetSegmentation().RemoveSegment("Segment_1"),
    "a transform": lambda scene, reference, other: transform(other, TURNED),
    "reference removed": lambda scene, reference, other: scene.RemoveNode(reference),
    "other removed": lambda scene, reference, other: scene.RemoveNode(other),
    "scene closed": lambda scene, reference, other: scene.Clear(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_no_table_stays_that_is_not_true_any_more(scene, panel, name):
    reference, other = compared(scene, panel)
    assert panel.comparing.rows
    CHANGES[name](scene, reference, other)
    application.processEvents()
    assert not panel.comparing.rows and not panel.comparing.table.keys()
    assert not panel.ui.compareSaveButton.enabled and not panel.ui.compareTableButton.enabled
    assert panel.ui.compareButton.enabled == (name not in ("reference removed", "other removed", "scene closed"))


def test_another_choice_empties_the_comparison(scene, panel):
    reference, other = compared(scene, panel)
    select(panel.ui.resultSelector, other)
    assert not panel.comparing.rows and not panel.ui.compareButton.enabled
    select(panel.ui.resultSelector, reference)
    panel.ui.compareButton.click()
    assert panel.comparing.rows
    select(panel.ui.compareSelector, None)
    assert not panel.comparing.rows


def test_an_empty_segmentation_is_named(scene, panel):
    reference = segmentation(scene, "Reference")
    empty = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Nothing")
    select(panel.ui.resultSelector, reference)
    select(panel.ui.compareSelector, empty)
    panel.ui.compareButton.click()
    assert panel.comparing.text == "There is no structure in Nothing."
    with pytest.raises(ImageError, match="no structure in Nothing"):
        panel.logic.compare(reference, empty)


def test_the_console_compares_segmentations_on_other_grids(scene):
    logic = module.ClassScaleSegLogic()
    one = segmentation(scene, "One")
    two = segmentation(scene, "Two", labels().repeat(2, 0).repeat(2, 1).repeat(2, 2), spacing=0.5)
    move = np.eye(4)
    move[:3, 3] = -0.25
    transform(two, move)
    found = logic.compare(one, two)
    assert found.resampled and [row.dice for row in found.rows] == pytest.approx([1.0, 1.0, 1.0])
