"""Find the row of each labeled image in a predictions file."""

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
from batchcls.predictions.reader import PredictionsFile
from batchcls.storage.file_names import file_below, original, printable
from batchcls.storage.timeouts import call_with_timeout

_EXCERPT_VALUES = 3
_MOST_PATH_PARTS = 16
_COMPARED_FILES = 3
_COMPARE_TIMEOUT_S = 10.0
"""Seconds after which two files on a disk that does not answer are no longer compared."""


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """The row of each labeled image in a predictions file."""

    by: Literal["path", "absolute path", "end of path", "file name"]
    """Part of the paths that had to be equal."""
    rows: npt.NDArray[np.int64]
    """(labeled images,) position of each image's row; -1 where it has none."""
    ambiguous: npt.NDArray[np.bool_]
    """(labeled images,) whether several rows fit the image, or several images fit its row."""


def match_labels(paths: pa.ChunkedArray, root: str, predictions: PredictionsFile) -> LabelMatch:
    """The row of each labeled image, as `match_paths` finds it.

    Args:
        paths: (N,) the labeled images, relative to ``root`` or absolute.
        root: The folder of the labeled images, relative to the working folder or absolute.
        predictions: The file that is searched.

    Raises:
        LabelsError: If no image has a row, or several images or several rows share a match.
    """
    match = match_paths(paths, root, predictions)
    if match.ambiguous.any():
        raise LabelsError(
            f"{int(match.ambiguous.sum()):,} labeled images have more than one row by {match.by}, or share one"
            f": {excerpt(paths.filter(pa.array(match.ambiguous)))}; "
            f"{_remedy(pc.unique(predictions.table['root'].cast(pa.string())))}"
        )
    if not (match.rows >= 0).any():
        raise LabelsError(
            f"no labeled image is among the predictions: labeled are {excerpt(paths)} below {root!r}, predicted "
            f"{excerpt(predictions.files)}; classify the labeled images: batchcls run FOLDER --out FILE"
        )
    return match


def match_paths(paths: pa.ChunkedArray, root: str, predictions: PredictionsFile) -> LabelMatch:
    """The row of each image, by the first rule that matches all images, or else by the one that matches most.

    The rules compare paths as written; absolute paths; and both again with ``/`` for Windows' backslashes, without
    blanks around a path, and with accents in one Unicode form. If no rule matches any image, the ends of paths are
    compared, at the length that matches most.

    Args:
        paths: (N,) the images, relative to ``root`` or absolute.
        root: The folder of the images, relative to the working folder or absolute.
        predictions: The file that is searched.
    """
    predicted_paths, roots = predictions.table["path"], predictions.table["root"].cast(pa.string())
    best = _match_whole_paths(paths, root, predicted_paths, roots)
    if (best.rows < 0).any():
        folded, folded_roots = _normalized_paths(predicted_paths), _normalized_paths(roots)
        best = max(best, _match_whole_paths(_normalized_paths(paths), root, folded, folded_roots), key=_count)
        if not _count(best) and not best.ambiguous.any():
            best = _match_ends(_normalized_paths(paths), pc.binary_join_element_wise(folded_roots, folded, "/"))
    return best


def excerpt(values: Sequence[Any] | pa.ChunkedArray) -> str:
    """The first three of ``values``, quoted, for a message."""
    first = ", ".join(repr(str(value)) for value in values[:_EXCERPT_VALUES]) or "none"
    return f"{first} ..." if len(values) > _EXCERPT_VALUES else first


def label_codes(labels: pa.ChunkedArray, known: Sequence[str]) -> pa.ChunkedArray:
    """(N,) the position of each label among ``known``; null for a label that is not among them.

    Blanks around a label, and the Unicode form of its accents, are ignored unless they tell two known labels apart.
    """
    codes, words = pc.index_in(labels, pa.array(known, pa.string())), _normalized_text(pa.array(known, pa.string()))
    if len(words.unique()) < len(words):
        return codes
    return pc.coalesce(codes, pc.index_in(_normalized_text(labels), words))


def two_files(root: Path, images: pa.Table) -> list[str] | None:
    """The paths of a labeled and a classified file that match but hold different bytes; None if all compared are equal.

    Args:
        root: The folder of the labeled images.
        images: Matched images, with the columns ``path``, as labeled, and ``file``, as classified; the first three rows
            are compared.
    """
    for image in images.slice(0, _COMPARED_FILES).to_pylist():
        labeled, classified = file_below(root, image["path"]), original(image["file"])
        with suppress(OSError, ValueError):  # one of the files is not on this machine
            if not call_with_timeout(partial(filecmp.cmp, labeled, classified, shallow=False), _COMPARE_TIMEOUT_S):
                return [printable(labeled), printable(classified)]
    return None


def _match_whole_paths(
    paths: pa.ChunkedArray, root: str, predicted_paths: pa.ChunkedArray, roots: pa.ChunkedArray
) -> LabelMatch:
    match = _match_by("path", paths, predicted_paths)
    if not (match.rows < 0).any():
        return match
    named = _absolute(pa.chunked_array([pa.repeat(root, len(paths))]), paths), _absolute(roots, predicted_paths)
    return max(match, _match_by("absolute path", *named), key=_count)


def _match_ends(paths: pa.ChunkedArray, files: pa.ChunkedArray) -> LabelMatch:
    """Match by as many of the last parts of each path as find the most images; of equal counts, by the most parts."""
    best = _match_by("file name", _path_ends(paths), _path_ends(files))
    for parts in range(2, _MOST_PATH_PARTS):
        ends = _path_ends(paths, parts), _path_ends(files, parts)
        match = _match_by("end of path", *ends)
        if not _count(match) and not match.ambiguous.any():
            break  # paths that differ in their last parts differ in longer ends too
        best = max(match, best, key=_count)
    return best


def _count(match: LabelMatch) -> int:
    return int((match.rows >= 0).sum())


def _match_by(by: Any, keys: pa.ChunkedArray, predicted_keys: pa.ChunkedArray) -> LabelMatch:
    rows, reverse_rows = _positions(keys, predicted_keys), _positions(predicted_keys, keys)
    claimed = np.bincount(reverse_rows[reverse_rows >= 0], minlength=len(rows))
    shared = (
        np.bincount(rows[rows >= 0], minlength=len(reverse_rows))[rows] > 1
        if len(reverse_rows)
        else np.zeros(len(rows), bool)
    )
    ambiguous = (rows >= 0) & ((claimed > 1) | shared)
    return LabelMatch(by, np.where(ambiguous, -1, rows), ambiguous)


def _positions(values: pa.ChunkedArray, among: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    places = pc.index_in(values, _one_array(among), skip_nulls=True)
    return np.asarray(pc.fill_null(places, -1).to_numpy(zero_copy_only=False)).astype(np.int64)


def _absolute(roots: pa.ChunkedArray, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """(N,) the absolute path of each file, with links in its folder resolved."""
    roots, paths = _one_array(roots.cast(pa.string())), _one_array(paths)
    joined = pc.if_else(pc.starts_with(paths, "/"), paths, pc.binary_join_element_wise(roots, paths, "/"))
    folders = pc.dictionary_encode(pc.replace_substring_regex(joined, r"(?s)/[^/]*$", "/"))
    real = pa.array([os.path.realpath(str(folder)).rstrip("/") for folder in folders.dictionary], pa.string())
    return pa.chunked_array([pc.binary_join_element_wise(real.take(folders.indices), _path_ends(joined), "/")])


def _path_ends(paths: Any, parts: int = 1) -> Any:
    """The last ``parts`` parts of each path; null for a path with fewer."""
    if parts == 1:
        return pc.replace_substring_regex(paths, r"(?s)^.*/", "")
    return pc.struct_field(pc.extract_regex(paths, rf"(?s)(?:^|/)(?P<end>(?:[^/]+/){{{parts - 1}}}[^/]+)$"), "end")


def _normalized_paths(paths: Any) -> Any:
    return pc.replace_substring(_normalized_text(paths), "\\", "/")


def _normalized_text(words: Any) -> Any:
    return pc.utf8_normalize(pc.utf8_trim_whitespace(words), "NFC")


def _remedy(roots: pa.Array) -> str:
    absolute = "write absolute paths in the table of labels"
    relative = [str(root) for root in roots if not os.path.isabs(str(root))]
    if not relative:
        return absolute
    return f"{absolute}, and evaluate in the folder that batchcls run was in: it was given {relative[0]!r}"


def _one_array(values: pa.ChunkedArray) -> pa.Array:
    array = values.combine_chunks()
    return array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
