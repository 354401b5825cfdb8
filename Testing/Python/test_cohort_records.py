"""Records of results: what must not be taken for done, and what must not be replaced."""

import os

import pytest
from ClassScaleSegLib import OutputExistsError
from ClassScaleSegLib.cohort.records import Recipe, Records, State
from ClassScaleSegLib.options import Options

ONE, TWO = ("one", "1" * 64), ("two", "2" * 64)


@pytest.fixture
def image(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "ct.nii.gz").write_bytes(b"image")
    return tmp_path / "ct.nii.gz"


def recipe(*models, kinds=(".seg.nrrd",), **options):
    return Recipe.of(models or [ONE], Options(**options), kinds)


def make(image, recipe, files, content=b"result"):
    records = Records(image.parent / "out", recipe)
    record = records.begin("ct", [image])
    records.announce(record)
    for file in files.values():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    records.commit(record, files, 7)
    return records


def files(image, *kinds):
    places = {".seg.nrrd": "out/ct.seg.nrrd", ".nii.gz": "out/ct.nii.gz", "statistics": "out/ct.csv"}
    places |= {".nrrd": "out/ct.nrrd", "confidence": "confidence/ct.nrrd"}
    return {kind: image.parent / places[kind] for kind in kinds}


def test_a_model_that_locates_is_no_second_model_that_segments(image):
    own = files(image, ".seg.nrrd")
    records = make(image, recipe(ONE, TWO), own)
    assert records.find("ct", [image], own).state is State.DONE
    found = Records(records.folder, recipe(ONE, TWO, locate_with="two")).find("ct", [image], own)
    assert found.state is State.AGAIN and "--locate-with" in found.reason
    located = recipe(ONE, TWO, locate_with="two.zip")
    assert make(image, located, own).find("ct", [image], own).state is State.DONE


def test_an_edited_file_is_kept_although_the_first_one_is_gone(image):
    own = files(image, ".seg.nrrd", ".nii.gz")
    records = make(image, recipe(kinds=tuple(own)), own)
    own[".seg.nrrd"].unlink()
    assert records.find("ct", [image], own).replace
    own[".nii.gz"].write_bytes(b"by hand")
    found = records.find("ct", [image], own)
    assert found.state is State.KEPT and "ct.nii.gz was changed since it was made" in found.reason


def test_an_edited_colour_table_is_kept(image):
    own, table = files(image, ".nii.gz"), {"colours of .nii.gz": image.parent / "out" / "ct.labels.csv"}
    records = make(image, recipe(kinds=(".nii.gz",)), own | table)
    other = Records(records.folder, recipe(kinds=(".nii.gz",), step=0.75))
    assert other.find("ct", [image], own, table).state is State.AGAIN
    other.refuse_edited("ct", own | table)
    table["colours of .nii.gz"].write_bytes(b"by hand")
    found = other.find("ct", [image], own, table)
    assert found.state is State.KEPT and "ct.labels.csv" in found.reason
    with pytest.raises(OutputExistsError, match="ct.labels.csv was changed since it was made"):
        other.refuse_edited("ct", own | table)
    assert records.find("ct", [image], own, table).state is State.DONE


def test_files_of_one_name_and_kinds_that_were_not_wanted_for_a_time_stay_known(image):
    both = files(image, ".nrrd", "confidence")
    make(image, recipe(kinds=tuple(both)), both)
    both["confidence"].write_bytes(b"result, another")
    make(image, recipe(kinds=(".nrrd",), step=0.75), files(image, ".nrrd"))
    records = Records(image.parent / "out", recipe(kinds=tuple(both), step=0.75))
    assert records.find("ct", [image], both).state is State.KEPT
    both["confidence"].write_bytes(b"result")
    assert records.find("ct", [image], both).state is State.AGAIN


def test_an_image_whose_content_was_dropped_is_no_other_image(image):
    own, content = files(image, ".seg.nrrd"), image.parent / ".git/annex/objects/MD5E-s5--a.nii.gz"
    content.parent.mkdir(parents=True)
    image.rename(content)
    image.symlink_to(content)
    records = make(image, recipe(), own)
    content.unlink()
    assert records.find("ct", [image], own).state is State.DONE
    content.write_bytes(b"image, fetched again")
    assert records.find("ct", [image], own).state is State.DONE
    image.unlink()
    image.symlink_to(content.with_name("MD5E-s5--b.nii.gz"))
    assert records.find("ct", [image], own).state is State.AGAIN
    image.unlink()
    assert records.find("ct", [image], own).state is State.DONE
    image.write_bytes(b"/annex/objects/MD5E-s5--a.nii.gz\n")  # a pointer
    assert records.find("ct", [image], own).state is State.DONE


def test_a_name_that_is_too_long_is_the_fault_of_its_case(image):
    own = {".seg.nrrd": image.parent / "out" / f"{'x' * 247}.seg.nrrd"}
    assert Records(image.parent / "out", recipe()).find("x" * 247, [image], own).state is State.NEW


def test_a_case_without_a_result_is_forgotten(image):
    own = files(image, ".seg.nrrd")
    records = Records(image.parent / "out", recipe())
    record = records.begin("ct", [image])
    records.announce(record)
    assert records.find("ct", [image], own).replace
    records.withdraw(record, own)
    assert not records.find("ct", [image], own).replace
    records.announce(record)
    own[".seg.nrrd"].touch()
    records.withdraw(record, own)
    assert records.find("ct", [image], own).state is State.AGAIN


def test_unfinished_files_of_names_with_spaces_and_in_all_folders_are_removed(image):
    left = [image.parent / "out" / ".0123456789ab.5 mm.nrrd", image.parent / "confidence" / ".0123456789ab.nrrd"]
    for file in left:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    Records(image.parent / "out", recipe()).tidy(files(image, ".nrrd", "confidence").values())
    assert not any(map(os.path.exists, left))
