"""The models of a job that a server segments: the same to all commands as models of this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

from ..errors import ModelError
from ..images.dicom.seg import UsedModel
from ..images.geometry import Geometry
from ..images.segmentation import Segmentation
from ..inference.memory_estimate import describe_need, estimate, largest
from ..inference.several_models import Source
from ..labels.table import LabelTable
from ..process.job import Job
from ..remote.fit import describe_fit
from ..remote.health import Health
from ..remote.offers import RemoteModel, located_by
from ..remote.request import Request, wanted_table
from ..remote.segmenter import RemoteSegmenter
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
