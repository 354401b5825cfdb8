"""Models as people have them: plain data beside the weights, numbers of other types, and folders near a model."""

import argparse
import collections
import datetime
import decimal
import json
import pathlib
import pickle
import shutil
import types
import uuid

import numpy as np
import pytest
import torch
from ClassScaleSegLib.models.summary import summarize
from conftest import small_dataset, small_plans, stock_network, write_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_json import entries

pytest.importorskip("nnunetv2")
from ClassScaleSegLib.errors import ModelError  # noqa: E402
from ClassScaleSegLib.models import plain_data  # noqa: E402
from ClassScaleSegLib.models.checkpoint import read_checkpoint  # noqa: E402
from ClassScaleSegLib.models.model import open_model  # noqa: E402

# --- plain data in a checkpoint

PLAIN = {
    "array": np.arange(5.0),
    "array in Fortran order": np.ones((3, 4), order="F"),
    "array of objects": np.array([{"a": 1}, None], object),
    "array of names": np.array(["a", "bc"]),
    "records": np.zeros(2, [("a", "f4"), ("b", "i2")]),
    "scalars": [np.dtype(kind).type(1) for kind in "?bBhHiIlLqQefdgFDG"],
    "text": [np.str_("fold"), np.bytes_(b"x"), np.datetime64("2026-01-01", "ns")],
    "types": [np.float32, np.dtype(">i4"), int, torch.float16],
    "defaultdict": collections.defaultdict(list, {"dice": [0.5]}),
    "collections": [collections.OrderedDict(a=1), collections.Counter("ab"), collections.deque([1, 2], 3)],
    "sets": [{1, 2}, frozenset((1, 2)), {frozenset((1,)): 2}, slice(1, 2), range(3), 1j, b"x", bytearray(b"x")],
    "paths": [pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:/a"), pathlib.Path("a")],
    "arguments": [argparse.Namespace(lr=0.1, out=pathlib.Path("x")), types.SimpleNamespace(a=1)],
    "dates": [datetime.datetime.now(datetime.timezone.utc), datetime.date.today(), datetime.timedelta(1)],
    "others": [uuid.uuid4(), decimal.Decimal("1.5")],
    "torch": [torch.Size([1, 2]), torch.device("cuda:0"), torch.__version__, torch.zeros(2, dtype=torch.bool)],
}


@pytest.mark.parametrize("value", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("legacy", [False, True])
def test_plain_data_beside_the_weights_does_not_matter(tmp_path, value, legacy):
    weights, file = {"a": torch.arange(6.0)}, tmp_path / "checkpoint.pth"
    content = {"network_weights": weights, "init_args": {"configuration": "2d", "more": value}, "logging": value}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with open(file, "rb") as stream:
        read = read_checkpoint(stream)
    assert torch.equal(read.weights["a"], weights["a"]) and read.configuration == "2d"


@pytest.mark.parametrize(
    "axes",
    [np.arange(3), np.arange(3, dtype=">i2"), list(np.arange(3)), tuple(np.arange(3, dtype=np.uint8)), [0, 1, 2]],
)
def test_axes_for_mirroring_may_be_numbers_of_numpy(write_model, axes):
    folder = write_model()
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", stock_network(small_plans(), small_dataset()), axes)
    assert open_model(folder).mirror_axes == (0, 1, 2)


def test_a_stand_in_never_is_or_runs_what_it_stands_for():
    import importlib

    for found in plain_data.stand_ins()[1:]:
        assert found.__module__.split(".")[0] not in ("os", "sys", "subprocess", "posix", "nt")
        code = getattr(found, "__code__", None) or found.__init__.__code__
        assert code.co_filename == plain_data.__file__  # nothing of the type itself
        try:
            real = getattr(importlib.import_module(found.__module__), found.__qualname__)
        except (ImportError, AttributeError):  # of another version of Python or NumPy
            continue
        assert found is not real


class Callback:
    pass


@pytest.mark.parametrize(
    "value, name",
    [
        (Callback(), "test_model_data.Callback"),
        (np.random.default_rng(0), r"numpy.random._?pickle.\w+"),
        (print, "builtins.print"),
        (torch.nn.ReLU(), "torch.nn.modules.activation.ReLU"),
        (getattr, "builtins.getattr"),
    ],
)
def test_what_is_not_plain_is_named_with_the_way_out(write_model, value, name):
    folder = write_model()
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", {}, more=value)
    with pytest.raises(
        ModelError, match=rf"plain values \({name}\)\. It could run code.*save only its entries network_"
    ):
        open_model(folder)


def test_another_pickle_protocol_is_named(tmp_path):
    torch.save({"network_weights": {}}, tmp_path / "x.pth", pickle_protocol=4)
    with open(tmp_path / "x.pth", "rb") as stream, pytest.raises(ModelError, match="another pickle protocol than 2"):
        read_checkpoint(stream)


def test_a_legacy_checkpoint_that_is_damaged_or_harmful_is_refused(tmp_path):
    file = tmp_path / "x.pth"
    torch.save({"network_weights": {"a": torch.ones(50)}}, file, _use_new_zipfile_serialization=False)
    whole = file.read_bytes()
    for length in (20, 100, len(whole) - 8):
        file.write_bytes(whole[:length])
        with open(file, "rb") as stream, pytest.raises(ModelError, match="cannot be read as a checkpoint|more than"):
            read_checkpoint(stream)
    file.write_bytes(whole[:15] + pickle.dumps(1001, protocol=2) + b"cposix\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with open(file, "rb") as stream, pytest.raises(ModelError, match=r"\(posix.system\)"):
        read_checkpoint(stream)
    with open(file, "rb") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tarfile.is_tarfile", lambda stream: True)
        with pytest.raises(ModelError, match="is a tar file"):
            read_checkpoint(stream)


# --- numbers in the JSON files


def as_floats(value):
    if isinstance(value, dict):
        return {key: as_floats(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [as_floats(entry) for entry in value]
    return float(value) if type(value) is int else value


def test_whole_floats_are_the_integers_that_nnunet_needs(write_model):
    expected, folder = open_model(write_model()), write_model()
    for name in ("plans.json", "dataset.json"):
        (folder / name).write_text(json.dumps(as_floats(json.loads((folder / name).read_text()))))
    found = open_model(folder)
    assert (found.patch, found.classes, found.table) == (expected.patch, expected.classes, expected.table)
    assert all(type(size) is int for size in (*found.patch, *summarize(folder).patch))


@pytest.mark.parametrize(
    "key, value",
    [
        ("patch_size", [16.5, 16, 16]),
        ("patch_size", ["16", "16", "16"]),
        ("patch_size", [[16], [16], [16]]),
        ("patch_size", [-16, -16, 16]),
        ("patch_size", [True, 16, 16]),
        ("patch_size", [16] * 4),
        ("patch_size", None),
        ("spacing", [1e-300, 1, 1]),
        ("spacing", ["1", "1", "1"]),
        ("spacing", [1.0]),
        ("resampling_fn_data_kwargs", {"force_separate_z": None, "separate_z_anisotropy_threshold": "3"}),
        (
            "resampling_fn_probabilities_kwargs",
            {"order": 1, "force_separate_z": None, "separate_z_anisotropy_threshold": []},
        ),
    ],
)
def test_other_numbers_are_a_sentence_with_the_entry(write_model, key, value):
    folder, plans = write_model(), small_plans()
    plans["configurations"]["3d_fullres"][key] = value
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match=f"plans.json: {key} "):
        open_model(folder)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.sampled_from(["", "1", "16", "CT", "x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["0", "a", "mean"]), inner, max_size=2),
    max_leaves=5,
)


def retyped(data, value):
    """The value itself in another type, a list of it, or anything."""
    kind = data.draw(st.sampled_from(["float", "text", "list", "bool", "short", "long", "odd"]))
    if kind == "odd":
        return data.draw(ODD)
    if isinstance(value, list) and kind in ("short", "long"):
        return value[:-1] if kind == "short" else [*value, *value[-1:]]
    if isinstance(value, list):
        return [retyped(data, entry) for entry in value]
    number = isinstance(value, int | float)
    return {"float": float(value) if number else value, "text": str(value), "bool": bool(value)}.get(kind, [value])


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    plans, dataset = small_plans(), small_dataset(4)
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", stock_network(plans, dataset))
    return folder, {"plans.json": plans, "dataset.json": dataset}


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_types_the_entries_have_the_model_opens_or_says_why_not(small_model, data):
    folder, contents = small_model
    for name, original in contents.items():
        (folder / name).write_text(json.dumps(original))
    name = data.draw(st.sampled_from(list(contents)))
    content = json.loads(json.dumps(contents[name]))
    for _ in range(data.draw(st.integers(1, 2))):
        paths, node = list(entries(content)), content
        path = data.draw(st.sampled_from(paths))
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = retyped(data, node[path[-1]])
    (folder / name).write_text(json.dumps(content))
    for opened in (summarize, open_model):
        try:
            assert opened(folder).classes >= 1
        except ModelError as error:
            assert str(folder) in str(error) and len(str(error)) < 600 + len(str(folder))


# --- labels


@pytest.mark.parametrize(
    "labels, sentence",
    [
        ({"0": "background", "1": "liver"}, "names and values are exchanged. Write {'background': 0, 'liver': 1}"),
        ({"1": "liver", "2": "spleen"}, "names and values are exchanged"),
        (["background", "liver"], "a list of names. .*{'background': 0, 'liver': 1}"),
        ({"Background": 0, "liver": 1}, "Rename 'Background', whose value is 0, to 'background'"),
        ({"liver": 1, "spleen": 2}, "Add 'background': 0"),
        ({"background": [0], "liver": 1}, r"'background' is \[0\], but must be 0"),
        ({"background": 1, "liver": 0}, "'background' is 1, but must be 0"),
        ({"background": 0, "liver": 1.5}, "label value 1.5 is not a whole number"),
        ({"background": 0, "liver": True}, "label value True is not a whole number"),
        ({"background": 0, "liver": None}, "label value None is not a whole number"),
        ({"background": 0, "liver": {"value": 1}}, "is not a whole number"),
        ([{"name": "liver", "value": 1}], "no object 'labels' such as"),
    ],
)
def test_labels_in_another_form_are_answered_with_the_right_form(write_model, labels, sentence):
    folder = write_model()
    (folder / "dataset.json").write_text(json.dumps(small_dataset() | {"labels": labels}))
    with pytest.raises(ModelError, match=f"dataset.json.*{sentence}"):
        summarize(folder)


@pytest.mark.parametrize("labels", [{"background": "0", "liver": "1"}, {"background": 0.0, "liver": [1.0]}])
def test_label_values_may_be_text_or_whole_floats(write_model, labels):
    assert summarize(write_model(dataset=small_dataset(labels))).table.names == {0: "background", 1: "liver"}


# --- the wrong folder


@pytest.mark.parametrize(
    "part", ["fold_0", "fold_0/checkpoint_final.pth", "plans.json", "dataset.json", "fold_0/validation/summary.json"]
)
def test_a_part_of_a_model_is_answered_with_the_model(write_model, part, monkeypatch):
    folder = write_model()
    (folder / "fold_0" / "validation").mkdir()
    (folder / "fold_0" / "validation" / "summary.json").write_text("{}")
    for opened in (summarize, open_model):
        with pytest.raises(ModelError) as caught:
            opened(folder / part)
        assert str(caught.value).endswith(f"name the folder above: {folder}")
    monkeypatch.chdir(folder / "fold_0")
    with pytest.raises(ModelError, match="name the folder above"):
        summarize(".")


def test_folders_without_or_with_several_models_say_what_to_name(write_model, tmp_path):
    folder = write_model()
    other = folder.with_name("OtherTrainer__nnUNetPlans__3d_fullres")
    shutil.copytree(folder, other)
    for source in (folder.parent, tmp_path):
        with pytest.raises(ModelError, match=f"several models; name the folder of one, such as {other}, or choose"):
            open_model(source)
    assert open_model(folder.parent, configuration=other.name).classes == 21
    (folder / "plans.json").unlink()
    with pytest.raises(ModelError, match="contains no model.*Copy plans.json and dataset.json from the training"):
        open_model(folder)
    with pytest.raises(ModelError, match="is not a whole model, and there is no plans.json in the folders above"):
        open_model(folder / "fold_0" / "checkpoint_final.pth")
    (tmp_path / "raw" / "imagesTr").mkdir(parents=True)
    with pytest.raises(ModelError, match="contains no model.*trained models are in the folder nnUNet_results"):
        open_model(tmp_path / "raw")
