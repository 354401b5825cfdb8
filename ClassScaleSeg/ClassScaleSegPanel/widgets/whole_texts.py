"""Tell a text whole, in a tip, where the panel is too narrow to show it: names of models, volumes, servers, paths."""

from __future__ import annotations

from html import escape, unescape

import qt

from .keyboard import without_shortcut
from .texts import tip

_FRAME = 8  # pixels on both sides of a text that the frame of its widget takes


class WholeTexts(qt.QObject):
    """Event filter of labels, lists and fields: if their text is cut off, their tip begins with all of it.

    Rows of a :class:`.search_table.SearchTable` have tips of their own.
    """

    def watch(self, widget: qt.QWidget) -> None:
        """Do so for a widget and all that it contains, once that is there. More than once does no harm."""
        boxes = widget.findChildren(qt.QComboBox)
        lists = [*widget.findChildren(qt.QListWidget), *(box.view() for box in boxes)]
        fields = [*widget.findChildren(qt.QLabel), *widget.findChildren(qt.QLineEdit)]
        for watched in (widget, *boxes, *fields, *(one.viewport() for one in lists)):
            watched.installEventFilter(self)

    def eventFilter(self, watched: qt.QObject, event: qt.QEvent) -> bool:
        """Show the tip of a widget whose text is cut off, and return whether that was done."""
        if event.type() != qt.QEvent.ToolTip:
            return False
        place = qt.QCursor.pos()
        text = cut_off(watched, place)
        if text:
            own = watched.toolTip.removeprefix("<qt>").removesuffix("</qt>")
            more = f"<p>{own if own != watched.toolTip else escape(own)}</p>" if own else ""
            qt.QToolTip.showText(place, f"<qt>{escape(text)}{more}</qt>" if more else tip(text), watched)
        return bool(text)


def cut_off(widget: qt.QWidget, place: qt.QPoint) -> str:
    """Return the text of a widget that is too narrow to show all of it; empty if it is not.

    :param place: where the mouse is, on the screen, which says of which row of a list.
    """
    if widget.inherits("QComboBox"):
        return _of_box(widget)
    if widget.inherits("QLineEdit"):
        text = widget.text or widget.placeholderText
        hidden = widget.text and widget.echoMode != qt.QLineEdit.Normal
        return text if not hidden and _width(widget, text) > widget.width - _FRAME else ""
    if widget.inherits("QLabel"):
        text = without_shortcut(widget.text) if widget.buddy() is not None else widget.text
        # a wrapped text is broken between words alone, and a path has none
        parts = text.split() if widget.wordWrap else [text]
        rich = widget.textFormat != qt.Qt.PlainText and "<" in text
        return text if not rich and max((_width(widget, part) for part in parts), default=0) > widget.width else ""
    view = widget.parent()
    return _of_row(view, widget, place) if view is not None and view.inherits("QAbstractItemView") else ""


def _of_box(box: qt.QComboBox) -> str:
    shown = box.currentText
    text = (_told_by(box.itemData(box.currentIndex, qt.Qt.ToolTipRole)) if box.currentIndex >= 0 else "") or shown
    return text if text != shown or _width(box, text) > box.width - box.height - _FRAME else ""  # without the arrow


def _of_row(view: qt.QAbstractItemView, viewport: qt.QWidget, place: qt.QPoint) -> str:
    index = view.indexAt(viewport.mapFromGlobal(place))
    if not index.isValid() or _told_by(view.model().data(index, qt.Qt.ToolTipRole)):
        return ""
    text = view.model().data(index, qt.Qt.DisplayRole) or ""
    return text if _width(view, text) > viewport.width - _FRAME else ""


def _told_by(tip_of_row: str | None) -> str:
    """Return the whole text that :func:`.tip` has made the tip of a row. Those of Slicer's lists are kinds of nodes."""
    given = tip_of_row or ""
    return unescape(given.removeprefix("<qt>").removesuffix("</qt>")) if given.startswith("<qt>") else ""


def _width(widget: qt.QWidget, text: str) -> int:
    return widget.fontMetrics().boundingRect(text).width()
