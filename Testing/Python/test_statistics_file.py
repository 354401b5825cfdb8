"""The statistics of a segmentation as CSV, and what `classscaleseg segment --statistics` writes."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.errors import ImageError
from ClassScaleSegLib.images.geometry import Geometry
from ClassScaleSegLib.images.segmentation import Segmentation
from ClassScaleSegLib.images.statistics import INTENSITY_COLUMNS, SHAPE_COLUMNS
from ClassScaleSegLib.labels.csv import CODE_COLUMNS
from ClassScaleSegLib.labels.table import LabelTable
from conftest import small_dataset, small_plans
from dicom_phantom import planes, write_series

GRID = Geometry((7, 6, 5), (0.5, 1.0, 2.0), (10.0, -20.0, 30.0))
BEFORE = ["LabelValue", "Name", "Voxels", "Volume_mL", *(name for three in CODE_COLUMNS.values() for name in three)]
SHAPE, INTENSITIES = ([column.name for column in columns] for columns in (SHAPE_COLUMNS, INTENSITY_COLUMNS))


@pytest.fixture
def result() -> Segmentation:
    labels = np.zeros((5, 6, 7), np.uint16)
    labels[1:3, 2:4, 3:6] = 2
    labels[4, 5, 6] = 3
    return Segmentation(labels, LabelTable.from_names({0: "background", 1: "none", 2: "liver", 3: "corner"}), GRID)


def ramp(dtype=np.int32) -> np.ndarray:
    return np.arange(210, dtype=dtype).reshape(5, 6, 7) - 2_000_000_000


def written(voxels: np.ndarray, file: Path, grid: Geometry = GRID) -> Path:
    image = sitk.GetImageFromArray(voxels)
    grid.apply(image)
    sitk.WriteImage(image, str(file))
    return file


def rows(file: Path) -> dict[str, dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return {row["Name"]: row for row in csv.DictReader(text)}


def header(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()[0].split(",")


def test_the_columns_of_before_come_first_then_shape_then_intensities(result, tmp_path):
    result.write_statistics(tmp_path / "shape.csv")
    assert header(tmp_path / "shape.csv") == [*BEFORE, *SHAPE]
    result.write_statistics(tmp_path / "all.csv", image=ramp())
    assert header(tmp_path / "all.csv") == [*BEFORE, *SHAPE, *INTENSITIES]
    assert list(rows(tmp_path / "all.csv")) == ["none", "liver", "corner"]


def test_cells_hold_the_measures_and_stay_empty_for_a_class_that_was_not_found(result, tmp_path):
    image = ramp()
    result.write_statistics(tmp_path / "s.csv", image=image)
    found = rows(tmp_path / "s.csv")
    liver, inside = found["liver"], image[result.labels == 2]
    centre = [float(liver[f"Centroid_{axis}_mm"]) for axis in "RAS"]
    assert centre == [-(10 + 4 * 0.5), -(-20 + 2.5), 30 + 1.5 * 2]
    assert [int(liver[f"{end}_{axis}"]) for end in ("First", "Last") for axis in "IJK"] == [3, 2, 1, 5, 3, 2]
    assert (liver["TouchesEdge"], found["corner"]["TouchesEdge"]) == ("false", "true")
    assert (int(liver["Minimum"]), int(liver["Maximum"])) == (inside.min(), inside.max())  # all ten digits
    assert float(liver["Median"]) == np.median(inside)
    assert float(liver["StandardDeviation"]) == pytest.approx(inside.std(ddof=1), rel=1e-9)
    assert found["corner"]["StandardDeviation"] == "0" and found["corner"]["Percentile_5"] == str(image[-1, -1, -1])
    assert found["none"]["Voxels"] == "0"
    assert {found["none"][name] for name in (*SHAPE, *INTENSITIES)} == {""}
    cells = (row[name] for row in (liver, found["corner"]) for name in (*SHAPE, *INTENSITIES))
    assert all(cell in ("true", "false") or math.isfinite(float(cell)) for cell in cells)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_the_image_is_a_file_an_image_of_simpleitk_or_an_array(result, tmp_path, suffix):
    file = written(ramp(np.float32), tmp_path / f"ct{suffix}")
    expected = result.measures(ramp(np.float32))
    for image in (file, str(file), [file], sitk.ReadImage(str(file))):
        assert result.measures(image) == expected
    assert {value: found.intensities for value, found in result.measures().items()} == {2: None, 3: None}


def test_an_image_on_another_grid_is_a_sentence(result, tmp_path):
    shifted = Geometry(GRID.size, GRID.spacing, (10.3, -20.0, 30.0))
    with pytest.raises(ImageError, match="ct.nrrd is 0.3 mm away from the segmentation. Give the image that was segm"):
        result.measures(written(ramp(), tmp_path / "ct.nrrd", shifted))
    with pytest.raises(ImageError, match=r"The image has \(6, 6, 5\) voxels and the segmentation \(7, 6, 5\). Give"):
        result.measures(sitk.ReadImage(str(written(ramp(), tmp_path / "ct.mha")))[:6])
    rounded = Geometry(GRID.size, GRID.spacing, (10.001, -20.0, 30.0))
    assert result.measures(written(ramp(), tmp_path / "near.nrrd", rounded)) == result.measures(ramp())
    with pytest.raises(ImageError, match="NaN or infinite"):
        result.write_statistics(tmp_path / "s.csv", image=np.full((5, 6, 7), np.nan))
    assert not (tmp_path / "s.csv").exists()


# the command


def segment(*arguments) -> int:
    return main(["segment", *map(str, arguments), "--device", "cpu", "--threads", "1"])


def check(statistics: Path, output: Path, voxels: np.ndarray) -> None:
    """Compare the intensities in a file of statistics with those of ``voxels`` in the written segmentation."""
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(output)))
    found = [row for row in rows(statistics).values() if row["Voxels"] != "0"]
    assert found and len(found) == len(np.unique(labels[labels > 0]))
    for row in found:
        inside = voxels[labels == int(row["LabelValue"])]
        assert float(row["Mean"]) == pytest.approx(inside.mean(), rel=1e-8)
        assert [float(row[name]) for name in ("Minimum", "Maximum")] == [inside.min(), inside.max()]


def noise(seed: int, shape=(20, 18, 24)) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 30, shape).astype(np.int16)


def test_of_several_channels_the_first_is_measured(write_model, tmp_path):
    model = write_model(small_plans(channels=2), small_dataset(channels=2))
    grid = Geometry((24, 18, 20), (1.1, 0.9, 1.4), (-3.0, 2.0, 8.0))
    files = [written(noise(channel), tmp_path / f"x_000{channel}.nii.gz", grid) for channel in range(2)]
    out = tmp_path / "out"
    assert segment(*files, "-m", model, "-o", out / "o.nrrd", "--statistics", out / "o.csv") == ExitCode.OK
    check(out / "o.csv", out / "o.nrrd", noise(0))
    both = sitk.Compose([sitk.ReadImage(str(file)) for file in files])  # as components of one file
    sitk.WriteImage(both, str(tmp_path / "both.nrrd"))
    assert segment(tmp_path / "both.nrrd", "-m", model, "-o", out / "b.nrrd", "--statistics", out / "b.csv") == 0
    assert (out / "b.csv").read_bytes() == (out / "o.csv").read_bytes()


def test_every_case_of_a_folder_has_its_own_intensities(write_model, tmp_path):
    model, out = write_model(), tmp_path / "out"
    other = shutil.copytree(model, tmp_path / "other" / model.name)
    (tmp_path / "cases").mkdir()
    grid = Geometry((24, 18, 20), (1.1, 0.9, 1.4), (-3.0, 2.0, 8.0))
    for seed, name in enumerate("ab"):
        written(noise(seed), tmp_path / "cases" / f"{name}.mha", grid)
    more = ("-m", model, "-m", other, "--format", ".nrrd", "--statistics", out)
    assert segment(tmp_path / "cases", "-o", out, *more) == ExitCode.OK
    for seed, name in enumerate("ab"):
        check(out / f"{name}.csv", out / f"{name}.nrrd", noise(seed))


def test_a_dicom_folder_is_measured_in_its_own_units(write_model, tmp_path):
    volume = planes(6, (12, 14), slope=2.0, intercept=-1000.0)
    folder = write_series(tmp_path / "series", volume)
    more = ("--no-mirroring", "-o", tmp_path / "o.nrrd", "--statistics", tmp_path / "o.csv")
    assert segment(folder, "-m", write_model(), *more) == ExitCode.OK
    check(tmp_path / "o.csv", tmp_path / "o.nrrd", np.stack([plane.values for plane in volume]))


def test_an_image_that_only_nibabel_understands_is_read_again_as_it_was(write_model, tmp_path):
    import nibabel

    plans = small_plans() | {"image_reader_writer": "NibabelIO"}
    skewed = np.array([[1.0, 0.4, 0, 5], [0, 1, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(noise(0).transpose(), skewed)
    image.header.set_qform(skewed, 0, strip_shears=True)
    nibabel.save(image, tmp_path / "ct.nii.gz")
    out = tmp_path / "o.nrrd"
    more = ("--no-mirroring", "-o", out, "--statistics", tmp_path / "o.csv")
    assert segment(tmp_path / "ct.nii.gz", "-m", write_model(plans), *more) == ExitCode.OK
    check(tmp_path / "o.csv", out, noise(0))


def test_an_image_that_vanishes_during_the_segmentation_is_a_sentence(write_model, tmp_path, monkeypatch, capsys):
    from ClassScaleSegLib.commands import job_models as command

    file = written(noise(0), tmp_path / "ct.nrrd", Geometry((24, 18, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    original = command.segment_with

    def removing(*arguments, **more):
        result = original(*arguments, **more)
        file.unlink()
        return result

    monkeypatch.setattr(command, "segment_with", removing)
    out = tmp_path / "out"
    more = ("-m", write_model(), "-o", out / "o.nrrd", "--statistics", out / "o.csv")
    assert segment(file, *more) == ExitCode.IMAGE
    assert "ct.nrrd does not exist" in capsys.readouterr().err and not list(out.iterdir())
