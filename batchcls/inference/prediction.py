"""Predictions for a program's images as one table, or as arrays beside the other columns of a batch."""

import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from batchcls.errors import SlidesError
from batchcls.images.sources import open_source
from batchcls.images.sources.base import SourceOptions
from batchcls.inference.inputs import count_of, is_one, single_path, slides_of
from batchcls.inference.options import RunOptions
from batchcls.inference.run_metadata import engine_metadata
from batchcls.inference.session import Session
from batchcls.predictions.schema import ANSWERS
from batchcls.progress import RunProgress
from batchcls.records import METADATA_KEY, Failure, Slide
from batchcls.storage.column_values import one_array

_IMAGE_COLUMNS = ("image", "bytes", "path")
"""Usual names of a column of images, as Ray Data gives them."""
_ANSWERS = ("label", "probability", "probabilities", *ANSWERS, "error")
"""Names of the columns of predictions; not every engine gives all of them."""


def listed(images: Any, options: RunOptions) -> Iterator[Slide | Failure]:
    """The slides of ``images``: those below it if it is a folder, or else one for each image.

    Raises:
        SlidesError: If one path is given, and nothing is there.
    """
    path = single_path(images)
    if path is None:
        return slides_of(images, options.max_pixels)
    if os.path.isdir(path):  # unlike Path.is_dir, false of a name that is too long
        return _below(path, options)
    if not os.path.exists(path):
        raise SlidesError(f"{str(path)!r} does not exist; name a folder or an image file that does")
    return slides_of(path, options.max_pixels)


def predict(session: Session, images: Any, options: RunOptions, console: Console) -> pa.Table:
    """One table of the predictions, see `batchcls.api.Engine.predict`."""
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    path = single_path(images)
    is_folder = path is not None and os.path.isdir(path)
    total = None if is_folder else count_of(images)
    batches: list[pa.RecordBatch] = []
    done = unreadable = 0
    with (
        RunProgress(console, "classifying") as progress,
        closing(session.rows(listed(images, options))) as stream,
    ):
        for batch in stream:
            batches.append(batch)
            done += len(batch)
            unreadable += len(batch) - batch["error"].null_count
            progress.show(done, unreadable, total)
    table = pa.Table.from_batches(batches, session.schema).unify_dictionaries()
    if is_folder:
        table = table.sort_by("path")
    metadata = {**engine_metadata(session.info, session.decoder), "counts": _counts(table), "started": started}
    return table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)})


def predict_batch(session: Session, batch: Any, column: str, options: RunOptions) -> dict[str, npt.NDArray[Any]]:
    """Arrays of the predictions beside the other columns of a batch, see `batchcls.api.Engine.__call__`."""
    names = _column_names(batch)
    usual = [name for name in _IMAGE_COLUMNS if name in names]
    name = column or (usual[0] if usual else "")
    if name not in names:
        raise SlidesError(
            f"the batch has the columns {names}, and none of them is {column or ' or '.join(_IMAGE_COLUMNS)!r}; name "
            "the one that holds images: column='NAME'"
        )
    if clashing := sorted({*_ANSWERS}.intersection(session.schema.names, names) - {name}):
        raise SlidesError(f"the batch has a column {clashing[0]!r} already, as the predictions have; rename it")
    if is_one(images := batch[name]):
        raise SlidesError(f"the column {name!r} is one {type(images).__name__}; give a list or an array of images")
    slides = slides_of(list(images), options.max_pixels)
    with closing(session.rows(slides)) as stream:
        rows = pa.Table.from_batches(list(stream), session.schema)
    return {
        **{other: np.asarray(batch[other]) for other in names if other != name},
        **{answer: _values(rows[answer]) for answer in _ANSWERS if answer in rows.column_names},
    }


def _below(folder: Path, options: RunOptions) -> Iterator[Slide]:
    with closing(open_source([folder], SourceOptions(timeout_s=options.read_timeout_s))) as source:
        yield from source
        if not source.count:
            raise SlidesError(f"no image was found in {str(folder)!r}")
        for reason in source.unlisted:
            warnings.warn(f"this folder could not be listed: {reason}", stacklevel=2)


def _counts(table: pa.Table) -> dict[str, Any]:
    """Rows, rows by label, and rows by kind of error."""
    kinds = Counter(error.partition(":")[0] for error in table["error"].drop_null().to_pylist())
    labels = pc.value_counts(table["label"].cast(pa.string()).drop_null()).to_pylist()
    return {"rows": len(table), "labels": {item["values"]: item["counts"] for item in labels}, "errors": kinds}


def _column_names(batch: Any) -> list[str]:
    if isinstance(batch, Mapping):
        return list(batch)
    if isinstance(batch, pa.Table | pa.RecordBatch):
        return list(batch.column_names)
    if not hasattr(batch, "columns"):
        raise SlidesError(f"a {type(batch).__name__} was given; give columns by name, or call predict")
    return list(batch.columns)


def _values(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """(N,) numbers or (N, L) lists of numbers, with NaN for null; or (N,) objects, with None."""
    if pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy())
    if not pa.types.is_fixed_size_list(column.type):
        return _objects(column)
    length, dtype = column.type.list_size, column.type.value_type.to_pandas_dtype()
    values = np.full((len(column), length), np.nan, dtype)
    lists = one_array(column)
    values[lists.is_valid().to_numpy(zero_copy_only=False)] = lists.flatten().to_numpy().reshape(-1, length)
    return values


def _objects(column: pa.ChunkedArray) -> npt.NDArray[np.object_]:
    values: Sequence[Any] = column.to_pylist()
    result = np.empty(len(values), object)
    result[:] = values
    return result
