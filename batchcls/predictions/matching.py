"""Labelled images find their rows in a predictions file."""

import filecmp
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.errors import LabelsError
from batchcls.storage.file_names import file_below, original, printable
from batchcls.storage.timeouts import with_timeout

_SHOWN = 3
_MOST_PARTS = 16
_COMPARED = 3
_COMPARE_TIMEOUT_S = 10.0
"""After which files on a disk that does not answer are not compared."""


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """Where each labelled image stands in a predictions file."""

    by: Literal["path", "absolute path", "end of path", "file name"]
    rows: npt.NDArray[np.int64]
    """(labelled images,) the row of each; -1 where there is none."""
    ambiguous: npt.NDArray[np.bool_]
    """(labelled images,) whether it could be one row or another, or shares one."""


def match_labels(
    paths: pa.ChunkedArray, root: str, predicted_paths: pa.ChunkedArray, roots: pa.ChunkedArray
) -> LabelMatch:
    """Match by path as written, or by absolute path where that finds more; by the end of the path if neither finds any.

    Where that leaves images over, the same again with ``/`` for Windows' backslashes, without blanks around a path, and
    with accents in one form; it counts where it finds more.

    Args:
        paths: (N,) of the labelled images, relative to ``root`` or absolute.
        root: Relative to the working folder, or absolute.
        predicted_paths: (M,) relative to ``roots``.
        roots: (M,) relative to the working folder, or absolute.

    Raises:
        LabelsError: If nothing matches, or an image could be one row or another.
    """
    best = _whole_paths(paths, root, predicted_paths, roots)
    if (best.rows < 0).any():
        folded, folded_roots = _folded(predicted_paths), _folded(roots.cast(pa.string()))
        best = max(best, _whole_paths(_folded(paths), root, folded, folded_roots), key=_count)
        if not _count(best) and not best.ambiguous.any():
            best = _ends(_folded(paths), pc.binary_join_element_wise(folded_roots, folded, "/"))
    if best.ambiguous.any():
        raise LabelsError(
            f"{int(best.ambiguous.sum()):,} labelled images have more than one row by {best.by}, or share one"
            f": {shown(paths.filter(pa.array(best.ambiguous)))}; {_mend(pc.unique(roots.cast(pa.string())))}"
        )
    if not (best.rows >= 0).any():
        raise LabelsError(
            f"no labelled image is among the predictions: labelled are {shown(paths)} below {root!r}, predicted "
            f"{shown(pc.binary_join_element_wise(roots.cast(pa.string()), predicted_paths, '/'))}; "
            "classify the labelled images: batchcls run FOLDER --out FILE"
        )
    return best


def shown(values: Sequence[Any] | pa.ChunkedArray) -> str:
    """The first three of ``values``, quoted."""
    listed = ", ".join(repr(str(value)) for value in values[:_SHOWN]) or "none"
    return f"{listed} ..." if len(values) > _SHOWN else listed


def label_codes(labels: pa.ChunkedArray, known: Sequence[str]) -> pa.ChunkedArray:
    """(N,) the position of each label among ``known``; null where it is none of them.

    Blanks around a label, and the form of its accents, make no difference where they make none among ``known``.
    """
    codes, words = pc.index_in(labels, pa.array(known, pa.string())), _composed(pa.array(known, pa.string()))
    if len(words.unique()) < len(words):
        return codes
    return pc.coalesce(codes, pc.index_in(_composed(labels), words))


def two_files(root: Path, images: pa.Table) -> list[str] | None:
    """An image that was labelled and its like that was classified, where they do not show the same bytes."""
    for image in images.slice(0, _COMPARED).to_pylist():
        one, other = file_below(root, image["path"]), original(image["file"])
        with suppress(OSError, ValueError):  # one of them is not here, or nowhere: nothing to compare
            if not with_timeout(partial(filecmp.cmp, one, other, shallow=False), _COMPARE_TIMEOUT_S):
                return [printable(one), printable(other)]
    return None


def _whole_paths(
    paths: pa.ChunkedArray, root: str, predicted_paths: pa.ChunkedArray, roots: pa.ChunkedArray
) -> LabelMatch:
    match = _match("path", paths, predicted_paths)
    if not (match.rows < 0).any():
        return match
    named = _absolute(pa.chunked_array([pa.repeat(root, len(paths))]), paths), _absolute(roots, predicted_paths)
    return max(match, _match("absolute path", *named), key=_count)


def _ends(paths: pa.ChunkedArray, files: pa.ChunkedArray) -> LabelMatch:
    """By as much of the end of each path as finds the most, and of that the longest."""
    best = _match("file name", _names(paths), _names(files))
    for parts in range(2, _MOST_PARTS):
        ends = _names(paths, parts), _names(files, parts)
        match = _match("end of path", *ends)
        if not _count(match) and not match.ambiguous.any():
            break  # what differs here differs further up as well
        best = max(match, best, key=_count)
    return best


def _count(match: LabelMatch) -> int:
    return int((match.rows >= 0).sum())


def _match(by: Any, keys: pa.ChunkedArray, predicted_keys: pa.ChunkedArray) -> LabelMatch:
    rows, back = _positions(keys, predicted_keys), _positions(predicted_keys, keys)
    claimed = np.bincount(back[back >= 0], minlength=len(rows))
    shared = np.bincount(rows[rows >= 0], minlength=len(back))[rows] > 1 if len(back) else np.zeros(len(rows), bool)
    ambiguous = (rows >= 0) & ((claimed > 1) | shared)
    return LabelMatch(by, np.where(ambiguous, -1, rows), ambiguous)


def _positions(values: pa.ChunkedArray, among: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    places = pc.index_in(values, _whole(among), skip_nulls=True)
    return np.asarray(pc.fill_null(places, -1).to_numpy(zero_copy_only=False)).astype(np.int64)


def _absolute(roots: pa.ChunkedArray, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Each file in its folder as that is really called, whatever links lead there."""
    roots, paths = _whole(roots.cast(pa.string())), _whole(paths)
    joined = pc.if_else(pc.starts_with(paths, "/"), paths, pc.binary_join_element_wise(roots, paths, "/"))
    folders = pc.dictionary_encode(pc.replace_substring_regex(joined, r"(?s)/[^/]*$", "/"))
    real = pa.array([os.path.realpath(str(folder)).rstrip("/") for folder in folders.dictionary], pa.string())
    return pa.chunked_array([pc.binary_join_element_wise(real.take(folders.indices), _names(joined), "/")])


def _names(paths: Any, parts: int = 1) -> Any:
    """The last so many parts of each path; null where it has fewer."""
    if parts == 1:
        return pc.replace_substring_regex(paths, r"(?s)^.*/", "")
    return pc.struct_field(pc.extract_regex(paths, rf"(?s)(?:^|/)(?P<end>(?:[^/]+/){{{parts - 1}}}[^/]+)$"), "end")


def _folded(paths: Any) -> Any:
    return pc.replace_substring(_composed(paths), "\\", "/")


def _composed(words: Any) -> Any:
    return pc.utf8_normalize(pc.utf8_trim_whitespace(words), "NFC")


def _mend(roots: pa.Array) -> str:
    absolute = "write absolute paths where they are labelled"
    relative = [str(root) for root in roots if not os.path.isabs(str(root))]
    if not relative:
        return absolute
    return f"{absolute}, and evaluate in the folder that batchcls run was in: it was given {relative[0]!r}"


def _whole(values: pa.ChunkedArray) -> pa.Array:
    whole = values.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)
