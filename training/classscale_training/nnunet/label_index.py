"""Which labels occur in the preprocessed cases of a merged dataset, and what the labels meant when they were made.

Both are in a file beside the folder of the cases. Preprocessing writes what the labels mean, training adds the cases.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_pickle
from ClassScaleSegLib.errors import LabelTableError, ModelError, OutputError
from tqdm import tqdm

from ..data.merged_labels import Merged
from ..files import write_json
from .preprocessed_folder import check_cases


def index_file(folder: Path) -> Path:
    """Return the file for a folder of preprocessed cases; inside, nnU-Net would take it for a case."""
    return folder.with_name(f"{folder.name}_labels.json")


def begin_index(folder: Path, merged: Merged) -> None:
    """Note what the labels mean in cases that have just been preprocessed.

    :raises OutputError: if the file cannot be written.
    """
    write_json(index_file(folder), {"meanings": merged.meanings(), "cases": {}})


def check_meanings(folder: Path, merged: Merged) -> None:
    """Check that the cases in a folder were preprocessed with labels of the same meanings.

    :raises ModelError: if they were not, or nothing says so.
    """
    _read_index(folder, merged)


def label_index(folder: Path, cases: Sequence[str], merged: Merged) -> dict[str, list[int]]:
    """Return the foreground labels that occur in each preprocessed case.

    :param folder: with the preprocessed cases of a configuration.
    :param cases: their names.
    :param merged: the datasets that they belong to.
    :raises ModelError: as :func:`check_meanings`, or if a case is missing.
    :raises LabelTableError: if a case holds labels that its dataset does not have.
    """
    index = _read_index(folder, merged)
    check_cases(folder, cases)
    known, state = index["cases"], {case: (folder / f"{case}.pkl").stat().st_mtime_ns for case in cases}
    changed = [case for case in cases if known.get(case, {}).get("modified") != state[case]]
    for case in tqdm(changed, desc="Finding the labels of each case", delay=2):
        locations = load_pickle(str(folder / f"{case}.pkl"))["class_locations"]
        labels = sorted(int(key) for key, found in locations.items() if not isinstance(key, tuple) and len(found))
        known[case] = {"modified": state[case], "labels": labels}
    if changed:
        with suppress(OutputError):  # of a folder that several people read, or of another process
            write_json(index_file(folder), index)
    for case in cases:
        source = merged.datasets[merged.dataset_of(case)]
        others = sorted(set(known[case]["labels"]) - set(source.labels))
        if others:
            raise LabelTableError(
                f"The label map of the case {case} holds {', '.join(map(str, others[:5]))}, which {source.name} does "
                "not have. Merge the datasets again, then plan and preprocess."
            )
    return {case: known[case]["labels"] for case in cases}


def _read_index(folder: Path, merged: Merged) -> dict[str, Any]:
    try:
        content = json.loads(index_file(folder).read_text(encoding="utf-8"))
        if content["meanings"] == merged.meanings() and isinstance(content["cases"], dict):
            return content
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ModelError(
        f"The cases in {folder} were not preprocessed for the datasets as they are merged now. Run "
        "`classscaleseg-train preprocess`."
    )
