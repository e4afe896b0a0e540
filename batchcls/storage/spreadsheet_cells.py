"""Text for cells of CSV files that people open in a spreadsheet."""

import re

_FORMULA = re.compile(r"[\s\x00-\x1f\ufeff]*[=+\-@\uff0b\uff0d\uff1d\uff20]|[\t\r\n]")
"""Beginnings that a spreadsheet may take for a formula's; wide signs too, in Chinese and Japanese versions."""


def text_cell(text: str) -> str:
    """``text``, after an apostrophe if a spreadsheet could run it; not for a table that a program reads back."""
    return f"'{text}" if _FORMULA.match(text) else text
