"""The script of runs that wait for a GPU, on a tiny training, and the learning curve made from that."""

from pathlib import Path

import gpu_runs
import learning_curve
import measure

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
    monkeypatch.setattr(gpu_runs, "runs", lambda folder: [run])
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


def test_a_run_that_fails_is_called_unfinished_and_its_log_says_why(tmp_path):
    run = gpu_runs.Run("broken", ("-c", "raise SystemExit('no GPU')"), tmp_path / "never")
    assert not gpu_runs.execute(run, tmp_path, 1)
    assert "no GPU" in (tmp_path / "broken.log").read_text()
