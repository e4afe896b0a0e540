"""Text for cells of CSV files that people open in a spreadsheet."""

import re

_FORMULA = re.compile(r"[\s\x00-\x1f\ufeff]*[=+\-@\uff0b\uff0d\uff1d\uff20]|[\t\r\n]")
"""Beginnings of text that a spreadsheet may take for a formula; Chinese and Japanese versions also know wide signs."""


def text_cell(text: str) -> str:
    """``text``, with an apostrophe before it if a spreadsheet could run it as a formula.

    Programs that read the table back would see the apostrophe; see `reversible_cell`.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def reversible_cell(text: str) -> str:
    """``text`` as by `text_cell`, such that `text_of_cell` returns it.

    Text that has apostrophes before what looks like a formula gets one more.
    """
    return f"'{text}" if _FORMULA.match(text.lstrip("'")) else text


def text_of_cell(cell: str) -> str:
    """The text for which `reversible_cell` returned ``cell``."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell.lstrip("'")) else cell
