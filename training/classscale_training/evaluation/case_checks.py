"""What is wrong with drawn cases, and with models for them, before hours of segmenting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ClassScaleSegLib.commands.job_models import JobModels
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.images.comparison import paired_labels
from ClassScaleSegLib.images.paired_reading import read_drawn
from ClassScaleSegLib.images.reading import check_headers
from ClassScaleSegLib.labels.label import Label
from ClassScaleSegLib.labels.table import LabelTable

from ..data.collect.cases import Case, listed

_MOST_NAMES = 8


class CheckedCases:
    """The cases that can be read.

    :ivar cases: in their order.
    :ivar faults: what is wrong with the others.
    :ivar drawn: of each case the labels that have voxels.
    """

    def __init__(self) -> None:
        self.cases, self.faults, self.drawn = list[Case](), list[str](), list[list[Label]]()

    def refuse_if_none(self) -> None:
        """Refuse to go on without a case.

        :raises ClassScaleError: with the last fault.
        """
        if not self.cases:
            raise ClassScaleError(f"No case could be compared. The last fault was: {self.faults[-1]}")

    def knows(self, table: LabelTable) -> bool:
        """Return whether a model has a class that is drawn.

        :param table: of the model.
        """
        return any(paired_labels(labels, table.foreground) for labels in self.drawn)

    def refuse_if_unknown(self, tables: Sequence[LabelTable]) -> None:
        """Refuse models of which none has a class that is drawn.

        :param tables: of the models.
        :raises ClassScaleError: with the names of what is drawn.
        """
        if not any(map(self.knows, tables)):
            names = list(dict.fromkeys(label.name for labels in self.drawn for label in labels))
            what = f"What is drawn is {listed(names, _MOST_NAMES)}" if names else "Nothing is drawn"
            whose = "The model has" if len(tables) == 1 else "The models have"
            raise ClassScaleError(
                f"{whose} none of the structures that are drawn. {what}. If they have other names, name them in a "
                "label table (--labels)."
            )


def check_cases(
    cases: Sequence[Case], model: JobModels, table: LabelTable | None, tell: Callable[[str], None]
) -> CheckedCases:
    """Read the headers of images, and what is drawn.

    :param model: one of the models. What another one alone refuses, as nibabel and ITK do, is said when it reads it.
    :param table: names of the labels of the segmentations, instead of their own.
    :param tell: called with what is wrong with a case.
    """
    checked = CheckedCases()
    for case in cases:
        try:
            check_headers(case.images, model.nibabel)
            drawn = read_drawn(case.segmentation, table, case.images[0])
        except ClassScaleError as error:
            checked.faults.append(str(error))
            tell(str(error))
            continue
        sizes = {row.value: row.voxels for row in drawn.statistics()}
        checked.cases.append(case)
        checked.drawn.append([label for label in drawn.table.foreground if sizes[label.value]])
    return checked
