"""Segment images on a server of ClassScaleSeg, as if it were done here."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ..addresses import is_this_machine
from ..errors import ServerError
from ..images.geometry import Geometry
from ..images.reading import ImageSource
from ..images.segmentation import Segmentation
from ..inference.progress import CancelToken, Monitor, Progress
from ..options import FIELDS, Options, refuse_unknown
from .connection import LARGEST_MODELS, PATIENCE, Connection
from .decided import refuse_decided, sent_options
from .health import Health
from .image import RemoteImage
from .jobs import Forgotten, RemoteJob
from .offers import RemoteModel, chosen, located_by, models_of
from .preparing import prepare
from .request import Request, wanted_table
from .result import fetch_result
from .sending import RESTARTS


class RemoteSegmenter:
    """Segments on a server, whose address and token somebody has given to you. It is not for several threads.

    :param url: such as ``https://lab-gpu:8471``.
    :param token: for a server that asks for one.
    :param ca: file with the certificate of the server, or of who has signed it, if the system does not trust it.
    :param patience: seconds without any contact after which the server is given up. A connection that is lost is made
        again by itself.
    :param insecure: send the token and images to another machine even if the address is not one of https.
    :raises Unencrypted: if others could read the token on its way.
    :raises ServerError: if address or token are not valid.

    The result is the same as that of :func:`~ClassScaleSegLib.inference.segmenter.segment` on the server's machine::

        with RemoteSegmenter("https://lab-gpu:8471", token) as segmenter:
            segmenter.segment("ct.nii.gz", "totalsegmentator-3mm").write("ct.seg.nrrd")

    Nothing is sent before something is asked of the server:

    >>> with RemoteSegmenter("https://lab-gpu:8471") as segmenter:
    ...     segmenter.address
    'https://lab-gpu:8471'
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        patience: float = PATIENCE,
        insecure: bool = False,
    ) -> None:
        self.connection = Connection(url, token, ca, insecure, patience)
        self._models: dict[str, RemoteModel] | None = None

    @property
    def address(self) -> str:
        """Address of the server."""
        return self.connection.address

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def __enter__(self) -> RemoteSegmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def health(self, cancel: CancelToken | None = None) -> Health:
        """Ask what the server is, and whether it takes the token.

        :raises ServerError: if it cannot be reached, is none of ClassScaleSeg or of another version, or does not take
            the token.
        """
        return self.connection.health(Monitor(cancel=cancel))

    def models(self, cancel: CancelToken | None = None) -> tuple[RemoteModel, ...]:
        """Return the models that the server offers.

        :raises ServerError: as :meth:`health`, or if a model is not described as it should be.
        """
        facts = self.connection.ask("GET", "/v1/models", Monitor(cancel=cancel), most=LARGEST_MODELS)
        self._models = models_of(facts, self.address)
        return tuple(self._models.values())

    def chosen(self, models: Sequence[str], cancel: CancelToken | None = None) -> list[RemoteModel]:
        """Return models by their ids or names.

        :raises ModelError: if the server has no such model, or one is given twice.
        :raises ServerError: as :meth:`models`.
        """
        if self._models is None or any(str(model) not in self._models for model in models):
            self.models(cancel)
        assert self._models is not None
        return chosen(self._models, models, self.address)

    def upload(
        self,
        image: ImageSource,
        progress: Callable[[Progress], None] | None = None,
        cancel: CancelToken | None = None,
        *,
        channels: int | None = None,
        flat: bool = False,
        nibabel: bool = False,
        accept: Callable[[Geometry], object] = lambda geometry: None,
    ) -> RemoteImage:
        """Send an image, for one or more segmentations.

        :param image: a path, a list of paths (one for each channel), a DICOM folder, or a SimpleITK image. A file
            ``.nrrd``, ``.nii.gz``, ``.nii`` or ``.mha`` is sent with its header as it is, but without its name.
        :param progress: called with reports of the stages "read" and "send".
        :param cancel: a token whose ``is_set()`` is checked ten times a second.
        :param channels: that it must have; ``None``: any number.
        :param flat: as of :func:`~ClassScaleSegLib.images.reading.read_image`, like ``nibabel``.
        :param accept: called with the grid of the image before it is sent; an exception that it raises ends the job.
        :raises ImageError: if it cannot be read, or has other channels.
        :raises Unencrypted: if others could read it on its way, and that is not allowed.
        :raises ServerError: if the server cannot be reached, or refuses it.
        :raises Cancelled: if the token is set.
        """
        self.connection.refuse_open_way("the image")
        monitor = Monitor(progress, cancel)
        compress = not is_this_machine(self.address)
        sent = RemoteImage(self.connection, prepare(image, compress, monitor, flat, nibabel))
        try:
            if channels is not None:
                sent.prepared.check(channels)
            accept(sent.geometry)
            for notice in sent.prepared.notices:
                monitor.tell(notice)
            sent.send(monitor)
        except BaseException:
            sent.close()
            raise
        return sent

    def segment(
        self,
        image: ImageSource | RemoteImage,
        model: str | Sequence[str],
        progress: Callable[[Progress], None] | None = None,
        cancel: CancelToken | None = None,
        **options: Any,
    ) -> Segmentation:
        """Segment an image with one model, or with several into one segmentation.

        :param image: as of :meth:`upload`; or what that has returned.
        :param model: id or name of a model of the server; or several, of which the later one gets a voxel that two
            claim.
        :param progress: called with reports of the stages "send", "queue", those of the server, and "fetch".
        :param cancel: a token whose ``is_set()`` is checked ten times a second. The job is removed from the server.
        :param options: fields of :class:`~ClassScaleSegLib.options.Options`, such as ``classes``, without those that
            the server decides: ``device``, ``threads``, ``memory_limit_gib`` and ``checkpoint``. ``locate_with`` is a
            model of the server.
        :returns: the segmentation on the grid of the image, with the confidence if wanted.
        :raises ImageError: if the image cannot be read or does not fit the model.
        :raises ModelError: if the server has no such model, or cannot use it.
        :raises LabelTableError: if the model has no class of a name or label value in ``classes``.
        :raises OutOfMemoryError: if memory runs out on the server.
        :raises Unencrypted: if others could read the image on its way, and that is not allowed.
        :raises ServerError: if the server cannot be reached, refuses the job, or stays away.
        :raises Cancelled: if the token is set.
        """
        refuse_unknown(options, FIELDS)
        refuse_decided(options)
        wanted = Options(**options)
        self.connection.refuse_open_way("the image")
        found = self.chosen([model] if isinstance(model, str) else list(model), cancel)
        if coarse := located_by(wanted, found[0].channels, lambda names: self.chosen(names, cancel)):
            wanted = replace(wanted, locate_with=coarse[0].id)
        summaries = [summary for each in found for summary in each.summaries]
        request = Request(
            tuple(each.id for each in found),
            wanted,
            wanted_table(found, wanted),
            found[0].channels,
            all(len(summary.patch) == 2 for summary in summaries),
            summaries[0].reads_with_nibabel,
        )
        return self.run(image, request, progress, cancel)

    def run(
        self,
        image: ImageSource | RemoteImage,
        request: Request,
        progress: Callable[[Progress], None] | None = None,
        cancel: CancelToken | None = None,
        accept: Callable[[Geometry], object] = lambda geometry: None,
    ) -> Segmentation:
        """Do what :meth:`segment` describes, with models that were found already.

        :param accept: as of :meth:`upload`.
        """
        if isinstance(image, RemoteImage):
            image.check(self.address, request.channels)
            accept(image.geometry)
            return self._segment(image, request, True, progress, cancel)
        with self.upload(
            image,
            progress,
            cancel,
            channels=request.channels,
            flat=request.flat,
            nibabel=request.nibabel,
            accept=accept,
        ) as sent:
            return self._segment(sent, request, False, progress, cancel)

    def _segment(
        self,
        image: RemoteImage,
        request: Request,
        keep: bool,
        progress: Callable[[Progress], None] | None,
        cancel: CancelToken | None,
    ) -> Segmentation:
        monitor = Monitor(progress, cancel)
        body = {
            "key": secrets.token_urlsafe(24),
            "models": list(request.models),
            "options": sent_options(request.options),
            "confidence": request.options.confidence,
            "statistics": False,
            "keep_images": keep,
        }
        with tempfile.TemporaryDirectory(prefix="classscaleseg-fetch-", ignore_cleanup_errors=True) as folder:
            for _ in range(RESTARTS):
                job = RemoteJob(self.connection, {**body, "images": image.names}, monitor, progress or (lambda _: None))
                try:
                    outcome = job.run()
                    return fetch_result(self.connection, job, outcome, image, request, Path(folder))
                except Forgotten:
                    monitor.tell(f"{self.address} was started again; the image is sent once more.")
                    image.send(monitor)
                finally:
                    if job.name and not keep:
                        image.leave()
                    job.remove()
        raise ServerError(
            f"{self.address} was started again {RESTARTS} times in the middle. Ask the person who runs the server."
        )
