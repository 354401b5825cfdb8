"""Draw the icon: a brain seen from its left side, laid out as a mosaic of coloured cells.

    python Testing/Tools/draw_icon.py

This writes ``Resources/Icons/ClassScaleSeg.png``, which Slicer's extension catalogue shows, and a copy in the module's
``Resources/Icons``, where Slicer looks for it. The icon is computed, so that nobody's picture is copied.
"""

from __future__ import annotations

from colorsys import hsv_to_rgb
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

SIZE = 128  # pixels, as the extension catalogue requires
FINE = 6  # subpixels per side of a pixel
CELLS = 84
REPOSITORY = Path(__file__).resolve().parents[2]
FILES = ("Resources/Icons/ClassScaleSeg.png", "ClassScaleSeg/Resources/Icons/ClassScaleSeg.png")

# Ellipses (centre x, centre y, radius x, radius y, rotation in degrees), in the unit square with y downwards.
CEREBRUM = (
    (0.45, 0.42, 0.40, 0.335, -8),
    (0.62, 0.40, 0.355, 0.31, 18),
    (0.24, 0.47, 0.205, 0.22, 0),
    (0.40, 0.665, 0.235, 0.125, 6),  # temporal lobe
)
CEREBELLUM = ((0.715, 0.76, 0.175, 0.125, -14),)
STEM = ((0.545, 0.845, 0.068, 0.15, -14),)


def main() -> None:
    """Draw the icon, and write both files."""
    from matplotlib.image import imsave

    image = draw()
    for name in FILES:
        file = REPOSITORY / name
        file.parent.mkdir(parents=True, exist_ok=True)
        imsave(file, image)


def draw() -> np.ndarray:
    """Return the icon: ``(128, 128, 4)`` float RGBA, 0..1, with a transparent background."""
    axis = (np.arange(SIZE * FINE) + 0.5) / (SIZE * FINE)
    x, y = np.meshgrid(axis, axis)
    points = np.stack([x, y], axis=-1)
    inside = [_union(x, y, part) for part in (CEREBRUM, CEREBELLUM, STEM)]
    part = np.select(inside, [1, 2, 3])
    shape = part > 0
    seeds = _seeds(points[shape])
    distance, cell = cKDTree(seeds).query(points, k=2)
    hue_of = _colors(seeds)
    image = np.zeros((*x.shape, 4))
    image[..., :3] = hue_of[cell[..., 0]] * (1.06 - 0.24 * (y[..., None] + x[..., None] * 0.5 - 0.35))
    joint = distance[..., 1] - distance[..., 0] < 0.011  # dark joints between the cells
    rim = shape & (_near_edge(part, 0.011) > 0)
    image[joint | rim, :3] = (0.09, 0.11, 0.17)
    image[..., 3] = shape
    image[..., :3] *= image[..., 3:]
    image = image.reshape(SIZE, FINE, SIZE, FINE, 4).mean(axis=(1, 3))
    alpha = image[..., 3:]
    image[..., :3] = np.divide(image[..., :3], alpha, out=np.zeros_like(image[..., :3]), where=alpha > 0)
    return np.clip(image, 0, 1)


def _union(x: np.ndarray, y: np.ndarray, ellipses: tuple[tuple[float, ...], ...]) -> np.ndarray:
    inside = np.zeros(x.shape, bool)
    for center_x, center_y, radius_x, radius_y, degrees in ellipses:
        turn = np.deg2rad(degrees)
        along = (x - center_x) * np.cos(turn) + (y - center_y) * np.sin(turn)
        across = (y - center_y) * np.cos(turn) - (x - center_x) * np.sin(turn)
        inside |= (along / radius_x) ** 2 + (across / radius_y) ** 2 < 1
    return inside


def _seeds(points: np.ndarray) -> np.ndarray:
    """Return the centres, ``(CELLS, 2)``, of cells of about equal size (Lloyd's relaxation)."""
    points = points[::11]
    seeds = np.random.default_rng(7).choice(points, CELLS, replace=False)
    for _ in range(12):
        nearest = cKDTree(seeds).query(points)[1]
        count = np.bincount(nearest, minlength=CELLS)[:, None]
        sums = np.stack([np.bincount(nearest, points[:, axis], CELLS) for axis in range(2)], axis=1)
        seeds = np.where(count > 0, sums / np.maximum(count, 1), seeds)
    return seeds


def _colors(seeds: np.ndarray) -> np.ndarray:
    """Return the colours, ``(CELLS, 3)``. Hues change around the brain, with enough scatter that neighbours differ."""
    random = np.random.default_rng(3)
    angle = np.arctan2(seeds[:, 1] - 0.5, seeds[:, 0] - 0.5) / (2 * np.pi)
    hue = (angle + 0.62 + random.uniform(-0.09, 0.09, len(seeds))) % 1
    saturation, value = random.uniform(0.55, 0.85, len(seeds)), random.uniform(0.82, 1.0, len(seeds))
    return np.array([hsv_to_rgb(*parts) for parts in zip(hue, saturation, value, strict=True)])


def _near_edge(part: np.ndarray, width: float) -> np.ndarray:
    """Return which pixels are within ``width`` of the outline of a part. Makes cerebellum and brain stem stand out."""
    from scipy.ndimage import maximum_filter, minimum_filter

    size = 2 * round(width * SIZE * FINE / 2) + 1
    return maximum_filter(part, size) != minimum_filter(part, size)


if __name__ == "__main__":
    main()
