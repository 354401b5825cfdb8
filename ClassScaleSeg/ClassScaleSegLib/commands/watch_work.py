"""What ``classscaleseg dicom watch`` does with one series: fetch, segment and send it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..archive.asking import Asking
from ..archive.connection import Archive, UserRefused
from ..archive.fetching import Fetched, SeriesFetch
from ..archive.files import find_dicom_files
from ..archive.received import look_at
from ..archive.searching import Series
from ..archive.sending import send
from ..errors import ArchiveError, ClassScaleError, DamagedImageError, ImageError, OutputError, named, reason
from ..files import replacing
from ..images.dicom.deflate import read_header
from ..process.job import Job
from ..process.segmentation import SegmentationProcess
from .watch_record import DONE, SEGMENTED, Records, SeriesRecord, checksum_of

_TEMPORARY = "." + 12 * "[0-9a-f]"  # as `replacing` names files; the user's own hidden ones have other names
_UNFINISHED = tuple(
    f"{folder}{_TEMPORARY}{end}"
    for folder, end in (("", ".json"), ("records/", ".*json"), ("results/", ".*dcm"), ("images/*/", ".dcm"))
)


class NoVolume(ClassScaleError):
    """The images of a series are nothing that can be segmented."""


class Damaged(ClassScaleError):
    """An image of a series cannot be read as the archive gives it, which may have a whole one later."""


_KINDS: dict[str, type[ClassScaleError]] = {ImageError.__name__: NoVolume, DamagedImageError.__name__: Damaged}


class SeriesWork:
    """Works on series, one by one.

    :ivar records: of what has become of them.
    :ivar target: archive for the results; ``None``: they stay in the folder.
    :ivar refusal: why nothing is sent now, because the target does not accept who asks; ``None``: results are sent.
    :ivar made: the record of the series that is worked on, once it is segmented.
    :param job: a job with models and options, but without images.
    :param patience: seconds without progress after which a segmentation is ended.
    """

    def __init__(self, folder: Path, job: Job, target: Archive | None, patience: float) -> None:
        self.records, self.target = Records(folder), target
        self.refusal: UserRefused | None = None
        self.made: SeriesRecord | None = None
        self._folder, self._job, self._patience = folder, job, patience

    def run(self, ask: Asking, series: Series, images: int, patient: str) -> SeriesRecord:
        """Fetch, segment and send a series; what an earlier attempt has done is not done again.

        :param images: that the series has now.
        :param patient: ID of its patient, as the archive tells it.
        :returns: the record that it is done, which is written.
        :raises NotReached: if an archive cannot be reached.
        :raises UserRefused: if the target does not accept who asks; ``refusal`` itself if it was not asked.
        :raises NoVolume: if it cannot be segmented because of what it is.
        :raises Damaged: if an image cannot be read.
        :raises ClassScaleError: if it cannot be fetched, segmented or sent.
        :raises OutputError: if something cannot be written or deleted.
        """
        self.made = None
        record = self.records.read(series.uid)
        self.made = record if record is not None and record.state == SEGMENTED and record.images == images else None
        result = self._folder / "results" / f"{series.uid}.seg.dcm"
        if self.made is None or not _is_whole(result):
            self.made = None
            self.made = self._segment(ask, series, result, images)
            self.records.write(self.made)
        if _is_of_another(result, patient):
            self.made = None
            self.remove_images(series)
            _remove([result])
            raise ClassScaleError(
                "The images name another patient (PatientID) than the archive does, as after a correction there. They "
                "and the result were deleted here, and nothing was sent."
            )
        if self.target is not None:
            if self.refusal is not None:
                raise self.refusal
            self.records.refuse_lost()  # it would be sent again
            _send(result, self.target)
        done = replace(self.made, state=DONE, reason="")
        self.records.write(done)
        return done

    def sweep(self) -> None:
        """Delete unfinished files that a process has left which was killed. No other may work in the folder.

        :raises OutputError: if that is not possible.
        """
        for pattern in _UNFINISHED:
            _remove(sorted(self._folder.glob(pattern)))

    def remove_images(self, series: Series) -> None:
        """Delete the images that were fetched."""
        shutil.rmtree(self._folder / "images" / series.uid, ignore_errors=True)

    def _segment(self, ask: Asking, series: Series, result: Path, images: int) -> SeriesRecord:
        """Fetch a series, segment it in a child process, and return a record of it.

        :raises ArchiveError: if not all of its images come, or not in a form that can be read.
        :raises NoVolume: if it cannot be segmented because of what it is.
        :raises Damaged: if an image cannot be read.
        :raises ClassScaleError: if it cannot be segmented.
        """
        fetched = _whole(ask, series, self._folder / "images")
        if fetched.unreadable:
            fetched = _whole(ask, series, self._folder / "images", decompress=True)
        if fetched.unreadable:
            raise ArchiveError(
                f"Pixels are compressed in a way that cannot be read here ({fetched.unreadable[0]}), and the archive "
                "does not decompress them. Tell its administrator."
            )
        _remove(fetched.others)  # as of an attempt before the archive has deleted or moved images
        instances = checksum_of(file.stem for file in fetched.folder.glob("[0-9]*.dcm"))
        with SegmentationProcess() as process:
            made = process.work_folder / "result.seg.dcm"
            process.job = replace(self._job, images=(str(fetched.folder.resolve()),), output=made)
            process.start()
            if process.wait(patience=self._patience) != "finished":
                kind = _KINDS.get(process.kind or "", ClassScaleError)
                raise kind(process.error or "The segmentation has ended without a word.")
            with replacing(result, overwrite=True) as temporary, named(result):
                shutil.copyfile(made, temporary)
            structures = int(process.result.get("structures") or 0)
        images = max(images, fetched.expected or 0)  # more may have come since the look
        return SeriesRecord(series.uid, series.study, images, SEGMENTED, structures, instances=instances)


def _whole(ask: Asking, series: Series, folder: Path, decompress: bool = False) -> Fetched:
    """Fetch a series.

    :param decompress: let the archive decompress the pixels.
    :raises ArchiveError: if not all of its images come.
    """
    fetched = SeriesFetch(ask, series, folder, decompress).run()
    if not fetched.whole:
        faults = fetched.faults or [f"{fetched.images} of {fetched.expected or '?'} images came."]
        raise ArchiveError(" ".join(faults))
    return fetched


def _is_whole(result: Path) -> bool:
    """Return whether a result is there, and not cut or damaged, as after the power has failed."""
    try:
        _ = look_at(result)
    except (ArchiveError, OSError):
        return False
    return True


def _is_of_another(result: Path, patient: str) -> bool:
    """Return whether a result names another patient than the archive does. Archives may garble letters beyond ASCII.

    :param patient: ID, as the archive tells it; empty if it does not.
    :raises OutputError: if the result cannot be read.
    """
    try:
        found = str(read_header(result).get("PatientID") or "").strip()
    except OSError as error:
        raise OutputError(f"{result} cannot be read ({reason(error)}). Correct its permissions.") from error
    return bool(patient and found) and patient.isascii() and found.isascii() and patient != found


def _send(result: Path, target: Archive) -> None:
    """Send a result.

    :raises ArchiveError: if the archive does not store it.
    """
    for sent in list(send(find_dicom_files([result]), target)):  # to its end, where it says why all was refused
        if not sent.arrived:
            raise ArchiveError(
                f"{target.address} has not stored the result ({sent.state}). {sent.reason or ''}".strip()
            )


def _remove(files: Sequence[Path]) -> None:
    """Delete files.

    :raises OutputError: if that is not possible.
    """
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{file} cannot be deleted ({reason(error)}). Delete it.") from error
