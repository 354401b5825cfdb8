# ruff: noqa: F811  fixtures
"""The segmentations of a folder, one after the other: checked, corrected and saved."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import ImageError, OutputError, Segmentation
from ClassScaleSegLib.images.case_notes import CaseNotes, read_notes
from ClassScaleSegLib.images.review_state import ReviewState, review_state
from ClassScaleSegLib.images.seg_nrrd import stored_type, write_seg_nrrd
from ClassScaleSegLib.scene import case_files
from ClassScaleSegLib.scene.case_files import find_cases, open_case
from ClassScaleSegLib.scene.confidence_volume import confidence_volume, least_sure_point
from ClassScaleSegLib.scene.corrected import corrected_structures
from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node
from ClassScaleSegLib.scene.source_volumes import source_volumes
from painting import EVERYWHERE, paint
from slicer_application import application, qt, slicer, transform
from test_correction import KIDNEY, LIVER, SPLEEN, STRIP
from test_module_colors import result
from test_module_compare import SHAPE, labels, panel, scene  # noqa: F401

NODES = "vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLSegmentationStorageNode"


def write_case(folder, name, number, suffix=""):
    images, segmentations = folder / "images", folder / "segmentations"
    for each in (images, segmentations):
        each.mkdir(exist_ok=True)
    found = result()
    image = sitk.GetImageFromArray(np.full(SHAPE, number, np.int16))
    image.SetDirection(found.geometry.direction)
    sitk.WriteImage(image, str(images / f"{name}{suffix}.nii.gz"))
    found.write(segmentations / f"{name}.seg.nrrd", overwrite=True)


@pytest.fixture
def folder(tmp_path):
    """Three cases, of which one is numbered as nnU-Net does, and what is none."""
    for number, (name, suffix) in enumerate([("a", ""), ("b", "_0000"), ("c", "")]):
        write_case(tmp_path, name, number, suffix)
    (tmp_path / "segmentations" / "notes.txt").write_text("mine")
    return tmp_path


@pytest.fixture
def review(panel, folder):
    """The dialog, in which the folder has been chosen."""
    panel.ui.reviewCasesButton.click()
    shown = panel.case_review
    choose(shown, folder)
    yield shown
    shown.close()
    for name in ("Images", "Segmentations", "Confidences", "Others"):
        slicer.app.userSettings().remove(f"ClassScaleSeg/Review{name}")


def choose(shown, folder) -> None:
    shown.images.text, shown.segmentations.text = str(folder / "images"), str(folder / "segmentations")
    shown.segmentations.returnPressed.emit()
    shown.segmentations.editingFinished.emit()


def rows(shown) -> list[list[str]]:
    model = shown.table.proxy
    return [[model.data(model.index(row, column)) for column in range(3)] for row in range(model.rowCount())]


def open_row(shown, name) -> None:
    shown.table.go_to(name)
    shown.open_button.click()
    application.processEvents()


def counted() -> list[int]:
    return [slicer.mrmlScene.GetNumberOfNodesByClass(kind) for kind in NODES]


def test_cases_are_listed_with_what_is_checked_and_the_least_confidence(review):
    assert rows(review) == [[name, "0/3", "0.55"] for name in "abc"]
    assert review.line.text == "" and not review.save_button.enabled and not review.next_button.enabled
    review.open_button.click()
    assert review.line.text == "To open a case, click it in the table." and review.opened is None


def test_a_case_is_opened_checked_saved_and_the_next_one_comes_in_its_place(scene, panel, review, folder):
    before = counted()
    open_row(review, "a")
    node = panel.state.node
    assert node.GetName() == "a segmentation" and [one.GetName() for one in source_volumes(node)] == ["a"]
    assert panel.results.table.keys() == [LIVER, SPLEEN, KIDNEY] and review.line.text == "a is open."
    for _time in range(3):
        if panel.results.table.current():
            panel.ui.checkedButton.click()
        else:
            panel.ui.nextButton.click()
    review.next_button.click()
    application.processEvents()
    assert panel.state.node.GetName() == "b segmentation" and panel.state.node is not node
    assert [one.GetName() for one in source_volumes(panel.state.node)] == ["b"]
    assert rows(review)[0] == ["a", "2/3", "0.99"], "what is least sure of the rest"
    assert np.subtract(counted(), before).tolist() == [1, 1, 1], "one case is in the scene"
    again = Segmentation.from_image(folder / "segmentations" / "a.seg.nrrd")
    assert (again.labels == labels()).all() and again.geometry == result().geometry
    review.next_button.click()
    application.processEvents()
    review.next_button.click()
    assert review.line.text == "In the table below c, no case is left to be checked."


def test_what_is_checked_whole_is_passed_over(panel, review, folder):
    open_row(review, "b")
    for identifier in (LIVER, SPLEEN, KIDNEY):
        panel.logic.noteChecked(panel.state.node, identifier)
    review.save_button.click()
    assert rows(review)[1] == ["b", "3/3", ""]
    open_row(review, "a")
    review.next_button.click()
    assert panel.state.node.GetName() == "c segmentation"


def test_the_next_case_is_the_one_below_also_if_the_table_is_sorted_by_what_changes(panel, review, folder):
    open_row(review, "a")
    review.table.view.sortByColumn(2, qt.Qt.AscendingOrder)
    panel.logic.noteChecked(panel.state.node, LIVER)
    review.next_button.click()
    assert [row[0] for row in rows(review)] == ["b", "c", "a"], "the least sure of a is surer now"
    assert panel.state.node.GetName() == "b segmentation"


def test_a_case_that_nobody_has_looked_at_stays_as_the_model_made_it(panel, review, folder):
    file = folder / "segmentations" / "a.seg.nrrd"
    before = file.stat().st_mtime_ns
    open_row(review, "a")
    panel.logic.show3D(panel.state.node, [LIVER])
    panel.logic.colorByConfidence(panel.state.node)
    review.save_button.click()
    assert file.stat().st_mtime_ns == before
    assert review.line.text == "a has not changed, so there is nothing to save."


def test_a_correction_is_taken_over_and_noted_in_the_file(panel, review, folder):
    file = folder / "segmentations" / "a.seg.nrrd"
    found = result()
    notes = CaseNotes(("kidney_left",), ("Brain",)).fields()
    write_seg_nrrd(file, found.layers, found.table, found.geometry, stored_type(found.table), True, notes)
    open_row(review, "a")
    panel.results.table.go_to(SPLEEN)
    panel.ui.correctButton.click()
    application.processEvents()
    paint(STRIP)
    review.save_button.click()
    application.processEvents()
    wanted = labels()
    wanted[STRIP] = np.where(wanted[STRIP] == 0, 2, wanted[STRIP])
    assert (Segmentation.from_image(file).labels == wanted).all()
    assert read_notes(file) == CaseNotes(("kidney_left", "spleen"), ())
    assert review_state(file).checked == 1


def test_an_image_on_another_grid_is_told(panel, review, folder):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16)), str(folder / "images" / "a.nii.gz"))
    open_row(review, "a")
    told = "a.seg.nrrd is on another grid than a.nii.gz. Do they belong together?"
    assert review.line.text == f"a is open. {told}"


def test_a_segmentation_that_was_cut_to_its_structures_belongs_to_its_image(panel, review, folder):
    file, whole = folder / "segmentations" / "a.seg.nrrd", result()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    fill_segmentation_node(node, whole)
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetCropToMinimumExtent(True)
    assert slicer.util.saveNode(node, str(file))
    slicer.mrmlScene.RemoveNode(node)
    assert Segmentation.from_image(file).labels.size < whole.labels.size
    open_row(review, "a")
    assert review.line.text == "a is open."
    panel.results.table.go_to(LIVER)
    panel.ui.correctButton.click()
    application.processEvents()
    paint(EVERYWHERE)
    review.save_button.click()
    again = Segmentation.from_image(file)
    assert again.geometry == whole.geometry and (again.labels > 0).all(), "on the grid of the image"


def test_changes_are_not_lost_without_a_question(panel, review, monkeypatch):
    asked, answer = [], [False]
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: asked.append(text) or answer[0])
    open_row(review, "a")
    open_row(review, "b")
    assert asked == [] and panel.state.node.GetName() == "b segmentation"
    panel.logic.noteChecked(panel.state.node, LIVER)
    open_row(review, "c")
    assert asked == ["b was changed and not saved. Discard the changes?"]
    assert panel.state.node.GetName() == "b segmentation"
    answer[0] = True
    open_row(review, "c")
    assert panel.state.node.GetName() == "c segmentation" and rows(review)[1][1] == "0/3"


def test_a_case_that_cannot_be_read_leaves_the_open_one(panel, review, folder, monkeypatch):
    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: told.append(text))
    open_row(review, "a")
    before = counted()
    (folder / "images" / "c.nii.gz").write_bytes(b"no image")
    application.vtk_messages.clear()
    open_row(review, "c")
    application.vtk_messages.clear()  # of Slicer's reader
    assert "c.nii.gz" in told[0] and counted() == before and panel.state.node.GetName() == "a segmentation"
    (folder / "segmentations" / "b.seg.nrrd").write_bytes(b"NRRD0004\ntype: uint8\n")
    open_row(review, "b")
    application.vtk_messages.clear()
    assert "b.seg.nrrd" in told[1] and counted() == before


def test_a_case_that_cannot_be_opened_does_not_stop_the_way_to_the_next(panel, review, folder, monkeypatch):
    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: told.append(text))
    open_row(review, "a")
    (folder / "segmentations" / "b.seg.nrrd").write_bytes(b"NRRD0004\ntype: uint8\n")
    review.next_button.click()
    application.vtk_messages.clear()
    assert panel.state.node.GetName() == "c segmentation" and len(told) == 1 and "b.seg.nrrd" in told[0]


def test_a_file_that_cannot_be_saved_is_told_and_stays(panel, review, folder, monkeypatch):
    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: told.append(text))
    file = folder / "segmentations" / "a.seg.nrrd"
    before = file.read_bytes()
    open_row(review, "a")
    panel.logic.noteChecked(panel.state.node, LIVER)

    def fails(*given, **more):
        raise OutputError("The disk is full.")

    monkeypatch.setattr(case_files, "save_segmentation", fails)
    review.next_button.click()
    assert told == ["The disk is full."] and file.read_bytes() == before
    assert panel.state.node.GetName() == "a segmentation", "the next one is not opened"


def test_what_somebody_else_has_saved_meanwhile_is_not_replaced_without_a_question(panel, review, folder, monkeypatch):
    asked, answer = [], [False]
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **more: asked.append(text) or answer[0])
    file = folder / "segmentations" / "a.seg.nrrd"
    open_row(review, "a")
    panel.logic.noteChecked(panel.state.node, LIVER)
    review.save_button.click()
    panel.logic.noteChecked(panel.state.node, SPLEEN)
    review.save_button.click()
    assert asked == [] and review_state(file).checked == 2, "its own file"
    file.write_bytes(theirs := file.read_bytes() + b" ")
    panel.logic.noteChecked(panel.state.node, KIDNEY)
    review.next_button.click()
    assert asked == [f"{file} was changed by somebody else since you opened it. Replace it?"]
    assert file.read_bytes() == theirs and panel.state.node.GetName() == "a segmentation"
    answer[0] = True
    review.save_button.click()
    assert review_state(file).checked == 3
    file.unlink()
    panel.logic.noteChecked(panel.state.node, KIDNEY, False)
    review.save_button.click()
    assert len(asked) == 2 and review_state(file).checked == 2, "there was nothing to replace"


def test_what_the_segment_editor_alone_has_changed_is_no_result_of_a_model_any_more(panel, review, folder):
    file, found = folder / "segmentations" / "a.seg.nrrd", result()
    notes = CaseNotes((), ("Brain",))
    parts = found.layers, found.table, found.geometry, stored_type(found.table), True
    write_seg_nrrd(file, *parts, notes.fields())
    open_row(review, "a")
    segment = panel.state.node.GetSegmentation().GetSegment(LIVER)
    segment.SetColor(1, 0, 0)
    review.save_button.click()
    assert read_notes(file) == notes, "another colour says nothing about the voxels"
    voxels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(panel.state.node, LIVER)
    voxels[tuple(np.argwhere(voxels == segment.GetLabelValue())[0])] = 0
    segment.GetRepresentation("Binary labelmap").Modified()
    review.save_button.click()
    assert read_notes(file) == CaseNotes()


def test_what_somebody_has_renamed_is_no_result_of_a_model_any_more(panel, review, folder):
    file = folder / "segmentations" / "a.seg.nrrd"
    result().write(file, overwrite=True, found_by=["Brain"])
    open_row(review, "a")
    panel.state.node.GetSegmentation().GetSegment(SPLEEN).SetName("tumour")
    review.save_button.click()
    assert read_notes(file) == CaseNotes()


def test_an_open_case_knows_who_found_it_wherever_it_is_saved(panel, review, folder, tmp_path):
    file, found = folder / "segmentations" / "a.seg.nrrd", result()
    found.write(file, overwrite=True, found_by=["Brain"])
    open_row(review, "a")
    node = panel.state.node
    panel.logic.saveSegmentation(node, tmp_path / "copy.seg.nrrd")
    assert read_notes(tmp_path / "copy.seg.nrrd") == CaseNotes((), ("Brain",))
    panel.logic.saveForTraining(node, tmp_path / "training")
    assert read_notes(tmp_path / "training" / "segmentations" / "a.seg.nrrd") == CaseNotes((), ("Brain",))
    panel.logic.noteChecked(node, LIVER)
    panel.logic.saveSegmentation(node, tmp_path / "copy.seg.nrrd")
    assert read_notes(tmp_path / "copy.seg.nrrd") == CaseNotes()


def test_what_was_corrected_is_known_when_the_case_is_opened_again(panel, review, folder, tmp_path):
    file, found = folder / "segmentations" / "a.seg.nrrd", result()
    parts = found.layers, found.table, found.geometry, stored_type(found.table), True
    write_seg_nrrd(file, *parts, CaseNotes(("spleen", "heart")).fields())
    open_row(review, "a")
    assert corrected_structures(panel.state.node) == ("spleen",), "there is no heart any more"
    panel.state.node.GetSegmentation().GetSegment(SPLEEN).SetName("Milz")
    review.save_button.click()
    assert read_notes(file) == CaseNotes(("Milz",))


def test_a_case_of_which_nothing_is_left_keeps_its_grid_and_its_empty_structures(panel, review, folder):
    file = folder / "segmentations" / "a.seg.nrrd"
    open_row(review, "a")
    shared = panel.state.node.GetSegmentation().GetSegment(LIVER).GetRepresentation("Binary labelmap")
    shared.Initialize()  # as Slicer's own label map of segments that have been erased
    panel.logic.noteChecked(panel.state.node, LIVER)
    review.save_button.click()
    again = Segmentation.from_image(file)
    assert again.geometry == result().geometry and not again.labels.any()
    assert [label.name for label in again.table.foreground] == [one.name for one in result().table.foreground]
    assert rows(review)[0][1] == "0/0"


def test_a_segmentation_under_a_transform_is_not_saved_without_it(panel, review, folder, monkeypatch):
    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: told.append(text))
    file = folder / "segmentations" / "a.seg.nrrd"
    before = file.read_bytes()
    open_row(review, "a")
    transform(panel.state.node, [[1, 0, 0, 10], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    review.save_button.click()
    assert "a segmentation is under a transform" in told[0] and file.read_bytes() == before
    panel.state.node.SetAndObserveTransformNodeID(None)


def test_a_file_that_cannot_be_read_any_more_is_told(panel, review, folder, monkeypatch):
    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: told.append(text))
    open_row(review, "a")
    panel.logic.noteChecked(panel.state.node, LIVER)

    def fails(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(case_files, "read_notes", fails)
    review.save_button.click()
    assert told == [
        f"{folder / 'segmentations' / 'a.seg.nrrd'} cannot be read (Input/output error). "
        "Save the case again when it can be."
    ]


def test_removing_the_segmentation_or_closing_the_scene_ends_the_open_case(scene, panel, review):
    open_row(review, "a")
    scene.RemoveNode(panel.state.node)
    assert review.opened is None and not review.save_button.enabled
    open_row(review, "b")
    scene.Clear()
    assert review.opened is None and not review.next_button.enabled
    open_row(review, "c")
    review.close()
    panel.ui.reviewCasesButton.click()
    assert review.opened is not None and review.save_button.enabled, "the open case stays while the dialog is closed"


def test_the_image_of_a_case_whose_segmentation_was_removed_goes_with_the_next_case(scene, panel, review):
    before = counted()
    open_row(review, "a")
    slicer.mrmlScene.RemoveNode(panel.state.node)
    assert slicer.mrmlScene.GetFirstNodeByName("a") is not None, "the user may still want to see it"
    open_row(review, "b")
    assert np.subtract(counted(), before)[:2].tolist() == [1, 1] and slicer.mrmlScene.GetFirstNodeByName("a") is None


def test_a_window_that_was_closed_lists_the_folder_again(panel, review, folder):
    review.dialog.close()
    write_case(folder, "d", 4)
    panel.ui.reviewCasesButton.click()
    assert [row[0] for row in rows(review)] == ["a", "b", "c", "d"]


def test_a_folder_of_cases_for_training_has_both(panel, review, folder, monkeypatch):
    chosen = staticmethod(lambda *given: str(folder))
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", chosen)
    review.images.text = review.segmentations.text = ""
    review._browse_images()
    assert (review.images.text, review.segmentations.text) == (str(folder / "images"), str(folder / "segmentations"))
    assert len(rows(review)) == 3


def test_what_is_wrong_with_folders_is_told(panel, review, folder, tmp_path):
    (folder / "images" / "c.nii.gz").unlink()
    choose(review, folder)
    assert [row[0] for row in rows(review)] == ["a", "b"]
    assert review.line.text == f"{folder / 'images'} has no image of c."
    choose(review, tmp_path / "elsewhere")
    assert rows(review) == [] and "is no folder" in review.line.text
    (tmp_path / "x" / "images").mkdir(parents=True)
    (tmp_path / "x" / "segmentations").mkdir()
    choose(review, tmp_path / "x")
    assert "none of its files ends with .seg.nrrd" in review.line.text


def test_cases_of_the_same_names_in_another_folder_are_others(panel, review, folder, tmp_path):
    open_row(review, "b")
    other = tmp_path / "other"
    other.mkdir()
    for number, name in enumerate("abc"):
        write_case(other, name, number)
    choose(review, other)
    for identifier in (LIVER, SPLEEN, KIDNEY):
        panel.logic.noteChecked(panel.state.node, identifier)
    review.save_button.click()
    assert [row[1] for row in rows(review)] == ["0/3"] * 3, "b of the first folder is not in the table"
    panel.logic.noteChecked(panel.state.node, KIDNEY, False)
    review.next_button.click()
    assert review.opened.files.segmentation == other / "segmentations" / "a.seg.nrrd"


def test_what_somebody_else_has_checked_meanwhile_is_passed_over(panel, review, folder):
    open_row(review, "a")
    file = folder / "segmentations" / "b.seg.nrrd"
    found, parts = result(), (result().layers, result().table, result().geometry)
    tags = {label.value: {"Segmentation.Status": "completed"} for label in found.table.foreground}
    write_seg_nrrd(file, *parts, stored_type(found.table), True, tags=tags)
    review.next_button.click()
    assert panel.state.node.GetName() == "c segmentation" and rows(review)[1][1] == "3/3"


def test_several_images_of_one_case_are_no_channels(scene, tmp_path):
    for name in ("a", "b", "c"):
        write_case(tmp_path, name, 1, "_0000" if name == "b" else "")
    images = tmp_path / "images"
    (images / "a").mkdir()
    (images / "b_0000.nrrd").write_bytes(b"")
    cases, told = find_cases(images, tmp_path / "segmentations")
    assert [case.name for case in cases] == ["c"]
    assert told == f"{images} has several images of a, b. Leave one of each there."


def test_files_are_read_again_if_enter_is_pressed_not_if_a_field_is_left(panel, review, folder, tmp_path):
    (folder / "images" / "c.nii.gz").unlink()
    for field in (review.images, review.segmentations):
        field.editingFinished.emit()
    assert len(rows(review)) == 3
    review.images.returnPressed.emit()
    assert len(rows(review)) == 2
    review.images.text = "~nobody-of-that-name/scans"
    review.images.editingFinished.emit()
    assert rows(review) == [] and review.line.text.startswith("~nobody-of-that-name/scans is no folder.")


def test_the_confidence_of_voxels_comes_with_the_case_and_goes_with_it(scene, panel, review, folder):
    before = counted()
    (folder / "sure").mkdir()
    found = result()
    found.write_confidence(folder / "sure" / "a.nii.gz")
    review.confidences.text = str(folder / "sure")
    review.confidences.editingFinished.emit()
    open_row(review, "a")
    volume = confidence_volume(panel.state.node)
    assert volume.GetName() == "a confidence" and source_volumes(panel.state.node)[0].GetName() == "a"
    display = volume.GetDisplayNode()
    assert (display.GetLevel(), display.GetWindow()) == (0.5, 1.0)
    assert panel.ui.colorsComboBox.findText("Unsure voxels") >= 0 and least_sure_point(panel.state.node, LIVER)
    open_row(review, "b")
    assert confidence_volume(panel.state.node) is None
    assert np.subtract(counted(), before).tolist() == [1, 1, 1]


def test_channels_of_a_case_are_in_their_order(scene, tmp_path):
    for number in (1, 0):
        write_case(tmp_path, "p", number, f"_{number:04}")
    write_case(tmp_path, "p_extra", 5)
    cases, told = find_cases(tmp_path / "images", tmp_path / "segmentations")
    assert [[image.name for image in case.images] for case in cases] == [
        ["p_0000.nii.gz", "p_0001.nii.gz"],
        ["p_extra.nii.gz"],
    ]
    opened = open_case(scene, cases[0])
    assert [slicer.util.arrayFromVolume(volume).max() for volume in opened.volumes] == [0, 1] and told == ""
    assert source_volumes(opened.segmentation) == opened.volumes


def test_the_state_is_told_by_the_header_alone(tmp_path):
    file = tmp_path / "a.seg.nrrd"
    result().write(file, keep_empty=True)
    assert review_state(file) == ReviewState(3, 0, 0.55)
    header = file.read_bytes().partition(b"\n\n")[0]
    odd = header.replace(b"Confidence:0.5500", b"Confidence:nan").replace(b"Segment1_Tags:=", b"Segment1_Tags:=a|b::|")
    file.write_bytes(odd + b"\n\n")
    assert review_state(file) == ReviewState(3, 0, 0.8)
    file.write_bytes(header.partition(b"Segment0")[0] + b"\n")
    with pytest.raises(ImageError, match=r"a.seg.nrrd has no segments"):
        review_state(file)
    file.write_bytes(header.replace(b"NRRD", b"JUNK"))
    with pytest.raises(ImageError, match=r"a.seg.nrrd is no NRRD file"):
        review_state(file)
    with pytest.raises(ImageError, match="cannot be read"):
        review_state(tmp_path / "none.seg.nrrd")
