"""``classscaleseg demo``: segment a sample with its model, and write statistics, a picture, a report and the Dice."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ClassScaleError
from ..images.counts import dice, overlap_counts
from ..images.segmentation import Segmentation
from ..report.report import Report
from ..resources import resource
from .reporting import Reporter


@dataclass(frozen=True)
class Demo:
    """A model with its sample.

    The labels of the head sample are a deformed copy of the atlas that it was made from. The project may not
    redistribute them, so this demo has no Dice.

    :ivar model: name of the embedded bundle, without suffix.
    :ivar sample: name of the embedded volume, without suffix.
    :ivar dice: the mean Dice, 0 to 1, that the model card states for the sample; ``None`` if there are no labels.
    """

    model: str
    sample: str
    dice: float | None = None


DEMOS = {
    "toy": Demo("toy-120", "toy-120", 0.9),
    "toy-1000": Demo("toy-1000", "toy-1000", 0.94),
    "head": Demo("head-mr-312", "head-mr"),
}


def run_demo(name: str, folder: str | Path, device: str, reporter: Reporter) -> None:
    """Run a demo and write its segmentation, statistics, picture and report.

    :param name: one of ``DEMOS``.
    :param folder: where to write; existing files are replaced.
    :param device: as :class:`~ClassScaleSegLib.options.Options` has it.
    :param reporter: for progress and result.
    :raises ClassScaleError: if this installation has no such demo, or the Dice is lower than the model card states.
    """
    from ..inference.segmenter import segment
    from ..models.model import open_model

    if name not in (installed := _installed()):
        raise ClassScaleError(
            f"There is no demo {name!r} in this installation. The demos are {', '.join(installed)}; choose one of them."
        )
    demo, folder = DEMOS[name], Path(folder)
    reporter.begin("demo", 1, 1)
    begin = time.monotonic()
    image = resource("SampleData", f"{demo.sample}.nrrd")
    model = open_model(resource("Models", f"{demo.model}.zip"))
    result = segment(image, model, device=device, progress=reporter.progress)
    outputs = {"output": folder / f"{demo.sample}.seg.nrrd", "statistics": folder / f"{demo.sample}.csv"}
    result.write(outputs["output"], overwrite=True)
    result.write_statistics(outputs["statistics"], overwrite=True, image=image)
    picture = folder / f"{demo.sample}.png"
    draw(image, result, picture)
    report = Report(folder / "report", overwrite=True)
    report.add(demo.sample, result, image, modality=model.modality, outputs=[outputs["output"]])
    facts: dict[str, Any] = {
        **outputs,
        "picture": picture,
        "report": report.write(),
        "structures": sum(row.voxels > 0 for row in result.statistics()),
    }
    if demo.dice is not None:
        truth = Segmentation.from_image(resource("SampleData", f"{demo.sample}-labels.nrrd"))
        facts["dice"] = round(mean_dice(result.labels, truth.labels), 4)
    reporter.result(**facts, seconds=round(time.monotonic() - begin, 1))
    if demo.dice is not None and facts["dice"] <= demo.dice:
        raise ClassScaleError(
            f"The mean Dice is {facts['dice']:.3f}, but the model card states more than {demo.dice}. Please report "
            "this."
        )


def _installed() -> list[str]:
    folder = resource("Models")
    return [name for name, demo in DEMOS.items() if (folder / f"{demo.model}.zip").is_file()]


def mean_dice(labels: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean Dice, 0 to 1, over the foreground classes that occur in ``truth``.

    :param labels: ``(z, y, x)`` unsigned integers.
    :param truth: ``(z, y, x)`` unsigned integers, the reference.

    >>> round(mean_dice(np.array([0, 1, 1, 2], np.uint16), np.array([0, 1, 2, 2], np.uint16)), 3)
    0.667
    """
    counts = overlap_counts(truth, labels, int(max(labels.max(), truth.max())) + 1)[:, 1:]
    return float(dice(counts)[counts[2] > 0].mean())


def draw(image_file: Path, result: Segmentation, picture: Path) -> None:
    """Write a PNG with an axial, a coronal and a sagittal slice, each in grey and with the segments in colour.

    The slices are the middle ones, except for the sagittal one, which is next to the midplane of the body.

    :param image_file: the image that was segmented.
    :param result: its segmentation.
    :param picture: file to write; an existing one is replaced.
    :raises OutputError: if it cannot be written.
    """
    import SimpleITK as sitk
    from matplotlib.figure import Figure

    from ..files import replacing

    # the patient's left on the right and anterior at the top, as radiologists view slices
    images = (sitk.ReadImage(str(image_file)), result.to_image())
    grey, found = (sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS")) for image in images)
    colours = np.zeros((65536, 4))
    for label in result.table.foreground:
        colours[label.value] = (*(c / 255 for c in label.color), 0.55)
    figure = Figure(figsize=(12, 8), facecolor="black", layout="tight")
    panels = figure.subplots(2, 3)
    for column, (axis, name) in enumerate(((0, "axial"), (1, "coronal"), (2, "sagittal"))):
        place = round(grey.shape[axis] * (0.45 if name == "sagittal" else 0.5))
        for row, panel in enumerate(panels[:, column]):
            panel.imshow(grey.take(place, axis), cmap="gray", origin="lower" if axis else "upper")
            if row:
                panel.imshow(colours[found.take(place, axis)], origin="lower" if axis else "upper")
            panel.set_title(name if not row else "", color="white")
            panel.axis("off")
    with replacing(picture, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=80)
