"""File names, labels and messages without characters that a terminal or a log would obey."""

import re

_UNSAFE = (
    "\x00-\x1f\x7f-\x9f"  # control characters
    "\u2028\u2029"  # line and paragraph separators
    "\u202a-\u202e\u2066-\u2069"  # changes of the writing direction
    "\ud800-\udfff"  # surrogates: bytes of a file name that are not UTF-8, or damage
)
_UNSAFE_CHARACTER = re.compile(f"[{_UNSAFE}]")
_UNSAFE_BUT_LINE_FEED = re.compile(f"(?!\n)[{_UNSAFE}]")


def escaped(text: str) -> str:
    r"""``text`` on one line, without characters that move a cursor, ring the bell, or turn the writing direction.

    Control characters become escapes such as ``\x1b``, ``\n`` and ``\u202e``; bytes of a file name that are not UTF-8
    become escapes such as ``\xff``. Everything else stays: backslashes, accents, CJK, emoji.
    """
    return _UNSAFE_CHARACTER.sub(_escape_sequence, text)


def escaped_lines(text: str) -> str:
    """``text`` escaped as by `escaped`, except for its line feeds, which stay."""
    return _UNSAFE_BUT_LINE_FEED.sub(_escape_sequence, text)


def escaped_json(text: str) -> str:
    r"""JSON text of the same values, with escapes such as ``\u009b`` for unsafe characters other than line feeds."""
    return _UNSAFE_BUT_LINE_FEED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape_sequence(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else match[0].encode("unicode_escape").decode()
