"""The dialog "Send to an archive": sends a result as DICOM objects, after asking, and tells what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.errors import ClassScaleError
from ClassScaleSegLib.images.dicom.seg import HIGHDICOM
from ClassScaleSegLib.images.suffixes import DICOM_SUFFIX, REPORT_SUFFIX, RTSTRUCT_SUFFIX
from ClassScaleSegLib.labels.label import one_line
from slicer.i18n import tr as _

from ..translation import translated
from ..widgets.forms import dialog_button
from ..widgets.texts import ask
from .dialog import ArchiveDialog
from .words import day, panel_words

if TYPE_CHECKING:
    from ClassScaleSegLib.process import ArchiveProcess, Event
    from slicer import vtkMRMLSegmentationNode

DICOMWEB_CLIENT = "dicomweb-client>=0.60"
_OBJECTS = "objects"  # folder in the work folder of the child process


class SendDialog(ArchiveDialog):
    """Opened by :meth:`open`. What is being sent goes on while the dialog is closed.

    :ivar kinds: a box to tick for each kind of object, by the suffix of its file.
    """

    packages = (HIGHDICOM, DICOMWEB_CLIENT)

    def __init__(self) -> None:
        ArchiveDialog.__init__(self)
        self.kinds: dict[str, qt.QCheckBox] = {}
        self._node: vtkMRMLSegmentationNode | None = None
        self._told: list[str] = []  # by the writers of the objects

    def open(self, node: vtkMRMLSegmentationNode | None = None) -> None:
        """Show the dialog.

        :param node: to send, unless another one is being sent; ``None``: that of the last time.
        """
        self.close()
        if node is not None and node is not self._node and self.process is None:
            self._node, self._status = node, ""
        intro = _(
            "Sends {name} as DICOM objects to an archive (PACS), by DICOMweb. They have name and ID of the patient, "
            "and belong to the study of the series that was segmented."
        )
        form = qt.QFormLayout()
        layout = self._begin(_("Send to an archive"), intro.format(name=self._name), form)
        layout.addLayout(form)
        ticked = {suffix for suffix, box in self.kinds.items() if box.checked} or {DICOM_SUFFIX}
        self.kinds = {}
        for suffix, text in _titles().items():
            box = self.kinds[suffix] = qt.QCheckBox(text)
            box.checked = suffix in ticked
            box.connect("toggled(bool)", lambda on: self.render())
            layout.addWidget(box)
        layout.addStretch(1)
        self.send_button = dialog_button(_("Send..."), self.send)
        self._finish(layout, self.send_button, 520, 400)

    def forget(self, node: Any) -> None:
        """Do not send a node that is removed; ``None``: any."""
        if node is None or node is self._node:
            self._node = None
            self.render()

    def send(self) -> None:
        """Write the ticked objects, ask, and send them. What is wrong is said below."""
        self._told = []
        if self._start("send", prepare=self._write):
            self._say(_("Sending"))

    def render(self) -> None:
        """Show the state in the window, if it is open."""
        ArchiveDialog.render(self)
        if self.dialog is not None:
            idle = self.process is None
            for suffix, box in self.kinds.items():  # a report refers to the segmentation
                box.enabled = idle and (suffix != REPORT_SUFFIX or bool(self.kinds[DICOM_SUFFIX].checked))
            self._enable_buttons((self.send_button, self._node is not None and bool(self._ticked())))

    def _ticked(self) -> list[str]:
        with_report = bool(self.kinds[DICOM_SUFFIX].checked)
        ticked = [suffix for suffix, box in self.kinds.items() if box.checked]
        return [suffix for suffix in ticked if suffix != REPORT_SUFFIX or with_report]

    @property
    def _name(self) -> str:
        return self._node.GetName() or "" if self._node is not None else ""

    def _write(self, process: ArchiveProcess) -> bool:
        """Write the objects into the work folder of a process, and return whether the user wants them sent.

        :raises ClassScaleError: if they cannot be written.
        """
        from ClassScaleSegLib.scene.dicom import write_report
        from ClassScaleSegLib.scene.results import save_segmentation

        node, folder = self._node, process.work_folder / _OBJECTS
        files = {suffix: folder / f"result{suffix}" for suffix in self._ticked()}
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            folder.mkdir()
            for suffix, file in files.items():
                if suffix == REPORT_SUFFIX:
                    write_report(files[DICOM_SUFFIX], file)
                else:
                    save_segmentation(node, file, self._told.append)
        except MemoryError as error:
            raise ClassScaleError(_("There is not enough memory to write the DICOM objects.")) from error
        except OSError as error:
            text = _("The DICOM objects cannot be written to {folder} ({reason}).")
            raise ClassScaleError(text.format(folder=folder, reason=error.strerror)) from error
        finally:
            slicer.app.restoreOverrideCursor()
        process.words = (str(folder),)
        question = _question(next(iter(files.values())), self.access.archive().address, list(files))
        return ask(question, _("Send to an archive"))

    def _follow(self, event: Event) -> None:
        if event.kind == "progress" and event.stage == "send" and event.total:
            self._percent = 100 * event.done // event.total

    def _conclude(self, fault: str) -> None:
        """Tell what became of each object."""
        if self.process is None:
            return
        results, cancelled = self.process.results, self.process.state == "cancelled"
        self._stop()
        told = [*_answers(results, fault), fault]
        if cancelled:
            told.append(_("What was sent before may be stored: look in the archive before you send again."))
        told += self._remember() if not fault else []
        if self.dialog is None:
            self.open()
        self._say("\n".join(filter(None, [*told, *self._notices, *map(translated, dict.fromkeys(self._told))])))


def _titles() -> dict[str, str]:
    """Return what can be sent, by the suffix of its file; a report comes after the segmentation that it refers to."""
    return {
        DICOM_SUFFIX: _("DICOM segmentation"),
        RTSTRUCT_SUFFIX: _("RT structure set"),
        REPORT_SUFFIX: _("Report with the volumes, which refers to the DICOM segmentation"),
    }


def _question(file: Path, address: str, kinds: Sequence[str]) -> str:
    """Return the question whether objects may be sent.

    :param file: one of them, which says whose they are.
    """
    from ClassScaleSegLib.images.dicom.deflate import read_header

    header = read_header(file)
    facts = {
        _("Patient"): (str(header.get("PatientName") or "").replace("^", " "), header.get("PatientID")),
        _("Study"): (day(str(header.get("StudyDate") or "")), header.get("StudyDescription")),
    }
    lines = [_("Send to {address}?").format(address=address), ""]
    for title, texts in facts.items():
        value = ", ".join(filter(None, (one_line(str(text or "")) for text in texts)))
        lines.append(_("{title}: {value}").format(title=title, value=value or _("not stated")))
    return "\n".join([*lines, "", *(_titles()[suffix] for suffix in kinds)])


def _answers(rows: Sequence[dict[str, Any]], fault: str) -> list[str]:
    """Return in a sentence each what the archive did with the objects.

    :param fault: is told by itself, and so not of each.
    """
    states = {
        "stored": _("stored"),
        "changed": _("stored, with changes or doubts"),
        "refused": _("refused"),
        "unknown": _("perhaps stored"),
        "not sent": _("not sent"),
    }
    said = []
    for row in rows:
        title = next((title for suffix, title in _titles().items() if str(row["file"]).endswith(suffix)), row["file"])
        text = _("{title}: {value}").format(title=title, value=states.get(row["state"], row["state"]))
        reason = panel_words(row.get("reason") or "")
        said.append(f"{text}. {reason}" if reason not in ("", fault) else f"{text}.")
    return said
