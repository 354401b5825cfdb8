"""The bare training loop: its network is nnU-Net's, it learns, and a killed run goes on as if it had not been."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from classscale_training.data.toy.cases import ToyCases
from classscale_training.loop.checkpoints import Checkpoints
from classscale_training.loop.data import open_data
from classscale_training.loop.few_bits import in_few_bits
from classscale_training.loop.model_folder import checkpoint_content
from classscale_training.loop.options import PRESETS, LoopOptions
from classscale_training.loop.step_loss import StepLoss
from classscale_training.loop.train import main, train
from classscale_training.loss.losses import CrossEntropyDiceLoss
from classscale_training.network.plain_unet import NETWORK_CLASS, PlainUNet, architecture
from ClassScaleSegLib.errors import Busy, ClassScaleError, ModelError, OutputError, OutputExistsError

TRAINING = Path(__file__).parents[2] / "training"


def small(folder, **more) -> LoopOptions:
    """A network and volumes that take a few milliseconds a step."""
    size = {"classes": 12, "size": 16, "features": (16, 24, 32), "convolutions": (1, 1, 1)}
    size |= {"decoder_convolutions": (1, 1), "learning_rate": 0.01, "log_every": 1, "evaluate_every": 50, "steps": 6}
    return LoopOptions(folder=folder, **{**size, "device": "cpu", **more})


def weights(folder) -> dict:
    return torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)["network_weights"]


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    "features, encoder, decoder", [((8, 12), (2, 1), (2,)), ((6, 8, 10, 10), (1, 2, 1, 2), (1, 2, 1))]
)
def test_the_network_is_plain_conv_unet_weight_for_weight(features, encoder, decoder):
    get_network = pytest.importorskip("nnunetv2.utilities.get_network_from_plans").get_network_from_plans
    kwargs = architecture(features, encoder, decoder)
    requires_import = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    stock = get_network(NETWORK_CLASS, kwargs, requires_import, 1, 5, deep_supervision=False).eval()
    ours = PlainUNet(kwargs, 1, 5).eval()
    assert list(ours.state_dict()) == list(stock.state_dict())
    stock.load_state_dict(ours.state_dict(), strict=True)
    for cases in (1, 2):  # one case is normalised otherwise on a CPU
        image = torch.randn(cases, 1, 16, 16, 16)
        with torch.no_grad():
            torch.testing.assert_close(ours.head(ours(image)), stock(image), rtol=0, atol=2e-5)


def test_it_learns_and_stock_nnunet_and_our_engine_open_what_it_writes(tmp_path):
    predictor_module = pytest.importorskip("nnunetv2.inference.predict_from_raw_data")
    from ClassScaleSegLib import open_model

    options = small(tmp_path, steps=60, log_every=20, evaluate_every=60, evaluation_cases=2)
    entries = []
    result = train(options, entries.append)
    assert result.finished and result.step == 60 and result.last == entries[-1]
    assert entries[-1]["loss"] < entries[0]["loss"] - 0.8
    assert entries[-1]["dice"] > 0.6 and entries[-1]["pooled_dice"] > 0.6  # measured 0.84; chance: below 0.1
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == entries

    image, labels = ToyCases(replace(options.toy, seed=7), 1)[0]
    predictor = predictor_module.nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False)
    predictor.initialize_from_trained_model_folder(str(tmp_path), (0,), "checkpoint_final.pth")
    predictor.network.load_state_dict(predictor.list_of_parameters[0])
    with torch.no_grad():
        logits = predictor.network.eval()(image[None])[0]
    assert (logits.argmax(0) == labels).float().mean() > 0.6
    model = open_model(tmp_path)
    assert model.projection.classes == 13 and model.table.names[12] == "cell 12"


def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(tmp_path):
    straight, killed = small(tmp_path / "straight"), small(tmp_path / "killed", checkpoint_minutes=0.0)
    train(straight)
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_loop import small, train\n"
        "from pathlib import Path\n"
        "stop = lambda entry: os._exit(9) if entry['step'] == 4 else None\n"  # before that step is in a checkpoint
        "train(small(Path(sys.argv[2]), checkpoint_minutes=0.0), stop)\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(killed.folder)]
    assert subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}).returncode == 9
    assert not (killed.folder / "fold_0" / "checkpoint_final.pth").exists()
    with open(killed.folder / "log.jsonl", "a") as log:
        log.write('{"step": 5, "lo')  # a line cut short
    resumed = []
    train(killed, resumed.append)
    assert [entry["step"] for entry in resumed] == [4, 5, 6]
    assert same(weights(straight.folder), weights(killed.folder))
    steps = [json.loads(line)["step"] for line in (killed.folder / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_deadline_stops_with_a_checkpoint_and_a_second_call_finishes(tmp_path, optimizer):
    options = small(tmp_path / "run", optimizer=optimizer, batch=2, prefetch=2, steps=3)
    result = train(replace(options, minutes=0.0))
    assert (result.step, result.finished) == (1, False)
    assert train(options).finished
    train(replace(options, folder=tmp_path / "straight", prefetch=0))
    assert same(weights(options.folder), weights(tmp_path / "straight"))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_small_checkpoint_continues_to_nearly_the_same_weights(tmp_path, optimizer):
    options = small(tmp_path / "whole", optimizer=optimizer, steps=12)
    train(options)
    stopped = replace(options, folder=tmp_path / "stopped", small_checkpoints=True, minutes=0.0)
    while not train(stopped).finished:  # a step at a time
        pass
    exact, near = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    torch.manual_seed(0)
    begin = PlainUNet(options.arch_kwargs(), 1, 13).state_dict()
    moved = sum(float((exact[name] - begin[name]).square().sum()) for name in exact)
    apart = sum(float((exact[name] - near[name]).square().sum()) for name in exact)
    assert 0 < apart < 0.05 * moved
    large, little = (
        (tmp_path / name / "fold_0" / "checkpoint_latest.pth").stat().st_size for name in ("whole", "stopped")
    )
    assert little < 0.8 * large


@pytest.mark.parametrize("preset", ["toy-1000", "head-mr-312-further", "head-mr-312-1mm"])
def test_the_checkpoint_of_a_training_in_slices_has_at_most_40_mb(tmp_path, preset):
    classes = 1001 if preset == "toy-1000" else 312
    options = LoopOptions(tmp_path, **PRESETS[preset])
    network = PlainUNet(options.arch_kwargs(), 1, classes)
    optimizer = torch.optim.AdamW(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = {"optimizer": in_few_bits(optimizer.state_dict())}
    Checkpoints(tmp_path).save(checkpoint_content(network.state_dict(), loop=state))
    assert 30e6 < (tmp_path / "checkpoint_latest.pth").stat().st_size < 40e6
    assert options.small_checkpoints and options.minutes <= 9.5


def test_volumes_made_by_processes_train_the_same_weights(tmp_path, monkeypatch):
    options = small(tmp_path / "processes", batch=2, workers=2, prefetch=2, steps=5)
    with monkeypatch.context() as patch:
        patch.setattr("classscale_training.loop.data._by_thread", None)
        train(replace(options, steps=9, minutes=0.0))  # these are left behind, with batches made ahead
        train(options)
    train(replace(options, folder=tmp_path / "straight", workers=0))
    assert same(weights(options.folder), weights(tmp_path / "straight"))


def test_a_process_that_dies_is_a_sentence_and_leaves_the_checkpoint(tmp_path, monkeypatch):
    options = small(tmp_path, workers=1, steps=6)
    train(replace(options, minutes=0.0))
    monkeypatch.setattr("classscale_training.loop.data.ToyCases.__getitem__", lambda self, index: os._exit(7))
    with pytest.raises(ClassScaleError, match="A process that makes volumes ended .* fewer --workers"):
        train(options)
    monkeypatch.undo()
    entries = []
    assert train(options, entries.append).finished and entries[0]["step"] == 2


def test_fewer_steps_than_are_done_finish_the_run(tmp_path):
    options = small(tmp_path, steps=4)
    train(replace(options, minutes=0.0))
    train(replace(options, steps=2, minutes=0.0))
    for workers in (0, 2):
        (tmp_path / "fold_0" / "checkpoint_final.pth").unlink(missing_ok=True)
        result = train(replace(options, steps=1, workers=workers))
        assert (result.step, result.finished) == (2, True)
        assert (tmp_path / "fold_0" / "checkpoint_final.pth").exists()


def test_a_truncated_checkpoint_falls_back_to_the_one_before(tmp_path):
    options = small(tmp_path / "run", checkpoint_minutes=0.0)
    train(replace(options, steps=6, minutes=0.0))
    train(replace(options, steps=6, minutes=0.0))
    checkpoints = Checkpoints(options.folder / "fold_0")
    assert [torch.load(f, weights_only=True)["loop"]["step"] for f in (checkpoints.latest, checkpoints.previous)] == [
        2,
        1,
    ]
    os.truncate(checkpoints.latest, checkpoints.latest.stat().st_size // 2)
    entries = []
    with pytest.warns(
        UserWarning, match="checkpoint_latest.pth .* cannot be read; the training continues from checkpoint_previous"
    ):
        train(options, entries.append)
    assert entries[0]["step"] == 2
    train(small(tmp_path / "straight"))
    assert same(weights(options.folder), weights(tmp_path / "straight"))
    for file in (checkpoints.latest, checkpoints.previous):
        file.write_bytes(b"")
    with pytest.raises(ModelError, match="No checkpoint can be read: .*latest.*previous.*Delete them"):
        train(options)


def test_a_full_disk_while_saving_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch):
    options = small(tmp_path)
    train(replace(options, minutes=0.0))
    before = (tmp_path / "fold_0" / "checkpoint_latest.pth").read_bytes()
    save = torch.save

    def on_a_full_disk(content, stream):
        save({"half": torch.zeros(100)}, stream)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", on_a_full_disk)
    with pytest.raises(OutputError, match="checkpoint_latest.pth cannot be written .*No space left"):
        train(replace(options, minutes=0.0))
    assert (tmp_path / "fold_0" / "checkpoint_latest.pth").read_bytes() == before
    assert [file.name for file in (tmp_path / "fold_0").iterdir()] == ["checkpoint_latest.pth"]


def test_a_run_that_diverges_stops_with_a_sentence_and_keeps_its_checkpoint(tmp_path, monkeypatch):
    options = small(tmp_path, optimizer="sgd", steps=50)
    train(replace(options, minutes=0.0))
    before = (tmp_path / "fold_0" / "checkpoint_latest.pth").read_bytes()
    with pytest.raises(ClassScaleError, match="The loss is (nan|inf) at step .* lower --learning-rate"):
        train(replace(options, learning_rate=1e38))
    assert (tmp_path / "fold_0" / "checkpoint_latest.pth").read_bytes() == before

    def diverge(self, *_):
        for group in self.param_groups:
            for weight in group["params"]:
                weight.data.fill_(math.nan)

    monkeypatch.setattr(torch.optim.SGD, "step", diverge)
    with pytest.raises(ClassScaleError, match="The weights are not finite at step 2: .* lower --learning-rate"):
        train(replace(options, checkpoint_minutes=0.0))
    assert (tmp_path / "fold_0" / "checkpoint_latest.pth").read_bytes() == before


@pytest.mark.parametrize("name", ["nix", "cuda:99"])
def test_a_device_that_is_not_there_is_a_sentence(tmp_path, capsys, name):
    assert main(["--folder", str(tmp_path), "--device", name]) == 1
    error = capsys.readouterr().err
    assert f"The device {name} cannot be used (" in error and "Use --device cpu, or" in error


def test_a_run_cannot_be_continued_with_another_network(tmp_path, capsys):
    train(small(tmp_path, minutes=0.0))
    sizes = "--size 16 --features 16 24 32 --convolutions 1 1 1 --decoder-convolutions 1 1 --device cpu".split()
    assert main(["--folder", str(tmp_path), "--classes", "13", *sizes]) == 1
    assert "was trained with classes 12, not 13" in capsys.readouterr().err


def test_what_changed_is_said_when_a_run_goes_on_and_what_did_not_is_not(tmp_path, recwarn):
    options = small(tmp_path)
    train(replace(options, minutes=0.0))
    train(replace(options, minutes=0.0, log_every=2, evaluate_every=2, prefetch=1))
    assert not recwarn.list
    with pytest.warns(UserWarning) as caught:
        train(replace(options, minutes=0.0, steps=8, learning_rate=0.02))
    said = "checkpoint_latest.pth with steps 8 (until now 6), learning_rate 0.02 (until now 0.01)."
    assert [str(warning.message).endswith(said) for warning in caught] == [True]
    content = torch.load(tmp_path / "fold_0" / "checkpoint_latest.pth", weights_only=True)
    for name in ("changeable", "data"):  # checkpoints of earlier versions have neither
        del content["loop"][name]
    torch.save(content, tmp_path / "fold_0" / "checkpoint_latest.pth")
    assert train(options).step == 6


def test_a_folder_with_another_model_stays_as_it_is(tmp_path):
    options = small(tmp_path, steps=1)
    train(options)
    (tmp_path / "fold_0" / "checkpoint_latest.pth").unlink()
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.name != ".lock"}
    with pytest.raises(OutputExistsError, match="checkpoint_final.pth exists, but nothing .* Move the model away"):
        train(small(tmp_path, steps=1, classes=3))
    torch.save({"network_weights": {}, "init_args": {}}, tmp_path / "fold_0" / "checkpoint_latest.pth")  # of nnU-Net
    with pytest.raises(ModelError, match="checkpoint_latest.pth is not a checkpoint of this loop"):
        train(options)
    assert all(file.read_bytes() == content for file, content in before.items())
    script = (
        "import sys, time; from pathlib import Path; from ClassScaleSegLib.locking import locked\n"
        "with locked(Path(sys.argv[1]), 'It is held'):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Busy, match="is being trained by another process"):
            train(options)
        other.communicate()


def test_presets_and_options_make_sense_together(tmp_path):
    for preset in PRESETS.values():
        assert LoopOptions(folder=tmp_path, **preset).toy.size % 16 == 0
    with pytest.raises(ClassScaleError, match="Size 36 does not fit a network of 5 stages: .* multiple of 16"):
        LoopOptions(folder=tmp_path, size=36)
    for name, value in (("workers", -1), ("prefetch", -1), ("batch", 0), ("loss_stride", 0)):
        with pytest.raises(ClassScaleError, match=f"--{name.replace('_', '-')} {value} must be [01] or more"):
            LoopOptions(folder=tmp_path, **{name: value})
    for name, value, words in (
        ("steps", 0, "1 or more"),  # an untrained network would look finished
        ("log_every", 0, "1 or more"),
        ("learning_rate", math.nan, "above 0"),
        ("learning_rate", math.inf, "above 0"),
        ("weight_decay", -1.0, "0 or more"),
        ("mirrored", 1.5, "0 or more and 1 or less"),
        ("features", (0, 8), "1 or more"),
        ("minutes", -1.0, "0 or more"),
    ):
        with pytest.raises(ClassScaleError, match=f"--{name.replace('_', '-')} .* must be {words}"):
            LoopOptions(folder=tmp_path, **{name: value})
    with pytest.raises(ClassScaleError, match="2 stages .* need 2 numbers of convolutions and 1 in the decoder"):
        LoopOptions(folder=tmp_path, features=(8, 8))


def test_deep_supervision_is_the_weighted_mean_of_the_losses_of_all_scales(tmp_path):
    options = small(tmp_path, deep_supervision=True)
    data = open_data(options, "cpu")
    network = PlainUNet(options.arch_kwargs(), 1, len(data.names))
    images, labels = (torch.stack(part) for part in zip(*(data.case(index)[:2] for index in range(2)), strict=True))
    value = StepLoss(data, options, torch.device("cpu"))(network, 0, images, labels, [0, 0])
    expected = []
    for scale, basis, head in network.scales(images):
        assert basis.shape[2:] == (16 >> scale,) * 3
        below = labels[:, :: 1 << scale, :: 1 << scale, :: 1 << scale]
        expected.append(CrossEntropyDiceLoss()(basis, head.weight.flatten(1), head.bias, below))
    torch.testing.assert_close(value, (expected[0] + expected[1] / 2) / 1.5)
    value.backward()
    assert all(weight.grad is not None for weight in network.parameters())
    loss = StepLoss(data, replace(options, finest_every=2), torch.device("cpu"))
    torch.testing.assert_close(loss(network, 0, images, labels, [0, 0]), value)
    torch.testing.assert_close(loss(network, 1, images, labels, [0, 0]), expected[1])
    two_stages = {"features": (8, 8), "convolutions": (1, 1), "decoder_convolutions": (1,), "deep_supervision": True}
    for too_little in ({}, two_stages):
        with pytest.raises(ClassScaleError, match="--finest-every needs --deep-supervision and three stages"):
            small(tmp_path, finest_every=2, **too_little)


def test_a_stride_of_the_loss_takes_every_nth_voxel_and_others_at_the_next_step(tmp_path):
    options = small(tmp_path, loss_stride=2)
    data = open_data(options, "cpu")
    network = PlainUNet(options.arch_kwargs(), 1, len(data.names))
    image, labels, _ = data.case(0)
    basis = network(image[None]).flatten(2)
    for step in range(2):
        value = StepLoss(data, options, torch.device("cpu"))(network, step, image[None], labels[None], [0])
        half = (
            basis[..., step::2],
            network.head.weight.flatten(1),
            network.head.bias,
            labels[None].flatten(1)[:, step::2],
        )
        torch.testing.assert_close(value, CrossEntropyDiceLoss()(*half))
    with pytest.raises(ClassScaleError, match="--loss-stride 0 must be 1 or more"):
        small(tmp_path, loss_stride=0)


def test_torch_and_numpy_are_enough(tmp_path):
    script = f"""
import sys
for name in ("nnunetv2", "SimpleITK", "scipy", "nibabel", "matplotlib", "safetensors", "batchgenerators"):
    sys.modules[name] = None  # importing it fails
sys.path[:0] = [{str(TRAINING)!r}, {str(TRAINING.parent / "ClassScaleSeg")!r}]
from classscale_training.loop.train import main
sys.exit(main({["--folder", str(tmp_path)]!r} + "--classes 3 --size 8 --features 8 8 --convolutions 1 1 --steps 1 "
    "--decoder-convolutions 1 --evaluation-cases 1 --device cpu --mode objects".split()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("step 1 of 1, finished.")


def test_tensorboard_is_written_where_installed_and_missed_in_a_sentence_where_not(tmp_path):
    options = small(tmp_path, steps=2, tensorboard=True)
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(ClassScaleError, match="TensorBoard is not installed: pip install tensorboard"):
            train(options)
    else:
        train(options)
        assert len(list((tmp_path / "tensorboard").glob("events*"))) == 1
