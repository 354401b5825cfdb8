"""The ctk widgets of the panel, with the properties and signals that it uses."""

from __future__ import annotations

from typing import Any

from . import qt


@qt.custom_widget
class ctkCollapsibleButton(qt.QWidget):
    """A titled frame that hides its contents while it is collapsed.

    As in CTK, children that the panel has hidden stay hidden when the frame is opened, and its horizontal policy is
    Minimum: the preferred width of its contents is the least that it can have.
    """

    contentsCollapsed = qt.Signal(bool)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        self._collapsed, self._text, self._arranging = False, "", False
        super().__init__(parent)
        self.setSizePolicy(qt.QSizePolicy.Minimum, qt.QSizePolicy.Preferred)
        self.setFocusPolicy(qt.Qt.StrongFocus)  # it is a button
        self.setContentsMargins(0, self._title().height(), 0, 0)

    def keyPressEvent(self, event: qt.QKeyEvent) -> None:
        if event.key() == qt.Qt.Key_Space:
            self._set_collapsed(not self._collapsed)
        else:
            super().keyPressEvent(event)

    def _title(self) -> qt.QSize:
        metrics = self.fontMetrics()
        return qt.QSize(metrics.horizontalAdvance(self._text or "XXXX") + 40, metrics.height() + 8)

    def _set_collapsed(self, value: bool) -> None:
        if bool(value) != self._collapsed:
            self._collapsed = bool(value)
            self._arrange()
            self.contentsCollapsed.emit(self._collapsed)

    def _arrange(self) -> None:
        self._arranging = True
        for child in self.children():
            if isinstance(child, qt.QWidget):
                wanted = child.property("visibilityToParent")
                child.setVisible(not self._collapsed and wanted is not False)
        self._arranging = False
        self.setMaximumHeight(self.sizeHint().height() if self._collapsed else 16777215)
        self.updateGeometry()

    def childEvent(self, event: qt.QChildEvent) -> None:
        if event.type() == qt.QEvent.ChildAdded and event.child().isWidgetType():
            event.child().installEventFilter(self)
        super().childEvent(event)

    def eventFilter(self, child: qt.QObject, event: qt.QEvent) -> bool:
        kinds = {qt.QEvent.ShowToParent: True, qt.QEvent.HideToParent: False}
        if not self._arranging and event.type() in kinds:
            child.setProperty("visibilityToParent", kinds[event.type()])
            if self._collapsed and kinds[event.type()]:
                self._arranging = True
                child.setVisible(False)
                self._arranging = False
        return False

    def showEvent(self, event: qt.QEvent) -> None:
        if self._collapsed:  # hides children that were made after the property was set
            self._arrange()

    def minimumSizeHint(self) -> qt.QSize:
        if self._collapsed or self.layout() is None:
            return self._title() + qt.QSize(0, 14 if self._collapsed else 0)
        return super().minimumSizeHint().expandedTo(self._title())

    def sizeHint(self) -> qt.QSize:
        return self.minimumSizeHint() if self._collapsed else super().sizeHint().expandedTo(self._title())

    def paintEvent(self, event: qt.QEvent) -> None:
        painter, height = qt.QPainter(self), self._title().height()
        painter.fillRect(0, 0, self.width, height - 2, self.palette.button())
        painter.setPen(self.palette.buttonText().color())
        painter.drawText(8, height - 8, ("▸ " if self._collapsed else "▾ ") + self._text)
        painter.end()

    collapsed = qt.Property(bool, lambda self: self._collapsed, _set_collapsed)
    text = qt.Property(str, lambda self: self._text, lambda self, value: setattr(self, "_text", value))


@qt.custom_widget
class ctkMenuButton(qt.QPushButton):
    """A button with an arrow that opens a menu. Under Qt 6 a mouse press on it sends no signal."""

    def mousePressEvent(self, event: qt.QMouseEvent) -> None:
        blocked = self.blockSignals(True)
        super().mousePressEvent(event)
        self.blockSignals(blocked)


@qt.custom_widget
class ctkComboBox(qt.QComboBox):
    """A combo box whose least width is that of its longest text, and is found once, when it is first asked for."""

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._least = qt.QSize()

    def minimumSizeHint(self) -> qt.QSize:
        if not self._least.isValid():
            metrics = self.fontMetrics()
            texts = [self.itemText(index) for index in range(self.count)] or ["Select a node"]
            size = qt.QSize(max(metrics.horizontalAdvance(text) for text in texts), max(metrics.height(), 14) + 2)
            option = qt.QStyleOptionComboBox()
            self.initStyleOption(option)
            self._least = self.style().sizeFromContents(qt.QStyle.CT_ComboBox, option, size, self)
        return self._least

    def sizeHint(self) -> qt.QSize:
        return self.minimumSizeHint()


def _of_box(name: str, kind: type = float) -> qt.Property:
    """Return a property that reads and writes a property of the spin box inside."""

    def write(self: ctkSliderWidget, value: Any) -> None:
        setattr(self._box, name, value)

    return qt.Property(kind, lambda self: getattr(self._box, name), write)


@qt.custom_widget
class ctkSliderWidget(qt.QWidget):
    """A slider with a spin box, of which only the spin box can be used here."""

    valueChanged = qt.Signal(float)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider, self._box = qt.QSlider(qt.Qt.Horizontal), qt.QDoubleSpinBox()
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self._changed)

    def _changed(self, value: float) -> None:
        span = self._box.maximum - self._box.minimum
        self._slider.setValue(round(99 * (value - self._box.minimum) / span) if span else 0)
        self.valueChanged.emit(value)

    value, minimum, maximum = _of_box("value"), _of_box("minimum"), _of_box("maximum")
    singleStep, decimals, suffix = _of_box("singleStep"), _of_box("decimals", int), _of_box("suffix", str)


# Slicer's own parameter nodes refer to these classes. The panel uses none of them.
for _name, _base in {
    "ctkCheckBox": qt.QCheckBox,
    "ctkCheckablePushButton": qt.QPushButton,
    "ctkColorPickerButton": qt.QPushButton,
    "ctkDirectoryButton": qt.QWidget,
    "ctkDoubleRangeSlider": qt.QWidget,
    "ctkDoubleSlider": qt.QWidget,
    "ctkDoubleSpinBox": qt.QDoubleSpinBox,
    "ctkFittedTextBrowser": qt.QTextBrowser,
    "ctkPathLineEdit": qt.QWidget,
    "ctkRangeWidget": qt.QWidget,
}.items():
    globals()[_name] = type(_name, (_base,), {})
