"""Batches of the bare loop: cases of several datasets in one, and processes that make them on every system."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from brain_fixtures import file, loop_options, maps  # noqa: F401  (fixtures)
from classscale_training.loop.data import batches, open_data
from classscale_training.loop.step_loss import StepLoss
from classscale_training.network.plain_unet import PlainUNet

CPU = torch.device("cpu")


def test_a_mixed_batch_is_the_mean_of_both_losses_and_is_in_order(file, tmp_path):
    options = loop_options(tmp_path, file, batch=3, half_precision=False, balance=0.3)
    data = open_data(options, "cpu")
    network, loss = PlainUNet(options.arch_kwargs(), 1, len(data.names)), StepLoss(data, options, CPU)
    mixed = next(batch for batch in batches(options, 0, data, CPU) if 0 < sum(batch[2]) < 3)
    images, labels, datasets = mixed
    assert datasets == sorted(datasets) and images.shape[:2] == (3, 1) and labels.shape[0] == 3
    for image, label, dataset in zip(images, labels, datasets, strict=True):
        own = [data.case(index) for index in range(3 * options.steps)]
        assert any(torch.equal(image, i) and torch.equal(label, j) and dataset == d for i, j, d in own)
    whole = datasets.count(0)
    parts = [
        loss(network, 0, images[which], labels[which], datasets[which])
        for which in (slice(None, whole), slice(whole, None))
    ]
    expected = (whole * parts[0] + (3 - whole) * parts[1]) / 3
    torch.testing.assert_close(loss(network, 0, images, labels, datasets), expected)
    with pytest.raises(ValueError, match="must ascend"):
        loss(network, 0, images, labels, datasets[::-1])


def test_processes_that_share_no_memory_with_their_parent_make_the_same(file, tmp_path):
    """As on Windows and macOS, where data goes to them pickled."""
    options = loop_options(tmp_path, file, batch=2, steps=2)
    script = (
        "import multiprocessing, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from classscale_training.loop.data import batches, open_data\n"
        "from brain_fixtures import loop_options\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    options = loop_options(Path('unused'), Path(sys.argv[2]), batch=2, steps=2, workers=1)\n"
        "    made = list(batches(options, 0, open_data(options, 'cpu'), torch.device('cpu')))\n"
        "    torch.save(made, sys.argv[3])\n"
    )
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, tmp_path / "script.py", Path(__file__).parent, file, tmp_path / "made.pt"]
    subprocess.run(list(map(str, command)), check=True)
    made = torch.load(tmp_path / "made.pt", weights_only=True)
    straight = list(batches(options, 0, open_data(options, "cpu"), CPU))
    assert len(made) == 2
    for one, other in zip(made, straight, strict=True):
        assert torch.allclose(one[0], other[0], atol=1e-5) and torch.equal(one[1], other[1]) and one[2] == other[2]
