"""Test inside Slicer the way of a user through the panel: open the module, load a sample, run, look, save, close.

The repository's tests run it on the stand-ins of Slicer's widgets too.
"""

from __future__ import annotations

import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

import slicer


class ClassScaleSegPanelTest(unittest.TestCase):
    panel: Any

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        widget = slicer.modules.classscaleseg.widgetRepresentation().self()
        self.panel = widget.panel
        if slicer.util.mainWindow() is not None:
            slicer.util.selectModule("ClassScaleSeg")
        else:
            widget.enter()
        from ClassScaleSegPanel.install.missing import refuse_missing_dependencies

        try:
            refuse_missing_dependencies()
        except Exception as error:
            self.skipTest(str(error))

    def tearDown(self) -> None:
        slicer.mrmlScene.Clear()

    def load_sample(self) -> Any:
        import SampleData

        volume = SampleData.SampleDataLogic().downloadSample("ClassScaleSegToy120")
        parameters = self.panel.state.parameters
        if parameters.inputVolume is not volume:
            parameters.inputVolume = volume
        parameters.device, parameters.step, parameters.mirroring = "cpu", 1.0, False
        self.assertEqual(parameters.model, "toy-120")
        return volume

    def wait(self, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while self.panel.state.run is not None:
            self.assertLess(time.monotonic(), end, self.panel.state.status)
            slicer.app.processEvents()
            time.sleep(0.02)

    def test_from_the_sample_to_the_saved_result(self) -> None:
        ui, state = self.panel.ui, self.panel.state
        volume = self.load_sample()
        self.assertTrue(ui.applyButton.enabled, ui.needLabel.text)
        ui.applyButton.click()
        self.assertIsNotNone(state.run, state.status)
        self.wait()
        self.assertTrue(state.status.startswith("Done"), state.status)
        node, table = state.node, self.panel.results.table
        self.assertIs(state.parameters.segmentation, node)
        segmentation = node.GetSegmentation()
        self.assertGreater(segmentation.GetNumberOfSegments(), 100)
        self.assertEqual(segmentation.GetNumberOfLayers(), 1)
        self.assertEqual(table.keys(), list(segmentation.GetSegmentIDs()))
        bounds, of_result = [0.0] * 6, [0.0] * 6
        volume.GetRASBounds(bounds)
        node.GetRASBounds(of_result)
        for least, most in ((0, 1), (2, 3), (4, 5)):
            self.assertGreater(of_result[least], bounds[least] - 1)
            self.assertLess(of_result[most], bounds[most] + 1)

        ticked = table.keys()[:2]
        table.tick(ticked)
        ui.show3DButton.click()
        surfaces = {i: segmentation.GetSegment(i).GetRepresentation("Closed surface") for i in table.keys()}
        self.assertEqual([i for i, surface in surfaces.items() if surface.GetNumberOfPolys()], ticked)
        ui.show3DButton.click()
        self.assertFalse(segmentation.ContainsRepresentation("Closed surface"))

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "result.seg.nrrd")
            self.assertTrue(self.panel.logic.saveSegmentation(node, file))
            again = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
            storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
            storage.SetFileName(str(file))
            self.assertTrue(storage.ReadData(again))
            self.assertEqual(again.GetSegmentation().GetNumberOfSegments(), segmentation.GetNumberOfSegments())
            name = self.panel.logic.saveForTraining(node, folder)
            self.assertTrue(Path(folder, "images", f"{name}_0000.nii.gz").is_file())
            self.assertTrue(Path(folder, "segmentations", f"{name}.seg.nrrd").is_file())
        self.compare(node, again)
        self.correct(node)

    def compare(self, node: Any, again: Any) -> None:
        """Compare two nodes that are the same, as the two of the panel, and as a case."""
        ui, comparing, cases = self.panel.ui, self.panel.comparing, self.panel.case_comparison
        if again.GetDisplayNode() is None:
            again.CreateDefaultDisplayNodes()
        ui.compareSelector.setCurrentNode(again)
        ui.compareButton.click()
        self.assertGreater(len(comparing.rows), 100, comparing.text)
        self.assertEqual({row.dice for row in comparing.rows}, {1.0})
        ui.differencesButton.click()
        self.assertEqual([node.GetDisplayVisibility(), again.GetDisplayVisibility()], [0, 0])
        ui.hideDifferencesButton.click()
        self.assertEqual([node.GetDisplayVisibility(), again.GetDisplayVisibility()], [1, 1])

        ui.compareCasesButton.click()
        cases.list._select(cases.list.table.keys()[0])  # a click on the row
        cases.list.reference_box.setCurrentIndex(cases.list.reference_box.findData(again.GetID()))
        cases.compare_button.click()
        self.assertEqual([row.dice for row in next(iter(cases.cases.values()))], [row.dice for row in comparing.rows])
        cases.close()

    def correct(self, node: Any) -> None:
        """Take a voxel from a structure in the Segment Editor, if there is a main window that can show that module."""
        try:
            slicer.util.selectModule("ClassScaleSeg")
        except RuntimeError:
            return
        ui, results = self.panel.ui, self.panel.results
        ui.resultSelector.setCurrentNode(node)
        results.table.view.setCurrentIndex(results.table.proxy.index(0, 0))
        name = node.GetSegmentation().GetSegment(results.table.current()).GetName()
        before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
        ui.correctButton.click()
        editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        correction = editor.GetSegmentationNode()
        self.assertIsNot(correction, node)
        self.assertEqual(editor.GetSelectedSegmentID(), "structure")
        self.assertIs(editor.GetSourceVolumeNode(), self.panel.logic.getParameterNode().inputVolume)
        self.assertEqual(editor.GetMaskMode(), node.EditAllowedOutsideAllSegments)
        bar = results.correcting.bar
        self.assertTrue(name in bar.text and bar.lock_box.checked and not bar.widget.isHidden())
        array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(correction, "structure")
        array[tuple(place[0] for place in (array == 1).nonzero())] = 0
        correction.GetSegmentation().GetSegment("structure").GetRepresentation("Binary labelmap").Modified()
        bar.back_button.click()
        self.assertTrue(results.text.startswith(f"{name} is corrected: "), results.text)
        self.assertTrue(bar.widget.isHidden())
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), before)

    def test_a_path_that_is_cut_off_is_told_whole(self) -> None:
        import qt
        from ClassScaleSegPanel.widgets.whole_texts import cut_off

        field = self.panel.ui.reportLineEdit
        field.text = "/a_folder" * 100
        self.assertEqual(cut_off(field, qt.QCursor.pos()), field.text)
        field.text = ""

    def test_closing_the_scene_ends_the_run_and_leaves_nothing(self) -> None:
        self.load_sample()
        self.panel.ui.applyButton.click()
        run = self.panel.state.run
        self.assertIsNotNone(run, self.panel.state.status)
        slicer.mrmlScene.Clear()
        self.assertIsNone(self.panel.state.run)
        self.assertEqual(run.state, "cancelled")
        self.assertEqual(self.panel.results.table.keys(), [])
        self.assertFalse(self.panel.ui.applyButton.enabled)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)

    def test_a_run_is_cancelled_and_the_scene_stays_as_it_was(self) -> None:
        self.load_sample()
        before = slicer.mrmlScene.GetNumberOfNodes()
        self.panel.ui.applyButton.click()
        self.panel.ui.cancelButton.click()
        self.assertIsNone(self.panel.state.run)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
        self.assertTrue(self.panel.ui.applyButton.enabled)


if __name__ == "__main__":
    unittest.main()
