"""JSON files of a training that are nested so deep that Python gives up: each reader has a sentence for them."""

from __future__ import annotations

import pytest

pytest.importorskip("nnunetv2")
from classscale_training.evaluation.command import _refuse_foreign  # noqa: E402
from classscale_training.files import read_json  # noqa: E402
from classscale_training.loss.label_sets import LabelSets  # noqa: E402
from classscale_training.nnunet.earlier_plans import FINGERPRINT, fingerprint_is_old  # noqa: E402
from classscale_training.nnunet.export import _read_json  # noqa: E402
from classscale_training.nnunet.preprocessed_folder import check_preprocessed, note_of  # noqa: E402
from classscale_training.nnunet.splits import read_splits  # noqa: E402
from ClassScaleSegLib.errors import ClassScaleError  # noqa: E402

DEEP = '{"a":' + "[" * 200_000


def write(file, content=DEEP):
    file.write_text(content)
    return file


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: read_splits(write(folder / "splits_final.json")),
        lambda folder: _refuse_foreign(write(folder / "summary.json")),
        lambda folder: _read_json(write(folder / "plans.json")),
        lambda folder: read_json(write(folder / "conversion.json"), {}, "Delete it."),
        lambda folder: (write(note_of(folder)), check_preprocessed(folder, {})),
    ],
    ids=["splits", "summary", "plans", "conversion", "note"],
)
def test_it_is_a_sentence(tmp_path, read):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ClassScaleError, match="json"):
        read(tmp_path / "folder")


def test_a_fingerprint_is_made_again_and_label_sets_are_refused(tmp_path, capsys):
    write(tmp_path / FINGERPRINT)
    assert fingerprint_is_old(tmp_path, [])
    assert FINGERPRINT in capsys.readouterr().err
    with pytest.raises(ValueError, match="is not a table of label sets"):
        LabelSets.read(write(tmp_path / "sets.json"))


@pytest.mark.parametrize("content", ["[[1]]", '[{"train": 1, "val": []}]', "[null]", "3", '{"train": []}'])
def test_splits_that_are_no_lists_are_a_sentence(tmp_path, content):
    with pytest.raises(ClassScaleError, match="cannot be read as nnU-Net's splits"):
        read_splits(write(tmp_path / "splits_final.json", content))
