"""Offer the embedded sample volumes in the module Sample Data. They are local files, so nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slicer import vtkMRMLVolumeNode


# name of the file in Resources/SampleData without .nrrd, and of the node -> name in the module Sample Data, SHA-256
SAMPLES = {
    "toy-120": ("ClassScaleSegToy120", "fbcc1636b34073b13c64af657df4839032348657aef2bae05258f38a109057e8"),
    "toy-1000": ("ClassScaleSegToy1000", "6d3d0411f6d121337add494db2bf1d15463a444bc33252a29d3be98dc8519a57"),
    "head-mr": ("ClassScaleSegHeadMR", "810ce084cee758bd8d4ac4faa67c5344fc28d1597cb9b7a0cbcf94d96506fde2"),
}


def register() -> None:
    """Register the samples with the module Sample Data."""
    import SampleData
    from ClassScaleSegLib.resources import resource

    for file, (name, sha256) in SAMPLES.items():
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="ClassScaleSeg",
            sampleName=name,
            thumbnailFileName=str(Path(__file__).parents[1] / "Resources" / "Icons" / "ClassScaleSeg.png"),
            uris=resource("SampleData", f"{file}.nrrd").as_uri(),
            fileNames=f"{file}.nrrd",
            nodeNames=file,
            checksums=f"SHA256:{sha256}",
        )


def model_for(volume: vtkMRMLVolumeNode | None) -> str | None:
    """Return the id of the embedded model for a sample volume, or ``None`` for any other volume.

    A sample is recognised by the name of the file that the node was loaded from.
    """
    from ClassScaleSegLib.commands.demo import DEMOS

    storage = volume.GetStorageNode() if volume is not None else None
    name = Path(storage.GetFileName() or "").name if storage is not None else ""
    return next((demo.model for demo in DEMOS.values() if name == f"{demo.sample}.nrrd"), None)
