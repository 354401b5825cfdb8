"""What was chosen when a model was last used, so that it can be chosen again.

It is kept in the application's settings, for all scenes, at Apply. Settings are a file that anybody can edit, so what
is read from there is checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
from ClassScaleSegLib.options import FIELDS
from slicer.i18n import tr as _

from ..parameters import LIMITS
from ..widgets.texts import shortened, tell, tip
from .device_list import device_text
from .request import model_ids

if TYPE_CHECKING:
    from ..models.class_list import ClassList
    from ..parameters import ClassScaleSegParameterNode
    from ..state import PanelState

Choices = dict[str, "str | float | int | bool"]  # by name of the parameter

_SETTING = "ClassScaleSeg/LastChoices"
_MODELS = 50  # that are remembered
_LENGTH = 200_000  # of a text; 1000 long names of classes have 60,000 characters
_BYTES = 4_000_000  # of the setting
_KINDS: dict[str, type] = {  # of the parameters that are remembered
    "classes": str,
    "device": str,
    "memoryLimit": float,
    "step": float,
    "mirroring": bool,
    "bfloat16": bool,
    "folds": str,
    "threads": int,
    "smooth": float,
    "removeIslands": float,
    "locateWith": str,
    "overlap": str,
    "interpolation": str,
    "report": str,
    "standardNames": bool,
    "keepEmpty": bool,
}
_ONE_OF = {name: FIELDS[name].metadata["choices"] for name in ("overlap", "interpolation")}


class LastChoice:
    """The entry "Use last choice" of the menu of the model.

    :ivar action: the entry.
    :param menu: the menu, at whose beginning it is put.
    :param on_use: called with parameters and their values.
    """

    def __init__(
        self, menu: qt.QMenu, state: PanelState, classes: ClassList, on_use: Callable[[Choices], None]
    ) -> None:
        self._state, self._classes, self._on_use, self._menu = state, classes, on_use, menu
        self.action = qt.QAction(_("Use last choice"), menu)
        self.action.connect("triggered(bool)", lambda on: self.use())
        first = menu.actions()[0]
        menu.insertAction(first, self.action)
        menu.insertSeparator(first)
        menu.toolTipsVisible = True
        menu.connect("aboutToShow()", self.render)

    def render(self) -> None:
        """Say what the last choice is, and enable the entry if it is another than that of now."""
        choices, missing = self._offered()
        words = [self._words(name, value) for name, value in choices.items()]
        if missing:
            text = _("This model no longer has {count} of the classes that were chosen.").format(count=missing)
            words.append(text)
        text = _("No other choice was used with this model.")
        self.action.enabled = bool(choices)
        self.action.toolTip = tip("\n".join(words) if words else text).replace("\n", "<br>")

    def use(self) -> None:
        """Choose again what was chosen when the models of now were last used."""
        choices, missing = self._offered()
        if choices:
            self._on_use(choices)
        if missing:
            text = _("This model no longer has {count} of the classes that were chosen. They were left out.")
            tell(text.format(count=missing), _("Last choice"))

    def _offered(self) -> tuple[Choices, int]:
        """Return what differs from the choice of now, and how many classes the model no longer has."""
        parameters, missing = self._state.parameters, 0
        if parameters is None or self._state.table is None:
            return {}, 0
        choices = load_choices().get(_key(parameters), {})
        if names := str(choices.get("classes", "")).splitlines():
            known = self._classes.known(names)
            missing, choices = len(names) - len(known), choices | {"classes": "\n".join(known)}
            if not known:
                del choices["classes"]  # none would be all
        return {name: value for name, value in choices.items() if getattr(parameters, name) != value}, missing

    def _words(self, name: str, value: Any) -> str:
        """Return a value of a parameter for people."""
        title = {
            "classes": _("Classes"),
            "device": _("Device"),
            "memoryLimit": _("Memory limit"),
            "step": _("Step"),
            "mirroring": _("Mirroring"),
            "bfloat16": _("bfloat16 on the CPU"),
            "folds": _("Folds"),
            "threads": _("Threads"),
            "smooth": _("Smooth"),
            "removeIslands": _("Remove islands"),
            "locateWith": _("Locate with"),
            "overlap": _("Overlap"),
            "interpolation": _("Interpolation"),
            "report": _("Report"),
            "standardNames": _("Standard anatomical names"),
            "keepEmpty": _("Keep empty segments"),
        }[name]
        if name == "classes":
            names = str(value).splitlines()
            shown = ", ".join(names[:5] + ["..."] * (len(names) > 5)) if names else _("all")
        elif name == "overlap":
            shown = _("keep both") if value == "keep" else _("the later model gets the voxel")
        elif name == "interpolation":
            shown = _("nearest class") if value == "nearest" else _("between all classes")
        elif name == "report":
            shown = str(value) or _("none")
        elif name == "device":
            shown = device_text(str(value)) or _("usual")
        elif isinstance(value, bool):
            shown = _("yes") if value else _("no")
        elif isinstance(value, str):
            shown = value or _("usual")
        else:
            shown = f"{value:g}" if value else _("usual")
        return _("{title}: {value}").format(title=title, value=shortened(shown, 200))


def remember(parameters: ClassScaleSegParameterNode) -> None:
    """Keep the choice of now as the last one of its models."""
    all_choices, key = load_choices(), _key(parameters)
    all_choices.pop(key, None)
    all_choices[key] = {name: getattr(parameters, name) for name in _KINDS}
    kept = dict(list(all_choices.items())[-_MODELS:])
    text = json.dumps(kept)
    while len(text) > _BYTES and len(kept) > 1:
        del kept[next(iter(kept))]
        text = json.dumps(kept)
    slicer.app.userSettings().setValue(_SETTING, text)


def load_choices() -> dict[str, Choices]:
    """Return the last choice of each model or list of models, the latest last. What cannot be read is left out."""
    try:
        text = slicer.app.userSettings().value(_SETTING) or "{}"
        content = json.loads(text) if len(text) <= 2 * _BYTES else {}
    except (TypeError, ValueError, RecursionError):
        return {}
    found = list(content.items())[-_MODELS:] if isinstance(content, dict) else []
    return {key: _checked(choices) for key, choices in found if isinstance(choices, dict)}


def _checked(choices: dict[str, Any]) -> Choices:
    right = {name: choices[name] for name in _KINDS if name in choices and _is_right(name, choices[name])}
    return {name: _KINDS[name](value) for name, value in right.items()}


def _is_right(name: str, value: Any) -> bool:
    kind = _KINDS[name]
    if kind is bool:
        return isinstance(value, bool)
    if kind is str:
        right = isinstance(value, str) and len(value) <= _LENGTH and value in _ONE_OF.get(name, (value,))
        return right and not any("\ud800" <= letter <= "\udfff" for letter in value)  # half letters, from JSON
    number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return number and 0 <= value <= LIMITS[name]


def _key(parameters: ClassScaleSegParameterNode) -> str:
    return "\n".join(model_ids(parameters))
