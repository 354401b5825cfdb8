"""Test inside Slicer that the library, its resources and the scene work after installation, without torch.

The test needs only Slicer's scene and not the application, so that the repository's tests can run it with slicer-core.
"""

from __future__ import annotations

import unittest

import slicer
from ClassScaleSegLib.images.segmentation import Segmentation
from ClassScaleSegLib.resources import resource
from ClassScaleSegLib.scene.segmentation_node import fill_segmentation_node


class ClassScaleSegSceneTest(unittest.TestCase):
    def test_embedded_labels_become_120_named_segments(self) -> None:
        labels = Segmentation.from_image(resource("SampleData", "toy-120-labels.nrrd"))
        scene = slicer.vtkMRMLScene()
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        fill_segmentation_node(node, labels)
        segmentation = node.GetSegmentation()
        self.assertEqual(segmentation.GetNumberOfSegments(), 120)
        self.assertEqual([segmentation.GetNthSegment(index).GetLabelValue() for index in range(120)], [*range(1, 121)])

    def test_resources_of_the_extension_are_installed(self) -> None:
        for parts in (("LabelTables", "totalsegmentator.csv"), ("Models", "toy-120.zip"), ("Catalog", "models.json")):
            self.assertTrue(resource(*parts).is_file(), parts)

    @unittest.skipUnless(hasattr(slicer, "app"), "not in the application")
    def test_module_is_registered_with_its_icon(self) -> None:
        self.assertFalse(slicer.modules.classscaleseg.icon.isNull())


if __name__ == "__main__":
    unittest.main()
