"""A table of up to thousands of structures, each with a name, a colour and a tick, and a search box above it.

In PythonQt a QAbstractItemModel cannot be subclassed. Therefore the rows are standard items that are made once, and the
search is one regular expression of a proxy model. With 1000 rows it takes a millisecond per key stroke, and painting
two more; hiding rows one by one from Python is slower.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import qt

from .keyboard import SearchKeys, TableKeys
from .texts import tip

_SEARCHED, _SORTED, _KEY = qt.Qt.UserRole + 1, qt.Qt.UserRole + 2, qt.Qt.UserRole + 3
_LONGEST = 60  # characters that a column is made wide enough for


class Row(NamedTuple):
    """One row of the table.

    :ivar key: identifies the row, for example a segment id.
    :ivar color: red, green, blue, 0..255.
    :ivar cells: texts of the columns, the name first.
    :ivar order: values that the columns are sorted by.
    :ivar searched: the text that the search looks at.
    """

    key: str
    color: tuple[int, int, int]
    cells: Sequence[str]
    order: Sequence[str | float]
    searched: str


class SearchTable:
    """A table with a colour and, if wanted, a tick in every row, and a search box with ``hint`` while it is empty.

    By keyboard: Down goes from the search box to the table, Space ticks, Enter does what a click does.

    :ivar widget: the search box and the table, one below the other, in the layout ``layout``.
    :param on_ticked: called without arguments when the user has ticked or unticked a row. ``None``: rows have no ticks.
    :param on_chosen: called with the key of the row that the user has clicked.
    """

    def __init__(
        self,
        headers: Sequence[str],
        hint: str,
        on_ticked: Callable[[], None] | None,
        on_chosen: Callable[[str], None] = lambda key: None,
    ) -> None:
        self._headers, self._on_ticked, self._on_chosen = headers, on_ticked, on_chosen
        self._box_clicked = False  # by the click that is under way
        # key -> the item with the tick. Without this reference PythonQt would delete the items.
        self._items: dict[str, qt.QStandardItem] = {}
        self._rows: dict[str, list[qt.QStandardItem]] = {}  # key -> the items of all columns
        self.widget = qt.QWidget()
        self.layout = qt.QVBoxLayout(self.widget)
        self.layout.setContentsMargins(0, 0, 0, 0)
        self.search = qt.QLineEdit()
        self.search.placeholderText = hint
        self.search.accessibleName = hint
        self.search.clearButtonEnabled = True
        self.search.connect("textChanged(QString)", self.filter)
        self.layout.addWidget(self.search)
        self.model = qt.QStandardItemModel()
        self.proxy = qt.QSortFilterProxyModel()
        self.proxy.setSourceModel(self.model)
        self.proxy.setFilterRole(_SEARCHED)
        self.proxy.setSortRole(_SORTED)
        self.model.connect("itemChanged(QStandardItem*)", self._item_changed)
        self.view = view = qt.QTableView()
        self.layout.addWidget(view)
        view.setModel(self.proxy)
        view.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        view.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        view.setSortingEnabled(True)
        view.setShowGrid(False)
        view.setWordWrap(False)
        view.tabKeyNavigation = False  # Tab leaves the table; arrow keys move in it
        view.accessibleName = headers[0]
        self._search_keys = SearchKeys(self.search, self._go_down)
        self._table_keys = TableKeys(
            view, self._toggle, lambda row: self._on_chosen(self._key(row)), lambda: self.search.setFocus()
        )
        view.verticalHeader().setVisible(False)
        # Widths and heights are set once, because measuring the contents of 1000 rows makes tables slow.
        view.verticalHeader().setDefaultSectionSize(view.fontMetrics().height() + 6)
        view.minimumHeight = 9 * (view.fontMetrics().height() + 6)
        view.connect("pressed(QModelIndex)", lambda index: self._press())
        view.connect("clicked(QModelIndex)", lambda index: self._click(index.row()))

    def _item_changed(self, item: qt.QStandardItem) -> None:
        self._box_clicked = True
        if self._on_ticked is not None:
            self._on_ticked()

    def _press(self) -> None:
        self._box_clicked = False

    def _click(self, row: int) -> None:
        """Choose a row, unless the click has ticked its box: the change of the item comes first, then the click."""
        if self._box_clicked:
            self._box_clicked = False
        else:
            self._on_chosen(self._key(row))

    def _toggle(self, row: int) -> None:
        if self._on_ticked is None:
            return
        item = self._items[self._key(row)]
        item.setCheckState(qt.Qt.Unchecked if item.checkState() == qt.Qt.Checked else qt.Qt.Checked)

    def _go_down(self) -> None:
        if self.proxy.rowCount():
            if self.view.currentIndex().row() < 0:
                self.view.setCurrentIndex(self.proxy.index(0, 0))
            self.view.setFocus()

    def set_rows(self, rows: Iterable[Row], ticked: bool = False) -> None:
        """Replace all rows by rows that are all ticked or all unticked, and keep the user's search."""
        self.view.setSortingEnabled(False)
        self.proxy.setSourceModel(None)  # one update at the end instead of one per cell
        self.model.blockSignals(True)
        self.model.clear()
        self.model.setHorizontalHeaderLabels(list(self._headers))
        self._items, self._rows = {}, {}
        for row in rows:
            items = []
            for text, order in zip(row.cells, row.order, strict=True):
                item = qt.QStandardItem(text)
                item.setData(order, _SORTED)
                item.setToolTip(tip(text))
                if isinstance(order, float):
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                items.append(item)
            first = items[0]
            if self._on_ticked is not None:
                first.setCheckable(True)
                first.setCheckState(qt.Qt.Checked if ticked else qt.Qt.Unchecked)
            first.setData(qt.QColor(*row.color), qt.Qt.DecorationRole)
            first.setData(row.searched.lower(), _SEARCHED)
            first.setData(row.key, _KEY)
            self._items[row.key], self._rows[row.key] = first, items
            self.model.appendRow(items)
        self.model.blockSignals(False)
        self.proxy.setSourceModel(self.model)
        self.proxy.sort(-1)  # rows stay in the given order until the user clicks a header
        header = self.view.horizontalHeader()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        header.setSortIndicator(-1, qt.Qt.AscendingOrder)
        self.view.setSortingEnabled(True)
        self.filter(self.search.text)

    @contextlib.contextmanager
    def place_kept(self) -> Iterator[None]:
        """Keep the current row, the sort order and what is scrolled to, while the block replaces the rows."""
        if not self._items:
            yield
            return
        bars = self.view.verticalScrollBar(), self.view.horizontalScrollBar()
        column, order, places = self.proxy.sortColumn(), self.proxy.sortOrder(), [bar.value for bar in bars]
        row = self.view.currentIndex().row()
        key = self._key(row) if row >= 0 else ""
        yield
        if column >= 0:
            self.view.sortByColumn(column, order)
        if key in (shown := self.shown()):
            self.view.setCurrentIndex(self.proxy.index(shown.index(key), 0))
        self.view.doItemsLayout()  # only then the bars know how many rows there are
        for bar, place in zip(bars, places, strict=True):
            bar.value = place

    def set_width(self, column: int, longest: str, arrow: bool = True) -> None:
        """Make a column as wide as its title and its longest text need, or hide it if that text is empty.

        While its width is not set, the first column fills the space that the others leave. Once it is set, a panel that
        is too narrow scrolls sideways.

        :param arrow: leave room for the arrow of the sort order beside the title; else it shortens the title.
        """
        metrics = self.view.fontMetrics()
        texts = (longest, self._headers[column] + "MM" * arrow)
        width = max(metrics.boundingRect(text[:_LONGEST]).width() for text in texts) + 12
        if column == 0:
            header = self.view.horizontalHeader()
            header.setSectionResizeMode(0, qt.QHeaderView.Interactive)
            header.setStretchLastSection(True)
            width += 3 * metrics.height()  # tick and colour
        self.view.setColumnWidth(column, width)
        self.view.setColumnHidden(column, not longest)

    @property
    def columns(self) -> int:
        """How many columns there are, hidden ones too."""
        return len(self._headers)

    def set_cells(self, column: int, texts: Mapping[str, str]) -> None:
        """Give rows other texts in a column, by their keys. The rows stay in their order until it is sorted anew."""
        self.model.blockSignals(True)
        for key, text in texts.items():
            item = self._rows[key][column]
            if item.text() != text:
                item.setText(text)
                item.setData(text, _SORTED)
        self.model.blockSignals(False)
        self.view.viewport().update()

    def filter(self, text: str) -> None:
        """Show the rows that contain every word of ``text``, in any order. If the current one is hidden, none is."""
        key, words = self.current(), [re.escape(word) for word in text.lower().split()]
        # from the beginning of a row only: one that lacks a word would be searched again from each of its letters
        self.proxy.setFilterRegularExpression("(?s)^" + "".join(f"(?=.*{word})" for word in words) if words else "")
        if key and self.current() != key:  # Qt goes on to another row, which nobody has chosen
            self.view.setCurrentIndex(qt.QModelIndex())

    def shown(self) -> list[str]:
        """Return the keys of the rows that match the search, in the order of the table."""
        return [self._key(row) for row in range(self.proxy.rowCount())]

    def keys(self) -> list[str]:
        """Return the keys of all rows, in the order in which they were given."""
        return list(self._items)

    def current(self) -> str:
        """Return the key of the row that was clicked or reached by the arrow keys; empty if there is none."""
        row = self.view.currentIndex().row()
        return self._key(row) if row >= 0 else ""

    def go_to(self, key: str) -> None:
        """Make a row that the search shows the current one, and scroll to it."""
        index = self.proxy.index(self.shown().index(key), 0)
        self.view.setCurrentIndex(index)
        self.view.scrollTo(index)

    def ticked(self) -> list[str]:
        """Return the keys of the ticked rows, shown or not, in the order in which the rows were given."""
        return [key for key, item in self._items.items() if item.checkState() == qt.Qt.Checked]

    def tick(self, keys: Iterable[str]) -> None:
        """Tick the given rows and untick all others, without calling ``on_ticked``."""
        wanted = set(keys)
        self.model.blockSignals(True)
        for key, item in self._items.items():
            state = qt.Qt.Checked if key in wanted else qt.Qt.Unchecked
            if item.checkState() != state:
                item.setCheckState(state)
        self.model.blockSignals(False)
        self.view.viewport().update()

    def recolor(self, colors: Mapping[str, tuple[int, int, int]]) -> None:
        """Give rows other colours, by their keys."""
        self.model.blockSignals(True)
        for key, color in colors.items():
            self._items[key].setData(qt.QColor(*color), qt.Qt.DecorationRole)
        self.model.blockSignals(False)
        self.view.viewport().update()

    def _key(self, row: int) -> str:
        return self.proxy.data(self.proxy.index(row, 0), _KEY)
