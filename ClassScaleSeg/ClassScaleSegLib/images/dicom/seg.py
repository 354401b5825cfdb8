"""Write a DICOM segmentation: a label map (Supplement 243), or a binary one for readers that do not know these yet.

highdicom makes the object. Every row of the label map is a frame at the place of its slice, taken from the header of
that slice, so no orientation, order or gantry tilt can move or mirror it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ClassScaleError, OutputError, reason
from ...labels.label import Label
from ...labels.table import LabelTable
from ...version import VERSION
from ..geometry import ROUNDED_SHEAR, Geometry
from ..layers import layer_counts
from .deflate import write_deflated
from .frames import Frames, binary_frames, binary_places, decimals, label_map_frames
from .letters import one_value
from .object import (
    EMPTY,
    MAKER,
    Texts,
    UsedModel,
    check_grid,
    choose_character_set,
    copy_patient_and_study,
    instance_reference,
    instances,
    parameters,
    series_description,
    series_number,
    value_of,
)
from .segments import describe
from .source import SourceSeries, read_source

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

KINDS = ("labelmap", "binary")
HIGHDICOM = "highdicom>=0.28"
_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_LARGEST_PIXELS = 2**32 - 2  # bytes of an element whose length is given


@dataclass(frozen=True)
class DicomSeg:
    """What a DICOM segmentation needs besides the label map.

    :ivar series: the series that was segmented: its folder, a file with many frames, or what `read_source` returned.
    :ivar kind: "labelmap", or "binary": one map of bits for each class and slice, where both meet.
    :ivar models: which found the structures.
    :ivar tell: called with each sentence that the user should see, such as which names were shortened.
    :ivar edited: whether somebody has changed what the models found, so that it is semi-automatic.
    :raises OutputError: if there is no such kind.

    >>> binary = DicomSeg("series/", kind="binary", models=(UsedModel("Organs"),))
    >>> binary.kind, [model.name for model in binary.models]
    ('binary', ['Organs'])

    ``result.write("organs.seg.dcm", source=binary)`` writes it.
    """

    series: SourceSeries | str | Path
    kind: str = "labelmap"
    models: tuple[UsedModel, ...] = ()
    tell: Callable[[str], object] = lambda sentence: None
    edited: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OutputError(f"{self.kind!r} is no kind of DICOM segmentation. Choose {' or '.join(KINDS)}.")


def refuse_missing_highdicom(kind: type[ClassScaleError] = OutputError) -> None:
    """Import the package that writes and reads DICOM segmentations, or raise an exception.

    :param kind: of the exception, whose message names the command that installs it.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise kind(
            f"DICOM segmentations need the Python package highdicom ({reason(error)}). Install it: python -m pip "
            f'install "{HIGHDICOM}", or in the Python console of 3D Slicer: slicer.util.pip_install("{HIGHDICOM}").'
        ) from error


def write_dicom_seg(
    path: Path, layers: Sequence[np.ndarray], table: LabelTable, geometry: Geometry, choices: DicomSeg, keep_empty: bool
) -> None:
    """Write a label map, uint16 ``(z, y, x)``, as a DICOM segmentation. An existing file is replaced.

    :param layers: several label maps, if classes overlap, make a binary one only.
    :param table: a label for every value but 0 that occurs.
    :param geometry: must be the grid of the series.
    :param keep_empty: list classes without voxels too. Without any class, the first one is listed, as DICOM wants one.
    :raises OutputError: if highdicom is missing, the series is not the one that was segmented, the table has no class,
        or the result would be larger than DICOM allows.
    :raises ImageError: as `read_source`.
    :raises OSError: if the file cannot be written.
    """
    refuse_missing_highdicom()
    series = choices.series if isinstance(choices.series, SourceSeries) else read_source(choices.series)
    check_grid(geometry, series)
    counts = layer_counts(layers).sum(0)
    listed = [label for label in table.foreground if keep_empty or counts[label.value]] or list(table.foreground[:1])
    if not listed:
        raise OutputError("The label table has no class besides the background; a DICOM segmentation needs one.")
    if choices.kind == "binary":
        _check_size(layers, [label.value for label in listed])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on values of the series that the standard does not allow
        try:
            found = sum(bool(counts[label.value]) for label in listed)
            segmentation, frames = _segmentation(layers, listed, found, series, choices)
            write_deflated(path, segmentation, frames.pixels, frames.size)
        except (ClassScaleError, OSError, MemoryError):
            raise
        except Exception as error:  # highdicom and pydicom raise whatever a header makes them raise
            raise OutputError(
                f"The headers of {series.name} do not allow a DICOM segmentation ({reason(error)}). Write .seg.nrrd."
            ) from error
    for notice in series.notices:
        choices.tell(notice)


def _check_size(layers: Sequence[np.ndarray], listed: Sequence[int]) -> None:
    """Refuse a binary segmentation whose frames would take more than DICOM can hold."""
    frames = len(binary_places(layers, listed))
    size = frames * layers[0][0].size // 8
    if size > _LARGEST_PIXELS:
        raise OutputError(
            f"A binary segmentation with {len(listed)} classes would have {frames:,} frames, {size / 2**30:.1f} GiB, "
            "and DICOM holds 4 GiB. Write a label map, or fewer classes."
        )


def _segmentation(
    layers: Sequence[np.ndarray], listed: Sequence[Label], found: int, series: SourceSeries, choices: DicomSeg
) -> tuple[Any, Frames]:
    """Return highdicom's segmentation without pixels, with all references and facts of the patient; and the frames.

    :param listed: the labels that are segments, of which ``found`` occur.
    """
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation
    from pydicom.sr.codedict import codes
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

    shortened = Texts()
    binary, name = choices.kind == "binary", one_value(", ".join(model.name for model in choices.models))
    algorithm = AlgorithmIdentificationSequence(
        MAKER, codes.DCM.ArtificialIntelligence, VERSION, parameters=parameters(choices.models) or None
    )
    segments = [
        describe(label, index if binary else label.value, algorithm, shortened, choices.edited)
        for index, label in enumerate(listed, start=1)
    ]
    segmentation = Segmentation(
        source_images=[_template(series)],
        pixel_array=np.zeros((1, 1, 1), np.uint8),
        segmentation_type="BINARY" if binary else "LABELMAP",
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=series_number(series.header, 1000),
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=VERSION,
        device_serial_number=VERSION,
        content_label="SEGMENTATION",
        content_description=f"{found} structures found by {MAKER}",
        series_description=series_description(choices.models),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=False,
    )
    # RLE is two and a half times as large and slow in Python; DCMTK refuses segmentations in JPEG-LS
    segmentation.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    segmentation.ContentCreatorName = ""  # the standard wants the element, and nobody's name
    if binary:
        frames = binary_frames(layers, [label.value for label in listed], series)
    else:
        (labels,) = layers  # `refuse_overlaps` has refused several
        frames = label_map_frames(labels, series, np.dtype(f"u{segmentation.BitsAllocated // 8}"))
        if series.geometry.shear <= ROUNDED_SHEAR:
            segmentation.DimensionOrganizationType = "3D"
    segmentation.Rows, segmentation.Columns = series.slices[0].size
    segmentation.NumberOfFrames = len(frames.groups)
    segmentation.PerFrameFunctionalGroupsSequence = frames.groups
    del segmentation.PixelData
    _refer(segmentation, series)
    copy_patient_and_study(segmentation, series.header)
    codes_of = [code for label in listed for code in label.codes.values() if code]
    texts = [*(label.name for label in listed), name, *parameters(choices.models).values()]
    texts += [text for code in codes_of for text in (code.scheme, code.value, code.meaning)]
    choose_character_set(segmentation, series.header, texts)
    shortened.tell(choices.tell)
    return segmentation, frames


def _template(series: SourceSeries) -> Dataset:
    """Return what highdicom needs to know of an image, with one pixel; the real frames and references follow later.

    The headers themselves may lack elements that highdicom needs, or have values that it refuses.
    """
    from pydicom.dataset import Dataset

    first, fact = series.slices[0], Dataset()
    for keyword in EMPTY:
        setattr(fact, keyword, "")
    fact.SOPClassUID, fact.SOPInstanceUID = _CT_IMAGE, first.instance
    fact.StudyInstanceUID, fact.SeriesInstanceUID = first.study, first.series
    fact.FrameOfReferenceUID = series.frame_of_reference
    fact.Modality = first.modality
    fact.Rows = fact.Columns = 1
    fact.ImagePositionPatient = decimals(first.position or ())
    fact.ImageOrientationPatient = decimals(first.directions or ())
    fact.PixelSpacing = decimals(first.spacing or ())
    axes = series.geometry.axes
    normal = np.cross(axes[:, 0], axes[:, 1])
    (distance,) = decimals([float(axes[:, 2] @ normal / np.linalg.norm(normal))])
    fact.SliceThickness = fact.SpacingBetweenSlices = distance  # a voxel reaches to the next slice
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "PositionReferenceIndicator"):
        if (value := value_of(series.header, keyword)) is not None:
            setattr(fact, keyword, value)
    return fact


def _refer(segmentation: Any, series: SourceSeries) -> None:
    """List the images of the series; each frame refers to its own."""
    references = [instance_reference(piece) for piece in instances(series)]
    segmentation.SourceImageSequence = references
    segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence = references
