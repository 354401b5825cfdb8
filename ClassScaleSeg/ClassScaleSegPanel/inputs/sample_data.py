"""Offer the embedded sample volumes in the module Sample Data. They are local files, so nothing is downloaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slicer import vtkMRMLVolumeNode


# name of the file in Resources/SampleData without .nrrd -> name in the module Sample Data and of the node, SHA-256
SAMPLES = {
    "toy-120": ("ClassScaleSegToy120", "fbcc1636b34073b13c64af657df4839032348657aef2bae05258f38a109057e8"),
    "toy-1000": ("ClassScaleSegToy1000", "6d3d0411f6d121337add494db2bf1d15463a444bc33252a29d3be98dc8519a57"),
    "head-mr": ("ClassScaleSegHeadMR", "810ce084cee758bd8d4ac4faa67c5344fc28d1597cb9b7a0cbcf94d96506fde2"),
}


def register() -> None:
    """Register the samples with the module Sample Data."""
    import SampleData
    from ClassScaleSegLib.resources import resource

    pictures = Path(__file__).parents[2] / "Resources" / "Icons"
    for file, (name, sha256) in SAMPLES.items():
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="ClassScaleSeg",
            sampleName=name,
            thumbnailFileName=str(pictures / f"{name}.png"),
            uris=resource("SampleData", f"{file}.nrrd").as_uri(),
            fileNames=f"{file}.nrrd",
            nodeNames=name,
            checksums=f"SHA256:{sha256}",
        )


def model_for(volume: vtkMRMLVolumeNode | None) -> str | None:
    """Return the id of the embedded model for a sample volume, or ``None`` for any other volume.

    A sample is recognised by the name of the file that the node was loaded from, or else by the name of the node: the
    module Sample Data removes the storage node, and a number is added to the name of a sample that is loaded twice.
    """
    from ClassScaleSegLib.commands.demo import DEMOS

    if volume is None:
        return None
    storage = volume.GetStorageNode()
    file = Path(storage.GetFileName() or "").name if storage is not None else ""
    node = re.sub(r"_\d+$", "", volume.GetName() or "")
    samples = [sample for sample, (name, _sha256) in SAMPLES.items() if file == f"{sample}.nrrd" or node == name]
    return next((demo.model for demo in DEMOS.values() if demo.sample in samples), None)
