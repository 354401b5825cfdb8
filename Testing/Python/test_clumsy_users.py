"""What clumsy or hostile users give to the commands ends with a sentence that is right, and destroys nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from ClassScaleSegLib import Geometry, LabelTable, Segmentation
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.errors import ImageError, ModelError, OutputError
from ClassScaleSegLib.files import replacing
from ClassScaleSegLib.images.reading import read_image
from ClassScaleSegLib.inference import label_map
from ClassScaleSegLib.models.files import open_source
from ClassScaleSegLib.resources import resource

TOY = str(resource("Models", "toy-120.zip"))
CHEAP = ["-m", TOY, "--device", "cpu", "--no-mirroring", "--threads", "1"]
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")


@pytest.fixture
def image(tmp_path):
    """Writes an image of one voxel's contrast, and returns its path."""

    def write(name="ct.nii.gz"):
        voxels = np.random.default_rng(0).normal(50, 30, (16, 16, 16)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "written.nii.gz"))
        os.replace(tmp_path / "written.nii.gz", tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.skipif(os.name == "nt", reason="no file has such a name there")
def test_names_of_files_control_no_terminal_and_begin_no_line(image, tmp_path, capsys):
    file = image("ct\n\x1b[2J\u202e.nii.gz")
    assert main(["segment", str(file), "-o", str(tmp_path / "a\n.seg.nrrd"), *CHEAP]) == ExitCode.OK
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(r"ct\n\x1b[2J\u202e: ") and line.endswith(r"a\n.seg.nrrd")
    assert main(["segment", f"{file}x", "-o", str(tmp_path / "b.seg.nrrd"), *CHEAP]) == ExitCode.IMAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()


def test_a_model_card_controls_no_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path / "models"))
    card = b"# A card\n\n\x1b]0;title\x07of two lines\n"
    with zipfile.ZipFile(TOY) as toy, zipfile.ZipFile(tmp_path / "own.zip", "w") as own:
        facts = json.loads(toy.read("manifest.json"))
        facts["members"]["README.md"] = {"size": len(card), "sha256": hashlib.sha256(card).hexdigest()}
        changed = {"README.md": card, "manifest.json": json.dumps(facts).encode()}
        for name in toy.namelist():
            own.writestr(name, changed.get(name) or toy.read(name))
    assert main(["models", "add", str(tmp_path / "own.zip"), "--name", "Own"]) == ExitCode.OK
    capsys.readouterr()
    assert main(["models", "card", "Own"]) == ExitCode.OK
    assert capsys.readouterr().out == "# A card\n\n\\x1b]0;title\\x07of two lines\n"


def test_a_model_that_is_like_no_other_is_answered_without_the_names_of_all(capsys):
    assert main(["models", "info", "qqqq"]) == ExitCode.MODEL
    said = capsys.readouterr().err
    assert "`classscaleseg models list`" in said and "totalsegmentator" not in said


def test_models_are_packed_by_the_names_of_the_catalogue(tmp_path, capsys):
    assert main(["pack", "toy-120", "-o", str(tmp_path / "x.zip")]) == ExitCode.OK
    assert "x.zip: 2.2 MB" in capsys.readouterr().out
    assert main(["pack", "nosuch", "-o", str(tmp_path / "x.zip")]) == ExitCode.MODEL
    assert "nor a model of the catalogue" in capsys.readouterr().err


def test_a_bundle_and_a_comparison_replace_nothing_that_they_are_made_of(tmp_path, capsys):
    copy, table = tmp_path / "toy.zip", tmp_path / "names.csv"
    copy.write_bytes(resource("Models", "toy-120.zip").read_bytes())
    assert main(["pack", str(copy), "-o", str(copy), "--overwrite"]) == ExitCode.OUTPUT
    LabelTable.from_names({1: "liver"}).to_csv(table)
    labels, grid = np.ones((2, 2, 2), np.uint16), Geometry((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    Segmentation(labels, LabelTable.from_csv(table), grid).write(tmp_path / "a.seg.nrrd")
    pair, before = [str(tmp_path / "a.seg.nrrd")] * 2, table.read_bytes()
    assert main(["compare", *pair, "--labels", str(table), "-o", str(table), "--overwrite"]) == ExitCode.OUTPUT
    assert capsys.readouterr().err.count("from which it is made") == 2 and table.read_bytes() == before


@needs_pipes
def test_pipes_are_not_waited_for_and_dangling_links_are_told(tmp_path, capsys):
    os.mkfifo(tmp_path / "ct.nii.gz")
    (tmp_path / "gone.nii.gz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ImageError, match="ct.nii.gz is neither a file nor a folder"):
        read_image(tmp_path / "ct.nii.gz", 1)
    with pytest.raises(ImageError, match="gone.nii.gz is a link whose target is missing"):
        read_image(tmp_path / "gone.nii.gz", 1)
    with pytest.raises(ModelError, match="ct.nii.gz is neither a file nor a folder"):
        with open_source(tmp_path / "ct.nii.gz"):
            pass
    assert main(["dicom", "send", str(tmp_path / "ct.nii.gz"), "--to", "http://localhost:1"]) == ExitCode.IMAGE
    assert "ct.nii.gz is not a DICOM file" in capsys.readouterr().err


def test_a_name_that_is_too_long_needs_no_room(tmp_path):
    with pytest.raises(OutputError, match="Choose a shorter name"), replacing(tmp_path / f"{'x' * 300}.csv"):
        pass


def test_errors_name_the_result_and_not_the_file_that_becomes_it(tmp_path):
    with pytest.raises(OutputError) as caught:
        with replacing(tmp_path / "result.csv") as temporary, replacing(temporary):
            raise OSError(28, "No space left on device")
    assert str(caught.value).startswith(f"{tmp_path / 'result.csv'} cannot be written (No space left on device)")


def test_more_threads_than_cores_are_not_started():
    before = torch.get_num_threads()
    with label_map._threads(1_000_000):  # torch would end the process
        assert torch.get_num_threads() <= max(os.cpu_count() or 1, before)
        assert torch.ones(1_000_000).sum() == 1_000_000
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a terminal that ends sends no signal here")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_ends_cancels_like_a_termination_signal(ignored):
    """Under nohup the signal is ignored, and stays so."""
    program = f"""
import os, signal, sys
from ClassScaleSegLib.commands import main as command
signal.signal(signal.SIGHUP, signal.SIG_IGN if {ignored} else signal.SIG_DFL)
command.inspect_command = lambda options, reporter: os.kill(os.getpid(), signal.SIGHUP)
sys.exit(command.main(["inspect", "toy-120"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == (ExitCode.OK if ignored else ExitCode.CANCELLED), done.stderr
    assert ("Cancelled" in done.stderr) is not ignored


def test_one_structure_is_no_structures():
    from ClassScaleSegLib.commands.reporting import TerminalReporter

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", said)
        for count in (1, 2):
            TerminalReporter().result(output="a.seg.nrrd", structures=count, seconds=1.0)
    assert [line.split(" in ")[0] for line in said.getvalue().splitlines()] == [": 1 structure", ": 2 structures"]
