"""A coarse model finds where classes are, and the fine one sees this box alone."""

import json
import shutil
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
from ClassScaleSegLib.commands.job_models import find_models
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.inference.label_map import label_map
from ClassScaleSegLib.inference.locating import NOWHERE, locate
from ClassScaleSegLib.inference.memory_estimate import estimate
from ClassScaleSegLib.inference.preprocess import prepare
from ClassScaleSegLib.inference.progress import Monitor
from ClassScaleSegLib.inference.segmenter import segment_with
from ClassScaleSegLib.inference.several_models import segment_parts
from ClassScaleSegLib.inference.windows import count_windows
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
    prepared, again, *_more = prepared_of(kind)
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
            made[kind] = (
                prepare(source, model),
                lambda: prepare(source, model),
                model,
                source.geometry.size[::-1],
                source.spacing,
            )
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


def test_no_window_is_computed_for_the_rest_and_no_row_made(write_model, monkeypatch):
    from ClassScaleSegLib.inference import image_slabs
    from ClassScaleSegLib.inference.normalization import Normalized

    made, slices = [], Normalized.slices
    monkeypatch.setattr(image_slabs, "SLAB_BYTES", 8 * 40 * 40 * 5)  # five slices at a time
    monkeypatch.setattr(Normalized, "slices", lambda self, *part: made.append(part) or slices(self, *part))
    model = open_model(write_model(seeds=(1,)))
    image, reports = volume((90, 40, 40)), []
    box = (slice(60, 70), slice(20, 30), slice(5, 12))
    found = label_map(image, model, Options(**CPU), Monitor(reports.append), box=box)
    assert {report.total for report in reports if report.stage == "segment"} == {1}
    outside = found.labels.copy()
    outside[box] = 0
    assert found.labels[box].any() and not outside.any()
    assert min(first for first, _last in made) >= 50 and max(last for _first, last in made) <= 80
    made.clear()
    found = label_map(image, model, Options(**CPU), Monitor(), box=NOWHERE)
    assert not found.labels.any() and found.labels.shape == (90, 40, 40) and made == []


def two_regions():
    return small_dataset({"background": 0, "whole": [1, 2], "core": [2], "x": 3}, regions_class_order=[1, 2, 3])


@pytest.mark.parametrize("kind", [*KINDS, "2D", "regions", "masked"])
def test_where_one_window_holds_the_image_a_box_changes_nothing(write_model, kind):
    content = small_plans(dimension=2) if kind == "2D" else plans(kind)
    content["configurations"]["3d_fullres"]["patch_size"] = [16] * (2 if kind == "2D" else 3)
    if kind == "masked":
        content["configurations"]["3d_fullres"].update(
            normalization_schemes=["ZScoreNormalization"], use_mask_for_norm=[True]
        )
    model = open_model(write_model(content, two_regions() if kind == "regions" else None, seeds=(0, 1)))
    image, options = volume((9, 10, 8), KINDS.get(kind, (1.2, 1.0, 1.0)), border=2), Options(**CPU, confidence=True)
    whole, rng = segment_with(image, model, options), np.random.default_rng(1)
    assert whole.labels.any()
    for _example in range(8):
        starts = [int(rng.integers(0, length)) for length in whole.labels.shape]
        box = tuple(slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(starts, whole.labels.shape, strict=True))
        part = segment_with(image, model, options, box=box)
        expected, confidence = np.zeros_like(whole.labels), np.ones_like(whole.confidence)
        expected[box], confidence[box] = whole.labels[box], whole.confidence[box]
        assert np.array_equal(part.labels, expected) and np.allclose(part.confidence, confidence, atol=1e-5)


@pytest.mark.parametrize("boxed", [False, True])
def test_the_voxels_are_freed_before_the_result_is_cleaned_up(write_model, monkeypatch, boxed):
    import weakref

    from ClassScaleSegLib.inference import label_map as module
    from ClassScaleSegLib.inference import segmenter

    alive, read, cleaned = [], module.read_image, segmenter.cleaned

    def reading(*arguments, **more):
        image = read(*arguments, **more)
        alive.append(weakref.ref(image.voxels.base))
        return image

    monkeypatch.setattr(module, "read_image", reading)
    monkeypatch.setattr(segmenter, "cleaned", lambda *given: alive.append(alive[0]() is not None) or cleaned(*given))
    box = (slice(20, 40),) * 3 if boxed else None
    segment_with(volume((60, 60, 60)), open_model(write_model()), Options(**CPU), box=box)
    assert alive[1:] == [False]


def test_memory_that_runs_out_in_a_box_changes_nothing(write_model, monkeypatch):
    from ClassScaleSegLib.inference import windows
    from ClassScaleSegLib.inference.decode import RowDecoder
    from ClassScaleSegLib.inference.image_rows import ImageRows
    from ClassScaleSegLib.inference.memory_plan import MemoryPlan, Placement

    model, image, box = open_model(write_model()), volume(), (slice(3, 38), slice(10, 40), slice(4, 30))
    expected = segment_with(image, model, Options(**CPU), box=box).labels
    plan = [Placement("cpu", "cpu"), Placement("cpu", "disk")]
    from ClassScaleSegLib.inference import memory_plan

    monkeypatch.setattr(memory_plan, "plan_memory", lambda *given: MemoryPlan(plan))
    for owner, name in ((RowDecoder, "push"), (RowDecoder, "pop"), (ImageRows, "_next"), (windows.Ring, "add")):
        calls, original = [], getattr(owner, name)

        def failing(*given, calls=calls, original=original, name=name):
            calls.append(None)
            if len(calls) == (1 if name == "_next" else 2):
                raise MemoryError
            return original(*given)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failing)
            assert np.array_equal(segment_with(image, model, Options(**CPU), box=box).labels, expected)
        assert len(calls) >= 2


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_estimate_of_a_box_is_not_below_what_it_takes(kind, data, prepared_of):
    again, model, shape, spacing = prepared_of(kind)[1:]
    forward, box = model.plans_manager.transpose_forward, []
    for length in shape:
        start = data.draw(st.integers(0, length - 1))
        box.append(slice(start, data.draw(st.integers(start + 1, length))))
    need = estimate(model, shape, spacing, part=[side.stop - side.start for side in box], mirroring=False)
    part = again().within([box[axis] for axis in forward], model.patch)
    image = part.image
    if part.box[0].stop == 0:  # outside of the crop
        return
    assert all(n <= told for n, told in zip(image.shape[1:], need.grid, strict=True))
    assert count_windows(image.shape[1:], model.patch, 0.5) <= need.windows
    held = 4 * int(np.prod(image.shape))
    assert held <= need.image and (kind != "anisotropic in plane" or need.rows == need.image)


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
    with pytest.raises(LabelTableError, match="^(?!.*name the classes).*cell 121"):
        segment(str(SAMPLE), fine, **CPU, locate_with=toy, locate_classes=["cell 121"])
    with pytest.raises(LabelTableError, match="background cannot be located"):
        segment(str(SAMPLE), fine, **CPU, locate_with=toy, locate_classes=[0])
    result = segment(str(SAMPLE), fine, **CPU, locate_with=toy, locate_classes=["cell 7"], locate_margin=1)
    image = segment(str(SAMPLE), toy, **CPU, classes=["cell 7"])
    inside = np.zeros(image.labels.shape, bool)
    inside[bounding_box(image.labels, 3)] = True
    assert result.labels[inside].any() and not result.labels[~inside].any()


def test_a_name_made_of_digits_is_no_label_value_of_the_coarse_model(toy, write_model):
    fine = open_model(write_model(dataset=small_dataset({"background": 0, "7": 1})))
    for classes in (None, [1]):
        with pytest.raises(LabelTableError, match="cannot tell where to look"):
            segment(str(SAMPLE), fine, **CPU, classes=classes, locate_with=toy)


def test_options_of_locating_need_a_model_that_locates(toy):
    for given_ in ({"locate_classes": ["liver"]}, {"locate_margin": 5}):
        with pytest.raises(ClassScaleError, match="need a model that locates"):
            Options(**given_)
    with pytest.raises(ClassScaleError, match="locate_margin is -1; it must be a number from 0 and at most 1000"):
        Options(locate_with="toy-120", locate_margin=-1)
    assert Options(locate_with=Path("toy-120.zip"), locate_margin=0).locate_with == "toy-120.zip"
    with pytest.raises(ClassScaleError, match="must be a model, as open_model returns it"):
        segment(str(SAMPLE), toy, locate_with="toy-120")


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


def test_each_case_has_a_box_of_its_own_and_what_the_header_says_is_told_once(tmp_path, capsys):
    whole = sitk.ReadImage(str(SAMPLE))
    (tmp_path / "cases").mkdir()
    for name, flipped in (("a", False), ("b", True)):
        sitk.WriteImage(sitk.Flip(whole, (flipped, flipped, False)), str(tmp_path / "cases" / f"{name}.nrrd"))
    more = ["--classes", "cell 1", "--locate-with", "toy-120", "--locate-margin", "0", "--device", "cpu"]
    command = ["segment", str(tmp_path / "cases"), "-m", "toy-120", "-o", str(tmp_path / "out"), *more]
    assert main(command) == ExitCode.OK
    told = [line for line in capsys.readouterr().err.splitlines() if "Located by" in line]
    assert len(told) == 2
    for name in "ab":
        found = Segmentation.from_image(tmp_path / "out" / f"{name}.seg.nrrd").labels
        expected = segment(str(tmp_path / "cases" / f"{name}.nrrd"), open_model(TOY), **CPU).labels == 1
        assert ((found > 0) != expected).sum() < 0.02 * max(expected.sum(), 1)


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
    assert [summary.path.name for summary in find_models(job).all] == ["toy-120.zip", "coarse.zip"]


def test_a_model_that_takes_other_images_cannot_locate(write_model, tmp_path, capsys, monkeypatch):
    content, dataset = small_plans(channels=2), small_dataset(channels=2)
    two = write_model(content, dataset, root=tmp_path / "two")
    copy = shutil.copy(TOY, tmp_path)
    for model in (["-m", "toy-120"], ["-m", "toy-120", "-m", str(copy)]):
        more = ["-o", str(tmp_path / "o.nrrd"), "--device", "cpu", "--locate-with", str(two)]
        assert main(["segment", str(SAMPLE), *model, *more]) == ExitCode.MODEL
        assert "must take the same images" in capsys.readouterr().err
    with pytest.raises(ModelError, match="must take the same images"):
        segment(str(SAMPLE), open_model(TOY), **CPU, locate_with=open_model(two))
    with pytest.raises(ModelError, match="To locate classes, name the folder or file of a single model"):
        write_model(content, dataset, root=tmp_path / "two" / "other")
        segment_parts(str(SAMPLE), [TOY], Options(**CPU, locate_with=str(tmp_path / "two")))
    monkeypatch.setattr(job_models, "resolve_model", lambda name: (TOY,) * 5 if "five" in name else (name,))
    with pytest.raises(ModelError, match="consists of 5 models"):
        find_models(Job((SAMPLE,), TOY, "o.nrrd", options=Options(locate_with="five parts")))
