"""A table of up to thousands of named, coloured structures with a tick each, and a search line above it.

PythonQt has no QAbstractItemModel to derive from. So the rows are standard items, made once, and the search is one
regular expression handed to a proxy model: at 1000 rows that takes a few milliseconds a key stroke, while hiding rows
one by one from Python would not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import qt

_SEARCHED, _SORTED, _KEY = qt.Qt.UserRole + 1, qt.Qt.UserRole + 2, qt.Qt.UserRole + 3


class Row(NamedTuple):
    """:ivar key: what the row stands for.
    :ivar cells: texts of the columns, the name first.
    :ivar order: what each
    column is sorted by.
    :ivar searched: all that the search looks at.
    """

    key: str
    color: tuple[int, int, int]
    cells: Sequence[str]
    order: Sequence[str | float]
    searched: str


class SearchTable:
    """:ivar widget: search line and table in a column; ``layout`` may take more.

    :param on_ticked: called when the user ticked or unticked something.
    :param on_chosen: called with the key of the row that was clicked.
    """

    def __init__(
        self,
        headers: Sequence[str],
        hint: str,
        on_ticked: Callable[[], None],
        on_chosen: Callable[[str], None] | None = None,
    ) -> None:
        self._on_ticked, self._on_chosen, self._headers = on_ticked, on_chosen, headers
        self._items: dict[str, object] = {}  # key -> the item with the tick; also keeps PythonQt from dropping it
        self.widget = qt.QWidget()
        self.layout = qt.QVBoxLayout(self.widget)
        self.layout.setContentsMargins(0, 0, 0, 0)
        self.search = qt.QLineEdit()
        self.search.placeholderText = hint
        self.search.clearButtonEnabled = True
        self.search.connect("textChanged(QString)", self.filter)
        self.layout.addWidget(self.search)
        self.model = qt.QStandardItemModel()
        self.proxy = qt.QSortFilterProxyModel()
        self.proxy.setSourceModel(self.model)
        self.proxy.setFilterRole(_SEARCHED)
        self.proxy.setSortRole(_SORTED)
        self.view = self._make_view()
        self.layout.addWidget(self.view)
        self.model.connect("itemChanged(QStandardItem*)", self._item_changed)

    def _make_view(self):
        view = qt.QTableView()
        view.setModel(self.proxy)
        view.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        view.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        view.setSortingEnabled(True)
        view.setShowGrid(False)
        view.setWordWrap(False)
        view.verticalHeader().setVisible(False)
        # widths and heights are set once: measuring the contents of 1000 rows is what makes tables slow
        view.verticalHeader().setDefaultSectionSize(view.fontMetrics().height() + 6)
        view.minimumHeight = 9 * (view.fontMetrics().height() + 6)
        view.connect("clicked(QModelIndex)", self._clicked)
        return view

    def set_rows(self, rows: Iterable[Row], ticked: bool) -> None:
        """Replace all rows; ``ticked``: all of them, or none. The user's search stays."""
        self.view.setSortingEnabled(False)
        self.proxy.setSourceModel(None)  # one update at the end in place of one a cell
        self.model.blockSignals(True)
        self.model.clear()
        self.model.setHorizontalHeaderLabels(list(self._headers))
        self._items = {}
        for row in rows:
            items = []
            for text, order in zip(row.cells, row.order, strict=True):
                item = qt.QStandardItem(text)
                item.setData(order, _SORTED)
                item.setToolTip(text)
                if isinstance(order, float):
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                items.append(item)
            first = items[0]
            first.setCheckable(True)
            first.setCheckState(qt.Qt.Checked if ticked else qt.Qt.Unchecked)
            first.setData(qt.QColor(*row.color), qt.Qt.DecorationRole)
            first.setData(row.searched.lower(), _SEARCHED)
            first.setData(row.key, _KEY)
            self._items[row.key] = first
            self.model.appendRow(items)
        self.model.blockSignals(False)
        self.proxy.setSourceModel(self.model)
        self.proxy.sort(-1)  # the order of the rows given, until a header is clicked
        header = self.view.horizontalHeader()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        header.setSortIndicator(-1, qt.Qt.AscendingOrder)
        self.view.setSortingEnabled(True)
        self.filter(self.search.text)

    def set_width(self, column: int, longest: str) -> None:
        """As wide as ``longest`` and the title take; without any text the column is hidden.

        A first column without a width takes what the others leave; with one, a narrow panel scrolls sideways.
        """
        metrics = self.view.fontMetrics()
        texts = (longest, self._headers[column] + "MM")  # room for the arrow of the sort order
        width = max(metrics.boundingRect(text).width() for text in texts) + 12
        if column == 0:
            header = self.view.horizontalHeader()
            header.setSectionResizeMode(0, qt.QHeaderView.Interactive)
            header.setStretchLastSection(True)
            width += 3 * metrics.height()  # tick and colour
        self.view.setColumnWidth(column, width)
        self.view.setColumnHidden(column, not longest)

    def filter(self, text: str) -> None:
        """Show the rows that contain every word of ``text``, in any order."""
        words = [re.escape(word) for word in text.lower().split()]
        self.proxy.setFilterRegularExpression("".join(f"(?=.*{word})" for word in words))

    def shown(self) -> list[str]:
        """Keys of the rows that the search leaves, in the order of the table."""
        return [self._key(self.proxy.index(row, 0)) for row in range(self.proxy.rowCount())]

    def keys(self) -> list[str]:
        return list(self._items)

    def ticked(self) -> list[str]:
        """Keys of the ticked rows, shown or not, in the order that the rows were given."""
        return [key for key, item in self._items.items() if item.checkState() == qt.Qt.Checked]

    def tick(self, keys: Iterable[str]) -> None:
        """Tick these rows and no others; tells nobody."""
        wanted = set(keys)
        self.model.blockSignals(True)
        for key, item in self._items.items():
            state = qt.Qt.Checked if key in wanted else qt.Qt.Unchecked
            if item.checkState() != state:
                item.setCheckState(state)
        self.model.blockSignals(False)
        self.view.viewport().update()

    def _item_changed(self, item) -> None:
        self._on_ticked()

    def _clicked(self, index) -> None:
        if self._on_chosen is not None:
            self._on_chosen(self._key(self.proxy.index(index.row(), 0)))

    def _key(self, index) -> str:
        return self.proxy.data(index, _KEY)
