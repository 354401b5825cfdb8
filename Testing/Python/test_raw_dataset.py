"""Faults of raw datasets: each is one sentence that names the case, before nnU-Net runs; what can be read is read."""

from __future__ import annotations

import codecs
import json
import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
import numpy as np
import SimpleITK as sitk
from classscale_training.commands import main
from classscale_training.data.dataset_json import read_dataset_json
from classscale_training.nnunet.dataset_check import check_dataset
from ClassScaleSegLib.errors import ClassScaleError, LabelTableError
from ClassScaleSegLib.process.exit_codes import ExitCode
from tiny_nnunet import set_environment

SHAPE, SPACING, ORIGIN = (12, 14, 16), (2.0, 3.0, 5.0), (-40.0, -12.0, 7.0)
LABELS = {"background": 0, "a": 1, "b": 2, "c": 3}


def save(array: np.ndarray, file: Path, spacing=SPACING, origin=ORIGIN, direction=None) -> None:
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(file))


def voxels() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 300, SHAPE).astype(np.float32)


def labels() -> np.ndarray:
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 4).astype(np.uint8)


class Raw:
    """A dataset of three cases in a raw folder, for a test to spoil."""

    def __init__(self, root: Path, ending: str = ".nii.gz", channels: tuple[str, ...] = ("CT",)) -> None:
        self.folder, self.ending, self.channels = root / "Dataset007_Seven", ending, channels
        for name in ("imagesTr", "labelsTr"):
            (self.folder / name).mkdir(parents=True)
        for case in ("a", "b", "c"):
            for channel in range(len(channels)):
                save(voxels() + ord(case), self.image(case, channel))
            save(labels(), self.label(case))
        self.content = {
            "channel_names": {str(index): name for index, name in enumerate(channels)},
            "labels": LABELS,
            "numTraining": 3,
            "file_ending": ending,
        }
        self.write()

    def image(self, case: str = "b", channel: int = 0) -> Path:
        return self.folder / "imagesTr" / f"{case}_{channel:04d}{self.ending}"

    def label(self, case: str = "b") -> Path:
        return self.folder / "labelsTr" / f"{case}{self.ending}"

    def write(self, *without: str, **changes) -> None:
        content = {key: value for key, value in {**self.content, **changes}.items() if key not in without}
        (self.folder / "dataset.json").write_text(json.dumps(content))

    def fault(self) -> str:
        with pytest.raises(ClassScaleError) as caught:
            check_dataset(self.folder)
        return str(caught.value)


@pytest.fixture
def raw(tmp_path, monkeypatch):
    set_environment(monkeypatch, tmp_path)
    return Raw(tmp_path / "raw")


def nan(array, value=np.nan):
    array[3, 4, 5] = value
    return array


def test_a_dataset_without_faults_has_no_warnings(raw, capsys):
    assert [case.name for case in check_dataset(raw.folder).cases] == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("spoil", "sentences"),
    [
        (lambda r: save(labels()[:10], r.label()), ["b.nii.gz of the case b has 16x14x10 voxels", "has 16x14x12"]),
        (lambda r: save(labels()[:, :, :-1], r.label()), ["has 15x14x12 voxels, its image"]),
        (lambda r: save(labels()[0], r.label()), ["has 16x14x1 voxels, its image"]),
        (lambda r: save(np.stack([labels()] * 2), r.label(), (*SPACING, 1), (*ORIGIN, 0)), ["holds 2 volumes"]),
        (lambda r: r.label().unlink(), ["The case b has no label map", "b.nii.gz does not exist. Add it"]),
        (lambda r: r.label().rename(r.label("b_0000")), ["Is it b_0000.nii.gz? Then rename"]),
        (lambda r: r.image().rename(r.image().with_name("b.nii.gz")), ["b.nii.gz has no channel number in its name"]),
        (lambda r: r.image().unlink(), ["gives numTraining as 3, but 2 training cases were found"]),
        (lambda r: r.image().rename(r.image("b", 2)), ["b_0000.nii.gz does not exist, but channel 0002 does"]),
        (lambda r: save(voxels(), r.image("b", 1)), ["The case b has 2 channels", "names 1 (CT). Remove the others"]),
        (lambda r: (r.folder / "imagesTr/._a_0000.nii.gz").write_bytes(b"x"), ["._a_0000.nii.gz is a hidden file"]),
        (lambda r: save(nan(voxels()), r.image()), ["b_0000.nii.gz has 1 voxels that are NaN or infinite"]),
        (lambda r: save(nan(voxels(), -np.inf), r.image()), ["b_0000.nii.gz has 1 voxels that are NaN or infinite"]),
        (lambda r: save(nan(voxels().astype(float), 1e300), r.image()), ["has 1 voxels that are NaN or infinite"]),
        (lambda r: save(0 * voxels(), r.image()), ["b_0000.nii.gz of the case b holds zeros alone"]),
        (
            lambda r: r.image().write_bytes(r.image().read_bytes()[:-300]),
            ["b_0000.nii.gz is truncated", "Copy or export"],
        ),
        (lambda r: r.label().write_bytes(r.label().read_bytes()[:-30]), ["labelsTr/b.nii.gz is truncated"]),
        (lambda r: r.image().write_bytes(b""), ["b_0000.nii.gz"]),
        (lambda r: r.label().write_text("no image"), ["b.nii.gz"]),
        (
            lambda r: save(nan(labels(), 9), r.label()),
            ["b.nii.gz holds label 9; dataset.json has integer labels 0 to 3"],
        ),
        (lambda r: save(nan(labels().astype(np.int16), -1), r.label()), ["b.nii.gz holds label -1; dataset.json"]),
        (lambda r: save(nan(labels().astype(np.float32), 0.9999), r.label()), ["holds label 0.9999;", "interpolation"]),
        (lambda r: save(nan(labels().astype(float)), r.label()), ["holds label nan;"]),
        (lambda r: save(labels().astype(np.int16) * 40, r.label()), ["holds labels 40, 80, 120; dataset.json"]),
        (lambda r: save(labels(), r.label(), origin=(900.0, -12.0, 7.0)), ["mm away from its image", "not even touch"]),
        (lambda r: r.write(file_ending=".nrrd"), ["has no training cases", "end with .nrrd"]),
        (lambda r: r.write(file_ending=".xyz", dataset={"x": {}}), ["lists the case x without images or label"]),
        (lambda r: r.write(labels={"background": 0, "a": 1.5}), ["label 'a' is 1.5; a whole number was expected"]),
        (lambda r: r.write(labels={"0": "background", "1": "a"}), ['names and values of "labels" are exchanged']),
        (lambda r: r.write("labels"), ["dataset.json has no object 'labels'"]),
        (lambda r: r.write("channel_names"), ["dataset.json names no input channels"]),
        (lambda r: r.write(channel_names=["CT"]), ["dataset.json names no input channels"]),
        (lambda r: (r.folder / "dataset.json").write_text("{"), ["cannot be read as an nnU-Net dataset.json"]),
        (lambda r: (r.folder / "dataset.json").unlink(), ["dataset.json does not exist. Write it"]),
    ],
)
def test_each_fault_is_a_sentence_that_names_the_case(raw, spoil, sentences):
    spoil(raw)
    message = raw.fault()
    assert all(sentence in message for sentence in sentences), message


@pytest.mark.parametrize("value", [255, 1000])
def test_masks_of_other_values_than_the_labels_are_named(raw, value):
    raw.write(labels={"background": 0, "a": 1})
    for case in "abc":
        save((labels() > 1).astype(np.uint16) * value, raw.label(case))
    message = raw.fault()
    assert message.count(f"holds label {value}; dataset.json has integer labels 0 to 1.") == 3
    assert ("write 1 in its place" in message) == (value == 255)


def test_no_foreground_is_a_fault_and_a_class_in_no_case_a_warning(raw, capsys):
    for case in "abc":
        save(np.minimum(labels(), 2), raw.label(case))
    check_dataset(raw.folder)
    assert "Warning: No label map of Dataset007_Seven contains c (3): it cannot be learned." in capsys.readouterr().err
    for case in "abc":
        save(0 * labels(), raw.label(case))
    assert "has foreground: all hold 0 alone" in raw.fault()
    raw.write(labels={**LABELS, "all": [1, 2], "ignore": 4}, regions_class_order=[1, 2, 3, 4])
    for case in "abc":
        save(labels() // 3 * 4, raw.label(case))  # voxels to ignore are not foreground
    assert "has foreground: all hold 0 alone" in raw.fault()


FLIPPED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("place", "millimetres"),
    [
        ({"origin": (-39.0, -12.0, 7.0)}, "1 mm"),
        ({"origin": (-40.0, -12.0, 7.4)}, "0.4 mm"),
        ({"spacing": (2.0, 3.0, 5.5)}, "5.5 mm"),
        ({"direction": FLIPPED, "origin": (-10.0, -12.0, 7.0)}, "30 mm"),
    ],
)
def test_a_label_map_at_another_place_than_its_image_is_a_warning(raw, capsys, place, millimetres):
    save(labels(), raw.label(), **place)
    check_dataset(raw.folder)
    error = capsys.readouterr().err
    assert f"Warning: {raw.label()} of the case b lies up to {millimetres} away from its image {raw.image()}" in error
    assert error.count("Warning") == 1


@pytest.mark.parametrize("shift", [0.0, 0.01])
def test_rounded_headers_are_the_same_place(raw, capsys, shift):
    save(labels(), raw.label(), origin=(-40.0 + shift, -12.0, 7.0))
    check_dataset(raw.folder)
    assert capsys.readouterr().err == ""


def test_what_is_not_used_or_odd_is_a_warning(raw, capsys):
    save(labels(), raw.label("lonely"))
    save(voxels(), raw.folder / "imagesTr" / "other_0000.nrrd")
    save(0 * voxels() - 1024, raw.image("c"))
    check_dataset(raw.folder)
    error = capsys.readouterr().err
    assert error.count("Warning") == 3 and "lonely.nii.gz is not used: there is no image" in error
    assert "other_0000.nrrd is not used, because file_ending is .nii.gz" in error
    assert "c_0000.nii.gz has the same value, -1024, everywhere" in error


def test_a_spacing_in_another_unit_is_a_warning(raw, capsys):
    micrometres = tuple(1000 * mm for mm in SPACING)
    save(voxels(), raw.image(), micrometres)
    save(labels(), raw.label(), micrometres)
    check_dataset(raw.folder)
    found = capsys.readouterr().err
    assert (
        "b_0000.nii.gz of the case b has voxels of 2000x3000x5000 mm, the median is 2x3x5 mm (smallest first)" in found
    )
    assert "by a factor of 1000. Check whether its header is in another unit." in found
    assert found.count("Warning") == 1


def test_cases_with_the_same_image_are_a_warning_unless_no_fold_separates_them(raw, capsys, tmp_path):
    shutil.copy(raw.image("a"), raw.image("c"))
    save(sitk.GetArrayFromImage(sitk.ReadImage(str(raw.image("a")))), raw.image("b"))  # another file, the same voxels
    check_dataset(raw.folder)
    found = capsys.readouterr().err
    assert "the cases b and a, c and a have the same image." in found and "nnU-Net's folds may separate them" in found
    for val, warned in (["a", "b"], "c and a have"), (["a", "b", "c"], ""):
        (raw.folder / "splits_final.json").write_text(json.dumps([{"train": ["x"], "val": val}]))
        check_dataset(raw.folder)
        found = capsys.readouterr().err
        assert f"the cases {warned}" in found and "splits_final.json separates them" in found if warned else found == ""


def test_channels_of_a_case_must_fit(tmp_path, capsys):
    raw = Raw(tmp_path, ".nrrd", ("T1", "T2"))
    save(0 * voxels(), raw.image("a", 1))
    check_dataset(raw.folder)
    assert "a_0001.nrrd holds zeros alone" in capsys.readouterr().err
    save(voxels()[:9], raw.image("a", 1))
    save(voxels(), raw.image("b", 1), spacing=(2.0, 3.0, 4.0))
    raw.image("c", 1).unlink()
    message = raw.fault()
    assert "a_0001.nrrd of the case a has 16x14x9 voxels, the first channel" in message
    assert "b_0000.nrrd have different spacings" in message
    assert "The case c has 1 channel " in message and "names 2 (T1, T2). Add the missing files" in message
    save(np.stack([voxels()] * 2), raw.image("c"), (*SPACING, 1), (*ORIGIN, 0))  # both channels in one file
    assert "The case c" not in raw.fault()


def test_all_faults_are_listed_up_to_twenty(raw):
    save(nan(voxels()), raw.image("a"))
    raw.label("c").unlink()
    with pytest.raises(ClassScaleError) as caught:
        check_dataset(raw.folder)
    assert type(caught.value) is ClassScaleError and str(caught.value).startswith("Dataset007_Seven has 2 faults:\n- ")
    for index in range(22):
        save(voxels(), raw.image(f"more{index}"))
    lines = raw.fault().splitlines()
    assert len(lines) == 22 and lines[-1] == "and 5 more faults."


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
def test_a_fourth_axis_of_one_label_map_is_judged_as_the_reader_does(raw, reader):
    raw.write(overwrite_image_reader_writer=reader)
    check_dataset(raw.folder)
    save(labels()[None], raw.label(), (*SPACING, 1), (*ORIGIN, 0))
    if reader == "SimpleITKIO":
        check_dataset(raw.folder)
    else:
        assert f"b.nii.gz has 4 dimensions (16x14x12x1); {reader}" in raw.fault()


def test_names_with_spaces_dots_and_umlauts_are_allowed(raw, capsys):
    for old, new in (("a", "case 1"), ("b", "Zürich.2.3"), ("c", "x_y-z")):
        raw.image(old).rename(raw.image(new))
        raw.label(old).rename(raw.label(new))
    assert {case.name for case in check_dataset(raw.folder, workers=2).cases} == {"case 1", "Zürich.2.3", "x_y-z"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "spoil", "code"),
    [
        (["plan"], lambda r: save(nan(voxels()), r.image()), ExitCode.IMAGE),
        (["plan"], lambda r: save(labels()[:5], r.label()), ExitCode.LABELS),
        (["preprocess"], lambda r: r.label().unlink(), ExitCode.LABELS),
    ],
)
def test_commands_end_with_the_code_for_faults(raw, tmp_path, capsys, arguments, spoil, code):
    planned = tmp_path / "preprocessed" / raw.folder.name
    planned.mkdir()
    (planned / "ClassScalePlans.json").write_text('{"configurations": {}}')
    spoil(raw)
    workers = {"plan": "-npfp", "preprocess": "-np"}[arguments[0]]
    assert main([*arguments, "-d", "7", workers, "1", "--no_pbar"]) == code
    assert "Traceback" not in capsys.readouterr().err
    assert [file.name for file in planned.iterdir()] == ["ClassScalePlans.json"]


def test_json_is_read_as_that_of_a_model(tmp_path):
    file = tmp_path / "dataset.json"
    content = {"labels": {"background": "0", "Höhle": 1.0, "both": ["1", 2.0]}, "numTraining": "3"}
    file.write_bytes(codecs.BOM_UTF8 + json.dumps(content, ensure_ascii=False).encode())
    read = read_dataset_json(file)
    assert json.dumps(read["labels"]) == json.dumps({"background": 0, "Höhle": 1, "both": [1, 2]})
    assert read["numTraining"] == 3
    for wrong in ("x", None, True, float("inf")):
        file.write_text(json.dumps({"labels": {"background": wrong}}))
        with pytest.raises(LabelTableError, match="a whole number was expected"):
            read_dataset_json(file)


@pytest.mark.parametrize(
    ("given", "names", "found"),
    [
        (None, ["x_0000.nrrd", "note.txt", "._x_0000.nii"], ".nrrd"),
        (None, ["x.1_0000.nii.gz"], ".nii.gz"),
        ("nii.gz", [], ".nii.gz"),
    ],
)
def test_the_ending_is_found_from_the_images(tmp_path, given, names, found):
    from classscale_training.data.raw_cases import find_ending

    (tmp_path / "imagesTr").mkdir()
    for name in names:
        (tmp_path / "imagesTr" / name).touch()
    assert find_ending(tmp_path, given) == found
    for name in ("y_0000.mha", "y_0000.nrrd", "y_0000.nii.gz"):
        (tmp_path / "imagesTr" / name).touch()
    with pytest.raises(LabelTableError, match="the images have the endings .*Add file_ending"):
        find_ending(tmp_path, None)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda r, f: f.write_bytes(codecs.BOM_UTF8 + f.read_bytes()), "it begins with a byte-order mark"),
        (lambda r, f: r.write("file_ending", "numTraining"), "it has no numTraining; it has no file_ending"),
        (
            lambda r, f: r.write(labels={name: str(value) for name, value in LABELS.items()}, numTraining=3.0),
            'labels should be {"background": 0, "a": 1, "b": 2, "c": 3}; numTraining should be 3',
        ),
    ],
)
def test_nnunet_gets_a_copy_of_what_it_could_not_read(raw, capsys, change, difference):
    from classscale_training.data.raw_cases import find_cases
    from classscale_training.nnunet.corrected_json import readable_by_nnunet

    file = raw.folder / "dataset.json"
    cases, _ = find_cases(raw.folder, raw.content)
    change(raw, file)
    before = file.read_bytes()
    with readable_by_nnunet(raw.folder, raw.content, cases):
        given = json.loads((Path(os.environ["nnUNet_raw"]) / raw.folder.name / "dataset.json").read_text())
    assert {**given, "dataset": None} == {**raw.content, "dataset": None} and len(given["dataset"]) == 3
    assert file.read_bytes() == before and Path(os.environ["nnUNet_raw"]) == raw.folder.parent
    assert f"Warning: nnU-Net cannot use {file} as it is: {difference}. It gets" in capsys.readouterr().err


def test_a_single_case_is_trained_with_the_fold_all(raw, tmp_path, capsys):
    for case in ("a", "b"):
        raw.image(case).unlink()
        raw.label(case).unlink()
    raw.write(numTraining=1)
    assert main(["plan", "-d", "7", "-npfp", "1", "--no_pbar"]) == 0
    preprocess = ["preprocess", "-d", "7", "-c", "2d", "-np", "1", "--no_pbar"]
    assert main(preprocess) == 0
    assert capsys.readouterr().out.endswith("Next: classscaleseg-train train 7 2d all\n")
    splits = tmp_path / "preprocessed" / raw.folder.name / "splits_final.json"
    splits.write_text('[{"train": ["c"], "val": ["c"]}]')  # the user's own
    assert main(preprocess) == 0
    assert capsys.readouterr().out.endswith("Next: classscaleseg-train train 7 2d 0\n")


def test_planning_and_preprocessing_take_what_segmenting_takes(raw, tmp_path, capsys):
    file, planned = raw.folder / "dataset.json", tmp_path / "preprocessed" / raw.folder.name
    raw.content["labels"] = {"background": 0, "kidney_left": 1, "kidney_right": 2, "c": 3}
    as_text = {name: str(value) for name, value in raw.content["labels"].items()}
    raw.write("file_ending", labels=as_text, numTraining=3.0)
    file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    before = file.read_bytes()
    assert main(["plan", "-d", "7", "-npfp", "1", "--no_pbar"]) == 0
    told = capsys.readouterr()
    assert "it begins with a byte-order mark; it has no file_ending; labels should be" in told.err
    assert "your file is unchanged" in told.err
    assert told.out.endswith("Next: classscaleseg-train preprocess -d 7 -c 3d_fullres\n")
    assert json.loads((planned / "dataset.json").read_text()) == raw.content
    for given, trained in ((["-c", "2d"], "2d"), ([], "3d_fullres")):
        assert main(["preprocess", "-d", "7", *given, "-np", "1", "--no_pbar"]) == 0
        told = capsys.readouterr().out
        assert told.endswith(f"Next: classscaleseg-train train 7 {trained} 0 -tr ClassScaleTrainer_NoMirroring\n")
    assert file.read_bytes() == before and json.loads((planned / "dataset.json").read_text()) == raw.content
    assert sorted(path.name for path in (planned / "gt_segmentations").iterdir()) == [
        "a.nii.gz",
        "b.nii.gz",
        "c.nii.gz",
    ]
