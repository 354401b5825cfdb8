"""Results in a real archive, Orthanc: sent by the command, found by QIDO, retrieved by WADO, every voxel compared."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib import Segmentation
from ClassScaleSegLib.commands.main import main
from ClassScaleSegLib.images.formats import STATISTICS_SUFFIXES

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom", reason="needs highdicom, as the extra [dicom] installs it")
dicomweb = pytest.importorskip("dicomweb_client.api", reason="needs dicomweb-client, as the extra [dicom] installs it")
pytest.importorskip("SimpleITK")

from dicom_phantom import planes, write_series  # noqa: E402

SCRIPT = Path(__file__).parents[1] / "Dicom" / "run_orthanc.sh"
NAME = "Yamada^Tarou=山田^太郎=やまだ^たろう"
FACTS = {
    "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
    "PatientName": NAME,
    "PatientID": "12",
    "StudyID": "4",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.7",
}
# the file that is sent, and the options of `classscaleseg segment` that write it into the folder {}
RESULTS = {
    "label map": ("a.seg.dcm", "-o {}/a.seg.dcm"),
    "binary": ("b.seg.dcm", "-o {}/b.seg.dcm --dicom-seg binary"),
}
if ".sr.dcm" in STATISTICS_SUFFIXES:
    RESULTS["structure set"] = ("c.rtstruct.dcm", "-o {}/c.rtstruct.dcm")
    RESULTS["report"] = ("d.sr.dcm", "-o {}/d.seg.dcm --statistics {}/d.sr.dcm")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The address of an empty Orthanc."""
    if sys.platform == "win32" or not shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("needs Orthanc, which Testing/Dicom/run_orthanc.sh installs")
    folder = tmp_path_factory.mktemp("orthanc")
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    # it goes on writing to its log, so its output must not be a pipe that is waited for
    with (folder / "address").open("w") as said:
        started = subprocess.run([SCRIPT, "start", folder / "run"], env=environment, stdout=said)
    if started.returncode == 77:
        pytest.skip("needs Orthanc with DICOMweb, which Testing/Dicom/run_orthanc.sh installs")
    assert started.returncode == 0
    yield (folder / "address").read_text().strip()
    subprocess.run([SCRIPT, "stop", folder / "run"], env=environment, check=True)
    assert not (folder / "run").exists()


@pytest.fixture(scope="module")
def segmented(archive, tmp_path_factory):
    """A series and the folder of its results; all of them were sent to the archive."""
    import json

    from conftest import MODEL, small_dataset, small_plans, stock_network, write_checkpoint

    folder = tmp_path_factory.mktemp("results")
    volume = planes(7, shape=(18, 20), step=(0, 0.3, -2.5))  # descending, and tilted
    series = write_series(folder / "series", volume, StudyInstanceUID="1.2.826.0.1.3680043.8.498.77", **FACTS)
    model, plans, dataset = folder / "Dataset007_Small" / MODEL, small_plans(), small_dataset(6)
    write_checkpoint(model / "fold_0" / "checkpoint_final.pth", stock_network(plans, dataset))
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(dataset))
    for _, options in RESULTS.values():
        command = ["segment", str(series), "-m", str(model), "--device", "cpu", *options.format(folder, folder).split()]
        assert main(command) == 0
    assert main(["dicom", "send", str(series), "--to", archive]) == 0
    for name, _ in RESULTS.values():
        assert main(["dicom", "send", str(folder / name), "--to", archive]) == 0
    return series, folder


def plain(dataset: pydicom.Dataset) -> dict:
    """All elements but those of the coding: the character set, which archives may change, and the file's own."""
    return {element.tag: element for element in dataset if element.keyword not in ("SpecificCharacterSet", "PixelData")}


def test_the_series_comes_back_as_it_was_sent(archive, segmented):
    series, _ = segmented
    given = {(data := pydicom.dcmread(file)).SOPInstanceUID: data for file in series.iterdir()}
    first = next(iter(given.values()))
    client = dicomweb.DICOMwebClient(archive)
    (study,) = client.search_for_studies(search_filters={"PatientID": "12"})
    assert study["0020000D"]["Value"] == [first.StudyInstanceUID]
    found = client.retrieve_series(first.StudyInstanceUID, first.SeriesInstanceUID)
    assert len(found) == len(given) == 7
    for data in found:
        assert plain(data) == plain(given[data.SOPInstanceUID])
        assert np.array_equal(data.pixel_array, given[data.SOPInstanceUID].pixel_array)


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_is_found_beside_its_series_and_has_every_voxel(archive, segmented, tmp_path, kind):
    series, folder = segmented
    name, _ = RESULTS[kind]
    given, client = pydicom.dcmread(folder / name), dicomweb.DICOMwebClient(archive)
    known = {file.SeriesInstanceUID for file in map(pydicom.dcmread, series.iterdir())}
    found = client.search_for_series(given.StudyInstanceUID)
    identifiers = {item["0020000E"]["Value"][0]: item["00080060"]["Value"] for item in found}
    assert known < set(identifiers) and len(identifiers) == 1 + len(RESULTS)
    assert identifiers[given.SeriesInstanceUID] == [given.Modality]
    (instance,) = client.search_for_instances(given.StudyInstanceUID, given.SeriesInstanceUID)
    assert instance["00080016"]["Value"] == [given.SOPClassUID]
    data = client.retrieve_instance(given.StudyInstanceUID, given.SeriesInstanceUID, given.SOPInstanceUID)
    assert str(data.PatientName) == NAME and plain(data) == plain(given)
    data.save_as(tmp_path / name)
    if name.endswith(".seg.dcm"):  # other results have all they have in their elements
        compare(folder / name, tmp_path / name)


def compare(given: Path, found: Path) -> None:
    ours, theirs = Segmentation.from_image(given), Segmentation.from_image(found)
    assert len(np.unique(ours.labels)) > 3
    assert np.array_equal(ours.labels, theirs.labels) and ours.geometry == theirs.geometry
    assert ours.table.names == theirs.table.names


def test_sending_again_changes_nothing(archive, segmented):
    series, folder = segmented
    client = dicomweb.DICOMwebClient(archive)
    before = len(client.search_for_instances())
    assert (
        main(["dicom", "send", str(series), *(str(folder / name) for name, _ in RESULTS.values()), "--to", archive])
        == 0
    )
    assert len(client.search_for_instances()) == before == 7 + len(RESULTS)


def test_what_the_archive_cannot_read_is_said(archive, segmented, tmp_path, capsys):
    _, folder = segmented
    data = pydicom.dcmread(folder / "a.seg.dcm")
    del data.StudyInstanceUID, data.SeriesInstanceUID, data.PatientID
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    data.save_as(tmp_path / "nameless.dcm")
    assert main(["dicom", "send", str(folder / "b.seg.dcm"), str(tmp_path / "nameless.dcm"), "--to", archive]) == 1
    said = capsys.readouterr()
    assert said.out == f"{archive}: 1 stored, 1 refused\n"
    assert "nameless.dcm: refused. The archive refuses it: it cannot understand it (status C000)" in said.err
    assert main(["dicom", "send", str(folder / "a.seg.dcm"), "--to", archive.replace("dicom-web", "nowhere")]) == 5
    assert "there is no DICOMweb service at this address" in capsys.readouterr().err
