"""File names as valid Unicode, and back: no two names become one."""

import os
import re

_ESCAPED_BYTE = re.compile(r"\\x[0-9a-f]{2}")
_ESCAPED = re.compile(rb"\\(?:x([0-9a-f]{2})|\\)")


def printable(name: str) -> str:
    r"""A file name as valid Unicode, so that no two names become one.

    A name that is UTF-8 stands as it is. Bytes that are not become ``\xNN``; in such a name, and in one that
    already reads like it, every backslash is doubled.
    """
    raw = os.fsencode(name)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return raw.replace(b"\\", b"\\\\").decode(errors="backslashreplace")
    return text.replace("\\", "\\\\") if _ESCAPED_BYTE.search(text) else text


def original(name: str) -> str:
    """The file name that `printable` made ``name`` of, as Python opens it."""
    if not _ESCAPED_BYTE.search(name):
        return name
    raw = os.fsencode(name)
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else b"\\", raw))
