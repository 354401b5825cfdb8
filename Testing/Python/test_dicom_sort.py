"""``classscaleseg dicom sort``: exports in the folders of scanners and archives become a folder for each series."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib.commands.main import main
from ClassScaleSegLib.images.dicom.headers import visible_files
from ClassScaleSegLib.images.dicom.series import read_series
from dicom_phantom import MR, localizer, planes, without, write_frames, write_series, write_structure_set

SMITH = {"PatientID": "4711", "StudyDate": "20260102"}
JONES = {"PatientID": "Jones/../1", "StudyDate": "20260103"}


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Two patients: a localizer, two series of CT of which one lacks slices, one of MR, and a structure set."""
    root = tmp_path / "export"
    study = root / "PA1" / "ST1"
    write_series(study / "SE1", [localizer()], **SMITH, SeriesNumber=1, SeriesDescription="Topogram", Modality="CT")
    write_series(study / "SE2", planes(), **SMITH, SeriesNumber=2, SeriesDescription="Abdomen 1.5", Modality="CT")
    gap = without(planes(8, seed=1), 3, 4)
    write_series(study / "SE3", gap, **SMITH, SeriesNumber=3, SeriesDescription="Gap", Modality="CT")
    write_structure_set(study / "RS.dcm")
    write_series(root / "PA2" / "SE1", planes(seed=2), **JONES, SeriesNumber=1, Modality="MR", SOPClassUID=MR)
    (root / "PA2" / "README.txt").write_text("no image")
    return root


def sort(*arguments: object) -> int:
    return main(["dicom", "sort", *map(str, arguments)])


def test_each_series_of_an_export_gets_a_folder_that_is_read(export, tmp_path, capsys):
    assert sort(export, "-o", tmp_path / "sorted") == 1
    told = capsys.readouterr().out
    assert "4711-20260102-1-Topogram (CT, 1 image) is left out: it is a localizer." in told
    assert "4711-20260102-3-Gap (CT, 6 images) is left out: Its slices are 5.00 to 15.00 mm apart" in told
    assert "2 of 4 series can be segmented.\nNext: classscaleseg segment" in told
    folders = {folder.name: folder for folder in (tmp_path / "sorted").iterdir()}
    assert set(folders) == {"4711-20260102-2-Abdomen_1.5", "Jones_.._1-20260103-1"}
    read = read_series(folders["4711-20260102-2-Abdomen_1.5"])
    original = read_series(export / "PA1" / "ST1" / "SE2")
    assert np.array_equal(read.voxels, original.voxels) and read.geometry == original.geometry


def test_the_files_may_be_in_one_folder_or_there_twice_and_sorting_may_be_repeated(export, tmp_path, capsys):
    flat, output = tmp_path / "flat", tmp_path / "sorted"
    flat.mkdir()
    for number, file in enumerate(sorted(export.rglob("*.dcm"))):
        shutil.copy(file, flat / f"IM{number}")
    for _ in range(2):
        assert sort(flat, export, "--modality", "CT", "-o", output) == 1
        assert [folder.name for folder in output.iterdir()] == ["4711-20260102-2-Abdomen_1.5"]
        assert read_series(output / "4711-20260102-2-Abdomen_1.5").geometry.size == (4, 5, 6)


def test_linked_folders_are_searched_and_links_without_a_target_told(export, tmp_path, capsys):
    linked, output = tmp_path / "linked", tmp_path / "sorted"
    linked.mkdir()
    (linked / "SE").symlink_to(export / "PA2" / "SE1", target_is_directory=True)
    (linked / "back").symlink_to(linked, target_is_directory=True)
    assert sort(linked, "-o", output) == 0
    (folder,) = output.iterdir()
    assert read_series(folder).geometry.size == (4, 5, 6)
    (linked / "IM9").symlink_to(tmp_path / "missing")
    capsys.readouterr()
    assert sort(linked, "-o", output) == 1
    assert capsys.readouterr().err == f"{linked / 'IM9'} is a link whose target is missing.\n"


def test_descriptions_keep_their_letters(tmp_path, capsys):
    for number, (letters, encoding) in enumerate({"ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8", "": "utf-8"}.items()):
        tags = {"SpecificCharacterSet": letters, "SeriesDescription": "Schädel".encode(encoding)}
        write_series(tmp_path / "export" / str(number), planes(seed=number), **SMITH, **tags)
    assert sort(tmp_path / "export", "-o", tmp_path / "sorted", "--json") == 0
    assert [row["description"] for row in json.loads(capsys.readouterr().out)] == ["Schädel"] * 3


def test_the_output_may_lie_within_the_export(export, capsys):
    for _ in range(2):
        assert sort(export, "-o", export / "sorted") == 1
    assert "2 of 4 series" in capsys.readouterr().out.splitlines()[-2]


def test_folders_that_are_links_are_searched_once_also_in_a_circle(export, tmp_path, capsys):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("one", "two"):
        (linked / name).symlink_to(export / "PA2", target_is_directory=True)
    (export / "PA2" / "circle").symlink_to(linked, target_is_directory=True)
    assert sort(linked, "-o", linked / "sorted", "--json") == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert len(facts["files"]) == facts["images"] == 6
    assert sort(linked, export / "PA1", export, "-o", linked / "sorted") == 1
    assert "2 of 4 series" in capsys.readouterr().out


def test_an_export_that_was_moved_is_sorted_again(export, tmp_path):
    assert sort(export / "PA2", "-o", tmp_path / "sorted") == 0
    export.rename(tmp_path / "moved")
    assert sort(tmp_path / "moved" / "PA2", "-o", tmp_path / "sorted") == 0
    (folder,) = (tmp_path / "sorted").iterdir()
    assert read_series(folder).geometry.size == (4, 5, 6)


@pytest.mark.parametrize("names", ["IM{:04}.dcm", "slice{}"])
def test_an_export_that_was_moved_and_has_grown_is_sorted_into_the_folders_of_before(tmp_path, capsys, names):
    output = tmp_path / "sorted"
    write_series(tmp_path / "old" / "2", planes(4), "1.2.2", **SMITH)
    assert sort(tmp_path / "old", "-o", output) == 0
    shutil.rmtree(tmp_path / "old")
    write_series(tmp_path / "new" / "1", planes(5, seed=1), "1.2.1", names, **SMITH)  # of the same name
    write_series(tmp_path / "new" / "2", planes(6), "1.2.2", names, **SMITH)
    assert sort(tmp_path / "new", "-o", output) == 0
    sizes = {folder.name: read_series(folder).geometry.size[2] for folder in output.iterdir()}
    assert sizes == {"4711-20260102-1": 6, "4711-20260102-1-1.2.1": 5}
    assert capsys.readouterr().err == ""


def test_folders_of_series_that_are_gone_are_told(tmp_path, capsys):
    for number in "12":
        write_series(tmp_path / "old" / number, planes(seed=int(number)), **SMITH | {"SeriesNumber": number})
    assert sort(tmp_path / "old", "-o", tmp_path / "sorted") == 0
    shutil.move(tmp_path / "old" / "2", tmp_path / "new")
    shutil.rmtree(tmp_path / "old")
    capsys.readouterr()
    assert sort(tmp_path / "new", "-o", tmp_path / "sorted") == 0
    gone = tmp_path / "sorted" / "4711-20260102-1"
    said = f"{gone} has links whose targets are missing, and is of no series that was found. Remove it.\n"
    assert capsys.readouterr().err == said


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("letter", ["x", "ß", "肝", "\U00020000"])
def test_long_names_are_cut_between_letters(tmp_path, letter):
    tags = {"PatientID": 60 * letter, "StudyDate": "20260102", "SeriesDescription": ("a" + 63 * letter).encode()}
    long, every = 60 * letter, planes(7)
    for number in "12":  # of one name, so the UIDs are in it
        folder = tmp_path / "export" / number / long
        for part, volume in ((folder, every[:6]), (folder / long, every[6:])):  # of one name, so that of the folder too
            write_series(part, volume, f"1.2.{60 * number}", long + "{}.dcm", SpecificCharacterSet="ISO_IR 192", **tags)
    assert sort(tmp_path / "export", "-o", tmp_path / "sorted") == 0
    folders = list((tmp_path / "sorted").iterdir())
    for folder in folders:
        assert len(folder.name.encode()) < 200 and set(folder.name) <= {*"0123456789-.a", letter}
        assert read_series(folder).geometry.size == (4, 5, 7)
    assert len(folders) == 2


def test_series_of_the_same_name_get_their_identifiers_too(tmp_path, capsys):
    for number in "12":
        write_series(tmp_path / "export" / number, planes(seed=int(number)), f"1.2.{number}", **SMITH)
    assert sort(tmp_path / "export", "-o", tmp_path / "sorted", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert [Path(one["folder"]).name for one in facts] == ["4711-20260102-1-1.2.1", "4711-20260102-1-1.2.2"]
    assert [one["images"] for one in facts] == [6, 6] and {one["left_out"] for one in facts} == {None}


@pytest.mark.parametrize("links", [True, False])
def test_a_series_keeps_its_folder_when_another_of_its_name_comes_or_goes(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(Path, "symlink_to", lambda *_: (_ for _ in ()).throw(OSError(1314, "not allowed")))
    export, output = tmp_path / "export", tmp_path / "sorted"
    for number in "21":
        write_series(export / number, planes(seed=int(number)), f"1.2.{number}", **SMITH)
        assert sort(export, "-o", output) == 0
    names = ["4711-20260102-1", "4711-20260102-1-1.2.1"]
    for places in ([export], [export / "1"], [export / "2"]):
        assert sort(*places, "-o", output) == 0
        assert sorted(folder.name for folder in output.iterdir()) == names
    for name, number in zip(names, "21", strict=True):
        assert np.array_equal(read_series(output / name).voxels, read_series(export / number).voxels)


def test_slices_of_one_series_in_two_folders_become_one(tmp_path):
    volume = planes(6)
    for part in (0, 1):
        write_series(tmp_path / "export" / f"disc{part}", volume[3 * part :][:3], "1.2.3", **SMITH)
    assert sort(tmp_path / "export", "-o", tmp_path / "sorted") == 0
    (folder,) = (tmp_path / "sorted").iterdir()
    assert read_series(folder).geometry.size == (4, 5, 6)


def test_a_volume_in_one_file_is_a_series(tmp_path, capsys):
    file = write_frames(tmp_path / "export" / "enhanced.dcm", planes(), **SMITH)
    assert sort(file, "-o", tmp_path / "so rted") == 0
    assert read_series(tmp_path / "so rted" / "4711-20260102-1").geometry.size == (4, 5, 6)
    assert f"classscaleseg segment '{tmp_path / 'so rted'}' -m" in capsys.readouterr().out


def test_without_links_files_are_copied(export, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert sort(export / "PA2", "-o", tmp_path / "sorted") == 0
    (folder,) = (tmp_path / "sorted").iterdir()
    assert all(file.is_file() and not file.is_symlink() for file in folder.iterdir())
    assert read_series(folder).geometry.size == (4, 5, 6)


def test_damaged_files_are_told_and_the_others_sorted(export, tmp_path, capsys):
    damaged = export / "PA2" / "damaged.dcm"
    file = next((export / "PA2" / "SE1").iterdir())
    damaged.write_bytes(file.read_bytes().replace(b"ImagePosition", b"")[:400])
    write_series(export / "odd", planes(1), **SMITH, RescaleSlope=0)
    assert sort(export / "PA2", export / "odd", "-o", tmp_path / "sorted") == 1
    told = capsys.readouterr()
    assert "RescaleSlope is 0" in told.err and "1 of 1 series" in told.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing"], 4, "missing does not exist"),
        (["."], 4, "there is no DICOM image, here or below"),
        ([".", "--modality", "C-T"], 2, "is not a modality"),
    ],
)
def test_faults_are_sentences(tmp_path, monkeypatch, capsys, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    assert sort(*arguments, "-o", "sorted") == code
    assert said in capsys.readouterr().err


def test_a_folder_with_other_files_is_refused(export, tmp_path, capsys):
    other = tmp_path / "sorted" / "Jones_.._1-20260103-1" / "mine.txt"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    assert sort(export / "PA2", "-o", tmp_path / "sorted") == 5
    assert "mine.txt, which is not of the series" in capsys.readouterr().err


@pytest.mark.parametrize("links", [True, False])
def test_a_series_of_another_export_with_the_same_names_is_refused(tmp_path, capsys, monkeypatch, links):
    if not links:
        monkeypatch.setattr(Path, "symlink_to", lambda *_: (_ for _ in ()).throw(OSError(1314, "not allowed")))
    exports = [tmp_path / name for name in "ab"]
    for seed, export in enumerate(exports):
        write_series(export, planes(seed=seed), f"1.2.{seed}", **SMITH)
        for file in export.iterdir():
            os.utime(file, (1e9, 1e9))  # as an archive unpacks it
    assert sort(exports[0], "-o", tmp_path / "sorted") == 0
    (folder,) = (tmp_path / "sorted").iterdir()
    assert sort(exports[1], "-o", tmp_path / "sorted") == 5
    assert f"{folder} is the folder of another series (1.2.0) than 1.2.1. Remove" in capsys.readouterr().err
    assert sort(exports[0], "-o", tmp_path / "sorted") == 0
    shutil.rmtree(exports[0])  # its links lead nowhere, but results have its name
    assert sort(exports[1], "-o", tmp_path / "sorted") == 5
    (folder / ".series").unlink()  # as of an earlier version
    assert sort(exports[1], "-o", tmp_path / "sorted") == (0 if links else 5)
    assert links or "is another file than" in capsys.readouterr().err


def test_no_slice_is_lost_or_hidden_whatever_the_folders(tmp_path, monkeypatch):
    volume = planes(4)
    for part, folder in enumerate(["", "p/a", "p-a", "q/a"]):
        write_series(tmp_path / "export" / folder, volume[part:][:1], "1.2.3", "IM1", **SMITH)
    (tmp_path / "export" / "here").mkdir()
    monkeypatch.chdir(tmp_path / "export" / "here")
    assert sort("..", "-o", tmp_path / "sorted") == 0
    (folder,) = (tmp_path / "sorted").iterdir()
    assert read_series(folder).geometry.size == (4, 5, 4)
    shutil.rmtree(tmp_path / "sorted")
    assert sort("../IM1", "../p", "-o", tmp_path / "sorted") == 0
    (folder,) = (tmp_path / "sorted").iterdir()
    assert sorted(file.name for file in visible_files(folder)) == ["-IM1", "a-IM1"]


def test_a_series_without_any_name_gets_a_folder_of_its_own(tmp_path):
    nameless = dict.fromkeys(("PatientID", "StudyDate", "SeriesNumber", "SeriesDescription"), "")
    write_series(tmp_path / "export" / "1", planes(), **nameless, SeriesInstanceUID="")
    write_series(tmp_path / "export" / "2", planes(), "1.2.3", **{**SMITH, "PatientID": "a"})
    write_series(tmp_path / "export" / "3", planes(), "1.2.4", **{**SMITH, "PatientID": "A"})
    assert sort(tmp_path / "export", "-o", tmp_path / "sorted") == 0
    folders = sorted(folder.name for folder in (tmp_path / "sorted").iterdir())
    assert folders == ["A-20260102-1-1.2.4", "a-20260102-1-1.2.3", "series"]


def test_hidden_files_in_the_folder_of_a_series_do_not_matter(tmp_path):
    write_series(tmp_path / "export", planes(), **SMITH)
    assert sort(tmp_path / "export", "-o", tmp_path / "sorted") == 0
    (folder,) = (tmp_path / "sorted").iterdir()
    (folder / ".DS_Store").write_bytes(b"Finder")
    assert sort(tmp_path / "export", "-o", tmp_path / "sorted") == 0


def test_segment_names_this_command_where_it_helps(export, tmp_path, capsys):
    assert main(["segment", str(export), "-m", "toy-120", "-o", str(tmp_path / "results/")]) == 4
    assert "classscaleseg dicom sort" in capsys.readouterr().err


def test_the_folder_of_a_patient_leads_to_slices_that_are_no_localizer(export, tmp_path, capsys):
    assert (
        main(["segment", str(export / "PA1"), str(export / "PA2"), "-m", "toy-120", "-o", f"{tmp_path}/results/"]) == 1
    )
    told = capsys.readouterr().err
    assert f"such as {export / 'PA1' / 'ST1' / 'SE2'}. If there are several: classscaleseg dicom sort" in told
