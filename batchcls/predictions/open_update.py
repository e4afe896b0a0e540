"""Open the update of a whole predictions file, or a run where there is none yet."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from batchcls.errors import OutputError
from batchcls.predictions.comparison import UpdateOptions
from batchcls.predictions.existing_output import ExistingOutput, check_record_beside
from batchcls.predictions.formats import format_to_write
from batchcls.predictions.formats.parquet_folder import rows_of_each_file
from batchcls.predictions.rows import PredictionRows
from batchcls.predictions.schema import BY_CONTENT, added_schema, file_schema, part_schema
from batchcls.predictions.update import UpdatedRows
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
    added = added_schema(identity)
    while (existing := _existing(path, len(labels), identity)) is not None:
        origin = {"ended": existing.metadata.get("ended"), "rows": existing.metadata["counts"]["rows"]}
        partial = ResumableOutput(
            path,
            part_schema(len(labels), added),
            {**identity, UPDATE_KEY: origin},
            limits=limits,
            is_folder=is_folder,
        )
        try:
            if _existing(path, len(labels), identity) == existing:
                writer = PredictionsWriter(partial, roots, labels, limits)
                rows = PredictionRows(roots, labels, added)
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


def _existing(path: Path | str, classes: int, identity: Mapping[str, Any]) -> ExistingOutput | None:
    """The whole file, which may lack the digests of an update by content; None if there is none.

    Raises:
        OutputError: If the file is of another identity.
    """
    try:
        return ExistingOutput.of(path, file_schema(classes, added_schema(identity)), identity)
    except OutputError:
        if BY_CONTENT in identity:
            without = {key: value for key, value in identity.items() if key != BY_CONTENT}
            with suppress(OutputError):
                return ExistingOutput.of(path, file_schema(classes, added_schema(without)), without)
        raise
