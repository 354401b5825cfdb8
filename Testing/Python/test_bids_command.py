"""``classscaleseg segment --bids``: from a BIDS dataset to a BIDS derivative."""

import json
import re

import numpy as np
import pytest
from bids_phantom import dataset
from ClassScaleSegLib.commands.main import ExitCode, main

sitk = pytest.importorskip("SimpleITK")
NAMES = (
    "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
    "sub-02/anat/sub-02_run-1_T1w.nii.gz",
    "sub-02/anat/sub-02_FLAIR.nii",
)


@pytest.fixture
def bids(tmp_path):
    root = dataset(tmp_path / "data", *NAMES)
    for number, name in enumerate(NAMES):
        voxels = np.random.default_rng(number).normal(50, 30, (20, 18, 24)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(root / name))
    (root / "sub-03/anat").mkdir(parents=True)
    (root / "sub-03/anat/sub-03_T1w.nii.gz").symlink_to("../../.git/annex/objects/x/y/MD5E-s1--z.nii.gz")
    return root


def segment(*arguments):
    return main(["segment", *map(str, arguments), "--device", "cpu", "--no-mirroring", "--threads", "1"])


@pytest.mark.parametrize("cluster", [[], ["--cluster", "local"]])
def test_a_dataset_becomes_a_derivative_and_what_is_not_there_fails_alone(bids, write_model, tmp_path, capsys, cluster):
    out, more = bids / "derivatives" / "classscaleseg", [*cluster]
    if cluster:
        distributed = pytest.importorskip("distributed")
        workers = distributed.LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address=":0")
        more = ["--cluster", workers.scheduler_address, "--transfer"]
    model = tmp_path / "model.zip"
    assert main(["pack", str(write_model()), "-o", str(model)]) == ExitCode.OK
    command = ["--bids", bids, "--bids-suffix", "T1w", "-m", model, "-o", out, *more]
    assert segment(*command) == ExitCode.SOME_FAILED
    told = capsys.readouterr()
    assert "datalad get" in told.err and "2 of 3 cases segmented, 1 failed: sub-03_T1w" in told.out
    results = ["sub-01/ses-1/anat/sub-01_ses-1_dseg", "sub-02/anat/sub-02_run-1_dseg"]
    for result in results:
        assert (out / f"{result}.nii.gz").exists() and "18" in (out / f"{result}.tsv").read_text(encoding="utf-8")
        assert "bids:source:sub-0" in json.loads((out / f"{result}.json").read_text(encoding="utf-8"))["Sources"][0]
    described = json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))
    assert described["DatasetType"] == "derivative"
    assert not list(out.rglob("*T1w*.nii.gz"))
    assert segment(*command, "--json-progress") == ExitCode.SOME_FAILED
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["skipped"] == 2
    if cluster:
        (bids / "sub-03/anat/sub-03_T1w.nii.gz").unlink()
        (bids / NAMES[0]).rename(bids / "sub-03/anat/sub-03_T1w.nii.gz")
        assert main(["cohort", "retry", str(out), "--cluster", workers.scheduler_address]) == ExitCode.OK
        workers.close()
        assert (out / "sub-03/anat/sub-03_dseg.nii.gz").exists()


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--bids", "DATA", "IMAGE"], "--bids takes the images of .*, so leave IMAGE out"),
        (["IMAGE", "--bids-suffix", "T1w"], "--bids-suffix chooses images of a BIDS dataset"),
        (["--bids", "DATA", "--bids-suffix", "bold"], "T1w"),
        (["--bids", "DATA"], r"no image .*_ct.*It has T1w \(3\), FLAIR \(1\); choose one of them"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(bids, write_model, tmp_path, capsys, arguments, sentence):
    given = [bids if argument == "DATA" else argument for argument in arguments]
    assert segment(*given, "-m", write_model(), "-o", tmp_path / "out") == ExitCode.IMAGE
    assert re.search(sentence, capsys.readouterr().err)
