# ruff: noqa: F811  fixtures
"""RT structure sets in the panel: loaded as the reference of a result, on its grid."""

from __future__ import annotations

import types

import numpy as np
import pytest
from ClassScaleSegLib import ImageError
from ClassScaleSegLib.scene.dicom import remember_origin
from ClassScaleSegLib.scene.segmentation_reader import open_segmentation
from slicer_application import TURNED, add_volume, application, qt, slicer, transform
from structure_sets import FRAME, Drawn, rectangle, write_structures
from test_module_compare import SHAPE, labels, panel, scene, segmentation, select, shown, told  # noqa: F401

from ClassScaleSegPanel.install import missing, packages  # isort: skip  needs the stand-ins


@pytest.fixture
def found(scene, panel):
    """A result that is listed, and its volume, 1 mm: index 1, 2, 3 is at 1, 2, 3 in RAS, and -1, -2, 3 in LPS."""
    volume = add_volume(np.zeros(SHAPE, np.int16), "CT")
    node = segmentation(scene, "Result", labels(1))
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    remember_origin(node, [], [])
    select(panel.ui.resultSelector, node)
    return node, volume


@pytest.fixture
def plan(tmp_path):
    """A structure set of the liver of ``labels()``, and of a target that no segmentation has."""
    contours = [rectangle(float(z), (-6.5, -1.5), (-8.5, -1.5)) for z in range(1, 5)]
    target = [rectangle(float(z), (-12.5, -9.5), (-4.5, -1.5)) for z in range(2, 4)]
    return write_structures(tmp_path / "plan of Monday.dcm", [Drawn("Liver", contours), Drawn("PTV", target)])


def choose(monkeypatch, path):
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", staticmethod(lambda *given: str(path or "")))


def test_a_structure_set_becomes_the_reference_of_the_listed_segmentation(scene, panel, found, plan, monkeypatch, told):
    node, volume = found
    choose(monkeypatch, plan)
    panel.ui.structureSetButton.click()
    application.processEvents()
    drawn = panel.state.node
    assert drawn.GetName() == "plan of Monday" and panel.ui.compareSelector.currentNode() is node
    assert shown(panel.comparing.table)[0] == ["Liver", "0.800", "0.140", "0.140", "0.000"]
    assert [row[0] for row in shown(panel.comparing.table)][1:] == ["PTV", "spleen", "kidney_left"]
    opened = open_segmentation(drawn)
    ours = labels() == 1
    assert ((opened.segmentation.labels == opened.segmentation.table.by_name("Liver").value) == ours).all()
    assert drawn.GetNodeReference(drawn.GetReferenceImageGeometryReferenceRole()) is volume and told == []
    panel.ui.compareCasesButton.click()
    assert [row[2] for row in shown(panel.case_comparison.list.table)] == ["plan of Monday"], "it is of the same volume"


def test_one_click_brings_back_the_result_that_was_listed(scene, panel, found, plan, monkeypatch, told):
    node, _volume = found
    panel.ui.resultCollapsibleButton.collapsed = False
    assert panel.ui.backButton.isHidden()
    choose(monkeypatch, plan)
    panel.ui.structureSetButton.click()
    drawn = panel.state.node
    assert not panel.ui.backButton.isHidden() and "List Result again" in panel.ui.backButton.toolTip
    panel.ui.backButton.click()
    assert panel.state.node is node and panel.ui.resultSelector.currentNode() is node
    assert panel.ui.compareSelector.currentNode() is drawn and panel.ui.backButton.isHidden()
    panel.ui.compareButton.click()
    assert shown(panel.comparing.table)[0][:2] == ["liver", "0.800"]
    select(panel.ui.resultSelector, drawn)
    assert not panel.ui.backButton.isHidden()
    scene.RemoveNode(node)
    assert panel.ui.backButton.isHidden()
    select(panel.ui.resultSelector, result := segmentation(scene, "Another"))
    panel.ui.structureSetButton.click()
    assert panel.state.node is not result and not panel.ui.backButton.isHidden()
    scene.Clear()
    assert panel.ui.backButton.isHidden()


def test_no_file_leaves_everything_as_it_is(scene, panel, found, monkeypatch):
    choose(monkeypatch, None)
    before = scene.GetNumberOfNodes()
    panel.ui.structureSetButton.click()
    assert panel.state.node is found[0] and scene.GetNumberOfNodes() == before
    select(panel.ui.resultSelector, None)
    assert not panel.ui.structureSetButton.enabled


def test_packages_that_comparing_needs_are_installed_after_a_question(scene, panel, found, plan, monkeypatch, told):
    node, _volume = found
    real, there, installed = missing.is_installed, [False], []
    monkeypatch.setattr(packages, "is_installed", lambda one: there[0] if one == "psutil" else real(one))
    choose(monkeypatch, plan)
    panel.ui.structureSetButton.click()
    question, refused = told
    assert question.endswith("\npsutil") and refused.startswith("Segmentations cannot be compared without")
    assert panel.state.node is node
    select(panel.ui.compareSelector, segmentation(scene, "Drawn"))
    panel.ui.compareButton.click()
    assert panel.comparing.text.startswith("Segmentations cannot be compared without") and not panel.comparing.rows
    panel.ui.compareCasesButton.click()
    cases = panel.case_comparison
    cases.list.table.view.clicked.emit(cases.list.table.proxy.index(0, 0))
    cases.list.reference_box.setCurrentIndex(1)
    cases.compare_button.click()
    assert cases.line.text.startswith("Segmentations cannot be compared without") and not cases.cases
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: True)
    monkeypatch.setattr(
        packages, "with_next_step", lambda work, purpose: installed.append(purpose.undo) or there.__setitem__(0, True)
    )
    cases.compare_button.click()
    panel.ui.compareButton.click()
    assert installed == ["psutil"] and cases.cases and panel.comparing.rows


def far(folder):
    return write_structures(folder / "far.dcm", [Drawn("Liver", [rectangle(1.0, (900.0, 910.0), (0.0, 5.0))])])


def points(folder):
    return write_structures(folder / "points.dcm", [Drawn("Liver", [rectangle(1.0, (1, 5), (1, 5), "POINT")])])


def several_frames(folder):
    drawn = [
        Drawn(name, [rectangle(1.0, (1.5, 5.5), (1.5, 5.5))], frame=frame)
        for name, frame in (("A", FRAME), ("B", f"{FRAME}.1"))
    ]
    return write_structures(folder / "frames.dcm", drawn)


def broken(folder):
    (folder / "broken.dcm").write_bytes(b"no DICOM")
    return folder / "broken.dcm"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (far, "no voxel of CT"),
        (points, "no voxel of CT"),
        (several_frames, "was not loaded from Slicer's DICOM database"),
        (broken, "cannot be read"),
        (lambda folder: folder / "missing.dcm", "No such file"),
    ],
)
def test_a_file_that_cannot_be_compared_is_told_and_changes_nothing(
    scene, panel, found, tmp_path, monkeypatch, told, make, why
):
    path, before = make(tmp_path), scene.GetNumberOfNodes()
    choose(monkeypatch, path)
    panel.ui.structureSetButton.click()
    assert len(told) == 1 and path.name in told[0] and why in told[0]
    assert scene.GetNumberOfNodes() == before and panel.state.node is found[0]


def test_what_is_left_out_is_told(scene, panel, found, tmp_path, monkeypatch):
    contours = [rectangle(1.0, (-6.5, -1.5), (-8.5, -1.5)), rectangle(2.0, (-6.5, -1.5), (-8.5, -1.5))]
    drawn = [Drawn("Liver", [*contours, rectangle(1.0, (-6.5, -1.5), (-8.5, -1.5), "POINT")])]
    choose(monkeypatch, write_structures(tmp_path / "plan.rtstruct.dcm", drawn))
    told = []
    monkeypatch.setattr(slicer.util, "infoDisplay", lambda text, **more: told.append(text))
    panel.ui.structureSetButton.click()
    assert len(told) == 1 and told[0].startswith("plan.rtstruct.dcm: ") and panel.state.node.GetName() == "plan"


def test_contours_follow_the_transform_of_the_volume(scene, panel, found, plan):
    node, volume = found
    matrix = transform(volume, TURNED)
    drawn = panel.logic.loadStructureSet(plan, node)
    assert drawn.GetParentTransformNode() is matrix
    node.SetAndObserveTransformNodeID(matrix.GetID())  # as if it had been found there
    assert panel.logic.compare(drawn, node).rows[0].dice == pytest.approx(0.8)


def test_the_grid_of_the_segmentation_counts_if_its_volume_is_gone(scene, panel, found, plan):
    node, volume = found
    scene.RemoveNode(volume)
    drawn = panel.logic.loadStructureSet(plan, node)
    assert panel.logic.compare(drawn, node).rows[0].dice == pytest.approx(0.8)
    empty = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Nothing")
    with pytest.raises(ImageError, match="no structure in Nothing"):
        panel.logic.loadStructureSet(plan, empty)


def test_the_frame_of_reference_comes_from_the_series_of_the_volume(scene, panel, found, plan, tmp_path, monkeypatch):
    import pydicom

    node, volume = found
    header = pydicom.dcmread(plan)
    header.FrameOfReferenceUID = "1.2.3"
    header.save_as(tmp_path / "slice.dcm")
    database = types.SimpleNamespace(isOpen=True, fileForInstance=lambda uid: str(tmp_path / "slice.dcm"))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.3.4")
    with pytest.raises(ImageError, match="another frame of reference .* than CT"):
        panel.logic.loadStructureSet(plan, node)
    header.FrameOfReferenceUID = FRAME
    header.save_as(tmp_path / "slice.dcm")
    assert panel.logic.compare(panel.logic.loadStructureSet(plan, node), node).rows[0].dice == pytest.approx(0.8)


def test_a_case_gets_a_structure_set_as_its_reference(scene, panel, found, plan, monkeypatch):
    segmentation(scene, "CT drawn")
    panel.ui.compareCasesButton.click()
    dialog = panel.case_comparison
    assert [row[2] for row in shown(dialog.list.table)] == ["CT drawn"] and not dialog.list.structure_set_button.enabled
    dialog.list.table.view.clicked.emit(dialog.list.table.proxy.index(0, 0))
    choose(monkeypatch, plan)
    dialog.list.structure_set_button.click()
    assert [row[2] for row in shown(dialog.list.table)] == ["plan of Monday"]
    assert dialog.list.reference_box.currentText == "plan of Monday"
    dialog.compare_button.click()
    assert dialog.cases["CT"][0].dice == pytest.approx(0.8)
