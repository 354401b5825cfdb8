"""A real archive, Orthanc: files are sent to it, found there and fetched, and every voxel is compared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib import Segmentation
from ClassScaleSegLib.commands.main import main
from ClassScaleSegLib.images.suffixes import STATISTICS_SUFFIXES
from conftest import MODEL

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
    "StudyDate": "20260103",
    "StudyDescription": "Whole Body",
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
    from conftest import small_dataset, small_plans, stock_network, write_checkpoint

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


def found(archive: str, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict]:
    assert main(["dicom", "find", "--from", archive, "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_study_is_found_by_all_that_can_be_searched_for(archive, segmented, capsys):
    first = pydicom.dcmread(min(segmented[0].iterdir()))
    (study,) = found(archive, capsys, "--patient", "12")
    assert study["uid"] == first.StudyInstanceUID and study["date"] == "20260103"
    assert study["name"].startswith("Yamada^Tarou")  # Orthanc 1.10 does not decode the other letters in its index
    assert study["description"] == "Whole Body" and study["images"] == 7 + len(RESULTS)
    assert {series["modality"]: series["images"] for series in study["series"]}["CT"] == 7
    for words in ("--name yamada", "--date 20260101-", "--description body", "--modality SEG",
                  f"--study {study['uid']}", "--name yam*a --date 20260103 --modality ct --limit 1"):  # fmt: skip
        assert [one["uid"] for one in found(archive, capsys, *words.split())] == [study["uid"]], words
    for words in ("--name smith", "--date -20251231", "--description head", "--modality PT", "--patient 1"):
        assert found(archive, capsys, *words.split()) == [], words


def test_what_was_sent_is_fetched_bit_by_bit_and_segmented(archive, segmented, tmp_path, capsys):
    series, folder = segmented
    first = pydicom.dcmread(min(series.iterdir()))
    fetch = ["dicom", "fetch", "--from", archive, "--study", first.StudyInstanceUID, "-o", str(tmp_path / "got")]
    assert main([*fetch, "--modality", "CT"]) == 0
    assert not capsys.readouterr().err
    (place,) = (tmp_path / "got").iterdir()
    assert place.name == first.SeriesInstanceUID
    sent = {pydicom.dcmread(file).SOPInstanceUID: file.read_bytes() for file in series.iterdir()}
    assert {file.stem: file.read_bytes() for file in place.iterdir()} == sent
    model = str(folder / "Dataset007_Small" / MODEL)
    results = ["-o", f"{tmp_path}/results/", "--format", ".seg.dcm"]
    assert main(["segment", str(tmp_path / "got"), "-m", model, *results]) == 0
    compare(folder / "a.seg.dcm", tmp_path / "results" / f"{place.name}.seg.dcm")
    (place / f"{first.SOPInstanceUID}.dcm").unlink()
    capsys.readouterr()
    assert main([*fetch, "--modality", "CT"]) == 0 and len(list(place.iterdir())) == 7
    assert "1 image fetched, 6 there already" in capsys.readouterr().out
    assert main(fetch) == 0  # and the results, which were compressed
    for name, _ in RESULTS.values():
        given = pydicom.dcmread(folder / name, stop_before_pixels=True)
        file = tmp_path / "got" / given.SeriesInstanceUID / f"{given.SOPInstanceUID}.dcm"
        assert file.read_bytes() == (folder / name).read_bytes()
