"""Draw what a masked autoencoder sees and what it makes of it."""

from __future__ import annotations

from pathlib import Path

import torch
from ClassScaleSegLib.files import replacing


def draw(file: Path, example: torch.Tensor, reconstruction: torch.Tensor) -> None:
    """Write the middle slice of a patch as PNG: the image, what is visible of it, and the reconstruction.

    :param example: the image and, as last channel, what is visible: ``(C + 1, ...)``; the first channel is drawn.
    :param reconstruction: ``(C, ...)``.
    :raises OutputError: if the file cannot be written.
    """
    from matplotlib.figure import Figure

    image, visible, found = example[0], example[-1], reconstruction[0]
    if image.ndim == 3:
        middle = image.shape[0] // 2
        image, visible, found = image[middle], visible[middle], found[middle]
    lowest, highest = float(image.min()), float(image.max())
    figure = Figure(figsize=(9, 3.4), layout="tight")
    parts = {"image": image, "visible": torch.where(visible > 0, image, lowest), "reconstruction": found}
    for axes, (title, part) in zip(figure.subplots(1, 3), parts.items(), strict=True):
        axes.imshow(part.numpy(), cmap="gray", vmin=lowest, vmax=highest)
        axes.set_title(title)
        axes.set_axis_off()
    with replacing(file, overwrite=True) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
