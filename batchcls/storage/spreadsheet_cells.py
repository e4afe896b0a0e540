"""Text as a cell of a CSV that people open in a spreadsheet."""

import re

_FORMULA = re.compile(r"[\s\x00-\x1f\ufeff]*[=+\-@\uff0b\uff0d\uff1d\uff20]|[\t\r\n]")
"""What begins so a spreadsheet may take for a formula; the wide signs too, where it reads Chinese or Japanese."""


def text_cell(text: str) -> str:
    """``text``, behind an apostrophe if a spreadsheet could run it; not for a table that a program reads back."""
    return f"'{text}" if _FORMULA.match(text) else text
