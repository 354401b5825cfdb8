"""The statistics of a segmentation: the columns of their tables, and the files with them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from ..errors import OutputError, named
from ..files import replacing
from ..labels.csv import CODE_COLUMNS, code_cells
from ..labels.table import LabelTable
from .counts import LabelVolume
from .dicom.sr import write_dicom_sr
from .formats import suffix_of
from .measures import LabelMeasures
from .suffixes import REPORT_SUFFIX, STATISTICS_SUFFIXES
from .tables import Cell, write_table

STATISTICS_DIGITS = 12  # hold integers of 32 bits, their medians, and every float32


class Column(NamedTuple):
    """A column with a measure of each class.

    :ivar name: its title in files.
    :ivar title: its title in Slicer.
    :ivar kind: type of its cells.
    :ivar cell: returns that of a class that was found.
    """

    name: str
    title: str
    kind: type[float] | type[int] | type[bool]
    cell: Callable[[LabelMeasures], float | int | bool]


SHAPE_COLUMNS = (
    Column("Surface_mm2", "Surface area (mm2)", float, lambda found: found.surface_mm2),
    Column("Centroid_R_mm", "Centroid R (mm)", float, lambda found: found.centroid[0]),
    Column("Centroid_A_mm", "Centroid A (mm)", float, lambda found: found.centroid[1]),
    Column("Centroid_S_mm", "Centroid S (mm)", float, lambda found: found.centroid[2]),
    Column("First_I", "First I", int, lambda found: found.first[0]),
    Column("First_J", "First J", int, lambda found: found.first[1]),
    Column("First_K", "First K", int, lambda found: found.first[2]),
    Column("Last_I", "Last I", int, lambda found: found.last[0]),
    Column("Last_J", "Last J", int, lambda found: found.last[1]),
    Column("Last_K", "Last K", int, lambda found: found.last[2]),
    Column("TouchesEdge", "Touches edge", bool, lambda found: found.touches_edge),
)
INTENSITY_COLUMNS = (  # only if an image was measured
    Column("Mean", "Mean", float, attrgetter("intensities.mean")),
    Column("StandardDeviation", "Standard deviation", float, attrgetter("intensities.standard_deviation")),
    Column("Minimum", "Minimum", float, attrgetter("intensities.minimum")),
    Column("Percentile_5", "Percentile 5", float, attrgetter("intensities.percentile_5")),
    Column("Percentile_25", "Percentile 25", float, attrgetter("intensities.percentile_25")),
    Column("Median", "Median", float, attrgetter("intensities.median")),
    Column("Percentile_75", "Percentile 75", float, attrgetter("intensities.percentile_75")),
    Column("Percentile_95", "Percentile 95", float, attrgetter("intensities.percentile_95")),
    Column("Maximum", "Maximum", float, attrgetter("intensities.maximum")),
)
CONFIDENCE_COLUMN = Column("Confidence", "Confidence", float, attrgetter("confidence"))  # only if it was computed
_CLASS_COLUMNS = ("LabelValue", "Name", "Voxels", "Volume_mL", *itertools.chain(*CODE_COLUMNS.values()))


def measure_columns(intensities: bool, confidence: bool = False) -> tuple[Column, ...]:
    """Return the columns of the measures, in their order: first the shape, then what else is wanted."""
    return (*SHAPE_COLUMNS, *INTENSITY_COLUMNS * intensities, *(CONFIDENCE_COLUMN,) * confidence)


def statistics_columns(intensities: bool = True, confidence: bool = False) -> tuple[str, ...]:
    """Return the titles of all columns of a file: what the class is and how large, and its measures."""
    return (*_CLASS_COLUMNS, *(column.name for column in measure_columns(intensities, confidence)))


def has_confidence(measures: Iterable[LabelMeasures]) -> bool:
    """Return whether the confidence was measured."""
    return any(found.confidence is not None for found in measures)


def statistics_cells(
    rows: Iterable[LabelVolume],
    measures: Mapping[int, LabelMeasures],
    table: LabelTable,
    intensities: bool = True,
    confidence: bool = False,
) -> list[list[Cell]]:
    """Return the cells of each row, in :func:`statistics_columns`; parameters are those of :func:`write_statistics`."""
    columns = measure_columns(intensities, confidence)
    cells: list[list[Cell]] = []
    for row in rows:
        volume, found = float(f"{row.volume_ml:.6g}"), measures.get(row.value)
        measured = [None if found is None else column.cell(found) for column in columns]
        cells.append([row.value, row.name, row.voxels, volume, *code_cells(table[row.value]), *measured])
    return cells


def write_statistics(
    path: Path,
    rows: Iterable[LabelVolume],
    measures: Mapping[int, LabelMeasures],
    table: LabelTable,
    overwrite: bool,
    intensities: bool,
    segmentation: Path | None = None,
    confidence: bool = False,
) -> None:
    """Write the size, the codes and the measures of each class; see `Segmentation.write_statistics`.

    :param path: the file; its suffix, one of ``STATISTICS_SUFFIXES``, selects the format.
    :param rows: as from `Segmentation.statistics`.
    :param measures: as from `Segmentation.measures`; the cells of a class that is not there stay empty.
    :param table: has the codes of all rows.
    :param overwrite: replace an existing file.
    :param intensities: whether to write the columns of the intensities.
    :param segmentation: for ``.sr.dcm``: the DICOM segmentation of the same result.
    :param confidence: whether to write its column, also if nothing was found.
    :raises OutputError: if the suffix is not supported, the segmentation is missing, or the file cannot be written.
    """
    if suffix_of(path, STATISTICS_SUFFIXES) == REPORT_SUFFIX:
        if segmentation is None:
            raise OutputError(
                f"{path}: a report in DICOM refers to a DICOM segmentation. Write one from the same result and give "
                "its file (segmentation=...), or write .csv or .xlsx."
            )
        with replacing(path, overwrite) as temporary, named(path):
            write_dicom_sr(temporary, measures, table, segmentation)
        return
    cells = statistics_cells(rows, measures, table, intensities, confidence)
    write_table(path, statistics_columns(intensities, confidence), cells, overwrite, STATISTICS_DIGITS)
