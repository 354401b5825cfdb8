"""The converter, on a folder laid out as TotalSegmentator's dataset, made from its own example CT and segmentation."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from classscale_training.data.totalsegmentator import ConvertOptions, add_arguments, convert, run
from ClassScaleSegLib.errors import ClassScaleError, ImageError, LabelTableError, OutputError, OutputExistsError
from ClassScaleSegLib.labels.table import LabelTable
from ClassScaleSegLib.resources import resource

nib = pytest.importorskip("nibabel")
DATA = Path(__file__).parents[3] / "shared" / "data" / "totalsegmentator"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the example CT lies outside the project")
FEW = ("spleen", "kidney_right", "kidney_left", "gallbladder", "liver")
SPLIT = {"s0001": "train", "s0002": "val", "s0003": "test"}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("TotalSegmentator")
    names = LabelTable.from_csv(resource("LabelTables", "totalsegmentator.csv")).names
    segmentation = nib.load(DATA / "example_seg.nii.gz")
    labels = np.asanyarray(segmentation.dataobj)
    masks = folder / "s0001" / "segmentations"
    masks.mkdir(parents=True)
    shutil.copyfile(DATA / "example_ct_sm.nii.gz", folder / "s0001" / "ct.nii.gz")
    for value in range(1, 118):  # as in the public dataset, absent classes have an empty mask
        mask = nib.Nifti1Image((labels == value).astype(np.uint8), segmentation.affine)
        nib.save(mask, masks / f"{names[value]}.nii.gz")
    for subject in ("s0002", "s0003"):
        shutil.copytree(folder / "s0001", folder / subject)
    rows = [f"{name};40;f;{part};other" for name, part in SPLIT.items()]
    (folder / "meta.csv").write_text("\n".join(["image_id;age;gender;split;institute", *rows, ""]), "utf-8-sig")
    return folder


@pytest.fixture
def source(original, tmp_path) -> Path:
    """The same with five classes only, to be spoiled; ``few.csv`` beside it is their table."""

    def others(_, names):
        return [name for name in names if name.endswith(".nii.gz") and name.removesuffix(".nii.gz") not in (*FEW, "ct")]

    table = LabelTable.from_names({0: "background", **dict(enumerate(FEW, 1))})
    table.to_csv(tmp_path / "few.csv")
    return Path(shutil.copytree(original, tmp_path / "source", ignore=others))


def few(folder, **more) -> ConvertOptions:
    return ConvertOptions(labels=folder / "few.csv", **more)


def subjects_log(folder) -> dict:
    return json.loads((folder / "conversion.json").read_text())["subjects"]


def test_117_masks_become_one_label_map_that_equals_the_multilabel_file(original, tmp_path):
    verify = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity")
    lines = []
    folder = convert(original, 117, tmp_path, report=lines.append)
    assert folder == tmp_path / "Dataset117_TotalSegmentator" and len(lines) == 3
    expected, ct = nib.load(DATA / "example_seg.nii.gz"), nib.load(DATA / "example_ct_sm.nii.gz")
    for name, part in SPLIT.items():
        where = "Ts" if part == "test" else "Tr"
        labels = nib.load(folder / f"labels{where}" / f"{name}.nii.gz")
        assert labels.get_data_dtype() == np.uint8 and np.allclose(labels.affine, ct.affine, atol=1e-6)
        assert np.array_equal(np.asanyarray(labels.dataobj), np.asanyarray(expected.dataobj))
        image = folder / f"images{where}" / f"{name}_0000.nii.gz"
        assert image.read_bytes() == (DATA / "example_ct_sm.nii.gz").read_bytes()
    content = json.loads((folder / "dataset.json").read_text())
    assert list(content["labels"])[:3] == ["background", "spleen", "kidney_right"] and len(content["labels"]) == 118
    assert content["numTraining"] == 2 and content["channel_names"] == {"0": "CT"}
    assert json.loads((folder / "splits_final.json").read_text()) == [{"train": ["s0001"], "val": ["s0002"]}]
    log = list(subjects_log(folder).values())
    assert [(entry["overlapping_voxels"], entry["missing"], entry["fault"]) for entry in log] == [(0, [], None)] * 3
    verify.verify_dataset_integrity(str(folder), num_processes=1)


def test_a_dataset_of_another_converter_is_not_mixed_with_this_one(source, tmp_path):
    labels = tmp_path / "Dataset001_TotalSegmentator" / "labelsTr"
    labels.mkdir(parents=True)
    (labels / "s0001.nii.gz").write_bytes(b"other classes")
    with pytest.raises(OutputExistsError, match="was not made by this command: it has no conversion.json"):
        convert(source, 1, tmp_path, few(tmp_path))
    assert [file.name for file in labels.parent.rglob("*")] == ["labelsTr", "s0001.nii.gz"]


def test_overlapping_voxels_go_to_the_later_class_and_are_counted(source, tmp_path):
    spleen, liver = (source / "s0001" / "segmentations" / f"{name}.nii.gz" for name in ("spleen", "liver"))
    grown = np.asanyarray(nib.load(liver).dataobj).copy()
    where = np.argwhere(np.asanyarray(nib.load(spleen).dataobj))[:50]
    grown[tuple(where.T)] = 255  # any value above 0 belongs to the class
    nib.save(nib.Nifti1Image(grown, nib.load(liver).affine), liver)
    folder = convert(source, 1, tmp_path, few(tmp_path))
    labels = np.asanyarray(nib.load(folder / "labelsTr" / "s0001.nii.gz").dataobj)
    assert (labels[tuple(where.T)] == 5).all()  # liver, after spleen in the class list
    assert subjects_log(folder)["s0001"]["overlapping_voxels"] == 50


def test_a_missing_mask_stops_that_subject_only_and_can_be_allowed(source, tmp_path):
    masks = source / "s0002" / "segmentations"
    (masks / "liver.nii.gz").rename(masks / "leber.nii.gz")
    lines = []
    with pytest.raises(ImageError, match=r"1 of 3 subjects .*s0002.* lacks 1 of 5 classes, among them liver.nii.gz"):
        convert(source, 1, tmp_path, few(tmp_path), report=lines.append)
    folder = tmp_path / "Dataset001_TotalSegmentator"
    assert sorted(file.name for file in folder.glob("labels*/*")) == ["s0001.nii.gz", "s0003.nii.gz"]
    assert not (folder / "dataset.json").exists()  # the dataset is not ready
    convert(source, 1, tmp_path, few(tmp_path, allow_missing=True), report=lines.append)
    assert [line.split()[0] for line in lines] == ["s0001", "s0002", "s0003", "s0002"]  # the others were kept
    entry = subjects_log(folder)["s0002"]
    assert (entry["missing"], entry["unknown"], entry["fault"]) == (["liver"], ["leber"], None)


def shifted(file):
    image = nib.load(file)
    affine = image.affine.copy()
    affine[0, 3] += 3
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj).copy(), affine), file)


@pytest.mark.parametrize(
    "file, spoil, sentence",
    [
        ("segmentations/liver.nii.gz", shifted, "liver.nii.gz and .*ct.nii.gz differ in position or spacing"),
        (
            "segmentations/liver.nii.gz",
            lambda f: f.write_bytes(f.read_bytes()[:300]),
            "liver.nii.gz is damaged or trunc",
        ),
        ("segmentations/liver.nii.gz", lambda f: f.write_bytes(b""), "liver.nii.gz cannot be read as a NIfTI image"),
        ("ct.nii.gz", lambda f: f.write_bytes(f.read_bytes()[:5000]), "ct.nii.gz is truncated"),
        ("ct.nii.gz", lambda f: f.unlink(), "ct.nii.gz cannot be read as a NIfTI image"),
    ],
)
def test_damaged_subjects_are_named_and_the_others_converted(source, tmp_path, file, spoil, sentence):
    spoil(source / "s0003" / file)
    with pytest.raises(ImageError, match=f"1 of 3 subjects could not be converted .*: .*s0003.*{sentence}"):
        convert(source, 1, tmp_path, few(tmp_path))
    folder = tmp_path / "Dataset001_TotalSegmentator"
    assert len(list(folder.glob("images*/*"))) == len(list(folder.glob("labels*/*"))) == 2
    shutil.copyfile(source / "s0001" / file, source / "s0003" / file)
    convert(source, 1, tmp_path, few(tmp_path))
    assert (folder / "dataset.json").exists()


def test_a_full_disk_stops_the_conversion_and_leaves_no_half_file(source, tmp_path, monkeypatch):
    def on_a_full_disk(image, file):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", on_a_full_disk)
    with pytest.raises(OutputError, match="s0001.nii.gz cannot be written .*No space left"):
        convert(source, 1, tmp_path, few(tmp_path))
    assert not list((tmp_path / "Dataset001_TotalSegmentator").glob("*/*"))


def test_a_meta_file_that_cannot_be_used_gets_a_sentence(source, tmp_path):
    meta = source / "meta.csv"
    meta.write_text("image_id;age\ns0001;40\n")
    with pytest.raises(ClassScaleError, match="lacks the columns image_id and split"):
        convert(source, 1, tmp_path, few(tmp_path))
    meta.write_text("image_id;split\ns0001;training\n")
    with pytest.raises(ClassScaleError, match="subject s0001 has split 'training'; train, val, test were expected"):
        convert(source, 1, tmp_path, few(tmp_path))
    for rows, sentence in (
        ("s0001;train\ns0001;test\n", "subject s0001 has the splits train and test. Remove one row"),
        ("../s0001;train\n", "'../s0001' is not the name of a subject's folder"),
    ):
        meta.write_text(f"image_id;split\n{rows}")
        with pytest.raises(ClassScaleError, match=sentence):
            convert(source, 1, tmp_path, few(tmp_path))
    meta.write_bytes("image_id;split;ort\ns0001;train;Zürich\n".encode("latin-1"))
    with pytest.raises(ClassScaleError, match="meta.csv cannot be read as CSV in UTF-8"):
        convert(source, 1, tmp_path, few(tmp_path))
    meta.unlink()
    with pytest.raises(ClassScaleError, match="meta.csv cannot be read .* give the folder of the unpacked dataset"):
        convert(source, 1, tmp_path, few(tmp_path))


def test_the_command_takes_its_own_class_list_and_workers(source, tmp_path, monkeypatch, capsys):
    table = tmp_path / "labels.csv"
    LabelTable.from_names({0: "background", 1: "liver", 2: "spleen"}).to_csv(table)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = [str(source), "--dataset-id", "5", "--labels", str(table), "--workers", "2"]
    assert run(parser.parse_args(arguments)) == 0
    assert "Dataset005_TotalSegmentator" in capsys.readouterr().out
    labels = np.asanyarray(nib.load(tmp_path / "Dataset005_TotalSegmentator" / "labelsTr" / "s0001.nii.gz").dataobj)
    expected = np.asanyarray(nib.load(DATA / "example_seg.nii.gz").dataobj)
    assert np.array_equal(labels == 1, expected == 5) and np.array_equal(labels == 2, expected == 1)
    with pytest.raises(
        OutputExistsError, match="made with 2 other classes: delete it or choose another dataset number"
    ):
        convert(source, 5, tmp_path)
    (tmp_path / "Dataset005_TotalSegmentator" / "conversion.json").write_text('{"classes": [')
    with pytest.raises(OutputExistsError, match="conversion.json cannot be read .* Delete"):
        convert(source, 5, tmp_path)
    LabelTable.from_names({0: "background", 2: "liver"}).to_csv(table, overwrite=True)
    with pytest.raises(LabelTableError, match="1 to 1 without gaps"):
        run(parser.parse_args(arguments))
