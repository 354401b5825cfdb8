"""Draw the thumbnails that Slicer's module Sample Data shows: the middle axial slice of each embedded sample.

    python Testing/Tools/sample_thumbnails.py

This writes ``ClassScaleSegToy120.png``, ``ClassScaleSegToy1000.png`` and ``ClassScaleSegHeadMR.png`` to the module's
``Resources/Icons``. Toy samples show their embedded labels, in the colours of their model. The head has no embedded
labels and is shown as it is, so no model runs, and every computer draws the same picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 288, 261  # pixels, the size of the thumbnails of Slicer's own samples
FINE = 4  # subpixels per side of a pixel
FILL, EDGE = 0.45, 0.9  # opacity of the labels, and of their outlines
DARKEST, BRIGHTEST = 25, 99.7  # percentiles of the slice that become black and white; the first hides noise of the air
REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = REPOSITORY / "Resources" / "SampleData"
FOLDER = "ClassScaleSeg/Resources/Icons"
# name of the picture, and of the sample in Sample Data -> name of the volume in Resources/SampleData
THUMBNAILS = {"ClassScaleSegToy120": "toy-120", "ClassScaleSegToy1000": "toy-1000", "ClassScaleSegHeadMR": "head-mr"}


def main() -> None:
    """Draw the thumbnails, and write the files."""
    from matplotlib.image import imsave

    for name, sample in THUMBNAILS.items():
        file = REPOSITORY / FOLDER / f"{name}.png"
        imsave(file, draw(sample), pil_kwargs={"optimize": True})
        print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")


def draw(sample: str) -> np.ndarray:
    """Return a thumbnail: ``(HEIGHT, WIDTH, 3)`` float RGB, 0..1, as radiologists view slices.

    :param sample: name of the volume in ``Resources/SampleData``, without suffix. If ``<sample>-labels.nrrd`` is there,
        the model of the same name in ``Resources/Models`` gives the colours.
    """
    from scipy.ndimage import map_coordinates

    grey, spacing = axial_slice(sample)
    grey = grey.astype(float)
    black, white = np.percentile(grey, (DARKEST, BRIGHTEST))
    rows, columns = grid(grey.shape, spacing)
    inside = frame(rows, grey.shape[0]) & frame(columns, grey.shape[1])
    at = np.broadcast_arrays(rows, columns)
    shade = np.clip((map_coordinates(grey, at, order=1, mode="nearest") - black) / (white - black), 0, 1)
    image = np.repeat(shade[..., None], 3, axis=-1)
    if (SAMPLES / f"{sample}-labels.nrrd").is_file():
        labels = map_coordinates(axial_slice(f"{sample}-labels")[0], at, order=0, mode="nearest")
        opacity = np.where(outline(labels), EDGE, FILL) * (labels > 0)
        image += opacity[..., None] * (colors(sample)[labels] - image)
    image *= inside[..., None]
    return image.reshape(HEIGHT, FINE, WIDTH, FINE, 3).mean(axis=(1, 3))


def axial_slice(name: str) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the middle slice, anterior at the top and the patient's left on the right, and its spacing in mm.

    :param name: name of a volume in ``Resources/SampleData``, without suffix.
    :returns: ``(rows, columns)``, and the distances of rows and of columns.
    """
    import SimpleITK as sitk

    image = sitk.DICOMOrient(sitk.ReadImage(str(SAMPLES / f"{name}.nrrd")), "LPS")
    voxels = sitk.GetArrayFromImage(image)
    across, down, _ = image.GetSpacing()
    return voxels[len(voxels) // 2], (down, across)


def grid(shape: tuple[int, ...], spacing: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return where the subpixels are in the slice, in voxels: a column of rows and a row of columns.

    The slice lies in the middle of the picture, as large as the frame allows. Its proportions are those in mm.
    """
    size = np.multiply(shape, spacing)  # mm
    pixels = np.array([HEIGHT, WIDTH]) * FINE
    step = (size / pixels).max()  # mm per subpixel
    rows, columns = (
        ((np.arange(count) + 0.5 - count / 2) * step + length / 2) / distance - 0.5
        for count, length, distance in zip(pixels, size, spacing, strict=True)
    )
    return rows[:, None], columns[None, :]


def frame(places: np.ndarray, count: int) -> np.ndarray:
    """Return which places, in voxels, are in a slice of ``count`` voxels."""
    return (places >= -0.5) & (places <= count - 0.5)


def outline(labels: np.ndarray) -> np.ndarray:
    """Return which subpixels are within a pixel's width of another label."""
    from scipy.ndimage import maximum_filter, minimum_filter

    return maximum_filter(labels, FINE + 1) != minimum_filter(labels, FINE + 1)


def colors(model: str) -> np.ndarray:
    """Return the colours of an embedded model by label value, ``(values, 3)``, 0..1."""
    from ClassScaleSegLib.models.summary import summarize

    table = summarize(REPOSITORY / "Resources" / "Models" / f"{model}.zip").table
    found = np.zeros((max(label.value for label in table) + 1, 3))
    for label in table.foreground:
        found[label.value] = np.divide(label.color, 255)
    return found


if __name__ == "__main__":
    main()
