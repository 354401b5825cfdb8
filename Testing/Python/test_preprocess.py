"""Images that a model cannot take end with a sentence; odd ones that it can take are segmented."""

import itertools
import struct
import warnings
from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib import ImageError, open_model, segment
from ClassScaleSegLib.commands.main import main
from conftest import small_dataset, small_plans

pytest.importorskip("nnunetv2")
sitk = pytest.importorskip("SimpleITK")


def image(size=(12, 16, 20), spacing=(1.0, 1.0, 1.0), voxels=None):
    """Voxels and size (z, y, x), spacing (x, y, z)."""
    array = np.random.default_rng(0).normal(50, 30, size) if voxels is None else voxels
    picture = sitk.GetImageFromArray(array.astype(np.float32))
    picture.SetSpacing(spacing)
    return picture


def one_voxel(size=(12, 16, 20)):
    voxels = np.zeros(size)
    voxels[5, 6, 7] = 100
    return voxels


def plans(dimension=3, transposed=False, spacing=None, **entries):
    content = small_plans(dimension=dimension)
    content["configurations"]["3d_fullres"].update(spacing=spacing or [3.0] * dimension, **entries)
    if transposed:
        content.update(transpose_forward=[1, 2, 0], transpose_backward=[2, 0, 1])
    return content


@pytest.mark.parametrize(
    "source, of_model, grid",
    [
        (image(spacing=(0.001, 0.001, 0.001)), {}, "20 x 16 x 12 voxels of 0.001 x 0.001 x 0.001 .* grid of 0 x 0 x 0"),
        (image(spacing=(1, 1, 0.01)), {}, "20 x 16 x 12 voxels of 1 x 1 x 0.01 mm .*grid of 7 x 5 x 0"),
        (image(spacing=(0.01, 1, 1)), {"transposed": True}, "of 0.01 x 1 x 1 mm .*grid of 0 x 5 x 4"),
        (image(spacing=(0.01, 1, 1)), {"dimension": 2}, "of 0.01 x 1 x 1 mm .*3 x 3 x 1 mm.*grid of 0 x 5 x 12"),
        (
            image(spacing=(1, 2, 4)),
            {"transposed": True, "spacing": [60.0, 1.0, 200.0]},
            "At the model's spacing, 1 x 60 x 200 mm, this is a grid of 20 x 1 x 0 voxels",
        ),
        (
            image(spacing=(0.3, 0.3, 0.3), voxels=one_voxel()),
            {},
            "of 0.3 x 0.3 x 0.3 mm .*but only 1 x 1 x 1 of them are not zero.*grid of 0 x 0 x 0",
        ),
    ],
)
def test_an_empty_model_grid_is_named_with_spacing_and_grid(write_model, source, of_model, grid):
    model = open_model(write_model(plans(**of_model)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(ImageError, match=f"{grid}.*Is the unit right?"):
            segment(source, model, device="cpu", mirroring=False)


def test_the_command_ends_with_the_code_for_images_and_no_file(write_model, tmp_path, capsys):
    file, out = tmp_path / "micro.nii.gz", tmp_path / "out.nii.gz"
    sitk.WriteImage(image(spacing=(0.001, 0.001, 0.001)), str(file))
    assert main(["segment", str(file), "-m", str(write_model()), "-o", str(out), "--device", "cpu"]) == 4
    said = capsys.readouterr().err
    assert str(file) in said and "metres or micrometres" in said and "RuntimeWarning" not in said
    assert not out.exists()


@pytest.mark.parametrize(
    "voxels",
    [np.full((4, 5, 6), 7.0), one_voxel(), np.full((1, 1, 1), 9.0), np.random.default_rng(0).normal(size=(1, 9, 9))],
)
@pytest.mark.parametrize("scheme", ["CTNormalization", "ZScoreNormalization", "RescaleTo01Normalization"])
def test_constant_images_single_voxels_and_single_slices_are_segmented(write_model, voxels, scheme):
    model = open_model(write_model(plans(spacing=[1.0] * 3, normalization_schemes=[scheme])))
    result = segment(image(voxels=voxels), model, device="cpu", mirroring=False)
    assert result.labels.shape == voxels.shape


@pytest.mark.parametrize(
    "voxels, found",
    [(np.linspace(-1024, 3000, 1000), "from -1024 to 3000"), (np.linspace(0, 256, 1000), "from 0 to 256")],
)
def test_a_normalisation_that_does_not_suit_the_image_is_named(write_model, tmp_path, capsys, voxels, found):
    folder = write_model(plans(spacing=[1.0] * 3, normalization_schemes=["RGBTo01Normalization"]))
    file = tmp_path / "ct.nii.gz"
    sitk.WriteImage(image(voxels=voxels.reshape(10, 10, 10)), str(file))
    assert main(["segment", str(file), "-m", str(folder), "-o", str(tmp_path / "out.nrrd"), "--device", "cpu"]) == 4
    said = " ".join(capsys.readouterr().err.split())
    assert f"{file}, with intensities {found}, does not suit" in said and "RGBTo01Normalization" in said
    picture = image(voxels=np.linspace(0, 255, 1000).reshape(10, 10, 10))
    assert segment(picture, open_model(folder), device="cpu").labels.any()


def test_intensities_beyond_what_float32_can_normalise_are_a_sentence(write_model):
    model = open_model(write_model(plans(spacing=[1.0] * 3, normalization_schemes=["ZScoreNormalization"])))
    voxels = np.linspace(-3e38, 3e38, 1000).reshape(10, 10, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            labels = segment(image(voxels=voxels), model, device="cpu").labels
        except ImageError as error:
            assert "ZScoreNormalization" in str(error)
        else:
            assert labels.shape == voxels.shape


@pytest.mark.parametrize(
    "name, reader, nibabel",
    [
        ("Dataset007_Small", "NibabelIOWithReorient", True),
        ("Dataset007_Small", "NibabelIO", True),
        ("Dataset007_Small", "SimpleITKIO", False),
        ("Dataset007_Small", "SimpleITKIOWithReorient", False),
        ("Dataset291_TotalSegmentator_part1_organs_1559subj", "SimpleITKIO", True),
    ],
)
def test_the_reader_of_the_training_reads_a_header_without_codes(write_model, tmp_path, capsys, name, reader, nibabel):
    import nibabel as nib
    from ClassScaleSegLib.models.packing import pack
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    content = plans(spacing=[1.0] * 3)
    content.update(dataset_name=name, image_reader_writer=reader)
    folder, file = write_model(content), tmp_path / "no_codes.nii"
    written = nib.Nifti1Image(np.random.default_rng(0).normal(50, 30, (20, 18, 12)).astype(np.float32), np.eye(4))
    written = bytearray(written.to_bytes())
    struct.pack_into("<2h", written, 252, 0, 0)
    file.write_bytes(written)
    pack(folder, tmp_path / "bundle.zip")
    for source in (folder, tmp_path / "bundle.zip"):
        model, told = open_model(source), []
        assert model.reads_with_nibabel == nibabel
        found = segment(file, model, device="cpu", mirroring=False, progress=told.append)
        assert any(f"read as {'nibabel' if nibabel else 'ITK'} does" in report.message for report in told)
    if name == "Dataset007_Small":  # voxels as nnU-Net's reader gives them, and its way back to the file
        reading = PlansManager(content).image_reader_writer_class()
        voxels, properties = reading.read_images([str(file)])
        as_read = replace(model, orientation=None)
        labels = segment(image(voxels=voxels[0]), as_read, device="cpu", mirroring=False).labels
        reading.write_seg(labels.astype(np.uint8), str(tmp_path / "nnunet.nii"), properties)
        of_nnunet = np.asarray(nib.load(tmp_path / "nnunet.nii").dataobj).T
        assert len(np.unique(of_nnunet)) > 3 and np.array_equal(of_nnunet, found.labels)
    out = tmp_path / "out.nii.gz"
    assert main(["segment", str(file), "-m", str(folder), "-o", str(out), "--device", "cpu"]) == 0
    assert f"read as {'nibabel' if nibabel else 'ITK'} does" in " ".join(capsys.readouterr().err.split())


# --- slab by slab, as nnU-Net does it at once


def filled(scheme, dtype, hole, rng):
    """Two channels ``(z, y, x)`` of noise; with ``hole``, zeros at two sides and inside."""
    noise = (
        rng.normal(80, 40, (2, 23, 31, 37)).clip(0, 255) if "RGB" in scheme else rng.normal(50, 300, (2, 23, 31, 37))
    )
    array = noise.astype(dtype)
    if hole:
        array[:, :5] = array[:, :, :, 30:] = array[:, 10:12, 10:12, 10:12] = 0
    return array


TORCH = {
    "resampling_fn_data": "resample_torch_fornnunet",
    "resampling_fn_data_kwargs": {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False},
}
SCHEMES = ("CT", "ZScore", "No", "RescaleTo01", "RGBTo01")


@pytest.mark.parametrize("case", range(40))
def test_images_are_prepared_as_nnunet_prepares_them(write_model, tmp_path, monkeypatch, case):
    from ClassScaleSegLib.images.reading import read_image
    from ClassScaleSegLib.inference import image_slabs, preprocess

    rng = np.random.default_rng(case)
    scheme = f"{SCHEMES[case % 5]}Normalization"
    spacing = ((1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (1.3, 0.8, 0.9), (4.0, 0.7, 0.7))[rng.integers(4)]  # x, y, z
    target = ((1.5, 1.5, 1.5), (4.0, 0.9, 0.8), (1.0, 1.0, 1.0))[rng.integers(3)]
    content = small_plans(channels=2)
    entries = content["configurations"]["3d_fullres"]
    entries.update(spacing=list(target), normalization_schemes=[scheme] * 2, use_mask_for_norm=[bool(case & 1), False])
    entries["resampling_fn_data_kwargs"].update(order=int(rng.choice([1, 3])), order_z=int(rng.choice([0, 1, 3])))
    if rng.integers(2):
        content.update(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0])
    model = open_model(write_model(content, small_dataset(channels=2) | {"channel_names": {"0": "a", "1": "b"}}))
    files = []
    for channel in filled(scheme, rng.choice([np.int16, np.uint8, np.float32]), bool(rng.integers(2)), rng):
        files.append(tmp_path / f"{len(files)}.nii.gz")
        picture = sitk.GetImageFromArray(channel)
        picture.SetSpacing(spacing)
        sitk.WriteImage(picture, str(files[-1]))
    source = read_image(files, 2)
    monkeypatch.setattr(image_slabs, "SLAB_BYTES", int(rng.choice([1, 20_000, 1 << 24])))
    monkeypatch.setattr(preprocess, "ROWS", int(rng.choice([1, 7, 64])))
    monkeypatch.setattr(preprocess, "_prepare_with_nnunet", lambda *_: pytest.fail("left to nnU-Net"))
    got = preprocess.prepare(source, model)
    stock, _, properties = model.configuration.preprocessor_class(verbose=False).run_case_npy(
        source.voxels, None, {"spacing": list(source.spacing)}, model.plans_manager, model.configuration, model.dataset
    )
    expected = preprocess.prepared_case(stock, properties, model.plans_manager, model.configuration)
    assert (got.shape, got.box, got.backward) == (expected.shape, expected.box, expected.backward)
    for ours, theirs in zip(got.image.whole().numpy(), stock, strict=True):
        tolerance = 1e-6 if "ZScore" in scheme else 2e-7  # nnU-Net's mean is that of numpy in float32
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(np.ptp(theirs), 1e-6))


@pytest.mark.parametrize(
    "direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, -1, 1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, 1, -1, 0, 0)]
)
@pytest.mark.parametrize(
    "entries", [{}, {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [True]}, TORCH]
)
def test_a_turned_view_is_prepared_as_its_copy(write_model, monkeypatch, direction, entries):
    from ClassScaleSegLib.images.reading import read_image
    from ClassScaleSegLib.inference import image_slabs, preprocess

    monkeypatch.setattr(image_slabs, "SLAB_BYTES", 10_000)
    model = open_model(write_model(plans(spacing=[1.5, 1.2, 1.0], transposed=True, **entries)))
    voxels = filled("CT", np.int16, True, np.random.default_rng(0))[0]
    picture = image(voxels=voxels, spacing=(0.8, 1.0, 1.3))
    picture.SetDirection(direction)
    source = read_image(picture, 1, "RAS")
    assert not source.voxels.flags.c_contiguous
    copied = replace(source, voxels=np.ascontiguousarray(source.voxels))
    found, expected = (preprocess.prepare(read, model) for read in (source, copied))
    assert (found.box, found.shape) == (expected.box, expected.shape)
    np.testing.assert_allclose(found.image.whole(), expected.image.whole(), rtol=0, atol=2e-7)


def test_plans_with_another_resampling_are_left_to_nnunet(write_model):
    from ClassScaleSegLib.images.reading import read_image
    from ClassScaleSegLib.inference.preprocess import prepare

    model = open_model(write_model(plans(spacing=[1.5, 1.2, 1.0], **TORCH)))
    source = read_image(image(), 1)
    stock, _, _ = model.configuration.preprocessor_class(verbose=False).run_case_npy(
        source.voxels, None, {"spacing": list(source.spacing)}, model.plans_manager, model.configuration, model.dataset
    )
    assert np.array_equal(prepare(source, model).image.whole(), stock)


def test_preparing_is_reported_slab_by_slab_and_stops_on_request(write_model, monkeypatch):
    import threading

    from ClassScaleSegLib import Cancelled
    from ClassScaleSegLib.inference import preprocess

    monkeypatch.setattr(preprocess, "ROWS", 2)
    model, reports, token = open_model(write_model(plans(spacing=[1.5] * 3))), [], threading.Event()
    segment(image(), model, device="cpu", mirroring=False, progress=reports.append)
    done = [(report.done, report.total) for report in reports if report.stage == "preprocess"]
    # a look at the intensities, in one slab; then the rows: 12 slices of 1 mm are 8 of 1.5 mm
    assert done == [(0, 1), (1, 9), (1, 9), (3, 9), (5, 9), (7, 9)]
    with pytest.raises(Cancelled, match="Cancelled during preprocess"):
        segment(image(), model, device="cpu", progress=lambda r: r.done == 5 and token.set(), cancel=token)


@pytest.mark.parametrize("kind", ["zscore", "masked", "meanstd", "last", "conform"])
def test_looks_at_the_intensities_are_reported_and_stop_on_request(write_model, monkeypatch, kind):
    """They take seconds in a large image, and the rows on the model grid come after them."""
    from types import SimpleNamespace

    from ClassScaleSegLib import Cancelled
    from ClassScaleSegLib.images.reading import read_image
    from ClassScaleSegLib.inference import auto3dseg, image_slabs
    from ClassScaleSegLib.inference.label_map import preparation
    from ClassScaleSegLib.inference.progress import Monitor
    from ClassScaleSegLib.models.preprocessing import Auto3DSeg, Conform

    monkeypatch.setattr(image_slabs, "SLAB_BYTES", 8 * 16 * 20 * 2)  # six slabs of two slices
    monkeypatch.setattr(auto3dseg, "_PART", 2 * 16 * 20)
    entries = {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [kind == "masked"]}
    model = open_model(write_model(plans(spacing=[1.5] * 3, **entries)))
    if kind in ("meanstd", "last"):
        how = Auto3DSeg(None, ("meanstd",), (0, 1), True, kind == "last")
        model = SimpleNamespace(preprocessing=how, plans_manager=model.plans_manager, configuration=model.configuration)
    elif kind == "conform":
        configuration = SimpleNamespace(spacing=(1, 1, 1), patch_size=(16, 20, 24))
        how = Conform("LPS", "range", 0.0, 1)
        model = SimpleNamespace(preprocessing=how, plans_manager=model.plans_manager, configuration=configuration)

    def run(stop_at=None):
        reports = []
        token = SimpleNamespace(is_set=lambda: stop_at is not None and len(reports) >= stop_at)
        monitor = Monitor(reports.append, token)
        try:
            preparation(model)(source, model, monitor=monitor).image.whole()
        except Cancelled:
            return reports, True
        return reports, False

    source = read_image(image(), 1)
    reports, cancelled = run()
    done = [report.done for report in reports]
    assert not cancelled and len(reports) >= 12 and done == sorted(done) and done[-1] <= reports[-1].total
    assert {report.stage for report in reports} == {"preprocess"}
    for stop in range(len(reports)):
        stopped, cancelled = run(stop)
        assert cancelled and len(stopped) == stop


@pytest.mark.parametrize("case", range(6))
def test_rows_made_as_windows_need_them_change_nothing(write_model, monkeypatch, case):
    """Fewer rows at a time, channels together, a crop, two and three dimensions, and an image smaller than a patch."""
    from ClassScaleSegLib.inference import image_slabs, memory_estimate, preprocess

    rng = np.random.default_rng(case)
    voxels = filled("CT", np.int16, bool(case & 1), rng)[0, :, 8:26, 16:]
    content = plans(2 if case == 4 else 3, spacing=[0.9, 0.8] if case == 4 else [[0.5, 0.6, 0.7], [3.0] * 3][case == 5])
    model, picture = open_model(write_model(content)), sitk.GetImageFromArray(voxels)
    monkeypatch.setattr(preprocess, "ROWS", int(rng.choice([1, 5])))
    monkeypatch.setattr(image_slabs, "SLAB_BYTES", int(rng.choice([1, 20_000])))
    found = []
    for rolls in (False, True):
        monkeypatch.setattr(memory_estimate.Estimate, "rolls", lambda self, compute, rolls=rolls: rolls)
        result = segment(picture, model, device="cpu", mirroring=False, confidence=True)
        found.append((result.labels, result.confidence))
    assert all(map(np.array_equal, *found)) and len(np.unique(found[0][0])) > 2


def test_when_memory_runs_out_between_the_windows_the_rows_go_on(write_model, monkeypatch):
    """The window is computed again, and the rows that it still needs are made from where they had stopped."""
    from ClassScaleSegLib.inference import image_slabs, memory_estimate, preprocess
    from ClassScaleSegLib.inference.normalization import Normalized

    monkeypatch.setattr(memory_estimate.Estimate, "rolls", lambda self, compute: True)
    monkeypatch.setattr(preprocess, "ROWS", 3)
    monkeypatch.setattr(image_slabs, "SLAB_BYTES", 1)
    model, messages, calls, original = open_model(write_model(plans(spacing=[0.4] * 3))), [], [], Normalized.slices
    expected = segment(image(), model, device="cpu", mirroring=False)

    def failing(self, first, last):
        calls.append(first)
        if len(calls) == 9:
            raise MemoryError("nothing left")
        return original(self, first, last)

    monkeypatch.setattr(Normalized, "slices", failing)
    result = segment(image(), model, device="cpu", mirroring=False, progress=lambda r: messages.append(r.message))
    assert any("nothing left. Continuing with the network on the CPU, rolling basis in a temp" in m for m in messages)
    assert np.array_equal(result.labels, expected.labels) and len(calls) < 2 * 12


def test_rows_that_are_restarted_go_on_with_the_device_of_then(write_model, monkeypatch):
    from ClassScaleSegLib.images.reading import read_image
    from ClassScaleSegLib.inference import image_slabs, preprocess

    monkeypatch.setattr(preprocess, "ROWS", 3)
    monkeypatch.setattr(image_slabs, "SLAB_BYTES", 1)
    model, source, places = open_model(write_model(plans(spacing=[0.5] * 3))), read_image(image(), 1), []
    rows = preprocess.prepare(source, model, lambda: places.append("cpu") or "cpu").image
    parts = [rows.read(0, 7)]
    rows.restart()
    parts += [rows.read(7, 8), rows.read(8, 24)]
    assert places == ["cpu", "cpu"]
    whole = preprocess.prepare(source, model).image.whole()
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("patch", [8, 64])
def test_stages_come_in_their_order_when_rows_are_made_as_windows_need_them(write_model, monkeypatch, patch):
    from ClassScaleSegLib.inference import memory_estimate, preprocess

    monkeypatch.setattr(memory_estimate.Estimate, "rolls", lambda self, compute: True)
    monkeypatch.setattr(preprocess, "ROWS", 2)
    model, reports = open_model(write_model(plans(spacing=[0.8] * 3, patch_size=[patch] * 3))), []
    segment(image(), model, device="cpu", mirroring=False, progress=reports.append)
    stages = [stage for stage, _ in itertools.groupby(report.stage for report in reports)]
    assert stages == ["read", "preprocess", "segment", "decode"][: 3 if patch == 8 else 4]
    done = [(report.done, report.total) for report in reports if report.stage == "preprocess"]
    rows = [(1 + row, 1 + min(patch, 15)) for row in range(0, min(patch, 15), 2)]
    assert done == [(0, 1), (1, 16), *rows]


def test_voxels_are_released_once_the_last_row_is_made(write_model, monkeypatch):
    import gc
    import weakref

    from ClassScaleSegLib.images.reading import read_image
    from ClassScaleSegLib.inference.preprocess import prepare

    model = open_model(write_model(plans(spacing=[0.5] * 3)))
    source = read_image(image(), 1)
    alive = weakref.ref(source)
    rows = prepare(source, model).image
    del source
    rows.read(0, 20)
    gc.collect()
    assert alive() is not None
    assert rows.read(10, 24).shape == (1, 14, 32, 40)
    gc.collect()
    assert alive() is None


def test_reading_stops_on_request_within_a_moment(write_model, monkeypatch):
    import threading
    import time

    from ClassScaleSegLib import Cancelled
    from ClassScaleSegLib.inference import label_map

    token, begun = threading.Event(), threading.Event()
    monkeypatch.setattr(label_map, "read_image", lambda *_, **__: begun.set() or time.sleep(5))
    threading.Thread(target=lambda: begun.wait() and token.set(), daemon=True).start()
    before = time.monotonic()
    with pytest.raises(Cancelled, match="Cancelled during read"):
        segment(image(), open_model(write_model()), cancel=token)
    assert time.monotonic() - before < 2
