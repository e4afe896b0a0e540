"""Rows of a predictions file in the compact form that the script of a page reads."""

import base64
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def embed_rows(table: pa.Table, labels: Sequence[str]) -> dict[str, object]:
    """Rows as JSON values, ordered by root and path, with each text stored once and numbers as bytes in base64.

    Args:
        table: Rows with the columns root, path, error, label, second, probability, chance, width and height, as
            `batchcls.evaluation.report_rows.ranked_rows` gives; and perhaps novelty and novel.
        labels: Labels by their position in the columns label and second.
    """
    rows = table.take(pc.sort_indices(table, [("root", "ascending"), ("path", "ascending")]))
    roots = {root: place for place, root in enumerate(rows["root"].unique().to_pylist())}
    shared = os.path.commonprefix([f"{root}/" for root in roots])  # noqa: RUF071  # cut at a slash below
    below = shared[: shared.rfind("/") + 1]
    folders: dict[tuple[int, str], int] = {}
    names, places = [], []
    for root, path in zip(rows["root"].to_pylist(), rows["path"].to_pylist(), strict=True):
        cut = path.rfind("/") + 1
        names.append(path[cut:])
        places.append(folders.setdefault((roots[root], path[:cut]), len(folders)))
    by_name = sorted(range(len(labels)), key=labels.__getitem__)
    rank = np.append(np.argsort(by_name), -1)  # code -1, no label, stays -1
    errors = sorted(set(rows["error"].drop_null().to_pylist()))
    reason = pc.fill_null(pc.index_in(rows["error"], pa.array(errors, pa.string())), -1)
    columns = {
        "folder": np.array(places, np.int64),
        "error": reason.to_numpy(),
        **{name: rank[rows[name].to_numpy()] for name in ("label", "second")},
        **{name: rows[name].to_numpy() for name in ("probability", "chance")},
        **{name: rows[name].to_numpy() for name in ("novelty", "novel") if name in rows.column_names},
        **{name: pc.fill_null(rows[name], -1).to_numpy() for name in ("width", "height")},
    }
    return {
        "labels": [labels[code] for code in by_name],
        "below": below,
        "roots": [(root, f"{root}/"[len(below) :]) for root in roots],
        "folders": list(folders),
        "names": names,
        "errors": errors,
        "columns": {name: _packed(values) for name, values in columns.items()},
    }


def _packed(values: npt.NDArray[np.generic]) -> tuple[str, str]:
    """The narrowest type that holds -1 and every value, as ``i2`` or ``f4``; and the little-endian bytes in base64."""
    is_integer = np.issubdtype(values.dtype, np.integer)
    kind = np.min_scalar_type(-int(values.max(initial=0)) - 1) if is_integer else np.dtype(np.float32)
    return kind.str[1:], base64.b64encode(values.astype(kind.newbyteorder("<")).tobytes()).decode()
