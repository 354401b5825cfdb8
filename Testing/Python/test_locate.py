"""A coarse model finds where classes are, and the fine one sees this box alone."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ClassScaleSegLib import (
    Cancelled,
    ClassScaleError,
    LabelTableError,
    ModelError,
    Options,
    Segmentation,
    open_model,
    segment,
)
from ClassScaleSegLib.commands import job_models
from ClassScaleSegLib.commands.job_models import open_models
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.inference.label_map import label_map
from ClassScaleSegLib.inference.locating import locate
from ClassScaleSegLib.inference.preprocess import prepare
from ClassScaleSegLib.inference.progress import Monitor
from ClassScaleSegLib.inference.several_models import segment_parts
from ClassScaleSegLib.process.job import Job, read_job
from ClassScaleSegLib.resources import resource
from conftest import small_dataset, small_plans
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("nnunetv2")
sitk = pytest.importorskip("SimpleITK")

TOY, SAMPLE = resource("Models", "toy-120.zip"), resource("SampleData", "toy-120.nrrd")
CPU = {"device": "cpu", "mirroring": False, "threads": 1}
CELLS = ("cell 1", "cell 7")


@pytest.fixture(scope="module")
def toy():
    return open_model(TOY)


@pytest.fixture(scope="module")
def whole(toy):
    return segment(str(SAMPLE), toy, **CPU)


def messages(reports):
    return [report.message for report in reports if report.message]


def volume(size=(40, 44, 52), spacing=(1.0, 1.0, 1.0), border=0):
    """A picture of noise, of ``size`` (z, y, x), with zeros around it."""
    array = np.pad(np.random.default_rng(0).normal(60, 30, size), border).astype(np.float32)
    picture = sitk.GetImageFromArray(array)
    picture.SetSpacing(spacing)
    return picture


def bounding_box(labels, margin):
    """The box of all labels and so many voxels around it, as slices along z, y, x."""
    found = np.argwhere(labels)
    low, high = np.maximum(found.min(0) - margin, 0), np.minimum(found.max(0) + 1 + margin, labels.shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def plans(kind="isotropic"):
    content = small_plans()
    if kind == "anisotropic":
        content["configurations"]["3d_fullres"].update(spacing=[4.0, 1.2, 1.2], patch_size=[8, 16, 16])
    if kind == "transposed":
        content.update(transpose_forward=[1, 2, 0], transpose_backward=[2, 0, 1])
        content["configurations"]["3d_fullres"].update(spacing=[1.3, 0.8, 1.1])
    if kind == "anisotropic in plane":
        content.update(transpose_forward=[1, 2, 0], transpose_backward=[2, 0, 1])
        content["configurations"]["3d_fullres"].update(spacing=[1.2, 1.2, 4.0], patch_size=[16, 16, 8])
    return content


KINDS = {
    "isotropic": (1.3, 0.9, 1.0),
    "anisotropic": (1.0, 1.0, 4.2),
    "transposed": (1.0, 1.1, 1.2),
    "anisotropic in plane": (1.0, 1.0, 4.2),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_box_sees_the_voxels_that_the_whole_image_would_show_and_leads_to_the_same_places(kind, data, prepared_of):
    prepared, again = prepared_of(kind)
    box = []
    for length in prepared.shape:
        start = data.draw(st.integers(0, length - 1))
        box.append(slice(start, data.draw(st.integers(start + 1, length))))
    patch = (16, 16, 16)
    part = again().within(box, patch)
    if not part.empty(np.uint16)[1].size:
        assert any(a.stop <= b.start or b.stop <= a.start for a, b in zip(box, prepared.box, strict=True))
        return
    image, whole = part.image.whole().numpy(), prepared.image.whole().numpy()
    assert all(n >= min(p, w) for n, p, w in zip(image.shape[1:], patch, whole.shape[1:], strict=True))
    inner = image[(slice(None), *part.needed)]
    for axis, (mine, its) in enumerate(zip(part.axes, prepared.axes, strict=True)):
        output = slice(part.box[axis].start - prepared.box[axis].start, part.box[axis].stop - prepared.box[axis].start)
        assert len(mine) == output.stop - output.start and mine.lower.min() >= 0
        assert mine.upper.max() < inner.shape[axis + 1]
        offsets = {*(its.lower[output] - mine.lower).tolist(), *(its.upper[output] - mine.upper).tolist()}
        assert len(offsets) == 1 and np.array_equal(mine.weight, its.weight[output])
        (offset,) = offsets
        whole = np.take(whole, range(offset, offset + inner.shape[axis + 1]), axis + 1)
    assert np.array_equal(inner, whole)
    full, rows = part.empty(np.uint16)
    rows[...] = 1
    expected = np.zeros(prepared.shape, bool)
    expected[tuple(box)] = True
    clipped = np.zeros_like(expected)
    clipped[prepared.box] = expected[prepared.box]
    assert np.array_equal(full.transpose(np.argsort(prepared.backward)) > 0, clipped)


@pytest.fixture(scope="module")
def prepared_of(tmp_path_factory):
    """For a kind of model: a prepared image, and a function that prepares it anew."""
    from ClassScaleSegLib.images.reading import read_image
    from conftest import MODEL, stock_network, write_checkpoint

    made = {}

    def of(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp("model") / MODEL
            content, dataset = plans(kind), small_dataset()
            write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", stock_network(content, dataset))
            for name, entries in (("plans", content), ("dataset", dataset)):
                (folder / f"{name}.json").write_text(json.dumps(entries))
            model, source = open_model(folder), read_image(volume((20, 22, 26), KINDS[kind], border=3), 1)
            made[kind] = (prepare(source, model), lambda: prepare(source, model))
        return made[kind]

    return of


def test_a_box_of_the_whole_image_changes_nothing(toy, whole):
    result = segment(str(SAMPLE), toy, **CPU, locate_with=toy, locate_margin=1000)
    assert np.array_equal(result.labels, whole.labels)


@pytest.mark.parametrize("orientation", ["LPS", "AIR", "SLP"])
def test_what_is_located_is_found_in_any_orientation(toy, whole, orientation):
    original = sitk.ReadImage(str(SAMPLE))
    image = sitk.DICOMOrient(original, orientation)
    reports = []
    more = {"classes": CELLS, "locate_with": toy, "locate_margin": 2}
    result = segment(image, toy, **CPU, progress=reports.append, **more)
    expected = np.isin(segment(image, toy, **CPU).labels, [1, 7])
    assert (result.labels > 0).sum() == pytest.approx(expected.sum(), rel=0.01) and expected.any()
    assert ((result.labels > 0) != expected).sum() < 0.01 * expected.sum()
    (told,) = messages(reports)
    assert told.startswith(f"Located by {toy.name}: a box of ") and told.endswith("% of the image.")


@pytest.mark.parametrize("turned", [None, "RAS", "PIR"])
def test_the_box_is_that_of_the_labels_with_a_margin_in_millimetres(toy, turned):
    image = sitk.DICOMOrient(sitk.ReadImage(str(SAMPLE)), "IPL")
    coarse = replace(toy, orientation=turned)
    labels = np.isin(segment(image, coarse, **CPU).labels, [1, 7])
    box = locate(
        image, coarse, toy.table.select(CELLS), Options(**CPU, locate_with="toy", locate_margin=6.0), Monitor()
    )
    spacing = np.array(image.GetSpacing()[::-1])
    voxel = np.array(toy.configuration.spacing).max() / spacing
    near, far = (bounding_box(labels, np.round(6 / spacing + n * voxel).astype(int)) for n in (-1.5, 1.5))
    for part, least, most in zip(box, near, far, strict=True):
        assert most.start <= part.start <= least.start and least.stop <= part.stop <= most.stop


def test_no_window_is_computed_for_the_rest_and_no_row_made(toy, write_model):
    model = open_model(write_model(seeds=(1,)))
    image, reports = volume((90, 40, 40)), []
    box = (slice(60, 70), slice(20, 30), slice(5, 12))
    found = label_map(image, model, Options(**CPU), Monitor(reports.append), box=box)
    assert {report.total for report in reports if report.stage == "segment"} == {1}
    outside = found.labels.copy()
    outside[box] = 0
    assert found.labels[box].any() and not outside.any()


def test_the_confidence_outside_of_the_box_is_certain_background(toy):
    result = segment(str(SAMPLE), toy, **CPU, classes=["cell 7"], confidence=True, locate_with=toy, locate_margin=1)
    inside = bounding_box(result.labels, 0)
    assert (result.confidence[inside] < 1).any() and (result.confidence[0] == 1).all()


def test_nothing_found_is_an_empty_result_with_a_word(toy):
    corner, reports = sitk.ReadImage(str(SAMPLE))[:20, :20, :20], []
    present = {row.name for row in segment(corner, toy, **CPU).statistics() if row.voxels}
    absent = [label.name for label in toy.table.foreground if label.name not in present]
    more = {"locate_with": toy, "progress": reports.append}
    result = segment(corner, toy, **CPU, classes=absent[:1], **more)
    assert not result.labels.any() and result.labels.shape == (20, 20, 20)
    assert messages(reports) == [f"{toy.name} has found none of {absent[0]}, so the result is empty."]
    reports.clear()
    some = [*absent[:6], sorted(present - {"background"})[0]]
    assert segment(corner, toy, **CPU, classes=some, **more).labels.any()
    assert messages(reports)[0] == (
        f"{toy.name} has not found {', '.join(absent[:5])} and 1 more; the box is that of the others."
    )


def test_classes_that_the_coarse_model_lacks_are_refused_until_others_are_named(toy, write_model):
    fine = open_model(write_model(dataset=small_dataset({"background": 0, "vessel": 1})))
    with pytest.raises(LabelTableError, match="cannot tell where to look.*vessel.*--locate-classes"):
        segment(str(SAMPLE), fine, **CPU, locate_with=toy)
    with pytest.raises(LabelTableError, match="cannot tell where to look.*cell 121"):
        segment(str(SAMPLE), fine, **CPU, locate_with=toy, locate_classes=["cell 121"])
    with pytest.raises(LabelTableError, match="background cannot be located"):
        segment(str(SAMPLE), fine, **CPU, locate_with=toy, locate_classes=[0])
    result = segment(str(SAMPLE), fine, **CPU, locate_with=toy, locate_classes=["cell 7"], locate_margin=1)
    image = segment(str(SAMPLE), toy, **CPU, classes=["cell 7"])
    inside = np.zeros(image.labels.shape, bool)
    inside[bounding_box(image.labels, 3)] = True
    assert result.labels[inside].any() and not result.labels[~inside].any()


def test_options_of_locating_need_a_model_that_locates():
    for given_ in ({"locate_classes": ["liver"]}, {"locate_margin": 5}):
        with pytest.raises(ClassScaleError, match="no model that locates"):
            Options(**given_)
    with pytest.raises(ClassScaleError, match="locate_margin is -1"):
        Options(locate_with="toy-120", locate_margin=-1)


def test_several_models_locate_once(toy, whole, tmp_path):
    reports = []
    options = Options(**CPU, classes=["cell 7"], locate_with=str(TOY), locate_margin=1)
    result = segment_parts(str(SAMPLE), [TOY, TOY], options, reports.append)
    expected = whole.labels == 7
    assert ((result.labels > 0) != expected).sum() < 0.01 * expected.sum()
    titles = list(dict.fromkeys(report.title for report in reports))
    assert titles[0] == "part 1 of 3: load" and titles.count("part 1 of 3: locate") == 1
    assert [title for title in titles if "locate" in title] == ["part 1 of 3: locate"]
    assert titles[-1].startswith("part 3 of 3") and len(messages(reports)) == 1
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    corner = sitk.ReadImage(str(SAMPLE))[:20, :20, :20]
    absent = next(row.name for row in segment(corner, toy, **CPU).statistics() if not row.voxels)
    assert not segment_parts(corner, [TOY, TOY], replace(options, classes=[absent])).labels.any()


def test_it_can_be_cancelled_while_it_locates(toy):
    token = threading.Event()
    with pytest.raises(Cancelled):
        segment(
            str(SAMPLE),
            toy,
            **CPU,
            locate_with=toy,
            progress=lambda r: token.set() if r.stage == "locate" else None,
            cancel=token,
        )


def test_the_command_locates_and_names_both_models(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("coarse.zip").write_bytes(Path(TOY).read_bytes())
    more = ["--classes", "cell 7", "--locate-with", "coarse.zip", "--locate-margin", "4", "--no-mirroring"]
    assert main(["segment", str(SAMPLE), "-m", "toy-120", "-o", "o.seg.nrrd", "--device", "cpu", *more]) == ExitCode.OK
    assert "Located by " in capsys.readouterr().err
    result = Segmentation.from_image("o.seg.nrrd")
    assert [row.name for row in result.statistics() if row.voxels] == ["cell 7"]
    options = Options(classes=["cell 7"], locate_with="coarse.zip")
    job = Job((SAMPLE,), "toy-120", "o.seg.nrrd", options=options)
    job.write(tmp_path / "job.json")
    assert read_job(tmp_path / "job.json").options.locate_with == str(tmp_path / "coarse.zip")
    assert [path.name for _model, path in open_models(job).used] == ["toy-120.zip", "coarse.zip"]


def test_a_model_that_takes_other_images_cannot_locate(write_model, tmp_path, capsys, monkeypatch):
    content, dataset = small_plans(channels=2), small_dataset(channels=2)
    two = write_model(content, dataset, root=tmp_path / "two")
    for model in (["-m", "toy-120"], ["-m", "toy-120", "-m", "toy-120"]):
        more = ["-o", str(tmp_path / "o.nrrd"), "--device", "cpu", "--locate-with", str(two)]
        assert main(["segment", str(SAMPLE), *model, *more]) == ExitCode.MODEL
        assert "must take the same images" in capsys.readouterr().err
    monkeypatch.setattr(job_models, "resolve_model", lambda name: (TOY,) * 5 if "five" in name else (name,))
    with pytest.raises(ModelError, match="consists of 5 models"):
        open_models(Job((SAMPLE,), TOY, "o.nrrd", options=Options(locate_with="five parts")))
