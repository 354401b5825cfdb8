"""The model or the models of a job, which segment all of its cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from ..catalog.catalog import resolve_model
from ..catalog.chosen import chosen_models
from ..catalog.defaults import completed
from ..errors import ModelError, named
from ..files import sha256_of
from ..images.dicom.seg import UsedModel
from ..images.geometry import Geometry
from ..images.segmentation import Segmentation
from ..inference.devices import choose_device, device_name
from ..inference.locating import open_locating, refuse_other_channels
from ..inference.memory_estimate import ModelSize, model_grid
from ..inference.segmenter import segment_with
from ..inference.several_models import Source, common_channels, names_of, segment_parts
from ..labels.common_classes import common_classes
from ..labels.table import LabelTable
from ..models.advice import advise_on_run
from ..models.identity import model_sha256
from ..models.model import open_model
from ..models.summary import ModelSummary, summarize
from ..options import WHOLE_IMAGE, Options
from ..process.job import Job


@dataclass(frozen=True)
class JobModels:
    """The models of a job, which segment all of its cases. Networks and weights are read when :attr:`run` is needed.

    :ivar sources: the models that find structures.
    :ivar channels: number of input channels.
    :ivar summaries: of the models that find structures.
    :ivar locating: summaries of the models that locate them, if some do.
    :ivar options: of the job; ``locate_with`` is a path.
    """

    sources: tuple[Source, ...]
    channels: int
    summaries: tuple[ModelSummary, ...]
    locating: tuple[ModelSummary, ...]
    options: Options

    @property
    def flat(self) -> bool:
        """Whether all are 2D."""
        return all(len(summary.patch) == 2 for summary in self.summaries)

    @property
    def names(self) -> list[str]:
        """Names of the models that find structures."""
        return [summary.name for summary in self.summaries]

    @property
    def nibabel(self) -> bool:
        """Whether the first model's images were read with nibabel, as of :func:`read_image`."""
        return self.summaries[0].reads_with_nibabel

    @property
    def all(self) -> tuple[ModelSummary, ...]:
        """All models; the last ones locate, if some do."""
        return (*self.summaries, *self.locating)

    @cached_property
    def used(self) -> tuple[UsedModel, ...]:
        """Names and licences of all models, and the SHA-256 of those that are a file."""
        sums = [sha256_of(summary.path) if summary.path.is_file() else None for summary in self.all]
        return tuple(
            UsedModel(summary.name, summary.licence, digest) for summary, digest in zip(self.all, sums, strict=True)
        )

    @cached_property
    def device(self) -> str:
        """What computes, for the report.

        :raises ClassScaleError: if torch does not offer the device that was chosen.
        """
        name = choose_device(self.options.device)
        about = device_name(name)
        return f"{name} ({about})" if about else name

    @cached_property
    def table(self) -> LabelTable:
        """All classes of the job.

        :raises LabelTableError: if a class that was chosen does not exist.
        """
        tables = [summary.table for summary in self.summaries]
        models = [source.model for source in self.sources]
        table = common_classes(tables, models).table
        with named(names_of(self.sources)):
            return table if self.options.classes is None else table.select(self.options.classes)

    @cached_property
    def checksums(self) -> tuple[tuple[str, str], ...]:
        """Name and SHA-256 of all models.

        :raises ModelError: if a file cannot be read.
        """
        chosen = (self.options.folds, self.options.checkpoint)
        found = [
            (each.name, model_sha256(source.path, *chosen, source.configuration))
            for each, source in zip(self.summaries, self.sources, strict=True)
        ]
        return (*found, *((each.name, model_sha256(each.path)) for each in self.locating))

    @cached_property
    def run(self) -> Callable[..., Segmentation]:
        """Takes an image, and ``progress``, ``cancel`` and ``accept`` as :func:`segment_with` does.

        A single model is opened, once for all cases; several are opened one after the other in each case.

        :raises ModelError: if a model cannot be used.
        """
        if len(self.sources) > 1:
            return partial(segment_parts, sources=self.sources, options=self.options)
        options = self.options
        (source,) = self.sources
        model = open_model(source.path, options.folds, options.checkpoint, source.configuration)
        coarse = None if options.locate_with is None else open_locating(options.locate_with)
        return partial(segment_with, model=model, options=options, coarse=coarse)

    def open(self) -> None:
        """Open a single model now, so that a fault of it is told before any case begins.

        :raises ModelError: if it cannot be used.
        """
        _ = self.run

    def advice(self, geometry: Geometry, modality: str | None) -> tuple[str, ...]:
        """Return warnings about an image that the models were not made for.

        :param modality: of the image, as in DICOM; ``None`` if it is not known.
        """
        names = [source.model or each.name for source, each in zip(self.sources, self.summaries, strict=True)]
        models = list(zip(names, self.summaries, strict=True))
        return advise_on_run(models, self.locating, geometry.spacing[::-1], modality)

    def need(self, geometry: Geometry) -> str:
        """Return a sentence on what another machine will need for an image; empty if it is this one that segments."""
        return ""

    def grid_voxels(self, geometry: Geometry) -> float:
        """Return how many voxels an image has on the grid of the model that has most; infinity if too many to count."""
        sizes, shape, spacing = map(ModelSize.of, self.all), geometry.size[::-1], geometry.spacing[::-1]
        try:
            return max(math.prod(model_grid(size, shape, spacing)) for size in sizes)
        except OverflowError:
            return math.inf


def completed_job(job: Job) -> Job:
    """Return the job with what the catalogue says of its models: what they are called, where to look, which one of a
    zip.

    :raises ModelError: if a model is unknown, or is given twice, or a coarse one is not on this machine.
    """
    options = completed([str(model) for model in job.models], job.options)
    if len(job.models) > 1 and not job.model_names:
        names = tuple(model.name for model in chosen_models(job.models, options))
        return replace(job, options=options, model_names=names)
    return replace(job, options=options)


def find_models(job: Job) -> JobModels:
    """Find the models of a job, and read what they are, without their weights.

    :param job: completed by `completed_job` if its models are to be located as the catalogue says.
    :raises ModelError: if a model does not exist or cannot be used, or the models need different channels.
    """
    options = replace(job.options, confidence=job.confidence is not None)
    models = chosen_models(job.models, options, names=job.model_names)
    named = None if options.locate_with in (None, WHOLE_IMAGE) else _locating(options.locate_with or "")
    if options.locate_with is not None:
        options = replace(options, locate_with=None if named is None else str(named))
    sources = tuple(
        Source(path, model.name, configuration, model.looks)
        for model in models
        for path, configuration in zip(model.paths, model.configurations, strict=True)
    )
    summaries = tuple(summary for model in models for summary in model.summaries)
    channels = common_channels([source.path for source in sources], summaries)
    coarse = [named] if named is not None else [source.looks.locate_with for source in sources if source.looks]
    locating = tuple(summarize(Path(path)) for path in dict.fromkeys(coarse) if path is not None)
    for each in locating:
        refuse_other_channels(each, channels)
    return JobModels(sources, channels, summaries, locating, options)


def _locating(name: str) -> Path:
    """Return the path of the model that locates classes.

    :raises ModelError: if it is unknown, or consists of several.
    """
    paths = resolve_model(name)
    if len(paths) != 1:
        raise ModelError(f"{name} consists of {len(paths)} models; give a single one to locate classes.")
    return Path(paths[0])
