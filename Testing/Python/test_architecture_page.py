"""The tree in ARCHITECTURE.md names every file of the library, the panel and the trainer, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = ("ClassScaleSeg", "training/classscale_training")
TRIVIAL = "__init__.py"  # of a room: named only where it hands on what users import


def named() -> set[str]:
    """Paths in the tree, from its indentation."""
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    folders: list[str] = []
    found = set()
    for line in page[page.index("## Every code file") :].splitlines():
        entry = re.match(r"^ {4}( *)([\w./-]+)(?: |$)", line)
        if not entry:
            continue
        depth, name = len(entry[1]) // 2, entry[2]
        folders = [*folders[:depth], name.rstrip("/")]
        if not name.endswith("/"):
            found.add("/".join(folders))
        else:
            assert (ROOT / "/".join(folders)).is_dir(), line
    return found


def test_the_tree_is_complete_and_true():
    files = {path.relative_to(ROOT).as_posix() for top in CODE for path in (ROOT / top).rglob("*.py")}
    listed = named()
    assert listed <= files
    assert {path for path in files - listed if not path.endswith(TRIVIAL)} == set()
