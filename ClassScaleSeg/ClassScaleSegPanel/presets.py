"""Named choices of classes, kept in the application's settings, so that they outlive scenes and serve every model."""

from __future__ import annotations

import json

import slicer

_SETTING = "ClassScaleSeg/ClassPresets"


def load_presets() -> dict[str, list[str]]:
    """Names of classes by name of preset; what is not readable counts as none."""
    try:
        content = json.loads(slicer.app.userSettings().value(_SETTING) or "{}")
    except (TypeError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {str(name): [str(item) for item in names] for name, names in content.items() if isinstance(names, list)}


def save_presets(presets: dict[str, list[str]]) -> None:
    slicer.app.userSettings().setValue(_SETTING, json.dumps(presets))
