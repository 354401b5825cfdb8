"""Write JSON files completely or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ClassScaleSegLib.files import replacing


def write_json(file: Path, content: Any) -> None:
    """Write ``content`` to ``file`` as JSON, replacing an older file only once the new one is complete.

    :param file: path to write; missing folders are created.
    :param content: anything that :func:`json.dumps` accepts.
    :raises OutputError: if ``file`` cannot be written; an older file is then left unchanged.
    """
    with replacing(file, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
