"""Hold the result of a segmentation: the label map, its label table and its position in space."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, LabelTableError, named
from ..labels.table import LabelTable
from .cleanup import ClassChange, clean
from .counts import LabelVolume, voxel_counts
from .dicom.headers import is_dicom_seg, is_structure_set
from .dicom.seg import DicomSeg
from .dicom.seg_reader import read_dicom_seg
from .formats import write_confidence, write_segmentation
from .geometry import Geometry
from .label_image import read_layers
from .layers import as_uint16, layer_counts, layer_of_values
from .measures import LabelMeasures, measure, sums_by_label
from .reading import ImageSource, InputImage, read_image
from .statistics import write_statistics

if TYPE_CHECKING:
    import SimpleITK as sitk

_SAME_GRID = "Give the image that was segmented, or its voxels as an array, or resample it to this grid."


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A label map with its label table and geometry.

    :ivar labels: uint16 ``(z, y, x)``; other integer types are converted.
    :ivar table: has a label for every value but 0 that occurs.
    :ivar geometry: grid of the input image.
    :ivar confidence: float32 ``(z, y, x)``, 0..1; ``None`` if it was not computed.
    :ivar changes: what :meth:`cleaned` changed, for each class that changed; ``None`` if nothing was cleaned up.
    :ivar more_layers: further label maps of the same shape, for classes that overlap. Each class is in one layer only.
    :ivar notices: sentences that the user should see: what was guessed of the file that was read, or of the image that
        was segmented, and what of it was left out.
    :param counts: ``voxel_counts(labels)``, if the voxels have been counted already and there are no further layers.
    :raises ImageError: if shapes disagree, a value does not fit into 16 bits, or a class is in several layers.
    :raises LabelTableError: if a value other than 0 occurs that is not in the table.

    >>> labels = np.zeros((2, 3, 4), np.uint16)
    >>> labels[0, :2, :2] = 1
    >>> grid = Geometry(size=(4, 3, 2), spacing=(10.0, 10.0, 5.0), origin=(0.0, 0.0, 0.0))
    >>> result = Segmentation(labels, LabelTable.from_names({1: "liver"}), grid)
    >>> result
    <Segmentation: 4 x 3 x 2 voxels, 1 class>
    >>> [liver] = result.statistics()
    >>> liver.voxels, round(liver.volume_ml, 3)
    (4, 2.0)

    Write it and read it again:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result.write(Path(folder, "liver.seg.nrrd"))
    ...     Segmentation.from_image(Path(folder, "liver.seg.nrrd")).table.names
    {1: 'liver'}
    """

    labels: np.ndarray
    table: LabelTable
    geometry: Geometry
    confidence: np.ndarray | None = None
    counts: InitVar[np.ndarray | None] = None
    changes: tuple[ClassChange, ...] | None = None
    more_layers: tuple[np.ndarray, ...] = ()
    notices: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return size and number of classes: the arrays and the table would fill pages."""
        classes, size = len(self.table.foreground), " x ".join(map(str, self.geometry.size))
        return f"<Segmentation: {size} voxels, {classes} class{'es' * (classes != 1)}>"

    def __post_init__(self, counts: np.ndarray | None) -> None:
        shape = tuple(self.geometry.size)[::-1]
        further = (("further layer of labels", layer) for layer in self.more_layers)
        for what, array in (("label map", self.labels), ("confidence map", self.confidence), *further):
            if array is not None and array.shape != shape:
                raise ImageError(f"The {what} has the shape {array.shape}, the geometry has {shape} (z, y, x).")
        object.__setattr__(self, "labels", as_uint16(self.labels))
        object.__setattr__(self, "more_layers", tuple(map(as_uint16, self.more_layers)))
        if self.more_layers:
            by_layer = layer_counts(self.layers)
            layer_of_values(by_layer)  # refuses a class in several layers
            counts = by_layer.sum(0)
        present = np.flatnonzero(voxel_counts(self.labels) if counts is None else counts).tolist()
        unknown = [value for value in present if value and value not in self.table]
        if unknown:
            listed = ", ".join(map(str, unknown[:10])) + (" and others" if len(unknown) > 10 else "")
            if self.table.file is None:
                raise LabelTableError(f"The label map contains {listed}, which the label table does not name.")
            raise LabelTableError(
                f"The label map contains {listed}, which the label table {self.table.file} does not name."
            )

    @property
    def layers(self) -> tuple[np.ndarray, ...]:
        """All label maps, uint16 ``(z, y, x)``: one, or several if classes overlap."""
        return (self.labels, *self.more_layers)

    def write(
        self,
        path: str | Path,
        overwrite: bool = False,
        keep_empty: bool = False,
        source: DicomSeg | str | Path | None = None,
        found_by: Sequence[str] = (),
    ) -> None:
        """Write the label map and its table; in a ``.seg.nrrd`` also the mean confidence in each class, if known.

        :param path: ``.seg.nrrd``; ``.seg.dcm``, a DICOM segmentation; ``.rtstruct.dcm``, an RT Structure Set; or
            ``.nii.gz``, ``.nii``, ``.mha`` or ``.nrrd``, for which a colour table ``.labels.csv`` is written to the
            same folder. Classes that overlap can be written to ``.seg.nrrd``, ``.rtstruct.dcm``, and ``.seg.dcm`` of
            the kind "binary".
        :param overwrite: replace existing files.
        :param keep_empty: list classes without voxels too, in formats other than images.
        :param source: for ``.seg.dcm`` and ``.rtstruct.dcm`` the DICOM series that was segmented, or a
            :class:`DicomSeg` with choices.
        :param found_by: names of the models, if nobody has looked at what they found. A ``.seg.nrrd`` notes them, so
            that a training can leave it out (``--corrected``).
        :raises ImageError: if the series cannot be read.
        :raises OutputExistsError: if a file exists and ``overwrite`` is false.
        :raises OutputError: if a file cannot be written, or its format cannot hold classes that overlap. No partial
            file remains, and existing files are unchanged.
        """
        dicom = DicomSeg(source) if isinstance(source, (str, Path)) else source
        sure = self.mean_confidences() if Path(path).name.lower().endswith(".seg.nrrd") else {}
        what = self.layers, self.table, self.geometry
        write_segmentation(Path(path), *what, overwrite, keep_empty, dicom, sure, found_by)

    def write_confidence(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the confidence map as a float32 volume.

        :param path: ``.nii.gz``, ``.nii``, ``.mha`` or ``.nrrd``.
        :param overwrite: replace an existing file.
        :raises OutputExistsError: if the file exists and ``overwrite`` is false.
        :raises OutputError: if there is no confidence map or the file cannot be written.
        """
        write_confidence(Path(path), self.confidence, self.geometry, overwrite)

    def write_statistics(
        self,
        path: str | Path,
        overwrite: bool = False,
        image: ImageSource | np.ndarray | None = None,
        segmentation: str | Path | None = None,
    ) -> None:
        """Write voxels, millilitres, codes and measures of every class as a table, or as a report in DICOM.

        :param path: ``.csv`` or ``.xlsx``; or ``.sr.dcm``, a DICOM structured report, which has fewer measures.
        :param overwrite: replace an existing file.
        :param image: as of :meth:`measures`; with an image its intensities are measured too.
        :param segmentation: for ``.sr.dcm`` the DICOM segmentation that :meth:`write` has written from the same result;
            the report refers to its segments.
        :raises ImageError: as :meth:`measures`.
        :raises OutputExistsError: if the file exists and ``overwrite`` is false.
        :raises OutputError: if the file cannot be written.
        """
        measures = self.measures(image)
        referred = None if segmentation is None else Path(segmentation)
        rows, wanted = self.statistics(), (image is not None, referred, self.confidence is not None)
        write_statistics(Path(path), rows, measures, self.table, overwrite, *wanted)

    def statistics(self) -> list[LabelVolume]:
        """Return voxels and volume of every class but the background, in table order; 0 voxels if it does not occur."""
        return class_volumes(layer_counts(self.layers).sum(0), self.table, self.geometry)

    def mean_confidences(self, statistics: Iterable[LabelVolume] | None = None) -> dict[int, float]:
        """Return the mean confidence of each class that occurs, 0 to 1, by label value; none if it was not computed.

        :param statistics: those of :meth:`statistics`, if the voxels have been counted already.
        """
        if self.confidence is None:
            return {}
        found = [row for row in (self.statistics() if statistics is None else statistics) if row.voxels]
        sums = np.zeros(max((row.value for row in found), default=0) + 1)
        for layer in self.layers:
            sums += sums_by_label(layer, self.confidence, len(sums))
        return {row.value: float(sums[row.value]) / row.voxels for row in found}

    def measures(self, image: ImageSource | np.ndarray | None = None) -> dict[int, LabelMeasures]:
        """Measure surface, position and box of every class that occurs, and the intensities of an image inside it.

        Where the confidence was computed, its mean in each class is measured too.

        :param image: a file, a DICOM folder or a SimpleITK image with one channel on the grid of the segmentation, or
            the voxels of one, ``(z, y, x)``. ``None``: no intensities.
        :returns: the measures by label value, as :func:`~ClassScaleSegLib.images.measures.measure` defines them.
        :raises ImageError: if the image cannot be read, is on another grid, or is not finite.
        """
        if image is None or isinstance(image, np.ndarray):
            voxels = image
        else:
            source = read_on_grid(image, self.geometry)
            assert source.voxels is not None  # an image that was just read has its voxels
            voxels = source.voxels[0]
        found: dict[int, LabelMeasures] = {}
        for layer in self.layers:
            found |= measure(layer, self.geometry, voxels, self.confidence)
        return dict(sorted(found.items()))

    def cleaned(
        self,
        smooth: float | None = None,
        remove_islands: float | None = None,
        classes: Iterable[str | int] | None = None,
        step: Callable[[int, int], object] = lambda done, total: None,
    ) -> Segmentation:
        """Smooth the borders of all classes together, then remove their islands; ``changes`` says what that changed.

        The confidence stays as it is: it belongs to the class that the network has chosen, also where that was changed.
        Of classes that overlap each layer is cleaned up by itself.

        :param smooth: standard deviation, mm, of the Gaussian by which :func:`~.smoothing.smooth` weights neighbours.
            Sheets thinner than 1.4 of it, tubes thinner than 2.4 and balls thinner than 3.1 vanish. ``None``: no
            smoothing.
        :param remove_islands: parts of a class that are smaller than so many mm^3 become background. The voxels of a
            part have common faces, as in Slicer and TotalSegmentator; a common edge or corner is not enough.
            ``None``: no island is removed.
        :param classes: names or label values of those that may change, besides the background; others keep exactly
            their voxels. ``None``: all.
        :param step: called with the blocks of the smoothing that are done, and their number.
        :raises LabelTableError: if the table has no such class.
        :raises ClassScaleError: if a number is not positive, or the package connected-components-3d is missing.
        """
        chosen = None if classes is None else tuple(classes)
        layers: list[np.ndarray] = []
        changes: list[ClassChange] = []
        count = len(self.layers)
        for index, layer in enumerate(self.layers):

            def part(done: int, total: int, before: int = index) -> None:
                step(before * total + done, count * total)

            cleaned, changed = clean(layer, self.table, self.geometry, smooth, remove_islands, chosen, part)
            layers.append(cleaned)
            changes += changed
        changes.sort(key=lambda change: change.value)
        labels, *more = layers
        return replace(self, labels=labels, changes=tuple(changes), more_layers=tuple(more), counts=None)

    def smoothed(self, mm: float, classes: Iterable[str | int] | None = None) -> Segmentation:
        """Return a smoothed segmentation, as :meth:`cleaned` describes.

        >>> labels = np.array([1, 1, 2, 1, 0, 0], np.uint16).reshape(1, 1, 6)
        >>> grid = Geometry(size=(6, 1, 1), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
        >>> result = Segmentation(labels, LabelTable.from_names({1: "liver", 2: "spleen"}), grid).smoothed(1)
        >>> result.labels.ravel().tolist()
        [1, 1, 1, 1, 0, 0]
        >>> print(*result.changes, sep="\\n")
        liver: from 3 to 4 voxels (0 lost, 1 gained)
        spleen: from 1 to 0 voxels (1 lost, 0 gained)
        """
        return self.cleaned(smooth=mm, classes=classes)

    def without_islands(self, mm3: float, classes: Iterable[str | int] | None = None) -> Segmentation:
        """Return a segmentation without small islands, as :meth:`cleaned` describes.

        >>> labels = np.array([1, 1, 1, 0, 1, 2], np.uint16).reshape(1, 1, 6)
        >>> grid = Geometry(size=(6, 1, 1), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
        >>> result = Segmentation(labels, LabelTable.from_names({1: "liver", 2: "spleen"}), grid)
        >>> result = result.without_islands(2, ["liver"])
        >>> result.labels.ravel().tolist()
        [1, 1, 1, 0, 0, 2]
        >>> print(*result.changes)
        liver: from 4 to 3 voxels (1 lost, 0 gained), 1 island removed
        """
        return self.cleaned(remove_islands=mm3, classes=classes)

    def to_image(self) -> sitk.Image:
        """Return the label map as a SimpleITK image of unsigned 16-bit integers.

        :raises ImageError: if there are further layers, which one image cannot hold.
        """
        import SimpleITK as sitk

        if self.more_layers:
            raise ImageError(
                f"The classes overlap and are in {len(self.layers)} layers, so they are no single label image. "
                "Take the arrays in layers instead."
            )
        image = sitk.GetImageFromArray(self.labels)
        self.geometry.apply(image)
        return image

    @classmethod
    def from_image(cls, label_image: sitk.Image | str | Path, table: LabelTable | None = None) -> Segmentation:
        """Create a segmentation from a label image.

        Segments that overlap, in a ``.seg.nrrd`` or a binary DICOM segmentation, come in several layers. Where several
        have the same label value, all but the first get free ones.

        :param label_image: a SimpleITK image or a file of whole numbers, whatever their type; or a DICOM segmentation.
        :param table: names of the labels. If not given, the table in a ``.seg.nrrd`` or DICOM segmentation is used, or
            the names in the header of a NIfTI file, as TotalSegmentator writes them. In other images, and where such a
            header has no name for a value, labels are named ``label 1``, ``label 2``.
        :returns: the segmentation, whose ``notices`` say what was guessed.
        :raises ImageError: if it cannot be read, is not a 3D image of whole numbers, or has values outside 0..65535.
        :raises LabelTableError: if a value is not in the table.
        """
        import SimpleITK as sitk

        if isinstance(label_image, (str, Path)) and is_dicom_seg(Path(label_image)):
            return cls.from_dicom_seg(Path(label_image), table)
        if isinstance(label_image, (str, Path)) and is_structure_set(Path(label_image)):
            raise ImageError(
                f"{label_image} is a structure set, which has contours and no voxels. Give another format; the command "
                "classscaleseg compare reads structure sets."
            )
        first, *more = (read := read_layers(label_image)).layers
        with named("The label image" if isinstance(label_image, sitk.Image) else label_image):
            names, said = (read.table, read.of_names) if table is None else (table, ())
            notices = (*read.notices, *said)
            return cls(first, names, read.geometry, counts=read.counts, more_layers=tuple(more), notices=notices)

    @classmethod
    def from_dicom_seg(
        cls,
        path: Path,
        table: LabelTable | None = None,
        image: Geometry | None = None,
        other: Geometry | None = None,
    ) -> Segmentation:
        """Create a segmentation from a DICOM segmentation.

        :param table: as of :meth:`from_image`.
        :param image: the grid of the image that was segmented, for files that leave out slices and do not say how far
            apart slices are.
        :param other: for such files, the grid of another segmentation of the same patient, which may be finer.
        :raises ImageError: as :meth:`from_image`.
        :raises LabelTableError: as :meth:`from_image`.
        """
        layers, own, geometry, notices = read_dicom_seg(path, image, other)
        with named(path):
            names, said = own if table is None else table, tuple(f"{path}: {sentence}" for sentence in notices)
            return cls(layers[0], names, geometry, more_layers=layers[1:], notices=said)


def read_on_grid(image: ImageSource, geometry: Geometry) -> InputImage:
    """Read an image with one channel that was segmented.

    :param geometry: that of the segmentation.
    :raises ImageError: if the image cannot be read, or is on another grid.
    """
    source = read_image(image, channels=1, flat=geometry.size[2] == 1)
    other = source.geometry
    if geometry.size != other.size:
        raise ImageError(f"{source.name} has {other.size} voxels and the segmentation {geometry.size}. {_SAME_GRID}")
    if (distance := geometry.distance(other)) > min(geometry.spacing) / 2:
        raise ImageError(f"{source.name} is {distance:.3g} mm away from the segmentation. {_SAME_GRID}")
    return source


def class_volumes(counts: np.ndarray, table: LabelTable, geometry: Geometry) -> list[LabelVolume]:
    """Return what `Segmentation.statistics` returns, from the ``voxel_counts`` of its labels."""
    millilitres = geometry.voxel_volume / 1000
    return [
        LabelVolume(label.value, label.name, int(counts[label.value]), float(counts[label.value]) * millilitres)
        for label in table.foreground
    ]
