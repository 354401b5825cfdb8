"""The ctk widgets of the panel, with the properties and signals that it uses."""

from __future__ import annotations

from typing import Any

from . import qt


@qt.custom_widget
class ctkCollapsibleButton(qt.QWidget):
    """A titled frame that hides its contents while it is collapsed."""

    contentsCollapsed = qt.Signal(bool)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed, self._text = False, ""
        self.setContentsMargins(0, 22, 0, 0)

    def _set_collapsed(self, value: bool) -> None:
        if bool(value) != self._collapsed:
            self._collapsed = bool(value)
            self._arrange()
            self.contentsCollapsed.emit(self._collapsed)

    def _arrange(self) -> None:
        for child in self.children():
            if isinstance(child, qt.QWidget):
                child.setVisible(not self._collapsed)
        self.setMaximumHeight(22 if self._collapsed else 16777215)

    def showEvent(self, event: qt.QEvent) -> None:
        if self._collapsed:  # hides children that were made after the property was set
            self._arrange()

    def paintEvent(self, event: qt.QEvent) -> None:
        painter = qt.QPainter(self)
        painter.fillRect(0, 0, self.width, 20, self.palette.button())
        painter.drawText(8, 15, ("▸ " if self._collapsed else "▾ ") + self._text)
        painter.end()

    collapsed = qt.Property(bool, lambda self: self._collapsed, _set_collapsed)
    text = qt.Property(str, lambda self: self._text, lambda self, value: setattr(self, "_text", value))


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
    "ctkComboBox": qt.QComboBox,
    "ctkDirectoryButton": qt.QWidget,
    "ctkDoubleRangeSlider": qt.QWidget,
    "ctkDoubleSlider": qt.QWidget,
    "ctkDoubleSpinBox": qt.QDoubleSpinBox,
    "ctkFittedTextBrowser": qt.QTextBrowser,
    "ctkMenuButton": qt.QPushButton,
    "ctkPathLineEdit": qt.QWidget,
    "ctkRangeWidget": qt.QWidget,
}.items():
    globals()[_name] = type(_name, (_base,), {})
