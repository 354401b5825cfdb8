"""Bundles: packing keeps the model exactly, and the same bytes come out twice."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

import hashlib
import json
import shutil
import zipfile

import pytest
import torch
from conftest import TOY, small_dataset, small_plans, stock_network, write_checkpoint

pytest.importorskip("nnunetv2")
from bundle_fixtures import (
    HEAD,
    MEMBERS,
    bundle,  # noqa: F401  (fixtures)
    members_of,
    same_model,
)
from ClassScaleSegLib.errors import LabelTableError, ModelError, OutputError, OutputExistsError  # noqa: E402
from ClassScaleSegLib.labels.table import LabelTable  # noqa: E402
from ClassScaleSegLib.models.model import open_model  # noqa: E402
from ClassScaleSegLib.models.packing import pack  # noqa: E402


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
