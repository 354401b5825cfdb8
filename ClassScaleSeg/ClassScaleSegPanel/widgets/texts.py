"""Show texts that come from files and users as they are: without markup, shortcuts, or an effect on the panel's width.

Qt reads a text such as "<b>CT</b>" as markup in message boxes, labels and tips, and "A & B" as a shortcut in menus.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

import qt
import slicer
from slicer.i18n import tr as _

from ..translation import translated

_LONGEST_IN_MENUS = 60  # characters
_MOST_LINES = 5  # of an error; each may be wrapped several times


def tell(text: str, title: str) -> None:
    """Show a message box with a text, which may be of the library."""
    slicer.util.infoDisplay(translated(text), windowTitle=title, textFormat=qt.Qt.PlainText)


def tell_error(text: str, title: str) -> None:
    """Show a message box with a text about something that failed, which may be of the library.

    Of a text that would make the box higher than a screen, it shows the first line, and a button shows the rest.
    """
    shown = translated(text)
    first, rest = shown.partition("\n")[0], shown.count("\n") >= _MOST_LINES
    more = {"detailedText": shown} if rest else {}
    slicer.util.errorDisplay(first if rest else shown, windowTitle=title, textFormat=qt.Qt.PlainText, **more)


def ask(question: str, title: str, details: str = "") -> bool:
    """Show a message box with a question, and return whether the user has pressed OK.

    :param details: what a button of the box shows.
    """
    more = {"detailedText": details} if details else {}
    return bool(slicer.util.confirmOkCancelDisplay(question, windowTitle=title, textFormat=qt.Qt.PlainText, **more))


def ask_yes(question: str, title: str) -> bool:
    """Show a message box with a question, and return whether the user has pressed Yes."""
    return bool(slicer.util.confirmYesNoDisplay(question, windowTitle=title, textFormat=qt.Qt.PlainText))


def ask_text(title: str, label: str) -> str:
    """Ask the user for a line of text, and return it without spaces around it; empty if the user cancels."""
    answer = qt.QInputDialog.getText(slicer.util.mainWindow(), title, label)
    return (answer[0] if isinstance(answer, tuple) else answer).strip()


def tip(text: str) -> str:
    """Return the text of a tip, which wraps long lines."""
    return f"<qt>{escape(text)}</qt>" if text else ""


def shortened(text: str, length: int) -> str:
    """Return a text of at most ``length`` characters, with an ellipsis where its end was cut off.

    >>> shortened("T1, without contrast agent", 10)
    'T1, witho…'
    """
    return text if len(text) <= length else f"{text[: length - 1]}…"


def time_left(seconds: float | None) -> str:
    """Return how much longer something takes, as part of a line; empty if that is unknown, or less than a second."""
    if seconds is None or seconds < 1:
        return ""
    if seconds < 90:
        return _("about {seconds} s left").format(seconds=round(seconds))
    if seconds < 5400:
        return _("about {minutes} min left").format(minutes=round(seconds / 60))
    return _("about {hours} h left").format(hours=f"{seconds / 3600:.1f}")


def menu_text(name: str) -> str:
    """Return the text of a menu entry, in which ``&`` is an ampersand.

    >>> menu_text("Ribs & sternum")
    'Ribs && sternum'
    """
    return shortened(name, _LONGEST_IN_MENUS).replace("&", "&&")


def add_named(menu: qt.QMenu, name: str, around: Callable[[str], str] = str) -> qt.QAction:
    """Add an entry to a menu, and return it. If its name is too long for a menu, its tip has all of it.

    :param around: makes the text of the entry from that of the name.
    """
    action = menu.addAction(around(menu_text(name)))
    action.toolTip = tip(name)
    if len(name) > _LONGEST_IN_MENUS:
        menu.toolTipsVisible = True
    return action


def safe_markdown(text: str) -> str:
    """Return Markdown of somebody else without pictures and markup of HTML: both would open files and addresses.

    >>> safe_markdown("![scan](//host/a.png) <b>A</b>, a < b, <https://example.org>").replace(chr(0x2060), "|")
    '[scan](//host/a.png) <|b>A<|/b>, a < b, <https://example.org>'
    """
    return re.sub(r"<(?=[A-Za-z/!?])(?!https?:)", "<\u2060", re.sub(r"!+\[", "[", text))


def open_link(address: qt.QUrl) -> None:
    """Open a link of somebody else in the web browser, unless it leads to a file or a program of this computer."""
    if address.scheme() in ("http", "https"):
        qt.QDesktopServices.openUrl(address)


class Wrapping(qt.QObject):
    """Event filter: lets a label wrap its text at whatever width the panel has, and gives it the height for that.

    A wrapped label alone asks for a width, and the least width of a module's panel in Slicer is what its widgets ask
    for, so the panel would jump when a text gets long. Nor is the height that a text needs part of the least height of
    a layout, so the widgets below would cover the text where height is scarce.
    """

    def __init__(self, label: qt.QLabel) -> None:
        qt.QObject.__init__(self)
        self._label = label
        label.wordWrap = True
        label.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Minimum)
        label.installEventFilter(self)

    def eventFilter(self, watched: qt.QObject, event: qt.QEvent) -> bool:
        """Adjust the height after a change of the width or, when the label is painted again, of the text."""
        if event.type() in (qt.QEvent.Resize, qt.QEvent.Paint):
            height = max(0, self._label.heightForWidth(self._label.width))
            if self._label.minimumHeight != height:
                self._label.minimumHeight = height
        return False
