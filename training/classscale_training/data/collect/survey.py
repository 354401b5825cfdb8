"""Read a case without writing anything: which structures it has, where they overlap, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ClassScaleSegLib.errors import ClassScaleError, ImageError, reason
from ClassScaleSegLib.images.layers import layer_counts
from ClassScaleSegLib.labels.label import Label
from ClassScaleSegLib.labels.table import LabelTable

from ..findings import Finding
from .cases import Case
from .filling import segmentation_of
from .on_image import overlaps, read_image_grid
from .record import stamps_of


@dataclass(frozen=True)
class Survey:
    """What a case has, by the label values of its segmentation.

    :ivar labels: of the segmentation, without the background.
    :ivar drawn: values of the structures that are known: with a voxel, or listed as empty.
    :ivar occurs: values with a voxel on the grid of the image.
    :ivar overlaps: how many voxels two structures have in common.
    :ivar modality: of a DICOM series; "" for other images.
    :ivar notices: sentences that the user should see.
    :ivar stamps: of the files that were read, as of :func:`.stamps_of`.
    :ivar filled: values of the structures that come from another segmentation than that of the case.
    """

    labels: tuple[Label, ...]
    drawn: frozenset[int]
    occurs: frozenset[int]
    overlaps: Mapping[tuple[int, int], int]
    modality: str = ""
    notices: tuple[str, ...] = ()
    stamps: Mapping[str, list[Any]] = field(default_factory=dict)
    filled: frozenset[int] = frozenset()


def survey_case(names: LabelTable | None, case: Case) -> Survey | Finding:
    """Survey a case; what is wrong with it is returned, so that other cases can follow.

    :param names: of label images that have no names of their own.
    """
    try:
        stamps = stamps_of(case)
        grid = read_image_grid(case.images)
        found = segmentation_of(case, grid.geometry, names)
    except ClassScaleError as error:
        return Finding(str(error), type(error))
    except OSError as error:  # such as a file that this user may not read
        file = error.filename or case.segmentation
        return Finding(f"{file} cannot be read ({error.strerror or reason(error)}).", ImageError)
    except MemoryError:
        return Finding(
            f"The case {case.name} does not fit into memory. Crop it, or use fewer processes.", ClassScaleError
        )
    occurs = frozenset(np.flatnonzero(layer_counts(found.layers).sum(0)).tolist()) - {0}
    common = overlaps(found.layers)
    return Survey(found.labels, found.drawn, occurs, common, grid.modality, found.notices, stamps, found.filled)
