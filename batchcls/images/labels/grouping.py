"""Groups of images, taken from their paths by a regular expression in linear time."""

import re

import pyarrow as pa
import pyarrow.compute as pc

from batchcls.errors import LabelsError

_MOST_PATHS = 3
_PIECE = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\.|\(\?P<\w+>|\(\?|\(|\{,(?=\d+\})|.", re.DOTALL)
"""Token of a pattern: a class, an escaped character, a group's beginning, a repetition from 0, or a character."""
_ITEM = re.compile(r"\\.|.", re.DOTALL)
"""Item of a class of characters."""
_WORDS = {"w": r"\p{L}\p{N}_", "d": r"\p{Nd}", "s": r"\t-\r\x1c-\x20\x{85}\p{Z}"}
"""RE2's spelling of Python's Unicode classes ``\\w``, ``\\d`` and ``\\s``, which are ASCII classes in RE2."""
_GROUP = "group"


def groups_of_paths(paths: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    """(paths,) the text that ``pattern`` matches in each path, as by Python's `re.search`.

    If the pattern has groups, the text is that of its first group. The pattern is matched by RE2, in linear time.

    Raises:
        LabelsError: If ``pattern`` is no regular expression, RE2 does not support it, or it does not match every path.
    """
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise LabelsError(f"--group-by {pattern!r} is neither a column nor a regular expression: {error}") from error
    is_ascii = pc.all(pc.string_is_ascii(paths)).as_py()
    try:
        translated = _translated(pattern, is_ascii)
        texts = pc.struct_field(pc.extract_regex(paths, translated), _GROUP)
        spans = pc.struct_field(pc.extract_regex_span(paths, translated), _GROUP)
    except (pa.ArrowException, ValueError) as error:
        raise LabelsError(
            f"--group-by {pattern!r} is more than is understood: {error}; write it without look-ahead, "
            "back-references and the like, which can take for ever, or give a table with a column to group by"
        ) from error
    if texts.null_count:
        few = ", ".join(map(repr, paths.filter(pc.is_null(texts))[:_MOST_PATHS].to_pylist()))
        raise LabelsError(
            f"--group-by {pattern!r} finds nothing in {texts.null_count:,} of {len(paths):,} paths: {few}"
        )
    if spans.null_count:
        raise LabelsError(f"the first group of --group-by {pattern!r} does not take part in every match")
    return texts


def _translated(pattern: str, is_ascii: bool) -> str:
    """``pattern`` for RE2, with its first group, or all of it, called `_GROUP`.

    Args:
        is_ascii: Whether all paths are ASCII.

    Raises:
        ValueError: If RE2 supports a part of ``pattern`` for ASCII alone, and not all paths are ASCII.
    """
    groups, written = 0, []
    for piece in _PIECE.findall(pattern):
        if piece == "(" or piece.startswith("(?P<"):
            groups += 1
            piece = f"(?P<{_GROUP}>" if groups == 1 else "(?:"
        elif piece == "{,":
            piece = "{0,"
        elif piece == r"\Z":
            piece = r"\z"
        elif piece.startswith("[") and len(piece) > 1:
            piece = f"[{''.join(_in_class(item, is_ascii) for item in _ITEM.findall(piece[1:-1]))}]"
        elif piece.startswith("\\") and not is_ascii:
            piece = _escaped(piece)
        written.append(piece)
    return "".join(written) if groups else f"(?P<{_GROUP}>{''.join(written)})"


def _escaped(piece: str) -> str:
    kind = piece[1:]
    if kind in "bB":
        raise ValueError(f"{piece} is for letters without accents alone, and not all paths are of these")
    return f"[{'^' * kind.isupper()}{_WORDS[kind.lower()]}]" if kind.lower() in _WORDS else piece


def _in_class(item: str, is_ascii: bool) -> str:
    if item == "[":  # RE2 would take it for the beginning of a class's name
        return r"\["
    if is_ascii or len(item) < 2 or item[1].lower() not in _WORDS:
        return item
    if item[1].isupper():
        raise ValueError(f"{item} in brackets is for letters without accents alone, and not all paths are of these")
    return _WORDS[item[1]]
