"""The recipe for pyradiomics in docs/how-to/radiomics.md: every class is given whole, at its place, and named."""

from __future__ import annotations

import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
from ClassScaleSegLib import Geometry, LabelTable, Segmentation
from radiomics_recipe import recipe

sitk = pytest.importorskip("SimpleITK")
GRID = Geometry((14, 12, 10), (0.5, 0.8, 2.0), (-3.0, 5.0, 20.0), (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))


def segmented() -> tuple:
    """An image, and a segmentation with a ball, a box in a corner, and a single voxel, which is too small."""
    z, y, x = np.indices(GRID.size[::-1])
    labels = np.zeros(GRID.size[::-1], np.uint16)
    labels[(z - 5) ** 2 + (y - 6) ** 2 + (x - 7) ** 2 <= 9] = 7
    labels[:2, :3, :4] = 300
    labels[9, 11, 13] = 2
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 20, labels.shape).astype(np.float32))
    GRID.apply(image)
    return image, Segmentation(labels, LabelTable.from_names({0: "background", 7: "ball", 300: "box", 2: "dot"}), GRID)


class Extractor:
    """Returns the mean and the place of the class."""

    def execute(self, image, mask, label):
        assert image.GetSize() == mask.GetSize() and image.GetOrigin() == mask.GetOrigin()
        assert image.GetDirection() == GRID.direction and label == 1
        inside = sitk.GetArrayFromImage(mask) == label
        if inside.sum() < 2:
            raise ValueError("mask only contains 1 segmented voxel")
        places = [mask.TransformIndexToPhysicalPoint(index[::-1]) for index in np.argwhere(inside).tolist()]
        return {"mean": sitk.GetArrayFromImage(image)[inside].mean(), "places": places, "size": mask.GetSize()}


def test_every_class_is_given_whole_and_at_its_place(monkeypatch):
    stand_in = types.ModuleType("radiomics.featureextractor")
    stand_in.RadiomicsFeatureExtractor = Extractor
    monkeypatch.setitem(sys.modules, "radiomics", types.ModuleType("radiomics"))
    monkeypatch.setitem(sys.modules, "radiomics.featureextractor", stand_in)
    image, segmentation = segmented()
    features = recipe()["radiomic_features"](image, segmentation, Extractor())
    assert set(features) == {"ball", "box", "dot"} and features["dot"] is None
    array = sitk.GetArrayFromImage(image)
    for name, value, size in (("ball", 7, (9, 9, 9)), ("box", 300, (5, 4, 3))):
        indices = np.argwhere(segmentation.labels == value)
        places = [image.TransformIndexToPhysicalPoint(index[::-1]) for index in indices.tolist()]
        assert np.allclose(features[name]["places"], places) and features[name]["size"] == size
        assert features[name]["mean"] == pytest.approx(array[segmentation.labels == value].mean())


@pytest.mark.skipif(find_spec("radiomics") is None, reason="needs pyradiomics, as docs/how-to/radiomics.md installs it")
def test_the_features_are_those_of_the_whole_image():
    names, (image, segmentation) = recipe(), segmented()
    extractor = names["RadiomicsFeatureExtractor"](binCount=8)
    found = names["radiomic_features"](image, segmentation, extractor)
    labels = sitk.GetImageFromArray(segmentation.labels)
    labels.CopyInformation(image)
    assert found["dot"] is None
    for name, value in (("ball", 7), ("box", 300)):
        whole = extractor.execute(image, labels, label=value)
        compared = [key for key in whole if key.startswith("original_")]
        assert len(compared) > 100
        assert all(np.allclose(found[name][key], whole[key], rtol=1e-9) for key in compared)
