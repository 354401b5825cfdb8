"""The script of runs that wait for a GPU, on a tiny training, and the learning curve made from that."""

import json
from pathlib import Path

import gpu_runs
import gpu_step
import learning_curve
import measure
import torch

SMALL = ("--classes", "5", "--size", "16", "--features", "4", "8", "--convolutions", "1", "1")
MORE = (
    "--decoder-convolutions",
    "1",
    "--steps",
    "30",
    "--log-every",
    "10",
    "--evaluate-every",
    "10",
    "--device",
    "cpu",
)


def small_run(folder: Path) -> gpu_runs.Run:
    arguments = (*gpu_runs.LOOP, "--folder", str(folder), *SMALL, *MORE)
    return gpu_runs.Run("small", arguments, folder / "fold_0" / "checkpoint_final.pth", stoppable=True)


def test_a_training_is_finished_and_its_curve_drawn(tmp_path, monkeypatch, capsys):
    run = small_run(tmp_path / "gpu" / "small")
    monkeypatch.setattr(gpu_runs, "runs", lambda folder, quick: [run])
    monkeypatch.setattr(
        "sys.argv", ["gpu_runs.py", "--folder", str(tmp_path / "gpu"), "--keep", str(tmp_path / "kept")]
    )
    assert gpu_runs.main() == 0 and run.done.exists()
    assert gpu_runs.main() == 0 and "done before" in capsys.readouterr().out
    assert (tmp_path / "kept" / "runs" / "small.log").read_text().count('"step"') == 3
    monkeypatch.setattr(learning_curve, "HERE", tmp_path)
    monkeypatch.setattr(measure, "HERE", tmp_path)
    monkeypatch.setattr("sys.argv", ["learning_curve.py", str(run.done.parents[1]), "--dice", "0"])
    (tmp_path / "results").mkdir()
    assert learning_curve.main() == 0
    assert (tmp_path / "results" / "small.png").stat().st_size > 10_000
    assert (tmp_path / "results" / "small.json").read_text().count('"pooled_dice"') == 3


def test_one_command_does_every_row_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    """In small: the steps and a training; the kernels are run in test_kernels."""
    wanted = [run for run in gpu_runs.runs(tmp_path, quick=True) if run.name in ("gpu_step", "toy-1000")]
    measured = ["gpu_kernels", "gpu_step", "gpu_engine"]
    with monkeypatch.context() as patch:
        patch.setattr(gpu_runs, "ROOT", tmp_path)
        assert [run.name for run in gpu_runs.runs(tmp_path)] == [*measured, "toy-1000"]
        maps = tmp_path / ".benchmarks" / "brain" / "label_maps.npz"
        maps.parent.mkdir(parents=True)
        maps.touch()
        heads = ["head-mr-312-further", "toy-1000", "head-mr-312-1mm"]
        assert [run.name for run in gpu_runs.runs(tmp_path)] == [*measured, *heads]
    monkeypatch.setattr(gpu_runs, "runs", lambda folder, quick: wanted)
    monkeypatch.setattr("sys.argv", ["gpu_runs.py", "--quick", "--folder", str(tmp_path)])
    gpu_runs.main()
    first = capsys.readouterr().out
    rows = json.loads((tmp_path / "gpu_step.json").read_text())["cases"]
    loss = {(row["what"], row["classes"], row["way"]): row.get("loss") for row in rows}
    assert loss["U-Net", 9, "compiled"] == loss["U-Net", 9, "eager"] is not None
    assert not [row for row in rows if "fault" in row] and first.count("done") == 2
    assert gpu_runs.main() == 0 and capsys.readouterr().out.count("done before") == 2


def test_a_measurement_keeps_the_rows_that_it_has(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(gpu_step, "attempt", lambda make, way, repeats: asked.append(way) or {"loss": 1.0})
    every = ["gpu_step.py", "--quick", "--device", "cpu", "--folder", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*every, "--minutes", "-1"])
    assert gpu_step.main() == 2 and not asked
    told, _ = gpu_step.rows(True, "cpu")[0]
    machine = {"machine": {"device": "cpu", "torch": torch.__version__}, "quick": True}
    before = {**machine, "cases": [{**told, "loss": 7.0}]}
    (tmp_path / "gpu_step.partial.json").write_text(json.dumps(before))
    monkeypatch.setattr("sys.argv", every)
    assert gpu_step.main() == 0 and len(asked) == len(gpu_step.rows(True, "cpu")) - 1
    assert json.loads((tmp_path / "gpu_step.json").read_text())["cases"][0]["loss"] == 7.0


def test_a_run_that_fails_is_called_unfinished_and_its_log_says_why(tmp_path):
    run = gpu_runs.Run("broken", ("-c", "raise SystemExit('no GPU')"), tmp_path / "never")
    assert not gpu_runs.execute(run, tmp_path, 1)
    assert "no GPU" in (tmp_path / "broken.log").read_text()
