"""Which cases of a folder are finished: records of how their results were made."""

import json
import os
import re

import pytest
from ClassScaleSegLib.cohort.records import FOLDER, Recipe, Records, State
from ClassScaleSegLib.options import Options

MODEL = ("liver", "a" * 64)


def recipe(model=MODEL, kinds=(".seg.nrrd",), **options):
    return Recipe.of([model], Options(**options), kinds)


class Folder:
    """A folder with an image and a place for its results."""

    def __init__(self, place):
        self.place, self.image = place, place / "ct.nii.gz"
        self.image.write_bytes(b"image")
        self.results = {".seg.nrrd": place / "out" / "ct.seg.nrrd", "statistics": place / "out" / "ct.csv"}

    def records(self, made=None):
        return Records(self.place / "out", made or recipe())

    def files(self, made):
        return {kind: self.results[kind] for kind in made.results}

    def make(self, made=None, until="commit", content=b"result"):
        """Make results as a run does, or as one that is killed on the way."""
        made = made or recipe()
        records, files = self.records(made), self.files(made)
        record = records.begin("ct", [self.image])
        if until == "begin":
            return
        records.announce(record)
        if until == "announce":
            return
        for file in files.values():
            file.write_bytes(content)
        if until == "commit":
            records.commit(record, files, 7)

    def find(self, made=None):
        made = made or recipe()
        return self.records(made).find("ct", [self.image], self.files(made))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return Folder(tmp_path)


def test_what_was_made_in_this_way_is_done(folder):
    assert folder.find() == folder.find(recipe(device="cpu")) and folder.find().state is State.NEW
    folder.make()
    assert folder.find().state is State.DONE and not folder.find().replace
    same = recipe(device="cuda:1", threads=4, memory_limit_gib=2)  # they change no result
    assert folder.find(same).state is State.DONE


@pytest.mark.parametrize("until", ["begin", "announce", "results"])
def test_after_a_kill_at_any_moment_results_are_made_again(folder, until):
    folder.make(until=until)
    found = folder.find()
    assert found.state is (State.AGAIN if until == "results" else State.NEW)
    assert found.replace == (until != "begin")
    folder.make(recipe(step=0.75))
    folder.make(until="announce")  # killed while results of another step are replaced
    assert folder.find().state is State.AGAIN and folder.find(recipe(step=0.75)).state is State.AGAIN


@pytest.mark.parametrize(
    "made, reason",
    [
        (recipe(("spleen", "b" * 64)), r"with another model \(liver\)"),
        (recipe(("liver", "b" * 64)), "with other weights of the model"),
        (recipe(step=0.75), r"with other options \(--step\)"),
        (recipe(smooth=1, classes=["liver"]), r"with other options \(--classes, --smooth\)"),
        (recipe(kinds=(".seg.nrrd", "statistics")), "without statistics"),
    ],
)
def test_results_made_otherwise_are_made_again_and_it_says_why(folder, made, reason):
    folder.make()
    found = folder.find(made)
    assert found.state is State.AGAIN and found.replace
    assert re.fullmatch(f"made {reason}", found.reason)
    folder.make(made)
    assert folder.find(made).state is State.DONE


def test_more_kinds_of_results_than_are_wanted_are_no_reason(folder):
    folder.make(recipe(kinds=(".seg.nrrd", "statistics")))
    assert folder.find().state is State.DONE


def test_another_image_is_a_reason_and_the_same_one_elsewhere_is_none(folder):
    folder.make()
    elsewhere = folder.place / "mounted"
    elsewhere.mkdir()
    moved = elsewhere / folder.image.name
    folder.image.rename(moved)
    assert folder.records().find("ct", [moved], folder.files(recipe())).state is State.DONE
    moved.write_bytes(b"another image")
    found = folder.records().find("ct", [moved], folder.files(recipe()))
    assert found.state is State.AGAIN and "image" in found.reason


def test_a_series_has_changed_when_a_slice_came(folder, tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.dcm").touch()
    folder.image = series
    folder.make()
    assert folder.find().state is State.DONE
    (series / "2.dcm").touch()
    assert folder.find().state is State.AGAIN


def test_what_was_edited_or_is_not_known_is_never_replaced(folder):
    folder.results[".seg.nrrd"].write_bytes(b"by hand")
    found = folder.find()
    assert found.state is State.DONE and "exists already" in found.reason
    found = folder.find(recipe(kinds=(".seg.nrrd", "statistics")))
    assert found.state is State.KEPT and "but not its statistics; --overwrite makes all anew" in found.reason
    folder.results[".seg.nrrd"].unlink()
    folder.make()
    folder.results[".seg.nrrd"].write_bytes(b"edited")
    assert folder.find().state is State.DONE
    found = folder.find(recipe(step=0.75))
    assert found.state is State.KEPT and "ct.seg.nrrd was changed since, and is kept" in found.reason


def test_a_copied_folder_has_other_times_and_the_same_results(folder):
    folder.make()
    os.utime(folder.results[".seg.nrrd"], (1, 1))
    assert folder.find(recipe(step=0.75)).state is State.AGAIN


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"case": "ct"}', b"\xff", b"[" * 100_000, b'{"case": "other"}', b"{}" + b" " * (5 << 20)],
)
def test_a_damaged_record_is_as_none(folder, content):
    folder.make()
    (folder.place / "out" / FOLDER / "cases" / "ct.json").write_bytes(content)
    assert folder.find(recipe(step=0.75)).state is State.DONE


@pytest.mark.parametrize("change", [{"models": [["liver"]]}, {"models": "x"}, {"files": []}, {"options": [1]}])
def test_a_record_with_wrong_entries_is_as_none(folder, change):
    folder.make()
    file = folder.place / "out" / FOLDER / "cases" / "ct.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert folder.find(recipe(step=0.75)).state is State.DONE


def test_unfinished_files_are_removed_and_others_stay(folder):
    out = folder.place / "out"
    left, others = [".0123456789ab.seg.nrrd", ".0123456789ab.csv"], [".0123456789ab", ".hidden.csv", "0123456789ab.csv"]
    for name in [*left, *others]:
        (out / name).touch()
    folder.records().tidy([folder.results[".seg.nrrd"]])
    assert not any((out / name).exists() for name in left) and all((out / name).exists() for name in others)
