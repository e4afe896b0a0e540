"""Numbers, times and extended fields in the headers of tar files."""

import re
from collections.abc import Iterator

_SECONDS = re.compile(rb"(-?)(\d{1,19})(?:\.(\d*))?")


def number(text: bytes) -> int:
    """A number in octal digits, or in binary, most significant byte first, behind a byte 0x80 or 0xFF."""
    if text[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(text[1:], "big") - (256 ** (len(text) - 1) if text[0] == 0xFF else 0)
    digits = text.partition(b"\0")[0].strip()
    return int(digits, 8) if digits else 0


def extended_fields(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keywords and values in the pax format, of records such as ``30 mtime=1700000000.123456789`` and a line feed.

    Raises:
        ValueError: If the records are damaged.
    """
    at = 0
    while at < len(data) and data[at]:
        blank = data.index(b" ", at)
        end = at + int(data[at:blank])
        keyword, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if not equals or end <= blank or data[end - 1 : end] != b"\n":
            raise ValueError("damaged fields")
        yield keyword, value
        at = end


def nanoseconds(text: bytes) -> int:
    """Nanoseconds since 1970 of a time in seconds, such as ``1700000000.5``.

    Raises:
        ValueError: If it is none.
    """
    if not (match := _SECONDS.fullmatch(text)):
        raise ValueError("a damaged time")
    value = int(match[2]) * 10**9 + int((match[3] or b"")[:9].ljust(9, b"0"))
    return -value if match[1] else value
