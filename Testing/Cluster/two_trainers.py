"""What run_two_trainers.sh does before and after two machines train together.

    python Testing/Cluster/two_trainers.py prepare FOLDER
    python Testing/Cluster/two_trainers.py check FOLDER

``prepare`` writes a dataset of three small cases, and a trainer that first trains ten steps with fixed batches.
``check`` compares weights and validation with those of one process. The exit code is 0 if they are equal, and no two
processes have written the same file.
"""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1] / "Python"
sys.path.insert(0, str(TESTS))

from classscale_training.commands import main  # noqa: E402
from classscale_training.processes.launch import launch  # noqa: E402
from tiny_nnunet import PLANS, TRAINER, write_trainer  # noqa: E402
from two_processes import (  # noqa: E402
    COMMAND,
    CONFIGURATION,
    DATASET,
    WATCHED,
    largest_differences,
    preprocess,
    ten_steps,
    written_by_both,
)

TEN_STEPS = """
sys.path.insert(0, {tests!r})

def begin(self):
    from pathlib import Path

    from classscale_training.processes.group import Rank
    from two_processes import ten_steps

    ten_steps(Rank(rank, 2, self.device), Path({root!r}))
    ClassScaleTrainer.on_train_start(self)

if torch.distributed.is_initialized():
    ClassScaleTrainer_test.on_train_start = begin
"""


def prepare(root: Path) -> int:
    """Write what the machines train, and the weights of one process after ten steps."""
    preprocess(root)
    launch(ten_steps, (root,), 1, "cpu")
    write_trainer(root, 2, (WATCHED + TEN_STEPS).format(root=str(root), tests=str(TESTS)))
    return 0


def check(root: Path) -> int:
    """Compare, and print what differs."""
    differences = largest_differences(root)
    for kind, difference in differences.items():
        print(f"weights after ten steps, {kind}: they differ by {difference:.1e} at most from those of one process")
    twice = written_by_both(root)
    print(f"files that both have written: {', '.join(sorted(twice)) or 'none'}")
    file = (
        root / "results" / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}" / "fold_0" / "validation" / "summary.json"
    )
    both = file.read_text()
    code = main(["validate", *COMMAND])
    equal = file.read_text() == both
    print(f"validation: summary.json {'equals' if equal else 'differs from'} that of one process")
    return code or int(max(differences.values()) > 1e-5 or bool(twice) or not equal)


if __name__ == "__main__":
    sys.exit({"prepare": prepare, "check": check}[sys.argv[1]](Path(sys.argv[2])))
