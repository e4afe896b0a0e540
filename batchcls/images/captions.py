"""Captions of pictures, in a font that draws Latin, Greek and Cyrillic, and words for what it cannot draw."""

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

_NO_CHARACTER = "\U0010ffff"
"""A code point that no font has a picture of."""
_PROBE_PX = 24


@lru_cache(maxsize=8)
def caption_font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes along with matplotlib, that is, with the extras ``report`` and ``explain``.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    if (spec := importlib.util.find_spec("matplotlib")) is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
    return ImageFont.truetype(str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)


def is_drawable(text: str) -> bool:
    """Whether the font has a picture of each character of ``text``."""
    return all(character.isprintable() and _has_picture(character) for character in text)


def drawable(text: str) -> str:
    """``text``, with a question mark in place of each character that cannot be drawn."""
    return "".join(character if is_drawable(character) else "?" for character in text)


def class_caption(label: str, labels: Sequence[str]) -> str:
    """A label, or the number of its class, from 1, where the label cannot be drawn.

    Args:
        labels: All labels, in the order of the probabilities.
    """
    return label if is_drawable(label) else f"class {labels.index(label) + 1}" if label in labels else drawable(label)


def fitting_end(line: str, width_px: int, font: ImageFont.FreeTypeFont) -> str:
    """``line`` as it can be drawn, if it fits into ``width_px``; else its longest end that fits after three dots."""
    line = drawable(line)
    if font.getlength(line) <= width_px:
        return line
    while line and font.getlength("..." + line) > width_px:
        line = line[1:]  # a path's end tells more than its beginning
    return "..." + line


@lru_cache(maxsize=4096)
def _has_picture(character: str) -> bool:
    if character.isspace():
        return True
    return _picture(character) != _picture(_NO_CHARACTER)


@lru_cache(maxsize=4096)
def _picture(character: str) -> bytes:
    return bytes(caption_font(_PROBE_PX).getmask(character, mode="L"))
