"""From a volume node to a segmentation node, as scripts do it: real scene, real child process, the embedded model."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import ClassScaleError, ImageError, OutputError, OutputExistsError, Segmentation
from ClassScaleSegLib.images.case_notes import read_notes
from ClassScaleSegLib.options import Options
from ClassScaleSegLib.scene.confidence import confidence_of
from ClassScaleSegLib.scene.request import Request
from ClassScaleSegLib.scene.run import SceneRun
from ClassScaleSegLib.scene.source_volumes import is_of_region, source_volumes
from ClassScaleSegLib.scene.volume import geometry_of, image_to_world, index_to_world
from logic_fixtures import add_roi, add_segment, logic, measured, scene  # noqa: F401  (fixtures)
from mrml import read_segmentation, segments
from slicer_application import (
    SAMPLE,
    TURNED,
    add_volume,
    application,
    centre_of,
    load_sample,
    module,
    shared_labels,
    slicer,
    transform,
)

TRUTH = SAMPLE.with_name("toy-120-labels.nrrd")


def test_a_volume_becomes_a_segmentation_with_confidence_and_statistics(scene, logic, tmp_path):
    volume = load_sample()
    confidence = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Confidence")
    statistics = scene.AddNewNodeByClass("vtkMRMLTableNode", "Volumes")
    stages = []
    node = logic.segment(
        volume,
        "toy-120",
        confidence=confidence,
        statistics=statistics,
        device="cpu",
        progress=lambda event: stages.append(event.stage),
    )
    assert node.GetName() == "CT segmentation" and len(segments(node)) == 120
    assert source_volumes(node) == (volume,)
    assert {"start", "read", "preprocess", "segment", "write"} <= set(stages)
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(TRUTH)))
    labels, world = shared_labels(node)
    shown = Segmentation.from_image(_saved(logic, node, tmp_path)).labels
    assert shown.shape == truth.shape and (shown == truth).mean() > 0.95
    geometry = geometry_of(volume)
    np.testing.assert_allclose(np.linalg.norm(world[:3, :3], axis=0), geometry.spacing, rtol=1e-6)
    low, high = confidence.GetImageData().GetScalarRange()
    assert 0 < low < high <= 1 and confidence.GetImageData().GetDimensions() == geometry.size
    assert geometry_of(confidence).origin == pytest.approx(geometry.origin)
    display = confidence.GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax(), display.GetAutoWindowLevel()) == (0, 1, 0)
    assert statistics.GetNumberOfRows() == 120
    volumes = {statistics.GetCellText(row, 0): float(statistics.GetCellText(row, 3)) for row in range(120)}
    value = segments(node)["Segment_7"].GetLabelValue()
    assert volumes["cell 7"] == pytest.approx((labels == value).sum() * geometry.voxel_volume / 1000, rel=1e-4)
    cell = measured(statistics)["cell 7"]
    sure = float(slicer.util.arrayFromVolume(confidence)[shown == 7].mean(dtype=np.float64))
    assert float(cell["Confidence"]) == pytest.approx(sure, rel=1e-5)
    assert confidence_of(segments(node)["Segment_7"]) == pytest.approx(sure, abs=5.1e-5)
    np.testing.assert_allclose(centre_of_row(cell), centre_of(node, "Segment_7"), atol=1e-3)
    inside = slicer.util.arrayFromVolume(volume)[shown == 7]
    assert float(cell["Mean"]) == pytest.approx(inside.mean(), rel=1e-4)
    assert (float(cell["Minimum"]), float(cell["Maximum"])) == (inside.min(), inside.max())
    k, j, i = (np.unique(axis) for axis in np.nonzero(shown == 7))
    assert [int(cell[f"First {axis}"]) for axis in "IJK"] == [i[0], j[0], k[0]]
    assert float(cell["Surface area (mm2)"]) > 0 and cell["Touches edge"] in ("true", "false")
    with pytest.raises(OutputExistsError, match="already has segments"):
        logic.segment(volume, "toy-120", segmentation=node)


def centre_of_row(row):
    return [float(row[f"Centroid {axis} (mm)"]) for axis in "RAS"]


def _saved(logic, node, folder):
    """Saved by our own writer; Slicer's storage node reads the same segments from it."""
    path = folder / "saved.seg.nrrd"
    assert node.GetModifiedSinceRead() and logic.saveSegmentation(node, path)
    assert node.GetStorageNode().GetFileName() == str(path) and not node.GetModifiedSinceRead()
    segments(node)["Segment_9"].SetName("renamed")
    assert node.GetModifiedSinceRead() and logic.saveSegmentation(node, path) and not node.GetModifiedSinceRead()
    read = segments(read_segmentation(path))
    assert list(read) == list(segments(node))
    assert read["Segment_9"].GetName() == segments(node)["Segment_9"].GetName()
    assert read["Segment_9"].GetColor() == pytest.approx(segments(node)["Segment_9"].GetColor(), abs=0.003)
    return path


def test_transform_region_and_subset_are_honoured_together(scene, logic):
    volume = load_sample()
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(TRUTH)))
    value = int(truth[48, 48, 48])  # the cell in the middle
    to_world = np.array(TURNED) @ index_to_world(volume)
    transform(volume, TURNED)
    roi = add_roi((to_world @ (48, 48, 48, 1))[:3], (140.0, 140.0, 100.0))
    table = scene.AddNewNodeByClass("vtkMRMLTableNode")
    node = logic.segment(volume, "toy-120", device="cpu", region=roi, classes=[f"cell {value}", "1"], statistics=table)
    assert is_of_region(node)
    segment_id = f"Segment_{value}"
    row = measured(table)[f"cell {value}"]
    np.testing.assert_allclose(centre_of_row(row), centre_of(node, segment_id), atol=1e-3)
    assert {segment_id} <= set(segments(node)) <= {segment_id, "Segment_1"}
    z, y, x = np.argwhere(truth == value).mean(0)
    expected = (to_world @ (x, y, z, 1))[:3]
    assert np.linalg.norm(centre_of(node, segment_id) - expected) < 4  # mm; the crop changes what the network sees
    labels, world = shared_labels(node)
    z, y, x = np.nonzero(labels)
    points = (world @ np.stack([x, y, z, np.ones_like(x)]))[:3]
    i, j, k = np.linalg.inv(to_world)[:3] @ world @ np.stack([x, y, z, np.ones_like(x)])[:, labels[z, y, x] == value]
    inside = slicer.util.arrayFromVolume(volume)[tuple(np.rint(axis).astype(int) for axis in (k, j, i))]
    assert float(row["Mean"]) == pytest.approx(inside.mean(), rel=1e-4)
    assert int(row["First I"]) == round(i.min()) and int(row["Last K"]) == round(k.max())
    assert all(roi.IsPointInROIWorld(point.tolist()) for point in points.T[:: max(1, len(x) // 200)])
    converter = slicer.vtkSegmentationConverter
    text = node.GetSegmentation().GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    reference = slicer.vtkOrientedImageData()
    assert converter.DeserializeImageGeometry(text, reference, False)
    assert reference.GetDimensions() == volume.GetImageData().GetDimensions()
    np.testing.assert_allclose(image_to_world(reference), index_to_world(volume), atol=1e-4)
    assert node.GetParentTransformNode() is None and volume.GetParentTransformNode() is not None


def test_every_frame_of_a_sequence_is_segmented_into_a_sequence(scene, logic, tmp_path):
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Frames")
    sequence.SetIndexName("time")
    for frame, (value, shift) in enumerate((("0.5", 0), ("1.5", 10))):
        volume = load_sample(f"frame {frame}")
        volume.SetOrigin(*np.add(volume.GetOrigin(), (shift, 0, 0)))
        sequence.SetDataNodeAtValue(volume, value)
        scene.RemoveNode(volume)
    browser.AddSynchronizedSequenceNode(sequence)
    browser.SetSelectedItemNumber(1)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    volume = browser.GetProxyNode(sequence)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume)  # as a plugin of Slicer does; frames have no item
    application.vtk_messages.clear()
    table = scene.AddNewNodeByClass("vtkMRMLTableNode")
    node = logic.segment(
        volume, "toy-120", all_frames=True, statistics=table, classes=["cell 5", "cell 6"], device="cpu"
    )
    result = browser.GetSequenceNode(node)
    assert (
        result.GetNumberOfDataNodes() == 2 and result.GetNthIndexValue(1) == "1.5" and result.GetIndexName() == "time"
    )
    first, second = (result.GetNthDataNode(frame) for frame in range(2))
    moved = centre_of(second, "Segment_5") - centre_of(first, "Segment_5")
    np.testing.assert_allclose(moved, (10, 0, 0), atol=1e-6)
    assert second.GetSegmentation().GetNumberOfLayers() == 1
    assert [table.GetCellText(row, 0) for row in range(4)] == ["0", "0", "1", "1"]
    names = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    centre, mean = (
        [float(table.GetCellText(row, names.index(name))) for row in range(4)] for name in ("Centroid R (mm)", "Mean")
    )
    np.testing.assert_allclose(np.subtract(centre[2:], centre[:2]), 10, atol=1e-3)
    assert mean[:2] == mean[2:]  # the same image, elsewhere
    assert browser.GetSelectedItemNumber() == 1 and len(segments(node)) == 2
    assert application.vtk_messages == []
    first = logic.saveForTraining(node, tmp_path)
    browser.SetSelectedItemNumber(1 - browser.GetSelectedItemNumber())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    names = [first, logic.saveForTraining(node, tmp_path)]
    assert sorted(name[-9:] for name in names) == ["_frame000", "_frame001"]
    saved = [Segmentation.from_image(tmp_path / f"segmentations/{name}.seg.nrrd") for name in sorted(names)]
    moved = np.subtract(saved[1].geometry.origin, saved[0].geometry.origin)
    assert abs(moved[0]) == pytest.approx(10) and len(saved[0].table.foreground) == 2
    noted = [read_notes(tmp_path / f"segmentations/{name}.seg.nrrd").unchecked for name in sorted(names)]
    assert len(noted[0]) == 1 and noted[0] == noted[1], "nobody has looked at them"
    logic.noteChecked(node, "Segment_5")
    logic.saveForTraining(node, tmp_path, replace=True)
    noted = [read_notes(tmp_path / f"segmentations/{name}.seg.nrrd").unchecked for name in sorted(names)]
    assert sorted(map(len, noted)) == [0, 1], "one frame is checked"


def test_a_volume_deleted_during_the_run_stops_it_with_a_sentence(scene, logic):
    volume = load_sample()
    run = logic.start(logic.request(volume, "toy-120"))
    assert run.poll()[0].stage == "start" and run.state == "running"
    with pytest.raises(ClassScaleError, match="already running"):
        logic.segment(volume, "toy-120")
    scene.RemoveNode(volume)
    assert run.poll() == [] and run.state == "failed"
    assert run.error == "CT was removed from the scene, so its segmentation was stopped."
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_failed_run_says_what_the_child_said(scene, logic):
    volume = load_sample()
    before = scene.GetNumberOfNodes()
    with pytest.raises(ClassScaleError, match="more than the limit of 0.1 GiB. Raise the limit"):
        logic.segment(volume, "toy-120", device="cpu", memory_limit=0.1)
    assert scene.GetNumberOfNodes() == before


def quick(logic, volume, **choices):
    return logic.start(logic.request(volume, "toy-120", device="cpu", step=1.0, mirroring=False, threads=1, **choices))


def test_a_script_can_smooth_and_remove_islands(scene, logic):
    volume = load_sample()
    run = quick(logic, volume, smooth=1.5, remove_islands=500, clean_classes=["cell 7"])
    events = []
    assert run.wait(events.append) is not None
    [told] = [event.text for event in events if event.stage == "clean" and event.text]
    assert told.startswith("Cleaned up cell 7: ")


def test_a_fault_while_the_result_is_shown_happens_once_and_leaves_no_node(scene, logic, monkeypatch, caplog):
    from ClassScaleSegLib.scene import run as scene_run

    def broken(node, results, measures):
        assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
        raise ValueError("an observer of the scene")

    monkeypatch.setattr(scene_run, "fill_table_node", broken)
    volume, table = load_sample(), scene.AddNewNodeByClass("vtkMRMLTableNode")
    before = scene.GetNumberOfNodes()
    run = quick(logic, volume, statistics=table)
    with pytest.raises(ClassScaleError, match="could not be shown .ValueError: an observer of the scene"):
        run.wait()
    assert run.state == "failed" and run.poll() == [] and run.node is None and run.results == []
    assert scene.GetNumberOfNodes() == before and "Traceback" in caplog.text


def test_segments_added_to_the_target_during_the_run_stay_and_the_result_goes_elsewhere(scene, logic):
    target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Target")
    run = quick(logic, load_sample(), segmentation=target)
    target.GetSegmentation().AddEmptySegment("mine", "mine")
    told = []
    node = run.wait(told.append)
    assert list(segments(target)) == ["mine"] and node is not target and len(segments(node)) > 100
    assert (
        told[-1].text
        == run.notice
        == "Segments were added to Target during the run, so the result is in CT segmentation."
    )
    assert run.log.endswith(run.notice)


def test_choices_that_mean_nothing_are_sentences(scene, logic):
    volume = add_volume(np.zeros((20, 20, 20), np.int16))
    with pytest.raises(ClassScaleError, match="classes is empty; leave it out for all classes."):
        logic.segment(volume, "toy-120", classes=[])
    with pytest.raises(ClassScaleError, match="There is no option clases. The options are all_frames, .*classes, "):
        logic.segment(volume, "toy-120", clases=["cell 1"])
    for given, meant in (("cell 1", ("cell 1",)), (7, (7,)), (np.array([3, 4]), (3, 4)), (None, None)):
        run = logic.start(logic.request(volume, "toy-120", classes=given))
        assert run._process.job.options.classes == meant
        run.cancel()


def test_packages_that_are_missing_are_named_with_the_call_that_installs_them(scene, logic, monkeypatch):
    from ClassScaleSegPanel.install import dialog, missing

    volume = add_volume(np.zeros((20, 20, 20), np.int16))
    monkeypatch.setattr(missing, "PACKAGES", [*missing.PACKAGES, "no-such-package>=1"])
    asked = []
    monkeypatch.setattr(dialog, "show", lambda text, button: asked.append(text) or "")
    with pytest.raises(
        ClassScaleError, match="no-such-package>=1. To install them, press Apply .*installDependencies"
    ) as caught:
        logic.segment(volume, "toy-120")
    assert "torch" not in str(caught.value) and asked == []
    with pytest.raises(ClassScaleError, match="cannot segment without these Python packages: no-such-package>=1"):
        logic.installDependencies()
    assert len(asked) == 1


def test_the_package_that_the_network_of_a_model_needs_is_asked_for_with_that_model_alone(
    scene, logic, monkeypatch, tmp_path
):
    pytest.importorskip("monai")
    from ClassScaleSegPanel.install import dialog, missing
    from monai_pipeline import configuration, network_of, write_package

    config = configuration()
    model = write_package(tmp_path / "mini-v1.0.0", config, network_of(config))
    assert missing.wanted_by([model]).more == ("monai>=1.3",) and missing.wanted_by(["toy-120"]) == missing.Wanted()
    volume, found = add_volume(np.full((30, 30, 30), 60, np.int16)), missing.is_installed
    monkeypatch.setattr(missing, "is_installed", lambda wanted: not wanted.startswith("monai") and found(wanted))
    with pytest.raises(ClassScaleError, match="Python packages are missing: monai>=1.3. To install them"):
        logic.segment(volume, model)
    asked = []
    monkeypatch.setattr(dialog, "show", lambda text, button: asked.append(text) or "")
    logic.installDependencies()
    assert asked == []
    with pytest.raises(ClassScaleError, match="cannot segment without these Python packages: monai>=1.3"):
        logic.installDependencies(model)
    assert "monai>=1.3" in asked[0]
    assert missing.wanted_by(["toy-120"], Options(locate_with=str(model))).more == ("monai>=1.3",)
    monkeypatch.setattr(missing, "is_installed", found)
    node = logic.segment(volume, model, device="cpu", interpolation="nearest", keep_empty=True)
    assert node.GetSegmentation().GetNumberOfSegments() == 11


def test_a_folder_that_cannot_be_made_is_a_sentence(scene, logic, monkeypatch):
    make = Path.mkdir

    def full(self, *arguments, **more):
        if self.name == "images":
            raise OSError(28, "No space left on device", str(self))
        return make(self, *arguments, **more)

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OutputError, match="cannot be written .No space left on device"):
        logic.segment(add_volume(np.zeros((20, 20, 20), np.int16)), "toy-120")


def test_bad_volumes_are_refused_with_sentences(scene, logic):
    with pytest.raises(ImageError, match="No volume is selected"):
        logic.segment(None, "toy-120")
    with pytest.raises(ImageError, match="Empty has no voxels"):
        logic.segment(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty"), "toy-120")
    volume = add_volume(np.zeros((4, 5, 6), np.int16))
    with pytest.raises(ImageError, match="needs 1 volume.*2 are given"):
        logic.segment([volume, volume], "toy-120")
    bent = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Bent")
    volume.SetAndObserveTransformNodeID(bent.GetID())
    with pytest.raises(ImageError, match="Small is under the non-linear transform Bent. Harden the"):
        logic.segment(volume, "toy-120")
    transform(volume, np.diag([1.0, 1.0, 0.0, 1.0]))
    with pytest.raises(ImageError, match="Small: .*not positive.*Correct its spacing"):
        logic.segment(volume, "toy-120")


def test_models_that_are_not_there_or_not_safe_are_refused(scene, logic, tmp_path):
    import zipfile

    volume = add_volume(np.zeros((4, 5, 6), np.int16))
    with pytest.raises(ClassScaleError, match="not downloaded"):
        logic.segment(volume, "totalsegmentator-3mm")
    copy = tmp_path / "toy.zip"
    shutil.copy(Path(module.__file__).parents[1] / "Resources/Models/toy-120.zip", copy)
    request = logic.request(volume, str(copy))
    copy.unlink()  # between choice and Apply
    with pytest.raises(ClassScaleError, match="toy.zip does not exist"):
        logic.start(request)
    with zipfile.ZipFile(copy, "w") as archive:
        archive.writestr("../../outside.json", "{}")
    with pytest.raises(ClassScaleError, match="toy.zip"):
        logic.segment(volume, str(copy))
    assert not list(tmp_path.rglob("outside.json"))


def test_a_full_disk_is_told_before_anything_starts(scene, logic, monkeypatch):
    volume = add_volume(np.zeros((40, 50, 60), np.int16))
    usage = shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="has 0.0 GB free, and about 0.1 GB are needed"):
        logic.segment(volume, "toy-120")


def test_a_node_with_overlapping_segments_is_saved_in_layers(scene, logic, tmp_path, monkeypatch):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Two layers")
    for first in ((0, 0, 0), (1, 2, 1), (9, 9, 9)):
        add_segment(node, np.ones((3, 4, 5), np.uint8), 1, first, name=f"at {first}")
    monkeypatch.setattr(slicer.util, "saveNode", None)
    assert logic.saveSegmentation(node, tmp_path / "two.seg.nrrd")
    saved = Segmentation.from_image(tmp_path / "two.seg.nrrd")
    assert len(saved.layers) == 2 and saved.geometry.size == (14, 13, 12)
    assert [(row.name, row.voxels) for row in saved.statistics()] == [
        ("at (0, 0, 0)", 60),
        ("at (1, 2, 1)", 60),
        ("at (9, 9, 9)", 60),
    ]
    assert (saved.labels[0:3, 0:4, 0:5] == 1).all() and (saved.more_layers[0][1:4, 2:6, 1:6] == 2).all()
    assert (saved.labels[9:12, 9:13, 9:14] == 3).all() and node.GetStorageNode() is not None


def test_a_node_of_several_grids_is_saved_by_slicer(scene, logic, tmp_path, monkeypatch):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Two grids")
    for spacing in (1.0, 2.0):
        add_segment(node, np.ones((3, 3, 3), np.uint8), 1, spacing=spacing)
    asked = []
    monkeypatch.setattr(slicer.util, "saveNode", lambda saved, path: asked.append((saved, path)) or True)
    assert not logic.saveSegmentation(node, tmp_path / "two.seg.nrrd")
    assert asked == [(node, str(tmp_path / "two.seg.nrrd"))]


def test_a_run_that_is_only_a_request_changes_nothing(scene):
    run = SceneRun(Request((add_volume(np.zeros((4, 4, 4), np.int16)),), "toy-120"))
    run.cancel()
    assert run.state == "new" and run.poll() == [] and run.log == ""
