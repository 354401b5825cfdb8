"""Images of a BIDS dataset: which are found, what git-annex has not fetched, and what is no BIDS dataset."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from bids_phantom import dataset, touch
from ClassScaleSegLib import ImageError
from ClassScaleSegLib.cohort.bids import bids_images, default_suffix, read_description, refuse_missing_content

OBJECT = ".git/annex/objects/Fm/3Q/SHA256E-s83--04f2b1.nii.gz/SHA256E-s83--04f2b1.nii.gz"


def found(root: Path, suffix: str = "T1w") -> dict[str, str]:
    """The result of each image, below the derivative."""
    return {i.source: i.output.relative_to("out").as_posix() for i in bids_images(root, suffix, "out").images}


def annexed(root: Path, name: str, content: bool = False) -> Path:
    """A locked file of git-annex: a link to its content, which may not be there."""
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.symlink_to(Path("../" * (name.count("/"))) / OBJECT)
    except OSError:
        pytest.skip("needs links, which Windows allows to some users only")
    if content:
        touch(root, OBJECT)
    return file


def test_images_are_found_in_order_and_their_results_keep_all_entities(tmp_path):
    root = dataset(
        tmp_path / "ds",
        "sub-02/anat/sub-02_T1w.nii",
        "sub-01/ses-b/anat/sub-01_ses-b_acq-fast_ce-gd_rec-norm_run-02_echo-1_part-mag_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.json",
        "sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz",
        "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz",
        "sub-10/anat/sub-10_T1w.nii.gz",
        # not searched
        "derivatives/prep/sub-01/anat/sub-01_T1w.nii.gz",
        "sourcedata/sub-01/anat/sub-01_T1w.nii.gz",
        ".git/sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/.heudiconv/sub-02_T1w.nii.gz",
        "sub-02/anat/._sub-02_T1w.nii.gz",
        "sub-02/anat/raw/sub-02_T1w.nii.gz",
        "group/anat/sub-01_T1w.nii.gz",
    )
    images = bids_images(root, "T1w", "out")
    assert [image.source for image in images.images] == [
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_acq-fast_ce-gd_rec-norm_run-02_echo-1_part-mag_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii",
        "sub-10/anat/sub-10_T1w.nii.gz",
    ]
    assert images.left_out == ()
    second, third = images.images[1:3]
    assert second.output == Path(
        "out/sub-01/ses-b/anat/sub-01_ses-b_acq-fast_ce-gd_rec-norm_run-02_echo-1_part-mag_dseg.nii.gz"
    )
    assert third.output == Path("out/sub-02/anat/sub-02_dseg.nii.gz")
    assert (third.name, third.file) == ("sub-02_T1w", root / "sub-02/anat/sub-02_T1w.nii")


def test_a_suffix_may_be_any_one_and_have_entities_before_it(tmp_path):
    names = ("acq-mprageA_T1w", "acq-mprageB_T1w", "acq-defaced_T1w", "acq-mprageA_T2w", "FLAIR")
    root = dataset(tmp_path, *(f"sub-01/anat/sub-01_{name}.nii.gz" for name in names))
    assert len(found(root)) == 3
    assert len(found(root, "acq-mprage*_T1w")) == 2
    assert list(found(root, "_acq-defaced_T1w")) == ["sub-01/anat/sub-01_acq-defaced_T1w.nii.gz"]
    assert found(root, "flair") == {"sub-01/anat/sub-01_FLAIR.nii.gz": "sub-01/anat/sub-01_dseg.nii.gz"}
    for wrong in ("", "../T1w", "T1w.nii.gz", "T1w\n"):
        with pytest.raises(ImageError, match="is not the end of a file name in BIDS, such as T1w"):
            bids_images(root, wrong, "out")


def test_ct_is_found_as_the_proposal_has_it_and_as_people_write_it(tmp_path):
    names = ("sub-01/ct/sub-01_rec-soft_ct.nii.gz", "sub-02/anat/sub-02_ct.nii.gz", "sub-03/anat/sub-03_CT.nii.gz")
    root = dataset(tmp_path, *names)
    assert default_suffix("CT") == "ct" and default_suffix("MR") == "T1w"
    assert list(found(root, default_suffix("CT"))) == list(names)
    assert found(root, "ct")[names[0]] == "sub-01/ct/sub-01_rec-soft_dseg.nii.gz"
    with pytest.raises(ImageError, match="CT or MR. Name the suffix"):
        default_suffix(None)


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("sub-01/anat/T1w.nii.gz", "but as in sub-01_T1w.nii.gz. Rename it"),
        ("sub-01/anat/sub-02_T1w.nii.gz", "but as in sub-01_T1w.nii.gz"),  # of another subject
        ("sub-01/anat/sub-01_ses-2_T1w.nii.gz", "but as in sub-01_T1w.nii.gz"),  # not in the folder of the session
        ("sub-01/ses-1/anat/sub-01_T1w.nii.gz", "but as in sub-01_ses-1_T1w.nii.gz"),
        ("sub-01/anat/sub-01_run-1_run-2_T1w.nii.gz", "but as in"),
        ("sub-01/anat/sub-01_T1w_old.nii.gz", "but as in"),
        ("sub-01/anat/sub-01_acq-a.b_T1w.nii.gz", "but as in"),
        ("sub-01/anat/sub-01_acq-ä_T1w.nii.gz", "but as in"),
        ("sub-01/anat/sub-01_part-phase_T1w.nii.gz", "part-phase is not the magnitude"),
        ("sub-01/anat/sub-01_run-1_part-imag_T1w.nii", "part-imag is not the magnitude"),
    ],
)
def test_what_may_have_been_meant_is_named_and_the_others_are_found(tmp_path, name, sentence):
    root = dataset(tmp_path, name, "sub-09/anat/sub-09_T1w.nii.gz")
    images = bids_images(root, "T1w", "out")
    assert [image.name for image in images.images] == ["sub-09_T1w"]
    (said,) = images.left_out
    assert str(root / name) in said and sentence in said


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that takes all names")
def test_names_cannot_control_the_terminal(tmp_path):
    root = dataset(tmp_path, "sub-09/anat/sub-09_T1w.nii.gz")
    for name in (b"sub-01_\x1b[2J_T1w.nii", b"sub-09_\xff_T1w.nii"):
        (root / "sub-09/anat" / os.fsdecode(name)).touch()
    first, second = bids_images(root, "T1w", "out").left_out
    assert first.isprintable() and r"sub-01_\x1b[2J_T1w.nii" in first
    assert second.isprintable() and r"sub-09_\udcff_T1w.nii" in second


def test_a_subject_that_was_not_fetched_as_a_dataset_of_its_own_is_named(tmp_path):
    root = dataset(tmp_path, "sub-09/anat/sub-09_T1w.nii.gz")
    (root / "sub-01").mkdir()
    (said,) = bids_images(root, "T1w", "out").left_out
    assert said.endswith(f"run in {root}: datalad get sub-01")


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    root = dataset(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-09/anat/sub-09_T1w.nii.gz")
    listdir = os.listdir

    def refusing(folder):
        if Path(folder) == root / "sub-01" / "anat":
            raise PermissionError(13, "Permission denied", str(folder))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refusing)
    images = bids_images(root, "T1w", "out")
    assert [image.name for image in images.images] == ["sub-09_T1w"]
    assert images.left_out == (f"{root / 'sub-01' / 'anat'} is left out: it cannot be read (Permission denied).",)


@pytest.mark.parametrize(
    "names, sentence",
    [
        (("anat/sub-01_T1w.nii", "anat/sub-01_T1w.nii.gz"), "compressed and not. BIDS allows one of them"),
        (("anat/sub-01_T1w.nii.gz", "other/sub-01_T1w.nii.gz"), "would both be the case sub-01_T1w"),
        (("anat/sub-01_acq-A_T1w.nii.gz", "anat/sub-01_acq-a_T1w.nii.gz"), "would both be the case sub-01_acq-a_T1w"),
    ],
)
def test_two_images_of_one_name_are_refused(tmp_path, names, sentence):
    root = dataset(tmp_path, *(f"sub-01/{name}" for name in names))
    if len(list(root.glob("sub-01/*/*.nii*"))) == 1:
        pytest.skip("needs a file system that tells upper from lower case")
    with pytest.raises(ImageError, match=sentence) as refused:
        bids_images(root, "T1w", "out")
    assert all(str(root / "sub-01" / name) in str(refused.value) for name in names)


def test_two_images_with_one_result_are_refused(tmp_path):
    root = dataset(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T2w.nii.gz")
    with pytest.raises(ImageError, match="would both have the result .*sub-01_dseg.nii.gz. .* acq-NAME_T2w"):
        bids_images(root, "T[12]w", "out")


def test_a_dataset_without_the_images_says_which_it_has(tmp_path):
    names = ("sub-01_FLAIR.nii.gz", "sub-01_T2w.nii.gz", "sub-01_acq-a_T2w.nii.gz", "sub-01_part-phase_T1w.nii.gz")
    root = dataset(tmp_path, *(f"sub-01/anat/{name}" for name in names))
    with pytest.raises(
        ImageError, match=r"has no image .*_T1w.nii\[.gz\]. It has T2w \(2\), FLAIR \(1\);.* part-phase"
    ):
        bids_images(root, "T1w", "out")
    with pytest.raises(ImageError, match=r"has no image sub-\*/.*_T1w.nii\[.gz\].$"):
        bids_images(dataset(tmp_path / "empty"), "T1w", "out")


@pytest.mark.parametrize(
    "content, sentence",
    [
        (None, "is no BIDS dataset: it has no dataset_description.json"),
        (b"", "is not valid JSON"),
        (b'{"Name": "a"', "is not valid JSON"),
        (b"\xff\xfe{}", "is not valid JSON"),
        (b"[1, 2]", "contains a list; a JSON object was expected"),
        (b'{"a": ' * 100 + b"1" + b"}" * 100, "is nested more than 64 levels deep"),
        (b"[" * 500_000, "is not valid JSON"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "is larger than 1 MiB"),
        (
            b"/annex/objects/SHA256E-s12--abc\n",
            "git-annex has not fetched it. In .*datalad get dataset_description.json",
        ),
    ],
)
def test_what_is_no_bids_dataset_is_refused(tmp_path, content, sentence):
    root = dataset(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
    (root / "dataset_description.json").unlink()
    if content is not None:
        (root / "dataset_description.json").write_bytes(content)
    with pytest.raises(ImageError, match=sentence) as refused:
        bids_images(root, "T1w", "out")
    assert str(root) in str(refused.value)
    with pytest.raises(ImageError, match="is not a folder. Name the folder of a BIDS dataset"):
        read_description(root / "sub-01/anat/sub-01_T1w.nii.gz")


def test_links_of_git_annex_keep_their_names_and_are_refused_until_they_are_fetched(tmp_path):
    root = dataset(tmp_path / "a b")
    file = annexed(root, "sub-01/anat/sub-01_T1w.nii.gz")
    (image,) = bids_images(root, "T1w", "out").images
    assert (image.name, image.file) == ("sub-01_T1w", file)
    with pytest.raises(ImageError, match=f"has no content here.*In .*/anat, run: datalad get {file.name}$"):
        refuse_missing_content(image.file)
    touch(root, OBJECT)
    refuse_missing_content(image.file)
    assert bids_images(root, "T1w", "out").images == (image,)


@pytest.mark.parametrize("text", ["/annex/objects/SHA256E-s83--04f2b1.nii.gz\n", f"../../{OBJECT}"])
def test_pointers_of_git_annex_are_refused(tmp_path, text):
    """As git-annex leaves them when files are unlocked, and git where there are no links."""
    (tmp_path / "a b.nii").write_bytes(text.encode())
    with pytest.raises(ImageError, match="datalad get 'a b.nii'"):
        refuse_missing_content(tmp_path / "a b.nii")


def test_what_is_no_file_is_refused_and_small_images_are_not(tmp_path):
    touch(tmp_path, "small.nii", b"\x5c\x01\n/annex/objects/")
    touch(tmp_path, "large.nii", b"/annex/objects/" + b"\n" * (32 << 10))
    for name in ("small.nii", "large.nii"):
        refuse_missing_content(tmp_path / name)
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(ImageError, match="is a folder"):
        refuse_missing_content(tmp_path / "folder.nii")
    with pytest.raises(ImageError, match="none.nii cannot be read"):
        refuse_missing_content(tmp_path / "none.nii")
    if os.name != "nt":
        os.mkfifo(tmp_path / "pipe.nii")
        with pytest.raises(ImageError, match="is a device or a pipe"):
            refuse_missing_content(tmp_path / "pipe.nii")
        for name, target in (("lost.nii", "nowhere.nii"), ("round.nii", "round.nii")):
            (tmp_path / name).symlink_to(target)
            with pytest.raises(ImageError, match=f"a link to {target}, cannot be read"):
                refuse_missing_content(tmp_path / name)
