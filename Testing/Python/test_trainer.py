"""A whole cycle with real nnU-Net on a toy dataset: plan, preprocess, train, resume, validate, export, predict."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("nnunetv2")
import numpy as np
import SimpleITK as sitk
import torch
from classscale_training.commands import main
from classscale_training.data.toy.options import ToyOptions
from classscale_training.data.toy_dataset import write_toy_dataset
from classscale_training.nnunet import trainer as trainer_module
from classscale_training.nnunet.case_validation import case_metrics
from classscale_training.nnunet.optimizer_rates import ADAMW
from classscale_training.nnunet.optimizers import learning_rate, refuse_optimizer
from classscale_training.nnunet.trainer import ClassScaleTrainer
from classscale_training.nnunet.trainer_variants import ClassScaleTrainer_5epochs, ClassScaleTrainer_NoMirroring
from ClassScaleSegLib import open_model, segment
from ClassScaleSegLib.errors import LabelTableError, ModelError, OutputError
from ClassScaleSegLib.process.exit_codes import ExitCode
from nnunetv2.inference import predict_from_raw_data, sliding_window_prediction
from tiny_nnunet import CONFIGURATION, PLANS, TRAINER, add_tiny_configuration, set_environment, write_trainer

DATASET, CLASSES, SIZE = 701, 8, 24


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A toy dataset, planned and preprocessed; nnU-Net's variables point at it."""
    root = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        write_toy_dataset(ToyOptions(CLASSES, "atlas", SIZE), DATASET, 3)
        assert main(["plan", "-d", str(DATASET), "-npfp", "1", "-overwrite_target_spacing", "6", "6", "6"]) == 0
        splits = [{"train": ["Toy_0001", "Toy_0002"], "val": ["Toy_0003"]}]
        add_tiny_configuration(_preprocessed(root), splits)
        assert main(["preprocess", "-d", str(DATASET), "-c", CONFIGURATION, "-np", "1", "--no_pbar"]) == 0
        yield root


def _preprocessed(root: Path) -> Path:
    return next((root / "preprocessed").iterdir())


def _train(root: Path, epochs: int, *arguments: str) -> int:
    write_trainer(root, epochs)
    return main(["train", str(DATASET), CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu", *arguments])


@pytest.fixture(scope="module")
def model(root) -> Path:
    """The model folder of two epochs."""
    assert _train(root, 2) == 0
    return next((root / "results").iterdir()) / f"{TRAINER}__{PLANS}__{CONFIGURATION}"


def _predict_with_stock(folder: Path, image: Path) -> np.ndarray:
    predictor = predict_from_raw_data.nnUNetPredictor(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    reader = predictor.plans_manager.image_reader_writer_class()
    array, properties = reader.read_images([str(image)])
    return predictor.predict_single_npy_array(array, properties)


def test_stock_nnunet_and_our_engine_give_one_label_map_from_the_exports(root, model, tmp_path, capsys, monkeypatch):
    stock, bundle = tmp_path / "stock", tmp_path / "model.zip"
    assert main(["export", "-m", str(model), "-o", str(stock), "--stock"]) == 0
    arguments = ["-d", str(DATASET), "-tr", TRAINER, "-c", CONFIGURATION, "-o", str(bundle), "--licence", "CC0-1.0"]
    assert main(["export", *arguments]) == 0
    assert capsys.readouterr().out.split()[-2:] == [str(stock), str(bundle)]
    image = next((root / "raw").iterdir()) / "imagesTr" / "Toy_0003_0000.nii.gz"
    opened = open_model(bundle)
    ours = segment(str(image), opened, device="cpu").labels
    assert opened.classes == CLASSES + 1 and opened.licence == "CC0-1.0" and opened.mirror_axes == (0, 1, 2)
    np.testing.assert_array_equal(segment(str(image), open_model(model), device="cpu").labels, ours)  # not exported
    # nnU-Net adds windows in half precision: near ties of a network that has hardly learnt anything go astray
    weights = sliding_window_prediction.compute_gaussian
    monkeypatch.setattr(torch, "half", torch.float32)
    monkeypatch.setattr(predict_from_raw_data, "compute_gaussian", functools.partial(weights, dtype=torch.float32))
    theirs = _predict_with_stock(stock, image)
    assert theirs.shape == (SIZE,) * 3 and len(np.unique(theirs)) > 1
    assert np.count_nonzero(ours != theirs) <= 2  # stock decides ties in float32
    validated = sitk.ReadImage(str(model / "fold_0" / "validation" / "Toy_0003.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(validated), ours)
    assert validated.GetSpacing() == pytest.approx(sitk.ReadImage(str(image)).GetSpacing())
    exported = torch.load(stock / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert exported["trainer_name"] == "nnUNetTrainer" and exported["init_args"]["configuration"] == CONFIGURATION
    assert main(["export", "-m", str(model), "-o", str(stock), "--stock"]) == 5  # there already
    assert main(["export", "-m", str(stock), "-o", str(tmp_path / "again"), "--stock"]) == 3
    assert "not from ClassScaleTrainer" in capsys.readouterr().err


def test_the_summary_has_the_figures_that_nnunet_computes_from_the_files(root, model):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics, load_summary_json
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    summary = load_summary_json(str(model / "fold_0" / "validation" / "summary.json"))
    (case,) = summary["metric_per_case"]
    labels = list(range(1, CLASSES + 1))
    expected = compute_metrics(case["reference_file"], case["prediction_file"], SimpleITKIO(), labels)["metrics"]
    for label in labels:
        assert case["metrics"][label] == pytest.approx(expected[label], nan_ok=True)
        assert summary["mean"][label] == pytest.approx(expected[label], nan_ok=True)
    means = [expected[label]["Dice"] for label in labels]
    assert summary["foreground_mean"]["Dice"] == pytest.approx(np.mean(means))


def test_regions_are_summarised_as_nnunet_does_it(tmp_path):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    reference, prediction = np.random.default_rng(0).integers(0, 5, (2, 6, 7, 8)).astype(np.uint8)
    prediction[prediction == 4] = 0  # 4 is the ignore label
    for name, array in (("reference", reference), ("prediction", prediction)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}.nii.gz"))
    files = [str(tmp_path / f"{name}.nii.gz") for name in ("reference", "prediction")]
    for evaluated in ([(1, 2, 3), (2, 3), 3], [1, 2, 3]):
        expected = compute_metrics(*files, SimpleITKIO(), evaluated, ignore_label=4)["metrics"]
        found = case_metrics(reference.astype(np.int64), prediction, evaluated, 4)
        assert {key: pytest.approx(value) for key, value in expected.items()} == found


def test_a_training_is_continued_and_its_log_with_it(root, model, capsys):
    before = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    capsys.readouterr()
    assert _train(root, 3, "--c") == 0
    export = f"export -d {DATASET} -c {CONFIGURATION} -tr {TRAINER} -o model.zip"
    end = f"\n\nFold 0 has been trained: {model / 'fold_0'}\nNext: classscaleseg-train {export}\n"
    assert capsys.readouterr().out.endswith(end)
    assert _train(root, 3, "--val") == 0
    summary = model / "fold_0" / "validation" / "summary.json"
    assert summary.is_file() and capsys.readouterr().out.endswith(f"\n\nThe validation is {summary}.\n")
    after = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert (before["current_epoch"], after["current_epoch"]) == (2, 3)
    assert after["logging"]["train_losses"][:2] == before["logging"]["train_losses"]
    assert after["logging"]["train_losses"][2] < before["logging"]["train_losses"][0] + 0.3
    assert len(after["logging"]["dice_per_class_or_region"][2]) == CLASSES
    assert not list((model / "fold_0").glob("checkpoint_[lp]*"))  # latest and previous are of no use any more


def _trainer(
    root: Path, kind: type = ClassScaleTrainer, dataset: dict | None = None, **configuration
) -> ClassScaleTrainer:
    folder = _preprocessed(root)
    plans = json.loads((folder / f"{PLANS}.json").read_text())
    plans["configurations"][CONFIGURATION] |= configuration
    dataset = dataset or json.loads((folder / "dataset.json").read_text())
    trainer = kind({**plans, "continue_training": False}, CONFIGURATION, 0, dataset, torch.device("cpu"))
    trainer.initialize()
    return trainer


def _batch(highest: int, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, highest + 1, (2, 1, 16, 16, 16), generator=generator).short()
    scales = [target, target[..., ::2, ::2, ::2].contiguous()]
    return {"data": torch.randn(2, 1, 16, 16, 16, generator=generator), "target": scales, "keys": ["a", "b"]}


def test_a_validation_step_gives_the_hits_and_misses_that_stock_counts(root):
    from nnunetv2.training.loss.dice import get_tp_fp_fn_tn

    trainer = _trainer(root)
    batch = _batch(CLASSES)
    with torch.no_grad():
        found = trainer.validation_step(batch)
        bases, _, _ = trainer.network(batch["data"])
        winner = trainer.network.decoder.seg_layers.logits(bases[0]).argmax(1, keepdim=True)
    one_hot = torch.zeros(2, CLASSES + 1, 16, 16, 16).scatter_(1, winner, 1)
    expected = get_tp_fp_fn_tn(one_hot, batch["target"][0], axes=[0, 2, 3, 4])[:3]
    for name, counts in zip(("tp_hard", "fp_hard", "fn_hard"), expected, strict=True):
        np.testing.assert_array_equal(found[name], counts[1:].numpy())


def test_regions_with_an_ignore_label_learn_and_are_counted_as_stock_counts_them(root):
    from nnunetv2.training.loss.dice import get_tp_fp_fn_tn

    regions = {"background": 0, "all": [1, 2, 3], "core": [2, 3], "tip": 3, "ignore": 4}
    dataset = {"channel_names": {"0": "CT"}, "labels": regions, "regions_class_order": [1, 2, 3]}
    trainer = _trainer(root, dataset={**dataset, "numTraining": 3, "file_ending": ".nii.gz"})
    batch = _batch(4)
    losses = [float(trainer.train_step(batch)["loss"]) for _ in range(12)]
    assert losses[-1] < losses[0]
    with torch.no_grad():
        found = trainer.validation_step(batch)
        bases, _, _ = trainer.network(batch["data"])
        positive = (trainer.network.decoder.seg_layers.logits(bases[0]) > 0).float()
    labels = batch["target"][0]
    truth = torch.cat([(labels >= 1) & (labels <= 3), (labels == 2) | (labels == 3), labels == 3], 1).float()
    expected = get_tp_fp_fn_tn(positive, truth, axes=[0, 2, 3, 4], mask=(labels != 4).float())[:3]
    for name, counts in zip(("tp_hard", "fp_hard", "fn_hard"), expected, strict=True):
        np.testing.assert_array_equal(found[name], counts.numpy())


def test_a_label_that_dataset_json_lacks_stops_the_training_with_the_names_of_the_cases(root):
    with pytest.raises(LabelTableError, match="cases a, b does not fit dataset.json: label .* is outside 0..8"):
        _trainer(root).train_step(_batch(CLASSES + 4))


def test_the_rank_is_read_from_the_plans_and_a_cascade_is_refused(root):
    head = _trainer(root, classscale_rank=5).network.decoder.seg_layers
    assert head.projection.shape == (CLASSES + 1, 5)
    with pytest.raises(ModelError, match="rank is 9"):
        _trainer(root, classscale_rank=9)
    with pytest.raises(ModelError, match="tiny is the second stage of a cascade"):
        _trainer(root, previous_stage="3d_fullres")


def test_variants_change_what_their_names_say(root):
    short, unmirrored = _trainer(root, ClassScaleTrainer_5epochs), _trainer(root, ClassScaleTrainer_NoMirroring)
    assert (short.num_epochs, unmirrored.num_epochs) == (5, 1000)
    assert short.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3] == (0, 1, 2)
    assert unmirrored.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3] is None
    assert unmirrored.inference_allowed_mirroring_axes is None


def test_mirroring_images_whose_left_and_right_are_told_apart_is_warned_of(root, capsys):
    mirrored, unmirrored = _trainer(root), _trainer(root, ClassScaleTrainer_NoMirroring)
    for trainer in (mirrored, unmirrored):
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        assert "WARNING" not in capsys.readouterr().out
        trainer.dataset_json = {**trainer.dataset_json, "labels": {"background": 0, "kidney_left": 1, "Kidney_R": 2}}
    for trainer, warns in ((mirrored, True), (unmirrored, False)):
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        assert ("WARNING: kidney_left and Kidney_R are different labels" in capsys.readouterr().out) == warns


def test_a_truncated_checkpoint_falls_back_to_the_one_before(root):
    trainer = _trainer(root, ClassScaleTrainer_5epochs)
    latest = Path(trainer.output_folder) / "checkpoint_latest.pth"
    for epoch in (0, 1):
        trainer.current_epoch = epoch
        trainer.logger.log("train_losses", float(epoch), epoch)
        trainer.save_checkpoint(str(latest))
    content = latest.read_bytes()
    latest.write_bytes(content[: len(content) // 2])
    resumed = _trainer(root, ClassScaleTrainer_5epochs)
    with pytest.warns(UserWarning, match="latest.pth .* cannot be read; .* continues from checkpoint_previous.pth"):
        resumed.load_checkpoint(str(latest))
    assert resumed.current_epoch == 1  # epoch 0 was done when it was written
    latest.with_name("checkpoint_previous.pth").unlink()
    with pytest.raises(
        ModelError,
        match="No checkpoint can be read: .*latest.pth .*previous.pth .does not exist.;",
    ):
        resumed.load_checkpoint(str(latest))


@pytest.mark.parametrize(("wanted", "fast", "half"), [("t", True, True), ("t", False, False), ("f", True, False)])
def test_a_processor_that_is_fast_in_bfloat16_trains_in_it(root, monkeypatch, capsys, wanted, fast, half):
    monkeypatch.setenv("CLASSSCALE_BFLOAT16", wanted)
    monkeypatch.setattr(trainer_module, "has_bfloat16", lambda: fast)
    trainer = _trainer(root)
    assert ("Training steps compute in bfloat16" in capsys.readouterr().out) == half
    trainer.network.train()
    bases, _projection, _bias = trainer.network(_batch(0)["data"])
    assert {basis.dtype for basis in bases} == {torch.bfloat16 if half else torch.float32}
    first = trainer.train_step(_batch(CLASSES - 1))["loss"]
    for _step in range(5):
        last = trainer.train_step(_batch(CLASSES - 1))["loss"]
    assert last < first


def _with_adamw(root: Path, rate: float = 3e-4) -> ClassScaleTrainer:
    class Chosen(ClassScaleTrainer_5epochs):
        optimizer_name, num_iterations_per_epoch = ADAMW, 4

        def initialize(self) -> None:
            self.initial_lr, self.num_iterations_per_epoch = rate, 4
            super().initialize()

    return _trainer(root, Chosen)


def test_with_adamw_the_rate_rises_and_falls_from_step_to_step(root):
    trainer = _with_adamw(root, 0.001)
    rates, losses = [], []
    for epoch in range(5):
        trainer.lr_scheduler.step(epoch)
        for _step in range(4):
            losses.append(trainer.train_step(_batch(CLASSES - 1))["loss"])
            rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == [learning_rate(step, 20, 0.001) for step in range(20)]
    assert rates.index(max(rates)) == 1 and rates[-1] < 0.1 * max(rates) and losses[-1] < losses[0]
    trainer.lr_scheduler.step(2)
    assert trainer.optimizer.param_groups[0]["lr"] == rates[8]


def test_a_checkpoint_says_with_which_optimiser_a_training_goes_on(root, capsys):
    stock, chosen = _trainer(root, ClassScaleTrainer_5epochs), _with_adamw(root, 0.002)
    files = {}
    for name, trainer in (("sgd", stock), ("adamw", chosen)):
        trainer.train_step(_batch(CLASSES - 1))
        files[name] = Path(trainer.output_folder) / f"checkpoint_{name}.pth"
        trainer.logger.log("train_losses", 0.5, 0)
        trainer.save_checkpoint(str(files[name]))
    capsys.readouterr()
    resumed = _trainer(root, ClassScaleTrainer_5epochs)  # nothing says that it was AdamW
    resumed.load_checkpoint(str(files["adamw"]))
    assert "The optimiser is that of the checkpoint: adamw." in capsys.readouterr().out
    assert isinstance(resumed.optimizer, torch.optim.AdamW)
    assert resumed.optimizer.state_dict()["state"][0]["step"] == 1
    resumed.lr_scheduler.step(1)
    assert resumed.optimizer.param_groups[0]["lr"] == learning_rate(250, 1250, 0.002)
    resumed.train_step(_batch(CLASSES - 1))
    back = _with_adamw(root)
    back.load_checkpoint(str(files["sgd"]))
    assert "WARNING: The checkpoint was trained with sgd, which goes on, not adamw." in capsys.readouterr().out
    assert isinstance(back.optimizer, torch.optim.SGD) and back.optimizer_name == "sgd"
    back.lr_scheduler.step(0)
    assert back.optimizer.param_groups[0]["lr"] == 0.01, "not the rate that was meant for AdamW"
    back.train_step(_batch(CLASSES - 1))
    same = _with_adamw(root)
    capsys.readouterr()
    same.load_checkpoint(str(files["adamw"]))
    assert "The checkpoint was trained" not in capsys.readouterr().out
    assert same.optimizer.param_groups[0]["initial_lr"] == 0.002
    for file in files.values():
        file.unlink()


def test_a_trainer_that_brings_its_optimiser_keeps_it(root, capsys):
    class Own(ClassScaleTrainer_5epochs):
        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.network.parameters(), 1e-3)
            return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)

    trainer = _trainer(root, Own)
    with pytest.raises(ModelError, match="Own has an optimiser of its own: leave --optimizer out"):
        refuse_optimizer(type(trainer))
    trainer.train_step(_batch(CLASSES - 1))
    trainer.logger.log("train_losses", 0.5, 0)
    file = Path(trainer.output_folder) / "checkpoint_own.pth"
    trainer.save_checkpoint(str(file))
    again = _trainer(root, Own)
    capsys.readouterr()
    again.load_checkpoint(str(file))
    file.unlink()
    assert type(again.optimizer) is torch.optim.Adam and "checkpoint" not in capsys.readouterr().out


def test_a_trainer_of_the_user_may_take_its_arguments_in_any_order_as_with_nnunet(root, capsys):
    (root / "shim" / "mine.py").write_text(
        "from classscale_training.nnunet.trainer import ClassScaleTrainer\n"
        "class Mine(ClassScaleTrainer):\n"
        "    def __init__(self, plans, configuration, fold, device, dataset_json):\n"
        "        super().__init__(plans, configuration, fold, dataset_json, device)\n"
    )
    command = ["validate", str(DATASET), CONFIGURATION, "0", "-tr", "Mine", "-device", "cpu"]
    assert main(command) == ExitCode.MODEL
    assert "has no checkpoint_final.pth to validate" in capsys.readouterr().err


def test_the_command_trains_with_adamw_and_goes_on(root, capsys):
    command = ["train", str(DATASET), CONFIGURATION, "all", "-tr", TRAINER, "-device", "cpu", "--no-validation"]
    write_trainer(root, 1)
    assert main([*command, "--optimizer", "adamw"]) == 0
    assert "Current learning rate: 0.0003" in capsys.readouterr().out  # of two steps, the first is the warm-up
    write_trainer(root, 2, "\n")  # of another size, so that Python does not take the one it has compiled
    assert main([*command, "--c"]) == 0
    fold = next((root / "results").iterdir()) / f"{TRAINER}__{PLANS}__{CONFIGURATION}" / "fold_all"
    content = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert content["current_epoch"] == 2 and content["optimizer_state"]["state"][0]["step"] == 4
    assert content["optimizer_state"]["param_groups"][0]["initial_lr"] == 3e-4
    shutil.rmtree(fold)
    stock = ["train", str(DATASET), CONFIGURATION, "all", "-tr", "nnUNetTrainer", "-device", "cpu"]
    assert main([*stock, "--optimizer", "adamw"]) != 0
    assert "nnUNetTrainer has an optimiser of its own: leave --optimizer out" in capsys.readouterr().err


def test_a_checkpoint_is_written_after_fifty_epochs_or_five_minutes(root, monkeypatch):
    trainer, clock, written = _trainer(root), [0.0], []
    monkeypatch.setattr(trainer_module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(trainer_module, "save_whole", lambda file, save: written.append((file.name, epoch)))
    monkeypatch.setattr(trainer.logger, "plot_progress_png", lambda folder: None)
    trainer._saved, trainer._best_ema = 0.0, 1.0  # so that none is the best
    for epoch, minutes in enumerate([1, 3, 6, 8, 20]):
        clock[0] = 60.0 * minutes
        for name in ("train_losses", "val_losses", "mean_fg_dice", "epoch_start_timestamps"):
            trainer.logger.log(name, 0.5, epoch)
        trainer.logger.log("dice_per_class_or_region", [0.5], epoch)
        trainer.on_epoch_end()
    assert written == [("checkpoint_latest.pth", 2), ("checkpoint_latest.pth", 4)] and trainer.current_epoch == 5
    assert trainer.save_every == 50


def test_a_full_disk_while_saving_leaves_the_old_checkpoint_whole(root, monkeypatch):
    trainer = _trainer(root, ClassScaleTrainer_5epochs)
    latest = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(latest))
    content = latest.read_bytes()

    def disk_full(checkpoint, filename):
        Path(filename).write_bytes(content[:1000])
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 1000 vs 900")  # torch's words

    monkeypatch.setattr(torch, "save", disk_full)
    files = {file.name for file in latest.parent.iterdir()}
    with pytest.raises(OutputError, match="checkpoint_latest.pth cannot be written"):
        trainer.save_checkpoint(str(latest))
    assert latest.read_bytes() == content
    assert {file.name for file in latest.parent.iterdir()} == files
