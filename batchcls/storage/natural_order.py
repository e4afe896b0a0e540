"""The order in which a person numbers files."""

import re


def natural_key(path: str) -> list[tuple[int, int, str]]:
    """A sort key by which digits in paths count by their value, so that 2 comes before 10."""
    pieces = re.split(r"([0-9]+)", path)
    return [(1, int(piece), "") if piece.isdecimal() else (0, 0, piece) for piece in pieces if piece]
