"""The script that writes small datasets in TotalSegmentator's layout."""

from __future__ import annotations

import numpy as np
import pytest

nib = pytest.importorskip("nibabel")
from make_totalsegmentator_layout import CT, LABELS, main  # noqa: E402


@pytest.fixture
def source(tmp_path):
    """A folder with a label map (spleen 1, liver 5, voxels of 3 mm) and no CT."""
    labels = np.zeros((30, 24, 12), np.uint8)
    labels[3:13, 4:20, 2:10], labels[16:27, 4:20, 2:10] = 1, 5
    folder = tmp_path / "source"
    folder.mkdir()
    nib.save(nib.Nifti1Image(labels, np.diag([-3.0, 3.0, 3.0, 1.0])), folder / LABELS)
    return folder


def read(file):
    return np.asanyarray(nib.load(file).dataobj)


def test_cases_differ_from_each_other_but_not_between_runs(source, tmp_path, capsys):
    for name in ("a", "b"):
        main([str(source), str(tmp_path / name), "--cases", "4", "--size", "20"])
    rows = (tmp_path / "a" / "meta.csv").read_text().splitlines()
    assert [row.split(";")[::3] for row in rows[1:]] == [
        ["s0000", "train"],
        ["s0001", "train"],
        ["s0002", "val"],
        ["s0003", "test"],
    ]
    files = sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*.nii.gz"))
    assert len(files) == 4 * 118  # the CT and all classes, absent ones too
    for file in files:
        np.testing.assert_array_equal(read(tmp_path / "a" / file), read(tmp_path / "b" / file))
    masks = [read(tmp_path / "a" / f"s000{case}" / "segmentations" / "liver.nii.gz") for case in range(4)]
    assert all(mask.shape == (20, 16, 8) and 0.5 < mask.sum() / masks[0].sum() < 2 for mask in masks)
    assert not np.array_equal(masks[0], masks[1])
    image = nib.load(tmp_path / "a" / "s0000" / "ct.nii.gz")
    assert image.header.get_zooms() == pytest.approx((4.5, 4.5, 4.5))
    np.testing.assert_allclose(image.affine[:3, 3], [-0.75, 0.75, 0.75])  # centres of voxels 1.5 times as wide
    spleen = read(tmp_path / "a" / "s0000" / "segmentations" / "spleen.nii.gz") > 0
    greys = [np.asanyarray(image.dataobj)[where].mean() for where in (spleen, masks[0] > 0)]
    assert abs(greys[0] - greys[1]) > 20  # structures can be told apart
    assert "s0003: test, 20 x 16 x 8 voxels, 2 classes" in capsys.readouterr().out


def test_a_ct_is_used_if_there_is_one_and_must_have_the_grid_of_the_labels(source, tmp_path):
    affine = np.diag([-3.0, 3.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(np.full((30, 24, 12), 300, np.int16), affine), source / CT)
    main([str(source), str(tmp_path / "made"), "--cases", "3", "--size", "20"])
    assert abs(read(tmp_path / "made" / "s0000" / "ct.nii.gz").mean() - 300) < 2
    nib.save(nib.Nifti1Image(np.zeros((30, 24, 13), np.int16), affine), source / CT)
    with pytest.raises(SystemExit, match="have different grids"):
        main([str(source), str(tmp_path / "other")])


@pytest.mark.parametrize(("arguments", "sentence"), [([], "does not exist"), (["--cases", "2"], "at least 3")])
def test_wrong_arguments_get_a_sentence(tmp_path, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as error:
        main([str(tmp_path), str(tmp_path / "made"), *arguments])
    assert sentence in str(error.value) + capsys.readouterr().err
