"""The row "Colours": segments have their own colours or those of the confidence in them, or each voxel has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import slicer
from slicer.i18n import tr as _

from ..state import PanelState
from ..widgets.choice_list import ChoiceList

_OWN, _CONFIDENCE, _MAP = "own", "confidence", "map"


class SegmentColors:
    """A list of choices, and beside it a scale that says what the colours of the confidence mean.

    It is there if the confidence is known of a structure or of the voxels of the segmentation that is listed.

    :param on_changed: called without arguments when the user has chosen other colours.
    """

    def __init__(self, ui: Any, state: PanelState, on_changed: Callable[[], None]) -> None:
        from ClassScaleSegLib.scene.confidence_colors import LEAST, MOST, RAMP

        self._ui, self._state, self._on_changed = ui, state, on_changed
        choices = {_OWN: _("Structures"), _CONFIDENCE: _("Confidence"), _MAP: _("Unsure voxels")}
        self._choices = ChoiceList(ui.colorsComboBox, choices, self._choose)
        stops = ", ".join(f"stop:{n / (len(RAMP) - 1):g} rgb{color}" for n, color in enumerate(RAMP))
        ui.rampLabel.styleSheet = f"background: qlineargradient(x1:0, y1:0, x2:1, y2:0, {stops})"
        ui.leastLabel.text, ui.mostLabel.text = f"\u2264 {LEAST:.2f}", f"{MOST:.2f}"
        ui.rampLabel.minimumWidth = 30

    def render(self) -> None:
        """Show which colours the listed segmentation has, if it can have others."""
        from ClassScaleSegLib.scene.confidence_colors import has_confidence, shows_confidence
        from ClassScaleSegLib.scene.confidence_map import follow_confidence_maps, shows_confidence_map
        from ClassScaleSegLib.scene.confidence_volume import confidence_volume

        node, shown = self._state.node, _OWN
        follow_confidence_maps(slicer.mrmlScene)
        of_voxels = node is not None and confidence_volume(node) is not None
        if node is not None and shows_confidence(node):
            shown = _CONFIDENCE
        elif node is not None and shows_confidence_map(node):
            shown = _MAP
        known = node is not None and (of_voxels or has_confidence(node))
        self._ui.colorsWidget.visible = known or shown != _OWN
        self._choices.offer(_MAP, of_voxels)
        self._choices.render(shown)
        for label in (self._ui.leastLabel, self._ui.rampLabel, self._ui.mostLabel):
            label.visible = shown != _OWN

    def shown(self, own: Mapping[str, tuple[int, int, int]]) -> dict[str, tuple[int, int, int]]:
        """Return the colours in which the views show the segments of the listed segmentation, 0 to 255.

        :param own: their own colours, by the id of the segment.
        """
        from ClassScaleSegLib.scene.confidence import confidence_of
        from ClassScaleSegLib.scene.confidence_colors import confidence_color, shows_confidence

        node, colors = self._state.node, dict(own)
        if node is not None and shows_confidence(node):
            for identifier in own:
                segment = node.GetSegmentation().GetSegment(identifier)
                confidence = None if segment is None else confidence_of(segment)
                if confidence is not None:
                    colors[identifier] = confidence_color(confidence)
        return colors

    def _choose(self, choice: str) -> None:
        from ClassScaleSegLib.scene.confidence_colors import show_confidence
        from ClassScaleSegLib.scene.confidence_map import show_confidence_map

        if self._state.node is not None:
            show_confidence(self._state.node, choice == _CONFIDENCE)
            show_confidence_map(self._state.node, choice == _MAP)
        self._on_changed()
