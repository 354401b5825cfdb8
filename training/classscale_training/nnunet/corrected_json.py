"""Hand nnU-Net a ``dataset.json`` that it can read, where the user's file is right but written in another way."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ClassScaleSegLib.models.files import parse_json

from ..data.raw_cases import RawCase
from ..files import write_json


@contextmanager
def readable_by_nnunet(folder: Path, dataset: dict, cases: Sequence[RawCase]) -> Iterator[None]:
    """Let nnU-Net see ``dataset`` as the content of ``dataset.json`` as long as the context lasts.

    nnU-Net reads the file in the raw folder itself, in several places and with Python's default encoding. If it would
    not read the same, ``nnUNet_raw`` names a temporary folder meanwhile, whose ``dataset.json`` lists the user's files.
    The raw folder is not changed. The file that planning leaves in ``nnUNet_preprocessed`` is ``dataset``.

    :param folder: ``nnUNet_raw/DatasetXXX_Name``.
    :param dataset: content of its ``dataset.json`` as it is to be understood.
    :param cases: the training cases.
    """
    file = folder / "dataset.json"
    if _as_nnunet_reads(file) == _text(dataset):
        yield
        return
    print(
        f"Warning: nnU-Net cannot use {file} as it is: {_difference(file, dataset)}. It gets a corrected copy; your "
        "file is unchanged.",
        file=sys.stderr,
    )
    listed = {
        case.name: {"images": [os.path.abspath(i) for i in case.images], "label": os.path.abspath(case.label or "")}
        for case in cases
    }
    kept = Path(os.environ["nnUNet_preprocessed"]) / folder.name / "dataset.json"
    raw = os.environ["nnUNet_raw"]
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / folder.name
        write_json(copy / "dataset.json", {**dataset, "dataset": listed})
        if (folder / "splits_final.json").is_file():
            shutil.copy(folder / "splits_final.json", copy)
        try:
            os.environ["nnUNet_raw"] = temporary
            if kept.is_file():  # preprocessing reads this one
                shutil.copy(copy / "dataset.json", kept)
            yield
        finally:
            os.environ["nnUNet_raw"] = raw
            if kept.is_file():
                write_json(kept, dataset)


def _as_nnunet_reads(file: Path) -> str | None:
    try:
        with file.open() as stream:  # as batchgenerators' load_json: in the encoding of the system
            return _text(json.load(stream))
    except (ValueError, RecursionError):
        return None


def _difference(file: Path, dataset: dict) -> str:
    """Say what nnU-Net could not read."""
    content = file.read_bytes()
    given = parse_json(content)
    odd = ["it begins with a byte-order mark"] if content.startswith(codecs.BOM_UTF8) else []
    odd += [f"it has no {key}" for key in dataset if key not in given]
    changed = [key for key in dataset if key in given and _text({"": given[key]}) != _text({"": dataset[key]})]
    odd += [f"{key} should be {json.dumps(dataset[key], ensure_ascii=False)[:200]}" for key in changed]
    return "; ".join(odd) or "it is in UTF-8, unlike other files of this system"


def _text(content: dict) -> str:
    return json.dumps(content, sort_keys=True)  # unlike ==, it tells 1 from 1.0
