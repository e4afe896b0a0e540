"""Rows of a predictions file as the script of a page reads them: words once, numbers as bytes in base64."""

import base64
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def embedded_rows(listed: pa.Table, labels: Sequence[str]) -> dict[str, Any]:
    """Rows in the order of root and path, for the page's script; words once, numbers as bytes in base64."""
    rows = listed.take(pc.sort_indices(listed, [("root", "ascending"), ("path", "ascending")]))
    roots = {root: place for place, root in enumerate(rows["root"].unique().to_pylist())}
    shared = os.path.commonprefix([f"{root}/" for root in roots])  # noqa: RUF071  # cut at a slash
    below = shared[: shared.rfind("/") + 1]
    folders: dict[tuple[int, str], int] = {}
    names, places = [], []
    for root, path in zip(rows["root"].to_pylist(), rows["path"].to_pylist(), strict=True):
        cut = path.rfind("/") + 1
        names.append(path[cut:])
        places.append(folders.setdefault((roots[root], path[:cut]), len(folders)))
    by_name = sorted(range(len(labels)), key=labels.__getitem__)
    rank = np.append(np.argsort(by_name), -1)  # so that code -1 stays what it is
    errors = sorted(set(rows["error"].drop_null().to_pylist()))
    reason = pc.fill_null(pc.index_in(rows["error"], pa.array(errors, pa.string())), -1)
    columns = {
        "folder": np.array(places, np.int64),
        "error": reason.to_numpy(),
        **{name: rank[rows[name].to_numpy()] for name in ("label", "second")},
        **{name: rows[name].to_numpy() for name in ("probability", "chance")},
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


def _packed(values: npt.NDArray[Any]) -> tuple[str, str]:
    """A type that is wide enough for numbers of -1 and more, and their bytes, the lowest first."""
    whole = np.issubdtype(values.dtype, np.integer)
    kind = np.min_scalar_type(-int(values.max(initial=0)) - 1) if whole else np.dtype(np.float32)
    return kind.str[1:], base64.b64encode(values.astype(kind.newbyteorder("<")).tobytes()).decode()
