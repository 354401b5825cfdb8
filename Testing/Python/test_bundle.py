"""Bundles: packing keeps the model exactly, the same bytes come out twice, and a damaged or foreign one is refused."""

import hashlib
import io
import json
import re
import shutil
import warnings
import zipfile

import numpy as np
import pytest
import torch
from conftest import TOY, small_dataset, small_plans, stock_network, write_checkpoint

pytest.importorskip("nnunetv2")
from ClassScaleSegLib.errors import LabelTableError, ModelError, OutputError, OutputExistsError  # noqa: E402
from ClassScaleSegLib.labels.table import LabelTable  # noqa: E402
from ClassScaleSegLib.models.eight_bits import in_eight_bits, in_full  # noqa: E402
from ClassScaleSegLib.models.model import open_model  # noqa: E402
from ClassScaleSegLib.models.packing import pack  # noqa: E402
from ClassScaleSegLib.models.summary import summarize  # noqa: E402

HEAD = TOY.with_name("head-mr-312.zip")
MEMBERS = ["manifest.json", "README.md", "dataset.json", "labels.csv", "plans.json"]


@pytest.fixture
def bundle(write_model, tmp_path):
    return pack(write_model(seeds=(0, 1)), tmp_path / "small.zip", licence="CC-BY-4.0", modality="CT")


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def rewrite(path, contents, **manifest):
    """The bundle with other members, and the manifest's entries changed; sizes and sums are made to fit."""
    content = json.loads(contents["manifest.json"])
    for name in content["members"]:
        if name in contents:
            sha256 = hashlib.sha256(contents[name]).hexdigest()
            content["members"][name] = {"size": len(contents[name]), "sha256": sha256}
    content.update(manifest)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**contents, "manifest.json": json.dumps(content).encode()}.items():
            archive.writestr(name, data)
    return path


def same_model(one, other):
    weights = [{k: v for net in m.backbones for k, v in net.state_dict().items()} for m in (one, other)]
    return (
        weights[0].keys() == weights[1].keys()
        and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        and torch.equal(one.projection.weight, other.projection.weight)
        and torch.equal(one.projection.bias, other.projection.bias)
        and (one.projection.values, one.projection.regions) == (other.projection.values, other.projection.regions)
    )


def test_a_bundle_opens_to_the_very_same_model(bundle, tmp_path):
    folder = next(tmp_path.glob("Dataset007_Small/*"))
    original, packed = open_model(folder), open_model(bundle)
    assert same_model(original, packed) and packed.average_folds == original.average_folds
    for name in ("name", "folds", "mirror_axes", "configuration_name", "patch", "channels", "rank", "dataset"):
        assert getattr(packed, name) == getattr(original, name)
    assert packed.plans_manager.plans == original.plans_manager.plans
    assert packed.table == original.table
    assert (packed.licence, packed.modality, packed.orientation, packed.notice) == ("CC-BY-4.0", "CT", None, None)
    one = open_model(bundle, folds=(1,))
    assert same_model(one, open_model(folder, folds=(1,))) and one.folds == ("1",)


def test_sixteen_bits_halve_the_weights_and_round_them_to_float16(bundle, tmp_path):
    folder = next(tmp_path.glob("Dataset007_Small/*"))
    half = pack(folder, tmp_path / "half.zip", bits=16)
    sizes = [len(members_of(file)["fold_0.safetensors"]) for file in (bundle, half)]
    assert sizes[1] < 0.6 * sizes[0]  # the rest is names
    for one, other in zip(open_model(bundle).backbones, open_model(half).backbones, strict=True):
        for exact, rounded in zip(one.parameters(), other.parameters(), strict=True):
            assert rounded.dtype == torch.float32 and torch.equal(rounded, exact.half().float())
    checkpoint = torch.load(folder / "fold_1" / "checkpoint_final.pth", weights_only=False)
    next(iter(checkpoint["network_weights"].values()))[:] = 70000
    torch.save(checkpoint, folder / "fold_1" / "checkpoint_final.pth")
    with pytest.raises(ModelError, match="fold_1.* has values beyond the largest float16 number, 65504: use --bits 32"):
        pack(folder, tmp_path / "large.zip", bits=16)
    assert not (tmp_path / "large.zip").exists()


def test_eight_bits_take_a_quarter_and_keep_each_weight_to_a_254th_of_the_largest_of_its_row(bundle, tmp_path):
    small = pack(next(tmp_path.glob("Dataset007_Small/*")), tmp_path / "small8.zip", bits=8)
    sizes = [len(members_of(file)["fold_0.safetensors"]) for file in (bundle, small)]
    assert sizes[1] < 0.45 * sizes[0]  # the rest is names, factors, biases and norms
    exact, rounded = (open_model(file) for file in (bundle, small))
    for one, other in zip(exact.backbones, rounded.backbones, strict=True):
        for weight, near in zip(one.parameters(), other.parameters(), strict=True):
            assert near.dtype == torch.float32
            if weight.dim() < 2:
                assert torch.equal(weight, near)
            else:
                allowed = weight.flatten(1).abs().amax(1) / 254 * 1.0001
                off = (weight - near).flatten(1).abs().amax(1)
                assert (off <= allowed).all() and off.max() > 0


def test_only_a_bundle_with_weights_in_eight_bits_needs_a_newer_version(bundle, tmp_path):
    small = pack(next(tmp_path.glob("Dataset007_Small/*")), tmp_path / "small8.zip", bits=8)
    versions = [json.loads(members_of(file)["manifest.json"])["version"] for file in (bundle, small)]
    assert versions == [1, 2]


def test_summaries_count_the_parameters_of_eight_bits_without_their_factors(bundle, tmp_path):
    small = pack(next(tmp_path.glob("Dataset007_Small/*")), tmp_path / "small8.zip", bits=8)
    assert summarize(small).parameters == summarize(bundle).parameters > 0


@pytest.mark.parametrize("fault", ["missing", "short", "half", "one axis", torch.inf, torch.nan, -0.01, 0.0])
def test_factors_that_do_not_fit_are_refused_by_name(fault, bundle, tmp_path):
    from safetensors.torch import load, save

    contents = members_of(pack(next(tmp_path.glob("Dataset007_Small/*")), tmp_path / "small8.zip", bits=8))
    weights = load(contents["fold_1.safetensors"])
    name = next(key for key, value in weights.items() if value.dtype == torch.int8)
    scale = weights.pop(f"{name}.int8_scale")
    changed = {
        "missing": {},
        "short": {f"{name}.int8_scale": scale[:-1].clone()},
        "half": {f"{name}.int8_scale": scale.half()},
        "one axis": {name: weights[name].flatten(), f"{name}.int8_scale": scale},
    }
    if isinstance(fault, float):
        scale[-1] = fault
    changed = changed.get(fault, {f"{name}.int8_scale": scale})
    file = rewrite(tmp_path / "bad.zip", contents | {"fold_1.safetensors": save(weights | changed)})
    expected = "factors .* that are not positive numbers: the file is damaged"
    if isinstance(fault, str):
        expected = "is not one float32 factor for each row"
    with pytest.raises(ModelError, match=f"fold_1.*{re.escape(name)}.*{expected}"):
        open_model(file)


def test_variances_below_zero_are_refused(write_model):
    plans = small_plans()
    norm = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    norm["norm_op"] = "torch.nn.modules.batchnorm.BatchNorm3d"
    folder = write_model(plans)
    open_model(folder)
    file = next(folder.rglob("checkpoint_final.pth"))
    content = torch.load(file, weights_only=False)
    name = next(key for key in content["network_weights"] if key.endswith("running_var"))
    content["network_weights"][name][0] = -1
    torch.save(content, file)
    with pytest.raises(ModelError, match=f"{re.escape(name)} has variances below 0"):
        open_model(folder)


def test_rows_of_zeros_and_of_the_smallest_numbers_stay_finite():
    rows = torch.tensor([[0.0, 0.0], [1e-45, -1e-45], [1e-38, 3e-39], [3.4e38, -1.0]])
    back = in_full(in_eight_bits({"weight": rows}))["weight"]
    assert ((back - rows).abs() <= rows.abs().amax(1, keepdim=True) / 254 * 1.0001 + 127 * torch.finfo().tiny).all()


def test_factors_of_weights_that_are_not_in_eight_bits_are_not_passed_over():
    stored = {"weight": torch.ones(2, 3), "weight.int8_scale": torch.full((2,), 0.5)}
    assert in_full(stored).keys() == stored.keys()  # of which the second is no part of any network


@pytest.mark.parametrize("bits", [4, 0, "8"])
def test_other_numbers_of_bits_are_refused(bits, tmp_path):
    with pytest.raises(ValueError, match="bits is one of"):
        pack(tmp_path / "no model", tmp_path / "small.zip", bits=bits)


def test_a_bundle_holds_no_pickle_and_nothing_the_manifest_does_not_list(bundle):
    members = members_of(bundle)
    assert list(members) == [*MEMBERS, "fold_0.safetensors", "fold_1.safetensors"]
    listed = json.loads(members["manifest.json"])["members"]
    assert set(listed) == set(members) - {"manifest.json"}
    for name, declared in listed.items():
        assert declared == {"size": len(members[name]), "sha256": hashlib.sha256(members[name]).hexdigest()}
    assert not any(b"numpy" in data or b"ctorch\n" in data for data in members.values())
    assert (
        members["README.md"].startswith(b"# Dataset007_Small\n") and b"| Licence | CC-BY-4.0 |" in members["README.md"]
    )
    assert b"organ 20" in members["README.md"]
    with zipfile.ZipFile(bundle) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_only_what_inference_uses_is_packed_under_nnunets_names(bundle):
    from safetensors.torch import load

    weights = load(members_of(bundle)["fold_0.safetensors"])
    stock = stock_network(small_plans(), small_dataset(), 0).state_dict()
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert all(torch.equal(value, stock[name]) for name, value in weights.items())
    assert not any(".all_modules." in name or name.startswith("decoder.encoder.") for name in weights)
    heads = {name for name in weights if "seg_layers" in name}
    assert heads == {"decoder.seg_layers.1.bias", "decoder.seg_layers.1.weight"}


def test_packing_twice_gives_the_same_bytes(bundle, tmp_path, monkeypatch):
    folder = next(tmp_path.glob("Dataset007_Small/*"))
    shutil.copytree(folder, tmp_path / "copy" / folder.name)
    monkeypatch.chdir(tmp_path / "copy")
    again = pack(folder.name, "again.zip", licence="CC-BY-4.0", modality="CT")
    assert again.read_bytes() == bundle.read_bytes()


def test_labels_card_and_description_can_be_given_and_come_back(write_model, tmp_path):
    folder = write_model(dataset=small_dataset({"background": 0, "a": 1, "b": 2}))
    table = LabelTable.from_names({1: "liver", 2: "left kidney, cortex"})
    table.to_csv(tmp_path / "labels.csv")
    (tmp_path / "card.md").write_text("# Mein Modell ü\n", encoding="utf-8")
    described = {"name": "Liver and kidney", "licence": "MIT", "modality": "MR", "orientation": "LPS", "notice": "Toy."}
    path = pack(folder, tmp_path / "x.zip", labels=tmp_path / "labels.csv", card=tmp_path / "card.md", **described)
    model = open_model(path)
    assert {key: getattr(model, key) for key in described} == described
    assert model.table.names == {0: "background", 1: "liver", 2: "left kidney, cortex"}
    assert model.table[1].type.value == "10200004"
    assert members_of(path)["README.md"].decode() == "# Mein Modell ü\n"
    assert open_model(pack(folder, tmp_path / "y.zip", labels=table)).table.names == model.table.names


def test_labels_that_do_not_fit_the_model_are_refused(write_model, tmp_path):
    folder = write_model(dataset=small_dataset({"background": 0, "a": 1, "b": 2}))
    with pytest.raises(LabelTableError, match="has no label 2; the model's labels are 1 to 2"):
        pack(folder, tmp_path / "x.zip", labels=LabelTable.from_names({1: "a"}))
    with pytest.raises(LabelTableError, match="has label 3, which the model does not give"):
        pack(folder, tmp_path / "x.zip", labels=LabelTable.from_names({1: "a", 2: "b", 3: "c"}))
    assert not list(tmp_path.glob("*.zip"))


def test_an_exported_zip_can_be_packed(bundle, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "exported"), "zip", tmp_path, "Dataset007_Small")
    assert same_model(open_model(pack(archive, tmp_path / "y.zip")), open_model(bundle))


@pytest.mark.parametrize("bits", [32, 16, 8])
def test_a_bundle_packed_again_keeps_all_that_is_not_to_change(bits, bundle, tmp_path):
    first = pack(next(tmp_path.glob("Dataset007_Small/*")), tmp_path / "1.zip", bits=bits, licence="MIT", notice="A")
    again = pack(first, tmp_path / "2.zip")
    assert members_of(again).keys() == members_of(first).keys()
    for name, content in members_of(first).items():
        if bits != 8 or name not in ("manifest.json", "fold_0.safetensors", "fold_1.safetensors"):  # rounded again
            assert members_of(again)[name] == content
    assert abs(again.stat().st_size - first.stat().st_size) < 100
    other = open_model(pack(again, tmp_path / "3.zip", folds=(1,), notice="B", name="C"))
    assert (other.folds, other.licence, other.notice, other.name) == (("1",), "MIT", "B", "C")
    full = pack(again, tmp_path / "4.zip", bits=32)
    assert same_model(open_model(full), open_model(again)) and full.stat().st_size >= again.stat().st_size


def test_exchanged_sides_are_kept_when_a_bundle_is_packed_again(tmp_path):
    swapping = pack(HEAD, tmp_path / "swapping.zip", swap_sides=True)
    assert open_model(HEAD).side_swap is None and open_model(swapping).side_swap is not None
    assert open_model(pack(swapping, tmp_path / "small.zip", bits=8)).side_swap is not None


def test_an_existing_file_is_kept_and_a_failure_leaves_nothing(bundle, tmp_path, monkeypatch):
    folder = next(tmp_path.glob("Dataset007_Small/*"))
    before, names = bundle.read_bytes(), sorted(tmp_path.iterdir())
    with pytest.raises(OutputExistsError, match="already exists"):
        pack(folder, bundle)
    with pytest.raises(OutputError, match="must end in .zip"):
        pack(folder, tmp_path / "model.tar")
    with pytest.raises(ModelError, match="'orientation'"):
        pack(folder, bundle, orientation="RRR", overwrite=True)
    with pytest.raises(ModelError, match="cannot be read as the model card"):
        pack(folder, bundle, card=tmp_path / "nowhere.md", overwrite=True)

    for fault, raised in ((OSError(28, "No space left"), OutputError), (KeyboardInterrupt(), KeyboardInterrupt)):

        def half_written(path, members, fault=fault):
            path.write_bytes(b"half")
            raise fault

        with monkeypatch.context() as patch, pytest.raises(raised):
            patch.setattr("ClassScaleSegLib.models.packing.write_members", half_written)
            pack(folder, bundle, overwrite=True)
    assert bundle.read_bytes() == before and sorted(tmp_path.iterdir()) == names
    assert open_model(pack(folder, bundle, name="new", overwrite=True)).name == "new"


def test_an_unpacked_bundle_opens_wherever_it_lies(bundle, tmp_path):
    target = tmp_path / "models" / "unpacked"
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(target)
    (target / ".DS_Store").write_bytes(b"x")
    assert same_model(open_model(target), open_model(bundle))
    assert same_model(open_model(target.parent), open_model(bundle))


def test_regions_survive_packing(write_model, tmp_path):
    labels = {"background": 0, "whole tumor": [1, 2], "core": [2], "ignore": 3}
    folder = write_model(dataset=small_dataset(labels, regions_class_order=[1, 2]))
    model = open_model(pack(folder, tmp_path / "x.zip"))
    assert model.projection.regions and model.projection.values == (1, 2)
    assert model.table.names == {0: "background", 1: "whole tumor", 2: "core"}


# --- damage and malice


def test_a_newer_version_and_a_foreign_manifest_say_so(bundle):
    members = members_of(bundle)
    with pytest.raises(ModelError, match="made by a newer ClassScaleSeg .bundle version 3, this one reads 2"):
        open_model(rewrite(bundle, members, version=3))
    with pytest.raises(ModelError, match="does not belong to a ClassScaleSeg bundle"):
        open_model(rewrite(bundle, members, format="other"))
    with pytest.raises(ModelError, match="has no version"):
        open_model(rewrite(bundle, members, version="1"))


@pytest.mark.parametrize("name", [*MEMBERS[1:], "fold_0.safetensors"])
def test_every_member_is_compared_with_the_manifest(bundle, name):
    members = members_of(bundle)
    manifest = json.loads(members["manifest.json"])
    changed = bytearray(members[name])
    changed[len(changed) // 2] ^= 1

    def write(content):
        with zipfile.ZipFile(bundle, "w") as archive:
            for key, data in {**members, name: bytes(content)}.items():
                archive.writestr(key, data)

    write(changed)
    with pytest.raises(ModelError, match=f"{name} is damaged: its SHA-256"):
        open_model(bundle)
    write(members[name] + b" ")
    with pytest.raises(
        ModelError, match=f"{name} has .* bytes, but the manifest declares {manifest['members'][name]['size']}"
    ):
        open_model(bundle)
    del members[name]
    with zipfile.ZipFile(bundle, "w") as archive:
        for key, data in members.items():
            archive.writestr(key, data)
    with pytest.raises(ModelError, match=f"{name} is missing"):
        open_model(bundle)


def test_a_member_the_manifest_does_not_list_is_never_read(bundle, monkeypatch):
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("fold_9.safetensors", b"x")
        archive.writestr("__MACOSX/manifest.json", b"x")
    assert open_model(bundle).folds == ("0", "1")
    with pytest.raises(ModelError, match="has the folds 0, 1; 9 was requested"):
        open_model(bundle, folds=(9,))


ENTRIES = [
    ("members", {"../evil": {"size": 1, "sha256": "0" * 64}}),
    ("members", {"checkpoint.pth": {"size": 1, "sha256": "0" * 64}}),
    ("members", {"plans.json": {"size": "1", "sha256": "0" * 64}}),
    ("members", []),
    ("folds", ["2"]),
    ("folds", [0]),
    ("members", 5),
    ("folds", []),
    ("folds", "0"),
    ("mirror_axes", "012"),
    ("mirror_axes", [5]),
    ("swap_sides", "yes"),
    ("swap_sides", None),
    ("orientation", "RAL"),
    ("orientation", 1),
    ("name", ""),
    ("name", "two\nlines"),
    ("configuration", None),
    ("configuration", "2d"),
    ("licence", 5),
]


@pytest.mark.parametrize("key, value", ENTRIES)
def test_a_manifest_with_a_wrong_entry_is_refused(bundle, key, value):
    members = members_of(bundle)
    with pytest.raises(ModelError, match=f"{key}|mirroring axes"):
        open_model(rewrite(bundle, members, **{key: value}))


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("plans.json", b"[]", "plans.json contains a list"),
        ("labels.csv", b"LabelValue,Name\n1,liver\n", "labels.csv has no label 2"),
        ("labels.csv", b"x", "labels.csv.*no column LabelValue"),
        ("fold_0.safetensors", b"x" * 100, "fold_0.safetensors is not a safetensors file"),
        ("fold_0.safetensors", (2**62).to_bytes(8, "little") + b"{}", "is not a safetensors file"),
        ("fold_0.safetensors", (2**23).to_bytes(8, "little") + b" " * 2**23, "its header has more than 4194304 bytes"),
    ],
)
def test_members_that_fit_the_manifest_are_still_not_trusted(bundle, name, content, sentence):
    with pytest.raises(ModelError, match=sentence):
        open_model(rewrite(bundle, {**members_of(bundle), name: content}))


def test_a_pickle_in_the_place_of_weights_is_not_opened(bundle):
    stream = io.BytesIO()
    torch.save(stock_network(small_plans(), small_dataset()).state_dict(), stream)
    with pytest.raises(ModelError, match="is not a safetensors file"):
        open_model(rewrite(bundle, {**members_of(bundle), "fold_0.safetensors": stream.getvalue()}))


def test_plans_in_a_bundle_are_checked_as_strictly_as_in_a_folder(bundle):
    members = members_of(bundle)
    for old, new, sentence in (
        (b"torch.nn.LeakyReLU", b"os.system", "nonlin 'os.system' is not one of"),
        (b"architectures.unet.PlainConvUNet", b"architectures.resnet.ResNetD", "is not supported"),
        (b"architectures.unet.PlainConvUNet", b"architectures.primus.Primus", "may not be given 'n_stages'"),
        (b'"n_stages": 3', b'"n_stages": 4', "3 sizes for each of 4 stages"),
    ):
        with pytest.raises(ModelError, match=sentence):
            open_model(rewrite(bundle, {**members, "plans.json": members["plans.json"].replace(old, new)}))


def test_any_truncation_or_flipped_bit_is_an_error_or_changes_nothing(bundle, tmp_path):
    whole, expected = bundle.read_bytes(), open_model(bundle)
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.zip"
    for length in (0, 1, 30, *random.integers(0, len(whole), 12), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            open_model(path)
    texts = re.search(rb"fold_0\.safetensors", whole).start()  # members before the weights: manifest, plans, labels
    directory = whole.index(b"PK\x01\x02")
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        low, high = [(0, texts), (texts, directory), (directory, len(whole))][random.integers(3)]
        damaged[random.integers(low, high)] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                assert same_model(open_model(path), expected)
            except ModelError:
                refused += 1
    assert refused > 100


# --- what ships


def test_the_shipped_bundle_is_what_packing_its_model_gives_today(toy_folder, tmp_path):
    """If this fails after a change of the format or of the labels' colours, pack the model again."""
    members = members_of(TOY)
    manifest = json.loads(members["manifest.json"])
    (tmp_path / "card.md").write_bytes(members["README.md"])
    described = {key: manifest[key] for key in ("name", "licence", "notice")}
    again = pack(toy_folder, tmp_path / "toy.zip", card=tmp_path / "card.md", **described)
    new = members_of(again)
    assert list(new) == list(members) and same_model(open_model(again), open_model(TOY))
    for name in MEMBERS[1:]:
        assert new[name] == members[name]


def test_a_folder_made_from_a_bundle_is_a_model_folder_again(toy_folder):
    assert same_model(open_model(toy_folder), open_model(TOY))


def test_packing_needs_a_model_that_opens(write_model, tmp_path):
    folder = write_model()
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", stock_network(small_plans(), small_dataset(5)))
    with pytest.raises(ModelError, match="they have 6 classes, dataset.json has 21"):
        pack(folder, tmp_path / "x.zip")
    assert not list(tmp_path.glob("*.zip"))
