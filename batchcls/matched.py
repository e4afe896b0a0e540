"""Labelled images find their rows in a predictions file."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.errors import LabelsError

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Match:
    """Where each labelled image stands in a predictions file."""

    by: Literal["path", "absolute path", "file name"]
    rows: npt.NDArray[np.int64]
    """(labelled images,) the row of each; -1 where there is none."""
    ambiguous: npt.NDArray[np.bool_]
    """(labelled images,) whether it could be one row or another, or shares one."""


def matched(paths: pa.ChunkedArray, root: str, predicted_paths: pa.ChunkedArray, roots: pa.ChunkedArray) -> Match:
    """Match by path as written, or by absolute path where that finds more; by file name only if neither finds any.

    Args:
        paths: (N,) of the labelled images, relative to ``root`` or absolute.
        root: Relative to the working folder, or absolute.
        predicted_paths: (M,) relative to ``roots``.
        roots: (M,) relative to the working folder, or absolute.

    Raises:
        LabelsError: If nothing matches, or an image could be one row or another.
    """
    found = _match("path", paths, predicted_paths)
    if (found.rows < 0).any():
        named = _absolute(pa.chunked_array([pa.repeat(root, len(paths))]), paths), _absolute(roots, predicted_paths)
        absolute = _match("absolute path", *named)
        found = max(found, absolute, key=lambda match: int((match.rows >= 0).sum()))
    if not (found.rows >= 0).any() and not found.ambiguous.any():
        found = _match("file name", _names(paths), _names(predicted_paths))
    if found.ambiguous.any():
        raise LabelsError(
            f"{int(found.ambiguous.sum()):,} labelled images have more than one row by {found.by}, or share one"
            f": {shown(paths.filter(pa.array(found.ambiguous)))}; {_mend(pc.unique(roots.cast(pa.string())))}"
        )
    if not (found.rows >= 0).any():
        raise LabelsError(
            f"no labelled image is among the predictions: labelled are {shown(paths)} below {root!r}, predicted "
            f"{shown(pc.binary_join_element_wise(roots.cast(pa.string()), predicted_paths, '/'))}; "
            "classify the labelled images: batchcls run FOLDER --out FILE"
        )
    return found


def shown(values: Sequence[Any] | pa.ChunkedArray) -> str:
    """The first three of ``values``, quoted."""
    listed = ", ".join(repr(str(value)) for value in values[:_SHOWN]) or "none"
    return f"{listed} ..." if len(values) > _SHOWN else listed


def _match(by: Any, keys: pa.ChunkedArray, predicted_keys: pa.ChunkedArray) -> Match:
    rows, back = _positions(keys, predicted_keys), _positions(predicted_keys, keys)
    claimed = np.bincount(back[back >= 0], minlength=len(rows))
    shared = np.bincount(rows[rows >= 0], minlength=len(back))[rows] > 1 if len(back) else np.zeros(len(rows), bool)
    ambiguous = (rows >= 0) & ((claimed > 1) | shared)
    return Match(by, np.where(ambiguous, -1, rows), ambiguous)


def _positions(values: pa.ChunkedArray, among: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    places = pc.index_in(values, _whole(among))
    return np.asarray(pc.fill_null(places, -1).to_numpy(zero_copy_only=False)).astype(np.int64)


def _absolute(roots: pa.ChunkedArray, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Each file in its folder as that is really called, whatever links lead there."""
    roots, paths = _whole(roots.cast(pa.string())), _whole(paths)
    joined = pc.if_else(pc.starts_with(paths, "/"), paths, pc.binary_join_element_wise(roots, paths, "/"))
    folders = pc.dictionary_encode(pc.replace_substring_regex(joined, r"(?s)/[^/]*$", "/"))
    real = pa.array([os.path.realpath(str(folder)).rstrip("/") for folder in folders.dictionary], pa.string())
    return pa.chunked_array([pc.binary_join_element_wise(real.take(folders.indices), _names(joined), "/")])


def _names(paths: Any) -> Any:
    return pc.replace_substring_regex(paths, r"(?s)^.*/", "")


def _mend(roots: pa.Array) -> str:
    absolute = "write absolute paths where they are labelled"
    relative = [str(root) for root in roots if not os.path.isabs(str(root))]
    if not relative:
        return absolute
    return f"{absolute}, and evaluate in the folder that batchcls run was in: it was given {relative[0]!r}"


def _whole(values: pa.ChunkedArray) -> pa.Array:
    whole = values.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)
