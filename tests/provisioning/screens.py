"""How much room a panel, its title and its columns have on a screen, in pixels, as Grafana lays them out."""

from __future__ import annotations

from typing import Any

#: Usual widths of a desk's screens.
WIDTHS = (1366, 1600, 1920)
_COLUMNS, _GAP, _EDGES = 24, 8, 32
#: Around the content of a panel; of a cell; the scroll bar of a table.
_PADDING, _CELL_PADDING, _SCROLL_BAR = 16, 12, 10
#: The sign of the description and that of a remark, beside the title.
_SIGNS = 2 * 31
#: Advance widths of Grafana's font (Inter, 14 pixels), on the wide side.
_NARROW, _WIDE, _CAPITAL, _USUAL = 4.2, 12.5, 9.8, 8.1


def text_px(text: str) -> float:
    """The width of a text."""
    return sum(_letter_px(letter) for letter in text)


def _letter_px(letter: str) -> float:
    if letter in "iljI.,:;'| !()":
        return _NARROW
    if letter in "mwMW%&":
        return _WIDE
    if letter in "ftr-/":
        return 5.6
    return _CAPITAL if letter.isupper() else _USUAL


def panel_px(panel: Any, screen: int) -> float:
    """The width of a panel on a screen of that width."""
    column = (screen - _EDGES - (_COLUMNS - 1) * _GAP) / _COLUMNS
    width: int = panel["gridPos"]["w"]
    return width * column + (width - 1) * _GAP


def title_room_px(panel: Any, screen: int) -> float:
    """The room of a title while the panel has a sign for its description and one for a remark."""
    return panel_px(panel, screen) - _PADDING - _SIGNS


def table_room_px(panel: Any, screen: int) -> float:
    """The room of the columns of a table."""
    return panel_px(panel, screen) - _PADDING - _SCROLL_BAR


def cell_px(text: str) -> float:
    """The width that a column needs for a text."""
    return text_px(text) + _CELL_PADDING
