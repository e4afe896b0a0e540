"""Open the update of a whole predictions file, or a run where there is none yet."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchcls.predictions.existing_output import ExistingOutput, check_record_beside
from batchcls.predictions.formats import format_to_write
from batchcls.predictions.formats.parquet_folder import rows_of_each_file
from batchcls.predictions.rows import PredictionRows
from batchcls.predictions.schema import file_schema, kept_schema, part_schema
from batchcls.predictions.update import UpdatedRows, UpdateOptions
from batchcls.predictions.writer import UPDATE_KEY, PredictionsWriter, open_writer
from batchcls.storage.output_folder import clear_leftovers
from batchcls.storage.resumable_output import ResumableOutput


def open_update(
    path: Path | str,
    options: UpdateOptions,
    *,
    roots: Sequence[str],
    labels: Sequence[str],
    identity: Mapping[str, Any],
    limits: Mapping[str, Any],
) -> tuple[PredictionsWriter, UpdatedRows | None]:
    """The writer of an update's rows, and the rows of the whole file; None for these where there is no file yet.

    The whole file stays in its place until the new one is whole.

    Args:
        path: The predictions file, or its URL in an object store, whose ending names its format.
        options: How to update.
        roots: Every `Slide.root` of the run.
        labels: The engine's labels, by position.
        identity: See `batchcls.predictions.writer.open_writer`.
        limits: See `batchcls.predictions.writer.open_writer`.

    Raises:
        OutputError: If ``path`` is of another identity, another run is writing it, or an earlier run that was not an
            update of this file began it.
    """
    is_folder = rows_of_each_file(identity) is not None
    if format_to_write(path, rows_of_each_file(identity)).RECORD_IS_BESIDE:
        clear_leftovers(path)  # a killed run may have moved one of its two files to its place
        check_record_beside(path)
    identity = json.loads(json.dumps(identity))
    kept = kept_schema(identity)
    columns = file_schema(len(labels), kept)
    while (existing := ExistingOutput.of(path, columns, identity)) is not None:
        origin = {"ended": existing.metadata.get("ended"), "rows": existing.metadata["counts"]["rows"]}
        partial = ResumableOutput(
            path,
            part_schema(len(labels), kept),
            {**identity, UPDATE_KEY: origin},
            limits=limits,
            is_folder=is_folder,
        )
        try:
            if ExistingOutput.of(path, columns, identity) == existing:
                writer = PredictionsWriter(partial, roots, labels, limits)
                rows = PredictionRows(roots, labels, kept)
                return writer, UpdatedRows(existing, partial, rows, roots, options, limits)
            partial.discard()  # another run has replaced the file while this one waited for it
        except BaseException:
            partial.close()
            raise
        partial.close()
    writer_or_whole = open_writer(path, roots=roots, labels=labels, identity=identity, limits=limits)
    if isinstance(writer_or_whole, PredictionsWriter):
        return writer_or_whole, None
    return open_update(path, options, roots=roots, labels=labels, identity=identity, limits=limits)
