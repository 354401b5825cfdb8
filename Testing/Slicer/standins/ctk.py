"""The ctk widgets that the panel uses, with the properties and signals that it uses of them."""

from __future__ import annotations

from . import qt


@qt.custom_widget
class ctkCollapsibleButton(qt.QWidget):
    """A titled frame that hides its contents while it is collapsed."""

    contentsCollapsed = qt.Signal(bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._collapsed, self._text = False, ""
        self.setContentsMargins(0, 22, 0, 0)

    def _set_collapsed(self, value):
        if bool(value) != self._collapsed:
            self._collapsed = bool(value)
            self._arrange()
            self.contentsCollapsed.emit(self._collapsed)

    def _arrange(self):
        for child in self.children():
            if isinstance(child, qt.QWidget):
                child.setVisible(not self._collapsed)
        self.setMaximumHeight(22 if self._collapsed else 16777215)

    def showEvent(self, event):
        if self._collapsed:  # children made after the property was read
            self._arrange()

    def paintEvent(self, event):
        painter = qt.QPainter(self)
        painter.fillRect(0, 0, self.width, 20, self.palette.button())
        painter.drawText(8, 15, ("▸ " if self._collapsed else "▾ ") + self._text)
        painter.end()

    collapsed = qt.Property(bool, lambda self: self._collapsed, _set_collapsed)
    text = qt.Property(str, lambda self: self._text, lambda self, value: setattr(self, "_text", value))


def _of_box(name, kind=float):
    """A property of the spin box within."""

    def write(self, value):
        setattr(self._box, name, value)

    return qt.Property(kind, lambda self: getattr(self._box, name), write)


@qt.custom_widget
class ctkSliderWidget(qt.QWidget):
    """A slider with a spin box; only the spin box here."""

    valueChanged = qt.Signal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider, self._box = qt.QSlider(qt.Qt.Horizontal), qt.QDoubleSpinBox()
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self._changed)

    def _changed(self, value):
        span = self._box.maximum - self._box.minimum
        self._slider.setValue(round(99 * (value - self._box.minimum) / span) if span else 0)
        self.valueChanged.emit(value)

    value, minimum, maximum = _of_box("value"), _of_box("minimum"), _of_box("maximum")
    singleStep, decimals, suffix = _of_box("singleStep"), _of_box("decimals", int), _of_box("suffix", str)


# Slicer's own parameter nodes name these classes; the panel has none of them.
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
