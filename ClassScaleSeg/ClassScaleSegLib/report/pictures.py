"""Draw the pictures of a case: three slices with the segments, a view in 3D, and all four small on a sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ClassScaleError
from ..images.segmentation import Segmentation
from .rendering import render

if TYPE_CHECKING:
    from PIL import Image

SIDE, TILE = 400, 160  # pixels: the longer side of a picture, and a tile of the sheet
_SOFT_TISSUE = (-160.0, 240.0)  # Hounsfield units
_PERCENTS = (0.5, 99.5)  # of an image that is no CT; what is outside is black or white
_OPACITY, _OUTLINE = 0.4, 0.9
_QUALITY = 72
_MAX_BYTES = 4 << 20  # of one picture in a file


@dataclass(frozen=True)
class Picture:
    """A picture in a file.

    :ivar kind: "axial", "coronal", "sagittal", "3d" or "sheet".
    :ivar width: pixels.
    :ivar height: pixels.
    :ivar data: a WebP file in Base64.
    :ivar text: what it shows.
    """

    kind: str
    width: int
    height: int
    data: str
    text: str

    def checked(self) -> Picture:
        """Return the picture itself, once it is known to be a WebP file of moderate size.

        :raises ClassScaleError: if it is none.
        """
        try:
            head = base64.b64decode(self.data[:24], validate=True)
            right = len(self.data) <= _MAX_BYTES and self.data.isascii() and base64.b64decode(self.data, validate=True)
        except ValueError:
            right = False
        if not right or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
            raise ClassScaleError(f"The picture {self.kind[:20]!r} is no WebP file in Base64.")
        if not (0 < self.width <= 4 * SIDE and 0 < self.height <= 4 * SIDE):
            raise ClassScaleError(f"The picture {self.kind[:20]!r} has {self.width} x {self.height} pixels.")
        return self


@dataclass(frozen=True)
class _View:
    """How a slice is shown, of voxels whose axes z, y, x point to superior, posterior and left.

    :ivar axis: the axis across the slice, of ``(z, y, x)``.
    :ivar letters: at the left, right, upper and lower edge.
    """

    kind: str
    axis: int
    letters: str


_VIEWS = (_View("axial", 0, "RLAP"), _View("coronal", 1, "RLSI"), _View("sagittal", 2, "APSI"))


def pictures_of(result: Segmentation, voxels: np.ndarray | None, ct: bool) -> tuple[Picture, ...]:
    """Return the pictures of a case, as radiologists view it: the right of the patient is on the left.

    The slices go through the middle of the structures, along the axes of the grid. Images are shown in grey: of a CT
    the soft tissue, otherwise from dark to bright without the extremes. Of structures that overlap, those of a later
    layer are drawn over the others, half transparent in slices.

    :param voxels: of the image, ``(z, y, x)``; ``None``: black.
    :param ct: whether they are Hounsfield units.
    :raises ClassScaleError: if Pillow is missing.
    """
    _pillow()
    grid, turn = result.geometry.turned("LPS")
    layers, lengths = [turn.apply(layer) for layer in result.layers], grid.spacing[::-1]
    grey = None if voxels is None else turn.apply(voxels)
    colors = np.zeros((65536, 3), np.uint8)
    for label in result.table.foreground:
        colors[label.value] = label.color
    places = _middle(layers)
    planes = [(slice(None),) * view.axis + (places[view.axis],) for view in _VIEWS]  # np.take would copy the volume
    cuts = [(view, [layer[plane] for layer in layers]) for view, plane in zip(_VIEWS, planes, strict=True)]
    greys = [None if grey is None else grey[plane] for plane in planes]
    scale = _window(greys, ct)
    drawn = {}
    for (view, cut), plane in zip(cuts, greys, strict=True):
        sides = [length for axis, length in enumerate(lengths) if axis != view.axis]
        image = _slice(cut, None if plane is None else scale(plane), sides, colors, flip=view.axis > 0)
        place = f"{places[view.axis] + 1} of {layers[0].shape[view.axis]}"
        text = f"{view.kind} slice {place} with the structures in colour"
        drawn[view.kind] = (image, text.capitalize())
    solid, how = render(_on_top(layers), lengths, colors)
    covered = "; where some overlap, one of them" if len(layers) > 1 else ""
    drawn["3d"] = (_pillow().fromarray(solid), f"All structures in 3D, seen from the front{covered}{how}")
    sheet = _sheet([image for image, _ in drawn.values()])
    for view in _VIEWS:
        _write_letters(drawn[view.kind][0], view.letters)
    text = "Axial, coronal and sagittal slice, and view in 3D"
    return tuple(_packed(kind, *one) for kind, one in {**drawn, "sheet": (sheet, text)}.items())


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ClassScaleError(
            "The pictures of a report need the Python package Pillow. Install it: pip install pillow"
        ) from error
    return Image


def _on_top(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Return for each voxel the label of the last layer that has one there."""
    labels, *more = layers
    for layer in more:
        labels = np.where(layer > 0, layer, labels)
    return labels


def _middle(layers: Sequence[np.ndarray]) -> list[int]:
    """Return for each axis the plane that halves the labelled voxels; the middle plane if there are none."""
    found = layers[0] > 0
    for layer in layers[1:]:
        found |= layer > 0
    places = []
    for axis in range(3):
        sums = found.sum(tuple(other for other in range(3) if other != axis), dtype=np.int64).cumsum()
        empty = sums[-1] == 0
        places.append(found.shape[axis] // 2 if empty else int(np.searchsorted(sums, (sums[-1] + 1) // 2)))
    return places


def _window(planes: Sequence[np.ndarray | None], ct: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that makes intensities grey, uint8."""
    values = [plane[::2, ::2].astype(np.float32).ravel() for plane in planes if plane is not None]
    low, high = _SOFT_TISSUE
    every = np.concatenate(values) if values else np.zeros(1, np.float32)
    if values and not (ct and every.min() < _SOFT_TISSUE[0]):
        inside = every[every > every.min()]  # not the air around, if that is one value
        low, high = np.percentile(inside if inside.size else every, _PERCENTS).tolist()
        low = low if low < high else float(every.min())
    return lambda plane: (
        ((plane.astype(np.float32) - low) * (255 / max(high - low, 1e-6))).clip(0, 255).astype(np.uint8)
    )


def _slice(
    layers: Sequence[np.ndarray], grey: np.ndarray | None, sides: Sequence[float], colors: np.ndarray, flip: bool
) -> Image.Image:
    """Return a slice in its true proportions, with the structures half transparent in their colours, and outlines."""
    image = _pillow()
    if flip:
        layers, grey = [labels[::-1] for labels in layers], None if grey is None else grey[::-1]
    shape = layers[0].shape
    extents = [count * length for count, length in zip(shape, sides, strict=True)]
    height, width = (max(1, round(SIDE * extent / max(extents))) for extent in extents)
    rows, columns = ((np.arange(n) * count) // n for n, count in zip((height, width), shape, strict=True))
    plane = np.zeros(shape, np.uint8) if grey is None else np.ascontiguousarray(grey)
    base = np.asarray(image.fromarray(plane).resize((width, height), image.Resampling.BILINEAR), np.float32)
    painted = base[..., None]
    for labels in layers:
        shown = labels[np.ix_(rows, columns)]
        edge = np.zeros(shown.shape, bool)
        edge[:-1] |= shown[:-1] != shown[1:]
        edge[:, :-1] |= shown[:, :-1] != shown[:, 1:]
        alpha = np.where(shown == 0, 0, np.where(edge, _OUTLINE, _OPACITY)).astype(np.float32)[..., None]
        painted = painted * (1 - alpha) + colors[shown] * alpha
    return image.fromarray(painted.astype(np.uint8))


def _sheet(images: Sequence[Image.Image]) -> Image.Image:
    """Return up to four pictures, small, in two rows of two."""
    image = _pillow()
    sheet = image.new("RGB", (2 * TILE, 2 * TILE))
    for index, one in enumerate(images):
        small = one.copy()
        small.thumbnail((TILE, TILE), image.Resampling.LANCZOS)
        row, column = divmod(index, 2)
        sheet.paste(small, (column * TILE + (TILE - small.width) // 2, row * TILE + (TILE - small.height) // 2))
    return sheet


def _write_letters(image: Image.Image, letters: str) -> None:
    """Write the directions at the four edges: white with a dark border, to be read on any ground."""
    from PIL import ImageDraw, ImageFont

    draw, (width, height), away = ImageDraw.Draw(image), image.size, 14
    try:
        font = ImageFont.load_default(18)
    except TypeError:  # before Pillow 10.1
        font = ImageFont.load_default()
    places = ((away, height / 2), (width - away, height / 2), (width / 2, away), (width / 2, height - away))
    for letter, (x, y) in zip(letters, places, strict=True):
        left, top, right, bottom = draw.textbbox((0, 0), letter, font)
        place = (x - (left + right) / 2, y - (top + bottom) / 2)
        draw.text(place, letter, "white", font, stroke_width=2, stroke_fill="black")


def _packed(kind: str, image: Image.Image, text: str) -> Picture:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY, method=4)
    return Picture(kind, image.width, image.height, base64.b64encode(file.getvalue()).decode(), text)
