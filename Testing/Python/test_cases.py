"""Which cases a command line means."""

import pytest
from ClassScaleSegLib import ImageError, OutputError
from ClassScaleSegLib.commands.cases import find_cases


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).touch()
        return tmp_path

    return make


def found(images, channels, output, suffix=".seg.nrrd"):
    return {case.name: [f.name for f in case.files] for case in find_cases(images, channels, output, suffix).cases}


def test_results_beside_the_images_are_not_taken_for_images(folder):
    place = folder("a.nii.gz", "a.seg.nrrd", "b.nii.gz", "b.labels.csv", ".hidden.nii.gz")
    assert found([place], 1, place) == {"a": ["a.nii.gz"], "b": ["b.nii.gz"]}


def test_two_images_with_one_result_are_refused(folder):
    with pytest.raises(ImageError, match="a.nii.gz and .*a.nrrd would both be the case a"):
        found([folder("a.nii.gz", "a.nrrd")], 1, "out")


def test_a_number_at_the_end_is_a_channel_only_where_it_can_be_one(folder):
    place = folder("amos_0001.nii.gz", "amos_0002.nii.gz")
    assert set(found([place], 1, "out")) == {"amos_0001", "amos_0002"}
    assert set(found([place / "amos_0001.nii.gz"], 1, place)) == {"amos_0001"}
    with pytest.raises(ImageError, match="Case amos has the files amos_0001.nii.gz, amos_0002.nii.gz"):
        found([place], 2, "out")


def test_channels_are_grouped_in_order(folder):
    place = folder("x_0001.nii.gz", "x_0000.nii.gz", "y_0000.NII.GZ", "y_0001.nii.gz")
    both = {"x": ["x_0000.nii.gz", "x_0001.nii.gz"], "y": ["y_0000.NII.GZ", "y_0001.nii.gz"]}
    assert found([place], 2, "out") == both
    with pytest.raises(ImageError, match="z.nii.gz: the model needs 2 channels"):
        found([folder("z.nii.gz")], 2, "out")


def test_a_folder_with_one_case_is_still_many(folder):
    place = folder("only_0000.nii.gz")
    cases = find_cases([place], 1, place / "out", ".nrrd")
    assert cases.many and cases.cases[0].output == place / "out" / "only.nrrd"
    with pytest.raises(OutputError, match="looks like a file"):
        find_cases([place], 1, "out.seg.nrrd", ".nrrd")
    with pytest.raises(OutputError, match="looks like a file"):
        find_cases([place], 1, "out.seg.dcm", ".nrrd")


def test_one_file_goes_where_it_is_told_and_a_dicom_folder_has_a_name(folder, monkeypatch):
    place = folder("ct.nii.gz")
    assert find_cases([place / "ct.nii.gz"], 1, "some/where.mha", ".nrrd").cases[0].output.name == "where.mha"
    (place / "series").mkdir()
    (place / "series" / "lost.dcm").symlink_to("nowhere")  # its reader says so
    monkeypatch.chdir(place / "series")
    assert find_cases(["."], 1, place, ".nrrd").cases[0].output == place / "series.nrrd"


def test_a_folder_of_dicom_folders_is_a_folder_of_cases(tmp_path):
    from dicom_phantom import planes, write_series

    for name in ("p2", "p1"):
        write_series(tmp_path / "patients" / name, planes(2))
    assert find_cases([tmp_path / "patients"], 1, "out", ".seg.dcm").many
    assert found([tmp_path / "patients"], 1, "out") == {"p1": ["p1"], "p2": ["p2"]}
    (tmp_path / "patients" / "notes.txt").touch()  # then something else may be meant
    with pytest.raises(ImageError, match=r"but 2 folders below it hold images. Name them: .*patients/\*/$"):
        found([tmp_path / "patients"], 1, tmp_path)
    assert found(sorted((tmp_path / "patients").glob("*/")), 1, "out").keys() == {"p1", "p2"}


@pytest.mark.parametrize(
    ("names", "channels", "sentence"),
    [
        ([], 1, r"cases has no image: no DICOM series, and no file .nii.gz, .*Name an image, or its folder."),
        (["a.txt", "r/x.seg.nrrd"], 1, "cases has no image: no DICOM series"),
        (["a/p.nii.gz"], 1, "cases has no image, but .*a below it has. Name that folder."),
        (["a/p.nii.gz", "b/q.nii.gz"], 1, r"but 2 folders below it hold images. Name them: .*cases/\*/\*.nii.gz$"),
        (["a/p.nii.gz", "b/p.nii.gz"], 1, "Link the images into one folder, under different names, or .*a/p.nii.gz."),
        (["a/b/p.mha", "a/c/q.mha"], 1, "Link the images"),
        (["a/t1.nrrd", "a/t2.nrrd", "b/x.nrrd"], 2, "but 2 folders below it hold images. Link the images"),
    ],
)
def test_a_folder_without_an_image_says_where_images_are(names, channels, sentence, tmp_path):
    (tmp_path / "cases").mkdir()
    for name in names:
        (tmp_path / "cases" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cases" / name).touch()
    for output in ("out", "out/", "out.nii.gz"):
        with pytest.raises(ImageError, match=sentence):
            found([tmp_path / "cases"], channels, output)


def test_a_name_with_a_slash_at_its_end_is_a_folder(folder, tmp_path):
    image = folder("ct.nii.gz") / "ct.nii.gz"
    cases = find_cases([image], 1, f"{tmp_path}/new/", ".nrrd")
    assert cases.in_folder and not cases.many and cases.cases[0].output == tmp_path / "new" / "ct.nrrd"
    assert find_cases([tmp_path], 1, f"{tmp_path}/new.mha/", ".nrrd").cases[0].output.parent.name == "new.mha"


def test_folders_of_one_name_are_no_channels(tmp_path):
    from dicom_phantom import planes, write_series

    series = [write_series(tmp_path / patient / "T1", planes(2)) for patient in ("a", "b")]
    with pytest.raises(ImageError, match="a/T1 and .*b/T1 would both be the case T1.*Rename one"):
        found(series, 1, "out")


def test_a_result_in_several_formats_has_one_name(tmp_path):
    (case,) = find_cases([tmp_path / "a.nii.gz"], 1, tmp_path, ".seg.nrrd").cases
    assert case.in_format(".nii.gz") == tmp_path / "a.nii.gz"
