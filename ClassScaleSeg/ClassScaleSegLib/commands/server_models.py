"""The models of a job that a server segments: the same to all commands as models of this machine."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from ..addresses import refuse_unencrypted
from ..errors import ClassScaleError, ModelError, ServerError
from ..images.dicom.seg import UsedModel
from ..images.geometry import Geometry
from ..images.segmentation import Segmentation
from ..inference.memory_estimate import describe_need, estimate, largest
from ..inference.several_models import Source
from ..labels.table import LabelTable
from ..options import FIELDS, flag
from ..process.job import Job
from ..remote.address import check_address
from ..remote.credentials import TOKEN
from ..remote.decided import BY_SERVER, refuse_decided
from ..remote.faults import Unencrypted
from ..remote.fit import describe_fit
from ..remote.health import Health
from ..remote.offers import RemoteModel, located_by
from ..remote.request import Request, wanted_table
from ..remote.segmenter import RemoteSegmenter
from ..remote.servers import Servers
from .job_models import JobModels


@dataclass(frozen=True)
class ServerModels(JobModels):
    """Models of a server, which segments all cases of a job.

    :ivar segmenter: the server.
    :ivar models: that find structures.
    :ivar coarse: that locate them, if some do.
    """

    segmenter: RemoteSegmenter
    models: tuple[RemoteModel, ...]
    coarse: tuple[RemoteModel, ...]

    @cached_property
    def used(self) -> tuple[UsedModel, ...]:
        """Names and licences of all models, and their SHA-256 as the server states them."""
        licences = [model.licence for model in self._parts]
        return tuple(
            UsedModel(name, summary.licence or licence, digest)
            for (name, digest), summary, licence in zip(self.checksums, self.all, licences, strict=True)
        )

    @cached_property
    def checksums(self) -> tuple[tuple[str, str], ...]:
        """Name and SHA-256 of all models, as the server states them."""
        digests = [digest for model in (*self.models, *self.coarse) for digest in model.sha256]
        return tuple((summary.name, digest) for summary, digest in zip(self.all, digests, strict=True))

    @property
    def _parts(self) -> list[RemoteModel]:
        """The model of each summary."""
        return [model for model in (*self.models, *self.coarse) for _summary in model.summaries]

    @cached_property
    def table(self) -> LabelTable:
        """All classes of the job.

        :raises LabelTableError: if a class that was chosen does not exist.
        """
        return wanted_table(self.models, self.options)

    @cached_property
    def device(self) -> str:
        """What computes, for the report."""
        devices = ", ".join(self._health.devices)
        return f"{self.segmenter.address} ({devices})" if devices else self.segmenter.address

    @cached_property
    def _health(self) -> Health:
        return self.segmenter.health()

    def need(self, geometry: Geometry) -> str:
        """Return what the server will need for an image, and whether it has that, as far as it tells."""
        shape, spacing, options = geometry.size[::-1], geometry.spacing[::-1], self.options
        choices = (shape, spacing, options.step, options.confidence, 2, options.mirroring)
        memory = largest([estimate(summary, *choices) for summary in self.summaries])
        need = f"{self.segmenter.address} will need {describe_need(memory, self._health.device)}."
        return f"{need} {describe_fit(memory, self._health)}".rstrip()

    @cached_property
    def run(self) -> Callable[..., Segmentation]:
        """As of `JobModels`; the server segments."""
        ids = tuple(model.id for model in self.models)
        request = Request(ids, self.options, self.table, self.channels, self.flat, self.nibabel)
        return partial(self.segmenter.run, request=request)


def find_server_models(job: Job, segmenter: RemoteSegmenter) -> ServerModels:
    """Find the models of a job on its server.

    :raises ModelError: if the server has no such model, or the models need different channels.
    :raises ServerError: if it cannot be reached.
    """
    models = tuple(segmenter.chosen(list(map(str, job.models))))
    if len({model.channels for model in models}) > 1:
        needs = ", ".join(f"{model.id} {model.channels}" for model in models)
        raise ModelError(f"Models of one segmentation must have the same channels: {needs}. Leave some out.")
    coarse = tuple(located_by(job.options, models[0].channels, segmenter.chosen))
    options = replace(job.options, confidence=job.confidence is not None)
    if coarse:
        options = replace(options, locate_with=coarse[0].id)
    sources = tuple(Source(summary.path, model.name) for model in models for summary in model.summaries)
    return ServerModels(
        sources,
        models[0].channels,
        tuple(summary for model in models for summary in model.summaries),
        tuple(summary for model in coarse for summary in model.summaries),
        options,
        segmenter,
        models,
        coarse,
    )


def add_server_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that say which server segments."""
    parser.add_argument(
        "--server",
        metavar="URL",
        help="segment on this server, such as https://lab-gpu:8471, or a name of `classscaleseg servers list`; MODEL "
        f"is one that it offers. Its token is in the environment variable {TOKEN}, unless that list has it",
    )
    parser.add_argument(
        "--server-token-file", type=Path, metavar="FILE", help="file with the token of the server, if it asks for one"
    )
    parser.add_argument(
        "--server-ca",
        type=Path,
        metavar="FILE",
        help="file with the certificate of the server, or of who has signed it, if this system does not trust it",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="send images and the token to another machine even if the address is not one of https",
    )


def refuse_beside_server(options: argparse.Namespace, job: Job) -> None:
    """Refuse options that have no meaning with a server, and those of a server without one.

    :raises ClassScaleError: naming them.
    """
    if job.server is None:
        own = ("server_token_file", "server_ca", "insecure")
        if beside := [name for name in own if getattr(options, name) is not None]:
            raise ClassScaleError(f"{_flags(beside)} needs a server. Name it (--server).")
    else:
        beside = [name for name in (*BY_SERVER, "cluster") if getattr(options, name) is not None]
        if beside:
            raise ClassScaleError(f"{_flags(beside)} cannot be given beside --server: the server decides that.")


def connect(job: Job, token_file: Path | None) -> RemoteSegmenter:
    """Return the server of a job, which may be a name of the user's list, with the token of the user.

    :param token_file: a file with it, instead of the environment. With neither, that of the list is taken.
    :raises Unencrypted: if others could read what is sent, and the user has not allowed that.
    :raises ServerError: if address or token are not valid.
    """
    assert job.server is not None
    servers = Servers()
    known = servers.find(job.server)
    refuse_decided(job.options.changed)
    token = os.environ.get(TOKEN) or None
    if token_file is not None:
        token = read_token(token_file)
    address, ca, insecure = job.server, job.server_ca, job.insecure
    if known is not None:
        address, token = known.address, token or servers.token(known)
        ca, insecure = ca or known.ca, insecure or known.insecure
    what = "the images" if token is None else "the images and the token"
    refuse_unencrypted(check_address(address), what, insecure, Unencrypted)
    return RemoteSegmenter(address, token, ca, insecure=insecure)


def read_token(file: Path) -> str:
    """Return the token in a file.

    :raises ServerError: if it cannot be read.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:  # with the mark that programs of Windows put first
            return stream.read(10_000)
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or "it is not text"
        raise ServerError(f"{file} cannot be read ({said}). It should hold the token of the server.") from error


def _flags(names: list[str]) -> str:
    return ", ".join(flag(name) if name in FIELDS else f"--{name.replace('_', '-')}" for name in names)
