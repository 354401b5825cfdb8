"""The command collect: from images and their segmentations to a raw dataset that training accepts."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from classscale_training.data.merged_labels import Merged
from ClassScaleSegLib import Code, Geometry, LabelTable, Segmentation
from ClassScaleSegLib.cohort.records import Recipe, Records
from ClassScaleSegLib.errors import ClassScaleError, ImageError, LabelTableError, OutputExistsError
from ClassScaleSegLib.images.case_notes import notes_in, read_notes
from collect_cases import GRID, SHAPE, boxes, main, read, save, training, turned, voxels  # noqa: F401


def check(dataset) -> None:
    pytest.importorskip("nnunetv2")
    from classscale_training.nnunet.dataset_check import check_dataset

    check_dataset(dataset)


def test_a_training_folder_becomes_a_dataset(training, capsys):
    table = LabelTable.from_names({3: "liver", 7: "my cyst"})
    cyst = replace(
        table[7], color=(1, 2, 3), type=Code("SCT", "367643001", "Cyst"), category=Code("SCT", "1", "Finding")
    )
    training.image("a")
    training.segmentation("a", LabelTable((table[3], cyst)), [boxes(3, 7)])
    training.case("b", {1: "my-cyst", 2: "Liver"})
    assert training.collect("--name", "Mine") == 0
    folder = training.raw / "Dataset300_Mine"
    output, error = capsys.readouterr()
    assert error == "" and output == (
        f"{folder}: 2 cases, 2 labels: 1 liver, 2 my cyst; 2 new, 2 images linked.\n"
        "Next: classscaleseg-train plan -d 300\n"
    )
    shutil.move(folder, training.dataset)
    assert training.json == {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "my cyst": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    assert np.array_equal(training.label("a"), boxes(1, 2)) and training.label("a").dtype == np.uint8
    assert np.array_equal(training.label("b"), boxes(2, 1))
    image = training.dataset / "imagesTr" / "a_0000.nii.gz"
    assert image.samefile(training.images / "a_0000.nii.gz")
    background, liver, found = LabelTable.from_csv(training.dataset / "labels.csv")
    assert (background.name, liver.type.meaning) == ("background", "Liver")
    assert (found.color, found.type, found.value) == ((1, 2, 3), cyst.type, 2)
    check(training.dataset)


def test_check_writes_nothing(training, capsys):
    training.case("a", {1: "liver", 2: "spleen"})
    assert training.collect("--check") == 0
    assert capsys.readouterr().out == "1 liver\n2 spleen\n1 case, 2 labels: 1 liver, 2 spleen. Nothing was written.\n"
    assert list(training.raw.iterdir()) == []


OBLIQUE = Geometry(
    GRID.size, GRID.spacing, GRID.origin, tuple(np.linalg.qr(np.arange(9).reshape(3, 3) ** 2 + 1.0)[0].ravel())
)


@pytest.mark.parametrize("image", [GRID, OBLIQUE], ids=["straight", "oblique"])
def test_segmentations_are_put_where_they_are(training, monkeypatch, image):
    labels, table = boxes(1, 2), LabelTable.from_names({1: "liver", 2: "spleen"})
    axes, flips = (2, 0, 1), (True, False, True)
    crop = (slice(1, 3), slice(1, 6), slice(2, 9))  # z, y, x, as Slicer crops to the segments
    cropped = replace(image, size=(7, 5, 2), origin=tuple((image.origin + image.axes @ [2, 1, 1]).tolist()))
    turn = np.flip(labels.transpose(2, 1, 0).transpose(axes), [axis for axis in range(3) if flips[axis]]).transpose(
        2, 1, 0
    )
    wide = replace(image, size=(14, 9, 7), origin=tuple((image.origin - image.axes @ [3, 1, 0]).tolist()))
    for case, (found, grid) in {
        "same": (labels, image),
        "cropped": (labels[crop], cropped),
        "turned": (turn, turned(image, axes, flips)),
        "wide": (np.pad(labels, ((0, 1), (1, 0), (3, 1))), wide),
    }.items():
        training.image(case, grid=image)
        training.segmentation(case, table, [found], grid=grid)
    assert training.collect() == 0
    monkeypatch.setattr("collect_cases.GRID", image)
    for case in ("same", "cropped", "turned", "wide"):
        assert np.array_equal(training.label(case), labels), case


def test_what_slicer_saves_after_a_correction(training):
    """Slicer crops the label map to its segments, and keeps empty segments and those that overlap."""
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    from mrml import read_segmentation

    training.image("a")
    table = LabelTable.from_names({1: "liver", 2: "spleen", 3: "cyst"})
    cyst = np.zeros(SHAPE, np.uint16)
    cyst[1, 2, 2:4] = 3
    file = training.segmentation("a", table, [boxes(1), cyst])
    node = read_segmentation(file)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(file))
    storage.SetCropToMinimumExtent(True)
    assert storage.WriteData(node)
    assert Segmentation.from_image(file).geometry.size == (3, 2, 2)
    training.case("b", {1: "liver", 2: "spleen", 3: "cyst"})
    assert training.collect("--overlap", "last") == 0
    assert training.json["labels"] == {"background": 0, "liver": 1, "spleen": 2, "cyst": 3}
    assert np.array_equal(training.label("a"), np.maximum(boxes(1), cyst))


def test_another_lattice_gets_the_nearest_label_and_is_told(training, capsys):
    fine = Geometry((20, 16, 12), (0.5, 1.0, 1.5), tuple(np.array(GRID.origin) - np.array(GRID.spacing) / 4))
    training.image("a")
    drawn = training.segmentation(
        "a", LabelTable.from_names({1: "liver"}), [boxes(1).repeat(2, 0).repeat(2, 1).repeat(2, 2)], grid=fine
    )
    assert training.collect() == 0
    assert np.array_equal(training.label("a"), boxes(1))
    image = training.images / "a_0000.nii.gz"
    assert capsys.readouterr().err == (
        f"Warning: {drawn} is not on the grid of {image}: each voxel there gets the nearest label.\n"
    )


def test_voxels_outside_of_the_image_are_told_and_most_are_a_fault(training, capsys):
    names = LabelTable.from_names({1: "liver", 2: "spot"})
    labels = boxes(1)
    labels[0, 0, 9] = 2
    beside = replace(GRID, origin=tuple((GRID.origin + GRID.axes @ [3, 0, 0]).tolist()))
    for case in ("a", "b"):
        training.image(case)
        training.segmentation(case, names, [labels], grid=beside)
    training.segmentation("b", names, [labels])
    drawn, image = training.segmentations / "a.seg.nrrd", training.images / "a_0000.nii.gz"
    assert training.collect() == 0
    error = capsys.readouterr().err
    assert f"Warning: {drawn} has 1 voxels outside of {image}; they are left out.\n" in error
    assert f"Warning: {drawn} has no voxel on the grid of {image} of: spot.\n" in error
    assert np.array_equal(training.label("a")[..., 3:], boxes(1)[..., :-3])
    far = replace(GRID, origin=tuple((GRID.origin + GRID.axes @ [7, 0, 0]).tolist()))
    training.segmentation("a", names, [labels], grid=far)
    with pytest.raises(ImageError, match=r"lies outside of .* with 9 of its 13 labelled voxels"):
        training.collect()


def test_structures_are_the_same_by_their_names_or_their_codes(training, capsys):
    training.case("a", {1: "kidney_left", 2: "liver", 3: "Right Lung", 4: "cyst"})
    training.case("b", {1: "Cyst", 2: "Kidney_L", 3: "lung right"})
    training.image("c")
    hepar = replace(LabelTable.from_names({5: "liver"})[5], name="Hepar")
    training.segmentation("c", LabelTable((hepar,)), [boxes(5)])
    assert training.collect("--missing", "background") == 0
    assert list(training.json["labels"]) == ["background", "kidney_left", "liver", "Right Lung", "cyst"]
    assert np.array_equal(training.label("b"), boxes(4, 1, 3)) and np.array_equal(training.label("c"), boxes(2))
    assert capsys.readouterr().err == "Warning: Hepar is taken for liver: they have the same codes.\n"


def test_names_that_slicer_gives_by_itself_are_told(training, capsys):
    training.case("a", {1: "Segment_1"})
    assert training.collect() == 0
    assert capsys.readouterr().err == ""  # what it is in one case, it is everywhere
    training.case("b", {1: "Segment_1"})
    assert training.collect() == 0
    assert "Slicer calls new segments Segment_1. Each name is one structure in all" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({1: "liver", 2: "Liver"}, r"a.seg.nrrd has segments liver \(1\) and Liver \(2\), which are the same"),
        ({1: "liver", 2: "Background"}, "a.seg.nrrd has a segment Background, which to nnU-Net means voxels without"),
        ({1: "ignore"}, "a.seg.nrrd has a segment ignore, which to nnU-Net means voxels that do not count"),
    ],
)
def test_names_that_a_dataset_cannot_have_are_refused(training, names, sentence):
    training.case("a", names)
    with pytest.raises(LabelTableError, match=sentence):
        training.collect()


def test_what_was_not_drawn_must_not_become_background_unless_somebody_says_so(training):
    training.case("a", {1: "liver", 2: "spleen"})
    training.case("b", {1: "liver", 2: "spleen"}, boxes(1))  # has an empty segment, so it is not in the image
    training.case("c", {1: "liver"})
    with pytest.raises(LabelTableError) as caught:
        training.collect()
    assert str(caught.value) == (
        "1 of 3 segmentations lack structures: spleen (c). If they are not in these images, add empty segments of "
        "these names, or say so with --missing background. If they may be there but were not drawn, say --missing "
        "unlabelled."
    )
    assert not training.dataset.exists()
    assert training.collect("--missing", "background") == 0
    assert "classscale_merged" not in training.json and np.array_equal(training.label("c"), boxes(1))


def test_undrawn_structures_may_be_in_the_background(training, capsys):
    training.case("a", {1: "liver", 2: "spleen"})
    training.case("b", {1: "liver", 2: "spleen"}, boxes(1))
    training.case("c", {1: "liver"})
    training.case("d", {1: "spleen"})
    assert training.collect("--missing", "unlabelled") == 0
    merged = Merged.of(training.json)
    assert merged.names == ("background", "liver", "spleen")
    found = {source.name: dict(source.labels) for source in merged.datasets}
    assert found == {
        "g001 (all structures)": {0: (0,), 1: (1,), 2: (2,)},
        "g002 (without spleen)": {0: (0, 2), 1: (1,)},
        "g003 (without liver)": {0: (0, 1), 2: (2,)},
    }
    assert [source.share for source in merged.datasets] == [2, 1, 1]  # as often as any other case
    names = sorted(file.name for file in (training.dataset / "labelsTr").iterdir())
    assert names == [f"{name}.nii.gz" for name in ("g001_a", "g001_b", "g002_c", "g003_d")]
    assert np.array_equal(training.label("g003_d"), boxes(2))
    assert "g001 (all structures): 2, g002 (without spleen): 1, g003" in capsys.readouterr().out
    check(training.dataset)
    training.case("e", {1: "liver"})
    training.case("f", {1: "cyst"})  # the other groups stay the same, and so do the names of their cases
    training.segmentation("d", LabelTable.from_names({1: "liver", 2: "spleen"}), [boxes(1, 2)])
    assert training.collect("--missing", "unlabelled") == 0
    names = sorted(file.name for file in (training.dataset / "labelsTr").iterdir())
    assert names == [f"{name}.nii.gz" for name in ("g001_a", "g001_b", "g001_d", "g002_c", "g002_e", "g004_f")]
    assert dict(Merged.of(training.json).datasets[0].labels) == {0: (0, 3), 1: (1,), 2: (2,)}
    check(training.dataset)


def test_a_segmentation_without_any_structure_teaches_nothing(training):
    training.case("a", {1: "liver"})
    training.case("b", {1: "cyst"})
    training.segmentation("b", LabelTable(()), [boxes()])
    with pytest.raises(LabelTableError, match="None of the structures is drawn in b, so that nothing can be learned"):
        training.collect("--missing", "unlabelled")


def test_overlaps_need_a_rule(training):
    table = LabelTable.from_names({1: "liver", 2: "tumour"})
    tumour = np.zeros(SHAPE, np.uint16)
    tumour[1:3, 2:5, 3:5] = 2
    training.image("a")
    training.segmentation("a", table, [tumour, boxes(1)])
    with pytest.raises(LabelTableError) as caught:
        training.collect()
    assert "one label a voxel: 1 liver and 2 tumour (4 voxels in a). Say which label wins" in str(caught.value)
    assert training.collect("--overlap", "last") == 0
    assert np.array_equal(training.label("a"), np.where(tumour > 0, 2, boxes(1)))
    assert training.collect("--overlap", "first") == 0
    assert np.array_equal(training.label("a"), np.where(boxes(1) > 0, 1, tumour))


def test_a_structure_that_others_cover_is_told(training, capsys):
    table, tumour = LabelTable.from_names({1: "liver", 2: "tumour"}), np.where(boxes(1) > 0, 2, 0).astype(np.uint16)
    tumour[:, :, 3:] = 0  # it is inside of the liver
    for case in "ab":
        training.image(case)
        training.segmentation(case, table, [tumour, boxes(1)])
    assert training.collect("--overlap", "first") == 0
    told = "With --overlap first, other labels cover all of tumour in a, b, and its label map has none of it."
    assert told in capsys.readouterr().err
    assert training.collect("--overlap", "last") == 0
    assert "cover all of" not in capsys.readouterr().err


def test_faults_of_what_gets_no_label_do_not_matter(training, tmp_path):
    training.case("b", {1: "Liver", 2: "ring", 3: "Ring", 4: "ignore"})
    training.image("a")
    training.segmentation("a", LabelTable.from_names({1: "liver", 2: "body"}), [boxes(1), np.full(SHAPE, 2, np.uint16)])
    LabelTable.from_names({1: "liver"}).to_csv(tmp_path / "wanted.csv")
    assert training.collect("--labels", tmp_path / "wanted.csv") == 0
    assert all(np.array_equal(training.label(case), boxes(1)) for case in "ab")
    training.case("b", {1: "Liver", 2: "liver"})
    with pytest.raises(LabelTableError, match="which are the same by their names"):
        training.collect("--labels", tmp_path / "wanted.csv")


def test_wanted_labels_give_the_order_and_the_names(training, tmp_path, capsys):
    LabelTable.from_names({1: "spleen", 4: "Left Kidney", 9: "liver"}).to_csv(tmp_path / "wanted.csv")
    training.case("a", {1: "liver", 2: "kidney_left", 3: "my cyst"})
    assert training.collect("--labels", tmp_path / "wanted.csv") == 0
    assert training.json["labels"] == {"background": 0, "Left Kidney": 1, "liver": 2}
    assert np.array_equal(training.label("a"), np.where(boxes(1, 2, 3) == 3, 0, boxes(2, 1, 3)))
    error = capsys.readouterr().err
    assert f"Warning: Structures that {tmp_path / 'wanted.csv'} does not name are left out: my cyst (a).\n" in error
    assert "Warning: No segmentation has a voxel of spleen: no label for what is nowhere.\n" in error
    training.case("a", {1: "liver", 2: "kidney_left", 3: "spleen"})
    assert training.collect("--labels", tmp_path / "wanted.csv") == 0  # what is new is the last
    assert training.json["labels"] == {"background": 0, "Left Kidney": 1, "liver": 2, "spleen": 3}
    LabelTable.from_names({1: "spleen"}).to_csv(tmp_path / "fewer.csv")
    with pytest.raises(LabelTableError, match="The dataset has labels that .*fewer.csv lacks: Left Kidney, liver"):
        training.collect("--labels", tmp_path / "fewer.csv")


def test_a_model_or_a_dataset_names_labels_and_channels(training):
    training.case("a", {1: "cell 7", 2: "cell 3"})
    assert training.collect("--labels", "toy-120", channels="") == 0
    assert training.json["labels"] == {"background": 0, "cell 3": 1, "cell 7": 2}
    channels = training.json["channel_names"]
    other = training.raw.parent / "b"
    shutil.copytree(training.dataset, other)
    shutil.rmtree(training.dataset)
    assert training.collect("--labels", other, channels="") == 0
    assert training.json["labels"] == {"background": 0, "cell 3": 1, "cell 7": 2}
    assert training.json["channel_names"] == channels
    with pytest.raises(LabelTableError, match=r"none.csv cannot be read"):
        training.collect("--labels", training.raw / "none.csv")


def test_label_images_need_names_and_a_table_of_many_says_nothing_of_what_was_drawn(training, tmp_path):
    training.image("a")
    save(boxes(4, 9), training.segmentations / "a.nii.gz")
    with pytest.raises(LabelTableError, match="a.nii.gz does not say what its labels mean, such as 4"):
        training.collect()
    LabelTable.from_names({4: "liver", 5: "spleen", 9: "cyst"}).to_csv(tmp_path / "names.csv")
    assert training.collect("--labels", tmp_path / "names.csv") == 0
    assert training.json["labels"] == {"background": 0, "liver": 1, "cyst": 2}
    training.case("b", {4: "liver", 9: "cyst"}, boxes(4), ending=".nii.gz")
    assert (training.segmentations / "b.labels.csv").is_file()
    with pytest.raises(LabelTableError, match=r"1 of 2 segmentations lack structures: cyst \(b\)"):
        training.collect("--labels", tmp_path / "names.csv")


def test_more_than_255_labels(training):
    labels = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 301
    training.case("a", {value: f"cell {value}" for value in range(1, 301)}, labels.astype(np.uint16))
    assert training.collect() == 0
    assert training.label("a").dtype == np.uint16 and np.array_equal(training.label("a"), labels)


def test_channels(training, capsys):
    training.image("a")
    training.case("a", {1: "liver"})
    with pytest.raises(ClassScaleError, match=r"Say what the images of .* are: --channels CT"):
        training.collect(channels="")
    training.image("a", "_0001.nii.gz")
    with pytest.raises(ImageError, match="If a_0000, a_0001 ... are its channels, name them all with --channels"):
        training.collect()
    assert training.collect(channels="T1 FLAIR") == 0
    assert training.json["channel_names"] == {"0": "T1", "1": "FLAIR"}
    assert len(list((training.dataset / "imagesTr").iterdir())) == 2
    check(training.dataset)
    assert training.collect(channels="") == 0  # as before
    assert "is finished already" in capsys.readouterr().out
    with pytest.raises(OutputExistsError, match="collected with the channels T1, FLAIR, not T1, T2"):
        training.collect(channels="T1 T2")
    with pytest.raises(ClassScaleError, match="--channels T1 T1: give each channel a name of its own"):
        training.collect(channels="T1 T1")
    training.image("a", "_0001.nii.gz", replace(GRID, origin=(0.0, 0.0, 0.0)))
    with pytest.raises(
        ImageError, match=r"a_0001.nii.gz is not on the grid of .*a_0000.nii.gz, another channel \(origin"
    ):
        training.collect(channels="T1 FLAIR")


def test_other_formats_are_converted_and_other_folders_may_be_named(training, capsys):
    training.image("a", ".nrrd")
    training.image("b", ".mha")
    for case in "ab":
        training.segmentation(case, LabelTable.from_names({1: "liver"}), [boxes(1)])
    assert main("-i", training.images, "-s", training.segmentations, "-d", 300, "--channels", "MR", "--no_pbar") == 0
    assert "2 images converted" in capsys.readouterr().out
    assert np.array_equal(read(training.dataset / "imagesTr" / "a_0000.nii.gz"), voxels(ord("a")))
    with pytest.raises(ClassScaleError, match="Give a training folder, or both -i IMAGES and -s SEGMENTATIONS"):
        main("-i", training.images, "-d", 300)
    with pytest.raises(ClassScaleError, match="is not a training folder: it has no folder images"):
        main(training.images, "-d", 300)


def test_images_without_a_segmentation_are_left_out_and_the_reverse_is_a_fault(training, capsys):
    training.case("a", {1: "liver"})
    training.image("b")
    assert training.collect() == 0
    assert f"The image b has no segmentation in {training.segmentations}, and is left out." in capsys.readouterr().err
    assert training.json["numTraining"] == 1
    training.segmentation("x", LabelTable.from_names({1: "liver"}), [boxes(1)])
    with pytest.raises(ImageError, match=r"x.seg.nrrd has no image in .*images. Give the image the name x"):
        training.collect()


def test_results_that_nobody_has_changed_are_named_and_may_be_left_out(training, capsys):
    records = Records(training.segmentations, Recipe((("Body", "5eb9"),), {}, (".seg.nrrd",)))
    for case in "abc":
        file = training.case(case, {1: "liver"})
        record = records.begin(case, [training.images / f"{case}_0000.nii.gz"])
        records.commit(record, {".seg.nrrd": file}, 1)
    training.case("b", {1: "liver"}, boxes(0, 1))
    training.case("d", {1: "liver"})
    what = "Warning: 2 of 4 segmentations are as Body made them, and nobody has changed them: a, c. "
    assert training.collect() == 0 and training.json["numTraining"] == 4
    assert capsys.readouterr().err == f"{what}If nobody has checked them either, leave them out with --corrected.\n"
    with pytest.raises(OutputExistsError, match="has 2 cases more than are collected now: a, c. Put them back"):
        training.collect("--corrected")
    capsys.readouterr()
    assert training.collect("--corrected", "--overwrite") == 0 and training.json["numTraining"] == 2
    assert capsys.readouterr().err == f"{what}They are left out.\n"
    for case in "bd":
        (training.segmentations / f"{case}.seg.nrrd").unlink()
    with pytest.raises(LabelTableError, match="No segmentation in .* is left to be collected"):
        training.collect("--corrected", "--overwrite")


def test_a_result_without_its_records_is_known_by_its_own_header(training, capsys):
    training.case("a", {1: "liver"})
    file = training.case("b", {1: "liver"})
    Segmentation.from_image(file).write(file, overwrite=True, found_by=["Body"])
    assert training.collect("--corrected") == 0 and training.json["numTraining"] == 1
    assert "1 of 2 segmentations are as Body made them, and nobody has changed them: b. " in capsys.readouterr().err


@pytest.mark.parametrize("compressed", [True, False])
def test_a_result_that_another_program_has_changed_is_taken_though_its_header_stayed(training, compressed):
    training.case("a", {1: "liver"})
    file = training.case("b", {1: "liver"})
    Segmentation.from_image(file).write(file, overwrite=True, found_by=["Body"])
    image = sitk.ReadImage(str(file))
    sitk.WriteImage(image, str(file), True)
    assert read_notes(file).unchecked == ("Body",), "written again as it was"
    image[0, 0, 0] = 1 - image[0, 0, 0]
    sitk.WriteImage(image, str(file), compressed)
    assert notes_in(file.read_bytes().decode("latin-1")).unchecked == ("Body",)
    assert training.collect("--corrected") == 0 and training.json["numTraining"] == 2


def test_all_faults_of_all_cases_are_told_together(training):
    training.case("a", {1: "liver", 2: "liver "})
    training.case("b", {1: "liver"}).write_bytes(b"NRRD0004\n")
    training.case("c", {1: "liver"})
    training.image("c", grid=replace(GRID, origin=(900.0, 0.0, 0.0)))
    training.segmentation("x", LabelTable.from_names({1: "liver"}), [boxes(1)])
    with pytest.raises(ClassScaleError) as caught:
        training.collect()
    lines = str(caught.value).splitlines()
    assert lines[0] == "Dataset300_Collected has 4 faults:" and not training.dataset.exists()
    for name in ("x.seg.nrrd", "b.seg.nrrd", "c.seg.nrrd", "a.seg.nrrd"):
        assert sum(name in line for line in lines) == 1, lines


def test_several_processes_write_the_same(training):
    for case in "ab":
        training.case(case, {1: "liver", 2: "spleen"})
    assert training.collect("--workers", 2) == 0
    content = {name: found[1] for name, found in training.content().items()}
    shutil.rmtree(training.dataset)
    assert training.collect() == 0
    assert {name: found[1] for name, found in training.content().items()} == content


def test_label_images_of_nnunet_have_the_names_of_its_dataset_json(training):
    training.image("a")
    save(boxes(4, 9), training.segmentations / "a.nii.gz")
    (training.segmentations / "dataset.json").write_text('{"labels": {"background": 0, "liver": 4, "cyst": 9}}')
    assert training.collect() == 0
    assert training.json["labels"] == {"background": 0, "liver": 1, "cyst": 2}


def test_images_named_as_nnunet_does_may_lie_beside_others(training):
    training.case("a", {1: "liver"})
    training.case("b", {1: "liver"})
    (training.images / "b_0000.nii.gz").rename(training.images / "b.nii.gz")
    assert training.collect() == 0
    assert sorted(file.name for file in (training.dataset / "imagesTr").iterdir()) == ["a_0000.nii.gz", "b_0000.nii.gz"]


def test_an_image_that_has_a_segmentation_of_its_own_name_keeps_it(training, capsys):
    training.image("b", ".nii.gz")
    training.image("a_0000", ".nii.gz")
    for name in ("a", "a_0000"):
        training.segmentation(name, LabelTable.from_names({1: "liver"}), [boxes(1)])
    with pytest.raises(ImageError) as error:
        training.collect()
    assert "a.seg.nrrd has no image" in str(error.value) and "a_0000.seg.nrrd has" not in str(error.value)
