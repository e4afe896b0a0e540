"""File names, labels and messages without characters that a terminal or a log would obey."""

import re

_UNSAFE = (
    "\x00-\x1f\x7f-\x9f"  # what terminals obey
    "\u2028\u2029"  # lines that some programs see
    "\u202a-\u202e\u2066-\u2069"  # what turns the text after it around
    "\ud800-\udfff"  # no text: bytes of a name that are not UTF-8, or damage
)
_ANY = re.compile(f"[{_UNSAFE}]")
_ANY_BUT_LINES = re.compile(f"(?!\n)[{_UNSAFE}]")


def escaped(text: str) -> str:
    r"""``text`` on one line, without characters that move a cursor, ring, or turn the text around.

    Control characters become ``\x1b``, ``\n``, ``\u202e`` and the like; bytes of a file name that are not UTF-8
    ``\xff``. Everything else stays: backslashes, accents, CJK, emoji.
    """
    return _ANY.sub(_readable, text)


def escaped_lines(text: str) -> str:
    """``text`` as by `escaped`, with its line feeds."""
    return _ANY_BUT_LINES.sub(_readable, text)


def escaped_json(text: str) -> str:
    r"""JSON with the same values, in which unsafe characters but line feeds are escapes such as ``\u009b``."""
    return _ANY_BUT_LINES.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _readable(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else match[0].encode("unicode_escape").decode()
