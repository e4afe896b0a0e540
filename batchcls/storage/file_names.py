"""File names as valid Unicode, and back: no two names become one."""

import os
import re
import unicodedata
from collections.abc import Iterator

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
    """The file name that `printable` turned into ``name``, as Python opens it."""
    if not _ESCAPED_BYTE.search(name):
        return name
    raw = os.fsencode(name)
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()) if match[1] else b"\\", raw))


def file_below(folder: str | os.PathLike[str], path: str) -> str:
    """The path of the file that a table calls ``path``, below ``folder``; see `spelling_below`."""
    return os.path.join(folder, spelling_below(folder, path))


def spelling_below(folder: str | os.PathLike[str], path: str) -> str:
    """The spelling of a table's ``path`` that is a file's below ``folder``; the spelling as written if none is.

    The spelling as written comes first; then with ``/`` for Windows' backslashes, without surrounding blanks, and with
    accents as the file system at hand has them.
    """
    spellings = (spelling for spelling in _spellings(path) if os.path.lexists(os.path.join(folder, spelling)))
    return next(spellings, original(path))


def _spellings(path: str) -> Iterator[str]:
    yield original(path)
    for spelled in dict.fromkeys((path, path.replace("\\", "/"))):
        for form in ("NFC", "NFD"):
            yield unicodedata.normalize(form, spelled.strip())
