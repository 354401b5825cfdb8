"""The embedded sample volumes in the Sample Data module; they are local files, nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Sample(NamedTuple):
    """:ivar file: of ``Resources/SampleData``, and the node, without ``.nrrd``.
    :ivar name: what is clicked on."""

    file: str
    name: str
    sha256: str


SAMPLES = (
    Sample("toy-120", "ClassScaleSegToy120", "fbcc1636b34073b13c64af657df4839032348657aef2bae05258f38a109057e8"),
    Sample("toy-1000", "ClassScaleSegToy1000", "6d3d0411f6d121337add494db2bf1d15463a444bc33252a29d3be98dc8519a57"),
    Sample("head-mr", "ClassScaleSegHeadMR", "810ce084cee758bd8d4ac4faa67c5344fc28d1597cb9b7a0cbcf94d96506fde2"),
)


def register() -> None:
    """Offer them there."""
    import SampleData
    from ClassScaleSegLib.resources import resource

    for sample in SAMPLES:
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="ClassScaleSeg",
            sampleName=sample.name,
            thumbnailFileName=str(Path(__file__).parents[1] / "Resources" / "Icons" / "ClassScaleSeg.png"),
            uris=resource("SampleData", f"{sample.file}.nrrd").as_uri(),
            fileNames=f"{sample.file}.nrrd",
            nodeNames=sample.file,
            checksums=f"SHA256:{sample.sha256}",
        )


def model_for(volume) -> str | None:
    """Id of the embedded model that goes with a volume node, if that was read from the file of a sample."""
    from ClassScaleSegLib.commands.demo import DEMOS

    storage = volume.GetStorageNode() if volume is not None else None
    name = Path(storage.GetFileName() or "").name if storage is not None else ""
    return next((demo.model for demo in DEMOS.values() if name == f"{demo.sample}.nrrd"), None)
