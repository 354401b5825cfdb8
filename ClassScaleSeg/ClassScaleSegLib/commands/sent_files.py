"""Images and models that are sent to the workers of a cluster that do not see the folders of the command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..cohort.bids import refuse_missing_content
from ..errors import ImageError, ModelError
from ..images.suffixes import DETACHED_HEADERS
from .cases import Case
from .cohort_job import CohortJob


class SentFiles:
    """The files of cases and models, to be sent to the workers."""

    def __init__(self, client: Any, cohort: CohortJob) -> None:
        self._client = client
        coarse = cohort.job.options.locate_with
        names = [*map(str, cohort.job.models), *([] if coarse is None else [coarse])]
        self._models = [name for name in names if os.path.exists(name)]  # others are of the catalogue, which all have
        for name in self._models:
            if os.path.isdir(name):
                raise ModelError(
                    f"{name} is a folder, and --transfer sends files. Pack the model first: classscaleseg pack {name} "
                    "-o MODEL.zip"
                )
        self._sent: Any = None

    def of(self, case: Case) -> tuple[Any, Any]:
        """Return images of a case and the models, as the worker gets them.

        :raises ImageError: if an image cannot be read.
        :raises ModelError: if a model cannot be read.
        """
        return self._scatter(_contents(case)), self._model_files()

    def _model_files(self) -> Any:
        """Send the models once; again if the worker that had them has died."""
        if self._sent is None or self._sent.status != "finished":
            try:
                self._sent = self._scatter({name: Path(name).read_bytes() for name in self._models})
            except OSError as error:
                raise ModelError(f"{error.filename} cannot be read ({error.strerror}).") from error
        return self._sent

    def _scatter(self, files: dict[str, bytes]) -> Any:
        return self._client.scatter([files], hash=False)[0]


def _contents(case: Case) -> dict[str, bytes]:
    """Return the content of each file of a case, by its path below the folder of the first one."""
    if case.source is not None:
        refuse_missing_content(case.files[0])
    root, contents = case.files[0].parent, {}
    for file in case.files:
        if file.name.lower().endswith(DETACHED_HEADERS):
            raise ImageError(
                f"{file} has its voxels in another file, which --transfer does not send. Convert it to one file, such "
                "as .nii.gz or .nrrd."
            )
    try:
        for file in case.files:
            for one in sorted(file.rglob("*")) if file.is_dir() else [file]:
                if one.is_file():
                    contents[one.relative_to(root).as_posix()] = one.read_bytes()
    except OSError as error:
        raise ImageError(f"{error.filename} cannot be read ({error.strerror}).") from error
    return contents
