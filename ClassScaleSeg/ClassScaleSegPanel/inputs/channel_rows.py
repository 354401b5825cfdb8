"""The rows "Volume" of the panel: one per channel of the model, filled by the names of the volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import qt
import slicer
from ClassScaleSegLib.images.channel_names import looks_like, match_channels
from slicer.i18n import tr as _

from ..state import silent
from ..widgets.keyboard import focused, name_from_label
from ..widgets.texts import shortened, tip
from ..widgets.watching import Watching
from ..widgets.whole_texts import WholeTexts
from .channel_texts import hints
from .channels import CHANNELS, ROWS_IN_UI, channel_volume, set_channel_volume
from .scene_volumes import beside

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode

    from ..parameters import ClassScaleSegParameterNode


class _Seen(NamedTuple):
    """What there was when rows were last filled: an empty row is filled again only if this has changed."""

    channels: tuple[str, ...]
    first: str | None  # id of the first volume
    volumes: tuple[tuple[str, str], ...]  # ids and names


class ChannelRows:
    """Controls the rows of channels of the .ui file, and makes further ones for a model that needs more.

    :ivar timer: runs out when the application is idle after volumes have come, gone or got other names.
    :param on_chosen: called with the number of a further row, from 1, and the volume that the user has chosen there.
    :param on_volumes: called without arguments when volumes have come, gone or got other names.
    """

    def __init__(
        self,
        ui: Any,
        on_chosen: Callable[[int, vtkMRMLNode | None], None],
        on_volumes: Callable[[], None],
    ) -> None:
        self._ui, self._on_chosen = ui, on_chosen
        self._rows = [(ui.inputLabel, ui.inputSelector)]
        self._rows += [
            (getattr(ui, f"channelLabel{n}"), getattr(ui, f"channelSelector{n}")) for n in range(2, ROWS_IN_UI + 1)
        ]
        self._seen: _Seen | None = None
        self._own: dict[int, str] = {}  # ids of volumes that were found by name, by number of the channel, from 0
        self._first_is_free = False  # the user has not chosen the first volume for this model
        self._whole_texts = WholeTexts()
        self.timer = qt.QTimer()
        self.timer.setSingleShot(True)
        self.timer.setInterval(0)
        self.timer.connect("timeout()", on_volumes)
        self._watching = Watching(lambda caller, event: self.look_again())

    def look_again(self) -> None:
        """Look at the volumes of the scene once the application is idle, if the model has several channels."""
        if self._seen is not None and len(self._seen.channels) > 1:
            self.timer.start()

    def close(self) -> None:
        """Watch no volumes any longer."""
        self.timer.stop()
        self._watching.stop()

    def forget(self) -> None:
        """Forget the volumes, because another scene has others."""
        self._seen, self._own = None, {}

    def selector(self, number: int) -> Any:
        """Return the list of volumes of a row that has been shown, from 1."""
        return self._rows[number - 1][1]

    def fill(self, parameters: ClassScaleSegParameterNode, channels: Sequence[str]) -> None:
        """Select volumes for rows that are empty, by their names, if the model or the volumes have changed.

        A volume that the user has chosen stays; only the first one, which is never empty, may go to its own channel.
        """
        first, before = parameters.inputVolume, self._seen
        volumes = self._volumes(parameters) if len(channels) > 1 else []
        named = tuple((node.GetID(), node.GetName()) for node in volumes)
        self._seen = seen = _Seen(tuple(channels), first.GetID() if first is not None else None, named)
        if first is None or len(channels) < 2 or before == seen:
            return
        changed = before is not None and before[:2] != seen[:2]
        if before is not None and (before.channels != seen.channels or before.first is None):
            self._first_is_free = True
        elif before is not None and before.first != seen.first:
            self._first_is_free = False
        found: dict[int, vtkMRMLScalarVolumeNode | None] = {}
        chosen: dict[int, vtkMRMLScalarVolumeNode] = {}
        for number in range(1, min(len(channels), CHANNELS)):
            node = channel_volume(parameters, number + 1)
            if node is not None and changed and self._own.get(number) == node.GetID():
                found[number] = None
            elif node is not None:
                chosen[number] = node
        found |= self._found(channels, volumes, first, chosen)
        if (moved := found.get(0)) is not None:
            self._seen = seen._replace(first=moved.GetID())
        self._own |= {number: node.GetID() for number, node in found.items() if node is not None}
        with slicer.util.NodeModify(parameters):
            for number, node in found.items():
                set_channel_volume(parameters, number + 1, node)

    def _found(
        self,
        channels: Sequence[str],
        volumes: Sequence[vtkMRMLScalarVolumeNode],
        first: vtkMRMLScalarVolumeNode,
        chosen: dict[int, vtkMRMLScalarVolumeNode],
    ) -> dict[int, vtkMRMLScalarVolumeNode]:
        """Return the volumes of channels that are not chosen, by number of the channel, from 0."""
        place = looks_like(channels, first.GetName() or "") if self._first_is_free else 0
        places = [0] if place in (None, 0) or place in chosen else [place, 0]
        for place in places:
            given = chosen | {place: first}
            every = [*volumes, *(node for node in given.values() if node not in volumes)]
            numbers = {number: every.index(node) for number, node in given.items()}
            matches = match_channels(channels, [node.GetName() or "" for node in every], numbers)
            if matches[0].index is not None:
                break
        found = {n: every[match.index] for n, match in enumerate(matches[:CHANNELS]) if match.index is not None}
        return {n: node for n, node in found.items() if n not in chosen and (n or node is not first)}

    def render(self, parameters: ClassScaleSegParameterNode, channels: Sequence[str]) -> None:
        """Show one row per channel, with the model's name of it, and a hint where the volume is not certain.

        A single row is labelled "Volume".
        """
        count = min(max(1, len(channels)), CHANNELS)
        while len(self._rows) < count:
            self._rows.append(self._new_row(len(self._rows) + 1))
        self._ui.inputLabel.text, self._ui.inputLabel.toolTip = _("V&olume:"), ""
        for row, (label, selector) in enumerate(self._rows):
            label.visible = selector.visible = row < count
            if row < len(channels) > 1:
                label.text = _("{channel}:").format(channel=shortened(channels[row], 12).replace("&", "&&"))
                label.toolTip = tip(channels[row])
            name_from_label(label)
            if row >= ROWS_IN_UI:
                with silent(selector):
                    selector.setCurrentNode(channel_volume(parameters, row + 1))
        volumes = self._volumes(parameters) if len(channels) > 1 else []
        self._watching.watch(volumes, "ModifiedEvent")
        text = self.hint(parameters, channels)
        self._ui.channelHintLabel.text, self._ui.channelHintLabel.visible = text, bool(text)

    def hint(self, parameters: ClassScaleSegParameterNode, channels: Sequence[str]) -> str:
        """Return what the line below the rows says."""
        if len(channels) < 2 or parameters.inputVolume is None:
            return ""
        volumes = self._volumes(parameters)
        chosen = {n: channel_volume(parameters, n + 1) for n in range(min(len(channels), CHANNELS))}
        given = {n: node for n, node in chosen.items() if node is not None}
        volumes += [node for node in given.values() if node not in volumes]
        names = [node.GetName() or "" for node in volumes]
        return " ".join(hints(channels, names, {n: volumes.index(node) for n, node in given.items()})[:4])

    def _volumes(self, parameters: ClassScaleSegParameterNode) -> list[vtkMRMLScalarVolumeNode]:
        """Return the volumes beside the first one that can be channels."""
        first = parameters.inputVolume
        return [node for node in beside(first) if node is not parameters.confidence] if first is not None else []

    def _new_row(self, number: int) -> tuple[qt.QLabel, Any]:
        """Return label and list of a row like those of the .ui file, which leaves rows of its grid free for it."""
        label, selector, like = qt.QLabel(), slicer.qMRMLNodeComboBox(), self._ui.channelSelector2
        label.textFormat = qt.Qt.PlainText
        for name in ("nodeTypes", "showChildNodeTypes", "noneEnabled", "noneDisplay", "addEnabled", "removeEnabled"):
            setattr(selector, name, getattr(like, name))
        selector.toolTip, selector.minimumWidth = like.toolTip, like.minimumWidth
        selector.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
        selector.setMRMLScene(slicer.mrmlScene)
        selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: self._on_chosen(number, node))
        grid = self._ui.inputsCollapsibleButton.layout()
        label.setBuddy(selector)
        grid.addWidget(label, number - 1, 0)
        grid.addWidget(selector, number - 1, 1)
        qt.QWidget.setTabOrder(focused(self._rows[-1][1]), focused(selector))
        for widget in (label, selector):
            self._whole_texts.watch(widget)
        return label, selector
