"""JSON files that appear only when complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ClassScaleSegLib.files import replacing


def write_json(file: Path, content: Any) -> None:
    """Write or replace ``file``; missing folders are made.

    :raises OutputError: if it cannot be written; what stood there stays.
    """
    with replacing(file, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
