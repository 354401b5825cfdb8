"""Series of Slicer's DICOM database: choose some, and load one when it is its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.errors import ImageError
from ClassScaleSegLib.labels.label import one_line
from slicer.i18n import tr as _

from ..widgets.search_table import Row, SearchTable

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

_IMAGES = ("CT", "MR", "PT", "CBCT", "US", "OT")  # modalities that are listed
_COLOR = (128, 128, 128)


def image_series(database: Any) -> dict[str, tuple[str, str, str, int]]:
    """Return patient, study, description and number of images of each series of images, by its UID.

    :param database: Slicer's ``ctkDICOMDatabase``.
    """
    found = {}
    for patient in database.patients():
        person = one_line(database.fieldForPatient("PatientsName", patient).replace("^", " "))
        person = person or one_line(database.fieldForPatient("PatientID", patient))
        for study in database.studiesForPatient(patient):
            words = (database.fieldForStudy(name, study) for name in ("StudyDate", "StudyDescription"))
            when = one_line(" ".join(words))
            for series in database.seriesForStudy(study):
                modality = database.fieldForSeries("Modality", series)
                if modality in _IMAGES:
                    title = one_line(database.fieldForSeries("SeriesDescription", series)) or _("without description")
                    count = len(database.instancesForSeries(series))
                    found[series] = (person, when, f"{modality}: {title}", count)
    return found


class SeriesDialog:
    """A dialog with a table of all series of images, which can be searched and ticked."""

    def __init__(self, database: Any) -> None:
        self.series = image_series(database)
        studies = [study for patient in database.patients() for study in database.studiesForPatient(patient)]
        self.studies = {series: study for study in studies for series in database.seriesForStudy(study)}
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = _("Series of the DICOM database")
        headers = [_("Patient"), _("Study"), _("Series"), _("Images")]
        self.table = SearchTable(headers, _("Search by patient, date or description"), on_ticked=lambda: None)
        rows = [
            Row(uid, _COLOR, (person, when, title, str(count)), (person, when, title, float(count)), " ".join(texts))
            for uid, (person, when, title, count) in self.series.items()
            if (texts := (person, when, title))
        ]
        self.table.set_rows(rows, ticked=False)
        buttons = qt.QDialogButtonBox(qt.QDialogButtonBox.Ok | qt.QDialogButtonBox.Cancel)
        buttons.connect("accepted()", self.dialog.accept)
        buttons.connect("rejected()", self.dialog.reject)
        layout = qt.QVBoxLayout(self.dialog)
        layout.addWidget(self.table.widget)
        layout.addWidget(buttons)
        self.dialog.resize(760, 480)

    def ticked(self) -> list[tuple[str, str]]:
        """Return UID and name of each ticked series."""
        named = {uid: f"{person} - {title}" for uid, (person, _when, title, _count) in self.series.items()}
        return [(uid, named[uid]) for uid in self.table.ticked()]

    def ticked_of_studies(self) -> list[tuple[tuple[str, ...], str]]:
        """Return the UIDs of the ticked series of each study, and its name."""
        studies: dict[tuple[str, str, str], list[str]] = {}
        for uid in self.table.ticked():
            person, when, _title, _count = self.series[uid]
            studies.setdefault((self.studies[uid], person, when), []).append(uid)
        return [(tuple(uids), " / ".join(filter(None, names))) for (_study, *names), uids in studies.items()]


def choose_series(database: Any) -> list[tuple[str, str]]:
    """Ask the user for series, and return UID and name of each; none if the user cancels."""
    dialog = SeriesDialog(database)
    chosen = dialog.ticked() if dialog.dialog.exec_() else []
    dialog.dialog.deleteLater()
    return chosen


def choose_studies(database: Any) -> list[tuple[tuple[str, ...], str]]:
    """Ask the user for series, and return those of each study with its name; none if the user cancels."""
    dialog = SeriesDialog(database)
    chosen = dialog.ticked_of_studies() if dialog.dialog.exec_() else []
    dialog.dialog.deleteLater()
    return chosen


def title_of(uid: str) -> str:
    """Return the description of a series of the DICOM database; empty if it has none."""
    database = getattr(slicer, "dicomDatabase", None)
    return one_line(database.fieldForSeries("SeriesDescription", uid)) if database is not None else ""


def load_series(uid: str, name: str) -> vtkMRMLScalarVolumeNode:
    """Load a series into the scene, and return its volume.

    :raises ImageError: if it cannot be loaded as one volume.
    """
    from DICOMLib import DICOMUtils

    try:
        nodes = [slicer.mrmlScene.GetNodeByID(identifier) for identifier in DICOMUtils.loadSeriesByUID([uid])]
    except Exception as error:  # plugins of the DICOM module raise whatever they like
        raise ImageError(_("{name} could not be loaded ({reason}).").format(name=name, reason=error)) from error
    volumes = [node for node in nodes if node is not None and node.GetClassName() == "vtkMRMLScalarVolumeNode"]
    if not volumes:
        text = _(
            "{name} could not be loaded as a volume. Load it in the module DICOM, and add the volume that you get."
        )
        raise ImageError(text.format(name=name))
    return volumes[0]
