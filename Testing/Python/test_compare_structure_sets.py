"""``classscaleseg compare`` with structure sets: single files, folders, the grid of an image, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from ClassScaleSegLib import DicomSeg, Geometry, LabelTable, Segmentation
from ClassScaleSegLib.commands.main import ExitCode, main

pytest.importorskip("pydicom")

from dicom_phantom import planes  # noqa: E402
from dicom_results import REFERENCE, series  # noqa: E402
from structure_sets import Drawn, rectangle, write_structures  # noqa: E402

GRID = Geometry((20, 16, 12), (1.0, 1.0, 2.0), (-3.0, 5.0, 10.0))
LIVER, TABLE = (LabelTable.from_names(names) for names in ({1: "liver"}, {1: "liver", 2: "PTV"}))


def box(rows: int = 6) -> Segmentation:
    """A liver of 4 x 6 x `rows` voxels, which :func:`contours` draws with 4 slices."""
    labels = np.zeros(GRID.size[::-1], np.uint16)
    labels[3 : 3 + rows, 2:8, 5:9] = 1
    return Segmentation(labels, LIVER, GRID)


def contours(path, slices: int = 4, name: str = "Liver", **more):
    drawn = [rectangle(16 + 2 * row, (1.5, 5.5), (6.5, 12.5)) for row in range(slices)]
    target = [rectangle(16 + 2 * row, (-1, 9), (6, 14)) for row in range(slices)]
    return write_structures(path, [Drawn(name, drawn, number=40), Drawn("PTV", target, number=41)], **more)


def compared(capsys, *arguments) -> tuple[dict, str]:
    assert main(["compare", *map(str, arguments), "--json"]) == ExitCode.OK
    output, error = capsys.readouterr()
    return json.loads(output), error


def test_a_structure_set_is_compared_on_the_grid_of_the_other_one(tmp_path, capsys):
    box().write(tmp_path / "found.nii.gz")
    drawn = contours(tmp_path / "RS.1.2.3.dcm")
    for arguments, value, other in (
        ([drawn, tmp_path / "found.nii.gz"], 40, 1),
        ([tmp_path / "found.nii.gz", drawn], 1, 40),
    ):
        facts, _ = compared(capsys, *arguments)
        ((liver, *rest),) = facts["cases"].values()
        assert (liver["name"].lower(), liver["value"], liver["other_value"]) == ("liver", value, other)
        assert liver["dice"] == pytest.approx(2 * 4 / (4 + 6)) and facts["mean_dice"] is not None
        millilitres = {40: 0.192, 1: 0.288}
        assert liver["volume_ml"] == pytest.approx(millilitres[value])
        assert liver["other_volume_ml"] == pytest.approx(millilitres[other])
        assert [row["name"] for row in rest] == ["PTV"]  # overlaps the liver, and is still whole
    assert facts["notices"] == {}


def test_what_is_said_of_contours_is_told(tmp_path, capsys):
    box().write(tmp_path / "found.seg.nrrd")
    sparse = [rectangle(16 + 2 * row, (1.5, 5.5), (6.5, 12.5)) for row in (0, 2)]
    drawn = write_structures(
        tmp_path / "drawn.dcm", [Drawn("liver", [*sparse, rectangle(32, (1.5, 5.5), (6.5, 12.5))])]
    )
    facts, error = compared(capsys, drawn, tmp_path / "found.seg.nrrd")
    sentence = (
        f"{drawn}: Contours of liver are up to 4 mm apart, 2 slices of {tmp_path / 'found.seg.nrrd'}: each counts"
    )
    assert sentence in error
    assert facts["notices"]["drawn"][0].startswith(sentence) and len(facts["notices"]["drawn"]) == 2


def test_of_our_own_result_every_voxel_comes_back(tmp_path, capsys):
    pytest.importorskip("contourpy")
    pytest.importorskip("highdicom")
    source = series(tmp_path, planes(GRID.size[2], GRID.size[1::-1], GRID.origin, (0, 0, 2), spacing=(1.0, 1.0)))
    ours = Segmentation(box().labels, TABLE, GRID)
    ours.labels[3, 2:8, 9:12] = 2
    for name in ("a.rtstruct.dcm", "a.seg.dcm", "a.seg.nrrd"):
        ours.write(tmp_path / name, source=source)
    ours.write(tmp_path / "binary.seg.dcm", source=DicomSeg(source, kind="binary"))  # slices 3 to 8 alone
    for other in ("a.seg.dcm", "a.seg.nrrd", "binary.seg.dcm"):
        for pair in ([other, "a.rtstruct.dcm"], ["a.rtstruct.dcm", other]):
            facts, error = compared(capsys, *(tmp_path / name for name in pair))
            assert [row["dice"] for rows in facts["cases"].values() for row in rows] == [1, 1], pair
            assert not error
    more = Segmentation(box(8).labels, LIVER, GRID)
    more.write(tmp_path / "b.rtstruct.dcm", source=source)
    facts, error = compared(capsys, tmp_path / "b.rtstruct.dcm", tmp_path / "binary.seg.dcm")
    liver = next(iter(facts["cases"].values()))[0]
    # the segmentation ends where its last class does, and what is drawn beyond it counts
    assert liver["volume_ml"] == pytest.approx(0.384) and liver["dice"] == pytest.approx(2 * 6 / (6 + 8))
    assert "liver reach up to 4.0 mm beyond" in error


def test_another_frame_of_reference_than_that_of_a_dicom_segmentation(tmp_path, capsys):
    pytest.importorskip("highdicom")
    source = series(tmp_path, planes(GRID.size[2], GRID.size[1::-1], GRID.origin, (0, 0, 2), spacing=(1.0, 1.0)))
    box().write(tmp_path / "a.seg.dcm", source=source)
    assert REFERENCE["FrameOfReferenceUID"] == Drawn("").frame
    compared(capsys, contours(tmp_path / "a.dcm"), tmp_path / "a.seg.dcm")
    elsewhere = write_structures(
        tmp_path / "b.dcm", [Drawn("Liver", [rectangle(16, (1.5, 5.5), (6.5, 12.5))], frame="1.2.3")]
    )
    for grid in ([], ["--grid", str(source)]):
        assert main(["compare", str(elsewhere), str(tmp_path / "a.seg.dcm"), *grid]) == ExitCode.IMAGE
        assert f"{elsewhere} has another frame of reference (FrameOfReferenceUID)" in capsys.readouterr().err


def test_an_image_that_tells_no_frame_of_reference_hides_none_of_two(tmp_path, capsys):
    pytest.importorskip("highdicom")
    source = series(tmp_path, planes(GRID.size[2], GRID.size[1::-1], GRID.origin, (0, 0, 2), spacing=(1.0, 1.0)))
    box().write(tmp_path / "a.seg.dcm", source=source)
    box().write(tmp_path / "ct.nii.gz")
    drawn = contours(tmp_path / "a.dcm")
    liver = [rectangle(16 + 2 * row, (1.5, 5.5), (6.5, 12.5)) for row in range(4)]
    elsewhere, unknown = (
        write_structures(tmp_path / f"{number}.dcm", [Drawn("Liver", liver, frame=frame)])
        for number, frame in enumerate(("1.2.3", ""))
    )
    grid = ["--grid", tmp_path / "ct.nii.gz"]
    for one, two in ((drawn, elsewhere), (tmp_path / "a.seg.dcm", elsewhere)):
        _, error = compared(capsys, one, two, *grid)
        assert f"{one} and {two} have different frames of reference (FrameOfReferenceUID)" in error
    for one, two in ((drawn, tmp_path / "a.seg.dcm"), (drawn, unknown)):
        _, error = compared(capsys, one, two, *grid)
        assert "frames of reference" not in error


def test_two_structure_sets_need_an_image(tmp_path, capsys):
    one, two = contours(tmp_path / "one.dcm"), contours(tmp_path / "two.dcm", 6)
    assert main(["compare", str(one), str(two)]) == ExitCode.IMAGE
    assert "are structure sets, which have contours and no voxels: name an image" in capsys.readouterr().err
    volume = planes(GRID.size[2], GRID.size[1::-1], GRID.origin, (0, 0, 2), spacing=(1.0, 1.0))
    image = sitk.GetImageFromArray(np.zeros(GRID.size[::-1], np.int16))
    GRID.apply(image)
    sitk.WriteImage(image, str(tmp_path / "ct.nii.gz"))
    for grid in (series(tmp_path, volume), tmp_path / "ct.nii.gz"):
        facts, _ = compared(capsys, one, two, "--grid", grid)
        assert [row["dice"] for row in facts["cases"]["one"]] == [pytest.approx(0.8)] * 2
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(tmp_path / "4d.nii.gz"))
    for grid, sentence in (
        (tmp_path / "gone.nii.gz", "gone.nii.gz does not exist"),
        (tmp_path / "4d.nii.gz", "4d.nii.gz is no volume"),
        (one, "is a DICOM file without an image"),
        (tmp_path / "series" / "IM0003.dcm", "IM0003.dcm"),
    ):
        assert main(["compare", str(one), str(two), "--grid", str(grid)]) == ExitCode.IMAGE, grid
        assert sentence in capsys.readouterr().err


def test_folders_with_structure_sets(tmp_path, capsys):
    one, two, images = (tmp_path / name for name in ("drawn", "found", "images"))
    for folder in (one, two, images):
        folder.mkdir()
    contours(one / "a.dcm")  # as a planning system names it, renamed after the case
    contours(one / "b.rtstruct.dcm")
    contours(one / "c.rtstruct.dcm")
    box().write(two / "a.nii.gz")
    box(4).write(two / "b.seg.nrrd")
    contours(two / "b.rtstruct.dcm", 1)  # of a result in several formats, that with voxels is read
    contours(two / "c.rtstruct.dcm")
    series(one, planes(1)).rename(one / "slices")
    (one / "slices" / "IM0000.dcm").rename(one / "z.dcm")  # no segmentation
    assert main(["compare", str(one), str(two), "--json"]) == ExitCode.SOME_FAILED
    output, error = capsys.readouterr()
    facts = json.loads(output)
    dice = {name: rows[0]["dice"] for name, rows in facts["cases"].items()}
    assert dice == {"a": pytest.approx(0.8), "b": 1} and not facts["without_other"]
    assert "c.rtstruct.dcm are structure sets" in error
    for name in ("a", "b", "c"):
        box().write(images / f"{name}.nii.gz")
    facts, _ = compared(capsys, one, two, "--grid", images)
    assert facts["cases"]["c"][0]["dice"] == 1
    (images / "c.nii.gz").rename(images / "other.nii.gz")
    assert main(["compare", str(one), str(two), "--grid", str(images)]) == ExitCode.SOME_FAILED
    assert f"{images} has no image of the case c" in capsys.readouterr().err
    for folder in (one, two):
        box().write(folder / "e.nii.gz")  # no contours, so no image is needed
    assert main(["compare", str(one), str(two), "--grid", str(images), "--json"]) == ExitCode.SOME_FAILED
    assert json.loads(capsys.readouterr().out)["cases"]["e"][0]["dice"] == 1
    assert main(["compare", str(two / "e.nii.gz"), str(two / "e.nii.gz"), "--grid", "gone"]) == ExitCode.IMAGE
    assert "gone does not exist" in capsys.readouterr().err
    assert main(["compare", str(one), str(two), "--grid", str(images / "a.nii.gz")]) == ExitCode.IMAGE
    assert "is no folder: of many cases, name the folder of their images" in capsys.readouterr().err


def test_of_a_result_in_several_formats_that_with_names_and_voxels_is_read(tmp_path, capsys):
    one, two = tmp_path / "drawn", tmp_path / "found"
    one.mkdir()
    two.mkdir()
    box().write(one / "a.nii.gz")  # a label image with its table
    contours(one / "a.rtstruct.dcm", 1)
    box().write(two / "a.nii.gz")
    (two / "a.labels.csv").unlink()  # an image, for all that is known
    contours(two / "a.dcm")
    facts, _ = compared(capsys, one, two)
    liver = facts["cases"]["a"][0]
    assert liver["other_value"] == 40 and liver["dice"] == pytest.approx(0.8)


def test_a_given_table_names_structures_by_their_numbers(tmp_path, capsys):
    box().write(tmp_path / "found.nii.gz")
    drawn = contours(tmp_path / "drawn.dcm", name="Leber")
    facts, _ = compared(capsys, drawn, tmp_path / "found.nii.gz")
    assert [row["dice"] for row in facts["cases"]["drawn"]] == [None, None, None]
    LabelTable.from_names({40: "liver", 41: "target"}).to_csv(tmp_path / "names.csv")
    facts, _ = compared(capsys, drawn, tmp_path / "found.nii.gz", "--labels", tmp_path / "names.csv")
    assert [row["name"] for row in facts["cases"]["drawn"] if row["dice"]] == ["liver"]
