"""``classscaleseg demo``: the embedded model on the embedded sample, its Dice against the known labels, a picture."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from .errors import ClassScaleError
from .reporting import Reporter
from .resources import resource
from .segmentation import Segmentation

NAME = "toy-120"


def run_demo(folder: str | Path, device: str, reporter: Reporter) -> None:
    """Write ``toy-120.seg.nrrd``, ``toy-120.csv`` and ``toy-120.png`` into ``folder``; earlier ones are replaced.

    :raises ClassScaleError: if the Dice is not what the model card promises (above 0.9).
    """
    from .inference.segmenter import segment
    from .model import open_model

    folder = Path(folder)
    reporter.begin("demo", 1, 1)
    begin = time.monotonic()
    image = resource("SampleData", f"{NAME}.nrrd")
    result = segment(image, open_model(resource("Models", f"{NAME}.zip")), device=device, progress=reporter.progress)
    outputs = {"output": folder / f"{NAME}.seg.nrrd", "statistics": folder / f"{NAME}.csv"}
    result.write(outputs["output"], overwrite=True)
    result.write_statistics(outputs["statistics"], overwrite=True)
    picture = folder / f"{NAME}.png"
    draw(image, result, picture)
    truth = Segmentation.from_image(resource("SampleData", f"{NAME}-labels.nrrd"))
    dice = mean_dice(result.labels, truth.labels)
    structures = len(np.unique(result.labels)) - 1
    seconds = round(time.monotonic() - begin, 1)
    reporter.result("demo", **outputs, picture=picture, structures=structures, seconds=seconds, dice=round(dice, 4))
    if dice <= 0.9:
        raise ClassScaleError(f"The mean Dice is {dice:.3f}; the model reaches 0.94 elsewhere. Please report this.")


def mean_dice(labels: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the foreground classes of ``truth``; both ``(z, y, x)`` unsigned."""
    size = int(max(labels.max(), truth.max())) + 1
    both = np.bincount(truth[labels == truth], minlength=size)
    total = np.bincount(labels.ravel(), minlength=size) + np.bincount(truth.ravel(), minlength=size)
    present = np.flatnonzero(np.bincount(truth.ravel(), minlength=size)[1:]) + 1
    return float((2 * both[present] / total[present]).mean())


def draw(image_file: Path, result: Segmentation, picture: Path) -> None:
    """The middle slice of each axis, grey and with the segments' colours over it, as PNG."""
    import SimpleITK as sitk
    from matplotlib.figure import Figure

    from .files import replacing

    grey = sitk.GetArrayFromImage(sitk.ReadImage(str(image_file)))
    colours = np.zeros((65536, 4))
    for label in result.table.foreground:
        colours[label.value] = (*(c / 255 for c in label.color), 0.55)
    figure = Figure(figsize=(12, 8), facecolor="black", layout="tight")
    panels = figure.subplots(2, 3)
    for column, (axis, name) in enumerate(((0, "axial"), (1, "coronal"), (2, "sagittal"))):
        middle = grey.shape[axis] // 2
        for row, panel in enumerate(panels[:, column]):
            panel.imshow(grey.take(middle, axis), cmap="gray", origin="lower" if axis else "upper")
            if row:
                panel.imshow(colours[result.labels.take(middle, axis)], origin="lower" if axis else "upper")
            panel.set_title(name if not row else "", color="white")
            panel.axis("off")
    with replacing(picture, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=80)
