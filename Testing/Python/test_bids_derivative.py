"""BIDS derivatives: description, look-up tables and sidecars, as the BIDS validator accepts them; foreign folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bids_phantom import dataset, touch
from ClassScaleSegLib import Geometry, ImageError, Label, LabelTable, OutputError, Segmentation, UsedModel
from ClassScaleSegLib.cohort import bids_derivative
from ClassScaleSegLib.cohort.bids import bids_images
from ClassScaleSegLib.cohort.bids_derivative import format_lookup, side_files, write_derivative, write_side_files
from ClassScaleSegLib.labels.label import segment_color, segment_id

MODEL = UsedModel("Organs", "CC-BY-4.0", "0" * 64)
TABLE = LabelTable.from_names({0: "background", 1: "liver", 2: "kidney_left", 5: "cell"})
FINE = {"TOO_FEW_AUTHORS", "NO_AUTHORS"}  # warnings: who wrote them is for the users to say


def described(out: Path) -> dict:
    return json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))


def written(out: Path) -> dict[str, tuple[bytes, int]]:
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in out.rglob("*") if file.is_file()}


def segmented(root: Path, suffix: str, out: Path) -> list[Path]:
    """The files of a derivative whose images are of 4 x 3 x 2 voxels."""
    pytest.importorskip("SimpleITK")
    write_derivative(out, root, suffix, [MODEL])
    grid = Geometry((4, 3, 2), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    images = bids_images(root, suffix, out).images
    for image in images:
        write_side_files(image.output, image.source, TABLE)
        Segmentation(np.ones((2, 3, 4), np.uint16), TABLE, grid).write(image.output)
    return [image.output for image in images]


def issues(folder: Path, work: Path) -> list[tuple[str, str, str]]:
    """Severity, code and place of what the BIDS validator finds."""
    pytest.importorskip("bids_validator_deno", reason="needs bids-validator-deno, as the extra [test] installs it")
    code = "from bids_validator_deno import cli; cli()"
    environment = {**os.environ, "DENO_DIR": str(work / "deno"), "DENO_NO_UPDATE_CHECK": "1"}
    command = [sys.executable, "-c", code, "--format", "json", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment)
    report = json.loads(run.stdout)
    assert report["summary"]["totalFiles"] > 0
    found = ((one["severity"], one["code"], one.get("location", "")) for one in report["issues"]["issues"])
    return sorted(issue for issue in found if issue[1] not in FINE)


def test_the_validator_accepts_a_derivative_in_its_dataset(tmp_path):
    names = ("sub-01/ses-1/anat/sub-01_ses-1_acq-a_run-1_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii")
    root = dataset(tmp_path / "ds", *names, License="CC0", DatasetDOI="doi:10.18112/openneuro.ds000001")
    out = root / "derivatives" / "classscaleseg-organs"
    outputs = segmented(root, "T1w", out)
    assert len(outputs) == 2 and outputs[0].name == "sub-01_ses-1_acq-a_run-1_dseg.nii.gz"
    assert list(out.glob("sub-02/anat/*")) and (out / "sub-02/anat/sub-02_dseg.labels.csv").exists()
    assert issues(out, tmp_path) == []
    shutil.move(outputs[0], outputs[0].with_name("sub-01_ses-1_liver.nii.gz"))  # the validator sees what is wrong
    side_files(outputs[1])[0].write_text("index\tcolor\n1\t#ffffff\n")
    codes = {code for severity, code, _ in issues(out, tmp_path) if severity == "error"}
    assert "TSV_COLUMN_MISSING" in codes and len(codes) > 1


def test_the_validator_accepts_a_derivative_of_ct_elsewhere(tmp_path):
    root = dataset(tmp_path / "ds", "sub-01/ct/sub-01_ct.nii.gz", "sub-02/anat/sub-02_rec-soft_CT.nii.gz")
    outputs = segmented(root, "ct", tmp_path / "other" / "results")
    assert [output.parent.name for output in outputs] == ["ct", "anat"]
    assert issues(tmp_path / "other" / "results", tmp_path) == []


def test_the_description_names_program_models_and_source(tmp_path):
    root = dataset(tmp_path / "d s", License="CC0", DatasetDOI="doi:10.1/x", Name="Heads \x1b[31m\n of Bärbel \ud83d")
    out = root / "derivatives" / "classscaleseg"
    write_derivative(out, root, "acq-a_T1w", [MODEL, UsedModel("Spine")])
    found = described(out)
    assert found["Name"] == "Segmentations of Heads [31m of Bärbel by ClassScaleSeg"
    assert (found["DatasetType"], found["License"]) == ("derivative", "CC0")
    assert found["DatasetLinks"] == {"source": "../.."} and found["SourceDatasets"] == [{"DOI": "doi:10.1/x"}]
    (made,) = found["GeneratedBy"]
    assert (made["Name"], made["ImageSuffix"]) == ("classscaleseg", "T1w")
    organs = {"Name": "Organs", "License": "CC-BY-4.0", "SHA256": "0" * 64}
    assert made["Models"] == [organs, {"Name": "Spine"}]
    write_derivative(tmp_path / "a" / "ö", root, "T1w", [MODEL])
    assert described(tmp_path / "a" / "ö")["DatasetLinks"] == {"source": "../../d%20s"}
    write_derivative(tmp_path / "a" / "ö", root, "T1w", [MODEL])  # and finds it there


def test_the_sidecar_names_the_image_and_its_grid(tmp_path):
    output = tmp_path / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    for _ in range(2):  # a case that is tried again replaces them
        write_side_files(output, "sub-01/anat/sub-01_T1w.nii.gz", TABLE)
    lookup, sidecar = side_files(output)
    uri = "bids:source:sub-01/anat/sub-01_T1w.nii.gz"
    assert json.loads(sidecar.read_text()) == {"Sources": [uri], "SpatialReference": uri}
    assert lookup.read_text() == format_lookup(TABLE)
    assert sorted(file.name for file in output.parent.iterdir()) == ["sub-01_dseg.json", "sub-01_dseg.tsv"]


def test_the_look_up_table_has_names_colours_and_codes():
    rows = [line.split("\t") for line in format_lookup(TABLE).splitlines()]
    assert rows[0] == ["index", "name", "color", "category", "type", "type_modifier"]
    assert rows[1] == ["0", "background", "#000000", "n/a", "n/a", "n/a"]
    assert rows[2][:3] == ["1", "liver", "#3467e4"] and rows[2][4:] == ["SCT:10200004", "n/a"]
    assert rows[3][5] == "SCT:7771000" and rows[4] == ["5", "cell", rows[4][2], "n/a", "n/a", "n/a"]
    names = ((1, "rib"), (2, "rib"), (3, "a\tb\n"), (4, "rib (1)"))
    table = LabelTable(tuple(Label(value, segment_id(value), name, segment_color(value)) for value, name in names))
    cells = [line.split("\t") for line in format_lookup(table).splitlines()]
    assert [row[1] for row in cells] == ["name", "rib (1) (1)", "rib (2)", "a b", "rib (1)"]
    assert {len(row) for row in cells} == {3}


def test_a_second_run_changes_nothing_and_another_model_or_version_is_added(tmp_path, monkeypatch):
    root, out = dataset(tmp_path / "ds"), tmp_path / "out"
    write_derivative(out, root, "T1w", [MODEL])
    first = written(out)
    names = {Path(file).name for file in first}
    assert names == {"dataset_description.json", "dseg.json", "README.md", ".bidsignore"}
    write_derivative(out, root, "T1w", [MODEL])
    assert written(out) == first
    (out / "README.md").write_text("mine")
    edited = {**described(out), "Name": "mine", "Authors": ["A", "B"]}
    edited["GeneratedBy"].append({"Name": "Manual", "Description": "corrected"})
    (out / "dataset_description.json").write_text(json.dumps(edited))
    monkeypatch.setattr(bids_derivative, "VERSION", "9")
    write_derivative(out, root, "T1w", [UsedModel("Spine")])
    assert (out / "README.md").read_text() == "mine"
    now = described(out)
    assert (now["Name"], now["Authors"]) == ("mine", ["A", "B"])
    assert [entry.get("Version") for entry in now["GeneratedBy"]] == ["9", edited["GeneratedBy"][0]["Version"], None]
    assert [entry["Name"] for entry in now["GeneratedBy"]] == ["classscaleseg", "classscaleseg", "Manual"]


@pytest.mark.parametrize("place", ["", "sub-01", "code/classscaleseg", "derivatives", "derivatives/a/classscaleseg"])
def test_results_are_not_written_among_the_data(tmp_path, place):
    root = dataset(tmp_path / "ds", "sub-01/anat/sub-01_T1w.nii.gz")
    before = written(root)
    with pytest.raises(
        OutputError, match="is among the data of .* Name .*ds.derivatives.classscaleseg, or a folder out"
    ):
        write_derivative(root / place, root, "T1w", [MODEL])
    with pytest.raises(OutputError, match="wants the name of the program .*Name .*classscaleseg-organs"):
        write_derivative(root / "derivatives" / "organs", root, "T1w", [MODEL])
    assert written(root) == before


def test_a_link_into_the_data_is_seen(tmp_path):
    root = dataset(tmp_path / "ds")
    try:
        (tmp_path / "out").symlink_to(root)
    except OSError:
        pytest.skip("needs links, which Windows allows to some users only")
    with pytest.raises(OutputError, match="is among the data of"):
        write_derivative(tmp_path / "out" / "code", root, "T1w", [MODEL])


GENERATED = {"DatasetType": "derivative", "GeneratedBy": [{"Name": "fmriprep"}]}
OWN = {"Name": "classscaleseg", "ImageSuffix": "T1w"}


@pytest.mark.parametrize(
    "content, sentence",
    [
        ({}, "is a BIDS dataset of its own, by other data"),
        (GENERATED, "is a BIDS dataset of its own, by fmriprep. Name another folder"),
        ({"DatasetType": "derivative", "GeneratedBy": OWN}, "of its own, by other data"),
        ({"DatasetType": "derivative", "GeneratedBy": [1, {"Name": ["x"]}]}, "of its own, by other data"),
        ({"DatasetType": "derivative", "GeneratedBy": [OWN]}, "has results of another dataset, unknown, not of"),
        ({"DatasetType": "derivative", "GeneratedBy": [OWN], "DatasetLinks": {"source": "../%00"}}, "another dataset"),
        (b"{", "is not valid JSON.*Name another folder for the results, or restore the file"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, content, sentence):
    root = dataset(tmp_path / "ds")
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    touch(tmp_path, "out/dataset_description.json", content)
    before = written(tmp_path)
    with pytest.raises(OutputError, match=sentence):
        write_derivative(tmp_path / "out", root, "T1w", [MODEL])
    assert written(tmp_path) == before


def test_other_images_other_datasets_and_unknown_subjects_are_refused(tmp_path):
    root, other, out = dataset(tmp_path / "ds"), dataset(tmp_path / "other"), tmp_path / "out"
    write_derivative(out, root, "T1w", [MODEL])
    with pytest.raises(OutputError, match="out has results of T1w images, and those of FLAIR images .*out-FLAIR"):
        write_derivative(out, root, "acq-a_FLAIR", [MODEL])
    with pytest.raises(OutputError, match=r"has results of another dataset, \.\./ds, not of .*other"):
        write_derivative(out, other, "T1w", [MODEL])
    touch(tmp_path, "unknown/sub-01/a.nii.gz")
    with pytest.raises(OutputError, match="has folders of subjects, but no dataset_description.json"):
        write_derivative(tmp_path / "unknown", root, "T1w", [MODEL])
    with pytest.raises(ImageError, match="is no BIDS dataset"):
        write_derivative(tmp_path / "new", tmp_path / "unknown", "T1w", [MODEL])
    assert not (tmp_path / "new").exists()


def test_both_folders_may_be_moved_together_and_the_dataset_alone_is_missed(tmp_path):
    root, out = dataset(tmp_path / "a" / "ds"), tmp_path / "a" / "out"
    write_derivative(out, root, "T1w", [MODEL])
    shutil.move(tmp_path / "a", tmp_path / "b")
    write_derivative(tmp_path / "b" / "out", tmp_path / "b" / "ds", "T1w", [MODEL])
    shutil.move(tmp_path / "b" / "ds", tmp_path / "ds")
    with pytest.raises(OutputError, match="If the dataset was moved, correct DatasetLinks in"):
        write_derivative(tmp_path / "b" / "out", tmp_path / "ds", "T1w", [MODEL])
