"""The model or the models of a job, which segment all of its cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from ..catalog.catalog import resolve_model
from ..catalog.defaults import completed
from ..errors import ModelError
from ..images.dicom_seg import UsedModel
from ..images.geometry import Geometry
from ..images.segmentation import Segmentation
from ..inference.locating import open_locating, refuse_other_channels
from ..inference.segmenter import segment_with
from ..inference.several_models import common_channels, common_table, segment_parts
from ..labels.table import LabelTable
from ..models.advice import advise, advise_on_modality
from ..models.identity import model_sha256
from ..models.model import open_model
from ..models.summary import ModelSummary, summarize
from ..options import Options
from ..process.job import Job


@dataclass(frozen=True)
class JobModels:
    """The models of a job, which segment all of its cases. Networks and weights are read when :attr:`run` is needed.

    :ivar sources: where the models that find structures are; of each, one path.
    :ivar channels: number of input channels.
    :ivar summaries: of the models that find structures.
    :ivar locating: summary of the model that locates them, if one does.
    :ivar options: of the job; ``locate_with`` is a path.
    """

    sources: tuple[Path, ...]
    channels: int
    summaries: tuple[ModelSummary, ...]
    locating: ModelSummary | None
    options: Options

    @property
    def flat(self) -> bool:
        """Whether all are 2D."""
        return all(len(summary.patch) == 2 for summary in self.summaries)

    @property
    def nibabel(self) -> bool:
        """Whether the first model's images were read with nibabel, as of :func:`read_image`."""
        return self.summaries[0].reads_with_nibabel

    @property
    def all(self) -> tuple[ModelSummary, ...]:
        """All models; the last one locates, if one does."""
        return self.summaries if self.locating is None else (*self.summaries, self.locating)

    @property
    def used(self) -> tuple[tuple[UsedModel, Path], ...]:
        """Names and licences of all models, and the paths of their files."""
        return tuple((UsedModel(summary.name, summary.licence), summary.path) for summary in self.all)

    @cached_property
    def table(self) -> LabelTable:
        """All classes of the job.

        :raises LabelTableError: if a class that was chosen does not exist.
        """
        tables = [summary.table for summary in self.summaries]
        table = tables[0] if len(tables) == 1 else common_table(tables)
        return table if self.options.classes is None else table.select(self.options.classes)

    @cached_property
    def checksums(self) -> tuple[tuple[str, str], ...]:
        """Name and SHA-256 of all models.

        :raises ModelError: if a file cannot be read.
        """
        chosen = (self.options.folds, self.options.checkpoint, self.options.configuration)
        found = [
            (each.name, model_sha256(source, *chosen))
            for each, source in zip(self.summaries, self.sources, strict=True)
        ]
        if self.locating is not None:
            found.append((self.locating.name, model_sha256(self.locating.path)))
        return tuple(found)

    @cached_property
    def run(self) -> Callable[..., Segmentation]:
        """Takes an image, and ``progress``, ``cancel`` and ``accept`` as :func:`segment_with` does.

        A single model is opened, once for all cases; several are opened one after the other in each case.

        :raises ModelError: if a model cannot be used.
        """
        if len(self.sources) > 1:
            return partial(segment_parts, sources=self.sources, options=self.options)
        options = self.options
        model = open_model(self.sources[0], options.folds, options.checkpoint, options.configuration)
        coarse = None if self.locating is None else open_locating(self.locating.path)
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
        spacing = geometry.spacing[::-1]
        sentences = [sentence for summary in self.summaries for sentence in advise(summary, spacing, modality)]
        if self.locating is not None:
            sentences += advise_on_modality(self.locating, modality)
        return tuple(dict.fromkeys(sentences))


def completed_job(job: Job) -> Job:
    """Return the job with what the catalogue says of its models: where to look, and which one of a zip.

    :raises ModelError: if a model is unknown, or a coarse one is not on this machine.
    """
    return replace(job, options=completed([str(model) for model in job.models], job.options))


def find_models(job: Job) -> JobModels:
    """Find the models of a job, and read what they are, without their weights.

    :param job: completed by `completed_job` if its models are to be located as the catalogue says.
    :raises ModelError: if a model does not exist or cannot be used, or the models need different channels.
    """
    sources = tuple(path for text in job.models for path in resolve_model(str(text)))
    options = replace(job.options, confidence=job.confidence is not None)
    locating = None if options.locate_with is None else summarize(_locating(options.locate_with))
    options = replace(options, locate_with=None if locating is None else str(locating.path))
    summaries = tuple(summarize(source, options.configuration) for source in sources)
    channels = common_channels(sources, options.configuration)
    if locating is not None:
        refuse_other_channels(locating, channels)
    return JobModels(sources, channels, summaries, locating, options)


def _locating(name: str) -> Path:
    """Return the path of the model that locates classes.

    :raises ModelError: if it is unknown, or consists of several.
    """
    paths = resolve_model(name)
    if len(paths) != 1:
        raise ModelError(f"{name} consists of {len(paths)} models; give a single one to locate classes.")
    return Path(paths[0])
