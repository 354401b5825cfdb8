"""What a model finds in cases, in a folder; of the same model, image and options, what is there already is used.

How each result was made is noted beside it, as ``classscaleseg segment`` does in a folder of results. So a comparison
that was cancelled or killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ClassScaleSegLib.catalog.chosen import chosen_models
from ClassScaleSegLib.cohort.records import Finding, Recipe, Records, State, models_of_unchanged
from ClassScaleSegLib.commands.cases import Case as CaseToSegment
from ClassScaleSegLib.commands.cohort_job import CohortJob
from ClassScaleSegLib.commands.job_models import JobModels, completed_job, find_models
from ClassScaleSegLib.commands.reporting import Reporter
from ClassScaleSegLib.errors import ClassScaleError, ModelError, OutputExistsError
from ClassScaleSegLib.files import refuse_unwritable_folder
from ClassScaleSegLib.models.model import open_model
from ClassScaleSegLib.options import Options
from ClassScaleSegLib.process.job import Job

from ..data.collect.cases import Case

SUFFIX = ".seg.nrrd"


@dataclass(frozen=True)
class Candidate:
    """A model that is compared.

    :ivar model: as the user names it.
    :ivar name: of the model, different from those of the others.
    :ivar device: as of :class:`~ClassScaleSegLib.Options`.
    """

    model: str
    name: str
    device: str = "auto"

    @property
    def job(self) -> Job:
        """What is asked of the model, but for images and folder.

        :raises ModelError: if it does not exist.
        """
        return completed_job(Job((), self.model, "", options=Options(device=self.device, keep_empty=True)))

    def found(self) -> JobModels:
        """Return the model, or the models of which it consists, without weights.

        :raises ModelError: if it does not exist, or cannot be used.
        """
        return find_models(self.job)


def candidates(models: Sequence[str], names: Sequence[str] | None, device: str) -> list[Candidate]:
    """Return the models to compare, by their own names if none are given.

    :raises ClassScaleError: if there are more or fewer names than models, or two are the same.
    :raises ModelError: if a model is unknown, or cannot be used.
    """
    if names is None:
        own = [chosen_models([model])[0].name for model in models]
        names = [name if own.count(name) == 1 else f"{name} ({model})" for name, model in zip(own, models, strict=True)]
    if len(names) != len(models) or len(set(names)) < len(names):
        raise ClassScaleError(
            f"{len(models)} models have the names {', '.join(names)}. Name each model once, and give each a name of "
            "its own (--names)."
        )
    return [Candidate(model, name, device) for model, name in zip(models, names, strict=True)]


class ModelResults:
    """What one model finds.

    :ivar candidate: the model.
    :param folder: of the results, ``CASE.seg.nrrd``.
    :param overwrite: replace what is there and was not made by a model, or was changed since.
    """

    def __init__(self, candidate: Candidate, folder: Path, overwrite: bool = False) -> None:
        self.candidate, self._folder, self._overwrite = candidate, folder, overwrite
        self._cohort = CohortJob(replace(candidate.job, output=folder), (SUFFIX,), overwrite)

    @cached_property
    def _checksums(self) -> tuple[tuple[str, str], ...]:
        return self.candidate.found().checksums

    @cached_property
    def _records(self) -> Records:
        return Records(self._folder, Recipe.of(self._checksums, self._cohort.job.options, self._cohort.formats))

    def tidy(self) -> None:
        """Remove unfinished files that killed processes have left."""
        self._records.tidy([self._folder / SUFFIX])

    def file(self, case: Case) -> Path:
        """Return the file of a case."""
        return self._folder / f"{case.name}{SUFFIX}"

    def has(self, case: Case) -> bool:
        """Return whether the model, as it is now, has found this in the image as it is now, and nobody has changed it.

        :raises OutputExistsError: if something else is there, which must not be replaced.
        :raises OutputError: if nothing can be written there.
        :raises ModelError: if a file of the model cannot be read.
        """
        output, finding = self.file(case), self._finding(case)
        if finding.state is State.DONE and models_of_unchanged(case.name, output) is not None:
            return True
        if output.exists() and not (finding.replace or self._overwrite):
            raise OutputExistsError(
                f"{output} is not as {self.candidate.name} has made it. Allow overwriting (--overwrite), or choose "
                "another folder."
            )
        refuse_unwritable_folder(output)
        return False

    def check_weights(self) -> None:
        """Read the model with its weights, and free it.

        :raises ModelError: if it cannot be used.
        """
        options = self._cohort.job.options
        for source in self.candidate.found().sources:
            open_model(source.path, options.folds, options.checkpoint, source.configuration)

    @contextmanager
    def segmenting(self) -> Iterator[Callable[[Case], None]]:
        """Open the model for the block, and yield what segments a case and writes what was found.

        It raises ClassScaleError if the case cannot be segmented, OutputError if the result cannot be written.

        :raises ModelError: if the model cannot be used, or has changed since :meth:`has` was asked.
        """
        before, found = self._checksums, self.candidate.found()
        if found.checksums != before:
            raise ModelError(
                f"{self.candidate.name} has been replaced by another model since the comparison began. Run the same "
                "command again: it segments the cases with the new one."
            )
        found.open()
        runner = self._cohort.runner(found, None, self._records)

        def segment(case: Case) -> None:
            replace_it = self._overwrite or self._finding(case).replace
            runner.run(CaseToSegment(case.name, case.images, self.file(case)), Reporter(), replace_it)

        yield segment

    def _finding(self, case: Case) -> Finding:
        return self._records.find(case.name, case.images, {SUFFIX: self.file(case)})
