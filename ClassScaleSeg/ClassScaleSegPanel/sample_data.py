"""The embedded sample volume in the Sample Data module; it is a local file, nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

SAMPLE = "toy-120"
SHA256 = "fbcc1636b34073b13c64af657df4839032348657aef2bae05258f38a109057e8"


def register() -> None:
    """Offer it there."""
    import SampleData
    from ClassScaleSegLib.resources import resource

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="ClassScaleSeg",
        sampleName="ClassScaleSegToy120",
        thumbnailFileName=str(Path(__file__).parents[1] / "Resources" / "Icons" / "ClassScaleSeg.png"),
        uris=resource("SampleData", f"{SAMPLE}.nrrd").as_uri(),
        fileNames=f"{SAMPLE}.nrrd",
        nodeNames=SAMPLE,
        checksums=f"SHA256:{SHA256}",
    )
