"""Open the model or the models of a job, which segment all of its cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..catalog.catalog import resolve_model
from ..errors import ModelError
from ..images.dicom_seg import UsedModel
from ..images.geometry import Geometry
from ..images.segmentation import Segmentation
from ..inference.locating import open_locating, refuse_other_channels
from ..inference.segmenter import segment_with
from ..inference.several_models import common_channels, segment_parts
from ..models.advice import advise, advise_on_modality
from ..models.model import open_model
from ..models.summary import ModelSummary, summarize
from ..process.job import Job


class JobModels(NamedTuple):
    """What the models of a job have in common, and a function that segments an image with them.

    :ivar channels: number of input channels.
    :ivar flat: whether all are 2D.
    :ivar nibabel: whether the first model's images were read with nibabel, as of :func:`read_image`.
    :ivar run: takes an image, and ``progress`` and ``accept`` as :func:`segment_with` does.
    :ivar summaries: of the models that find structures.
    :ivar used: names and licences of all models, and the paths of their files; the last one locates, if one does.
    :ivar locating: summary of that one.
    """

    channels: int
    flat: bool
    nibabel: bool
    run: Callable[..., Segmentation]
    summaries: tuple[ModelSummary, ...]
    used: tuple[tuple[UsedModel, Path], ...]
    locating: ModelSummary | None = None

    def advice(self, geometry: Geometry, modality: str | None) -> tuple[str, ...]:
        """Return warnings about an image that the models were not made for.

        :param modality: of the image, as in DICOM; ``None`` if it is not known.
        """
        spacing = geometry.spacing[::-1]
        sentences = [sentence for summary in self.summaries for sentence in advise(summary, spacing, modality)]
        if self.locating is not None:
            sentences += advise_on_modality(self.locating, modality)
        return tuple(dict.fromkeys(sentences))


def open_models(job: Job) -> JobModels:
    """Open a single model, once for all cases; several are opened one after the other in each case.

    :raises ModelError: if a model does not exist or cannot be used, or the models need different channels.
    """
    sources = [path for text in job.models for path in resolve_model(str(text))]
    options = replace(job.options, confidence=job.confidence is not None)
    locating = None if options.locate_with is None else _locating(options.locate_with)
    options = replace(options, locate_with=None if locating is None else str(locating))
    if len(sources) == 1:
        model = open_model(sources[0], options.folds, options.checkpoint, options.configuration)
        coarse = None if locating is None else open_locating(locating)
        if coarse is not None:
            refuse_other_channels(coarse, model.channels)
        run = partial(segment_with, model=model, options=options, coarse=coarse)
    else:
        run = partial(segment_parts, sources=sources, options=options)
        if locating is not None:
            refuse_other_channels(summarize(locating), common_channels(sources, options.configuration))
    channels = common_channels(sources, options.configuration)
    summaries = tuple(summarize(source, options.configuration) for source in sources)
    flat = all(len(summary.patch) == 2 for summary in summaries)
    coarse_summary = None if locating is None else summarize(locating)
    all_models = summaries if coarse_summary is None else (*summaries, coarse_summary)
    used = tuple((UsedModel(summary.name, summary.licence), summary.path) for summary in all_models)
    return JobModels(channels, flat, summaries[0].reads_with_nibabel, run, summaries, used, coarse_summary)


def _locating(name: str) -> Path:
    """Return the path of the model that locates classes.

    :raises ModelError: if it is unknown, or consists of several.
    """
    paths = resolve_model(name)
    if len(paths) != 1:
        raise ModelError(f"{name} consists of {len(paths)} models; give a single one to locate classes.")
    return Path(paths[0])
