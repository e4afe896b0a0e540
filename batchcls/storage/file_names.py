"""File names as valid Unicode, and back: no two names become one."""

import os
import re
import unicodedata
from collections.abc import Iterator

_ESCAPED_BYTE = re.compile(r"\\x[0-9a-f]{2}")
_ESCAPED = re.compile(rb"\\(?:x([0-9a-f]{2})|\\)")


def printable(name: str) -> str:
    r"""A file name as valid Unicode, so that no two names become one.

    A name in UTF-8 is returned unchanged. Bytes that are not UTF-8 become ``\xNN``. In such a name, and in a UTF-8 name
    that already contains ``\xNN`` as text, every backslash is doubled.
    """
    if name.isascii() and "\\" not in name:  # as most names
        return name
    raw = os.fsencode(name)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return raw.replace(b"\\", b"\\\\").decode(errors="backslashreplace")
    return text.replace("\\", "\\\\") if _ESCAPED_BYTE.search(text) else text


def original(name: str) -> str:
    """The file name, as Python opens it, for which `printable` returned ``name``."""
    if not _ESCAPED_BYTE.search(name):
        return name
    raw = os.fsencode(name)
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()) if match[1] else b"\\", raw))


def file_below(folder: str | os.PathLike[str], path: str) -> str:
    """The path of the file that a table calls ``path``, below ``folder``; see `spelling_below`."""
    return os.path.join(folder, spelling_below(folder, path))


def spelling_below(folder: str | os.PathLike[str], path: str) -> str:
    """The spelling of a table's ``path`` under which a file exists below ``folder``; ``path`` itself if there is none.

    Tried in order: the path as written; without surrounding blanks, in either Unicode form of its accents; and so also
    with ``/`` in place of backslashes, as Windows writes them.
    """
    spellings = (spelling for spelling in _spellings(path) if os.path.lexists(os.path.join(folder, spelling)))
    return next(spellings, original(path))


def _spellings(path: str) -> Iterator[str]:
    yield original(path)
    for spelled in dict.fromkeys((path, path.replace("\\", "/"))):
        for form in ("NFC", "NFD"):
            yield unicodedata.normalize(form, spelled.strip())
