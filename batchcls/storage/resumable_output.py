"""An output that is written in parts, in a locked folder, so that another run can go on after a kill."""

import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from batchcls.errors import OutputError
from batchcls.storage.atomic import check_replaceable_file
from batchcls.storage.differences import differences
from batchcls.storage.locked_folder import (
    BESIDE_FILE,
    FINISHED_FILE,
    LOCK_FILE,
    PART_NAME,
    REMOVED_LAST,
    RUN_FILE,
    WHOLE_FILE,
    OutputFileNames,
    beside_path,
    lock_folder,
    output_errors,
    partial_folder,
)
from batchcls.storage.part_file import part_batches

_LARGEST_NOTE_BYTES = 64 << 20


class ResumableOutput:
    """Rows written in parts to the folder ``path``.partial, which this process alone holds until `close`.

    Attributes:
        path: Path of the finished output.
        folder: Path of the folder.
        own: Open handle of the folder.
        identity: Argument ``identity`` after a round trip through JSON.
        started: Time at which the first of the runs that share this output started; UTC, ISO 8601.

    Args:
        path: Path of the finished output, to which `finish` moves it.
        part_schema: Schema of the rows that `append` takes.
        identity: Values that must be the same for two runs to share one output; JSON values.
        limits: Values that may differ between such runs although rows depend on them; JSON values.
        others: Names of other files in the folder, which `finish` removes.

    Raises:
        OutputError: If another run holds the folder, an earlier run began it with another identity, or the folder
            contains files that batchcls did not create.
    """

    def __init__(
        self,
        path: Path,
        part_schema: pa.Schema,
        identity: Mapping[str, Any],
        *,
        limits: Mapping[str, Any] | None = None,
        others: Iterable[str] = (),
    ) -> None:
        self.path = path
        self.folder = partial_folder(path)
        self._part_schema = part_schema
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._limits = dict(limits or {})
        self._is_own_name = OutputFileNames(others)
        with self.output_errors():
            check_replaceable_file(path)
            self.own, self._lock = lock_folder(path, self._is_own_name)
        try:
            with self.output_errors():
                self.started, self._earlier_limits = self._read_or_record_run()
                self._parts = [name for name in self.own.names() if PART_NAME.fullmatch(name)]
        except BaseException:
            self.close()
            raise

    @property
    def begun(self) -> bool:
        """Whether any part has been written."""
        return bool(self._parts)

    @property
    def changed_limits(self) -> frozenset[str]:
        """Names of the limits that differ from those recorded by earlier runs."""
        return frozenset(key for key, value in self._limits.items() if self._earlier_limits.get(key) != value)

    def append(self, rows: Iterable[pa.RecordBatch]) -> None:
        """Write rows as one more part, whole or not at all.

        Raises:
            OutputError: If the part cannot be written; the earlier parts stay.
        """
        last = PART_NAME.fullmatch(self._parts[-1]) if self._parts else None
        part = f"part-{int(last[1]) + 1 if last else 0:06d}.arrow"
        self._write(part, rows)
        self._parts.append(part)

    def drop(self, is_dropped: Callable[[pa.RecordBatch], pa.Array]) -> None:
        """Remove rows from the parts, and record this run's limits as those of all remaining rows.

        Args:
            is_dropped: Returns (rows,) booleans for a batch, true for each row to remove.

        Raises:
            OutputError: If a part cannot be written; each part is then either unchanged or without those rows.
        """
        for part in self._parts:
            if any(pc.any(is_dropped(batch)).as_py() for batch in self._read(part)):
                self._write(part, (batch.filter(pc.invert(is_dropped(batch))) for batch in self._read(part)))
        if self.changed_limits:
            with self.output_errors():
                self._record_run()
            self._earlier_limits = self._limits

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of all parts, in the order in which they were written, a batch at a time.

        Args:
            columns: Columns to read; None: all.

        Raises:
            OutputError: If a part cannot be read.
        """
        for part in self._parts:
            yield from self._read(part, columns)

    def table(self) -> pa.Table:
        """The rows of all parts, in memory; for few rows."""
        return pa.Table.from_batches(self.batches(), self._part_schema)

    def scratch(self) -> BinaryIO:
        """An empty file without a name, on the disk of the parts, open for writing and reading.

        Raises:
            OSError: If the disk refuses.
        """
        return self.own.scratch()

    @contextmanager
    def whole(self) -> Iterator[BinaryIO]:
        """A context that yields a stream for the whole output; `finish` comes next."""
        with self.output_errors(), self.own.writing(WHOLE_FILE) as stream:
            yield stream

    def write_beside(self, content: bytes) -> None:
        """Write the whole JSON file that belongs beside ``path``; `finish` comes next."""
        with self.output_errors():
            check_replaceable_file(beside_path(self.path))
            self.own.write(BESIDE_FILE, content)

    def finish(self) -> None:
        """Move the file that was written by `whole` to ``path``, and remove the folder with its parts.

        A file that was written by `write_beside` follows; if this process is killed between the two, whoever locks the
        folder next moves the second one.
        """
        with self.output_errors():
            self.own.mark(FINISHED_FILE)
            self.own.move_out(WHOLE_FILE, self.path)
            if self.own.holds(BESIDE_FILE):
                self.own.move_out(BESIDE_FILE, beside_path(self.path))
            self.discard()

    def discard(self) -> None:
        """Remove the folder with all parts and other files in it."""
        with self.output_errors():
            self.own.clear(self._is_own_name, last=REMOVED_LAST)

    def close(self) -> None:
        """Release the output for another run; finished parts stay."""
        os.close(self._lock)
        self.own.close()

    def output_errors(self) -> AbstractContextManager[None]:
        """A context in which an OSError becomes an `OutputError` that says which rows are kept, and how to go on."""
        return output_errors(self.folder)

    @property
    def _start_over(self) -> str:
        return f"rm -r {shlex.quote(str(self.folder))}"

    def _read_or_record_run(self) -> tuple[str, Mapping[str, Any]]:
        """The time at which the first of the runs that share this output started, and the limits of the last run."""
        if not self.own.holds(RUN_FILE):
            for name in self.own.names():
                if name != LOCK_FILE:  # without the run's file, nobody knows which run wrote these rows
                    self.own.remove(name)
            self.started = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._record_run()
            return self.started, self._limits
        note = self.folder / RUN_FILE
        try:
            with os.fdopen(self.own.file(RUN_FILE), "rb") as stream:
                earlier = json.loads(stream.read(_LARGEST_NOTE_BYTES))
            recorded, started, limits = (
                dict(earlier["identity"]),
                str(earlier["started"]),
                dict(earlier.get("limits", {})),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise OutputError(f"{str(note)!r} cannot be read; to start over: {self._start_over}") from error
        if recorded != self.identity:
            raise OutputError(
                f"{str(self.folder)!r} was begun with {differences(recorded, self.identity)}, this run has "
                f"{differences(self.identity, recorded)}; finish it as it was begun, or start over: {self._start_over}"
            )
        return started, limits

    def _record_run(self) -> None:
        note = {"started": self.started, "identity": self.identity, "limits": self._limits}
        self.own.write(RUN_FILE, json.dumps(note, indent=2).encode())

    def _write(self, part: str, rows: Iterable[pa.RecordBatch]) -> None:
        with (
            self.output_errors(),
            self.own.writing(part) as stream,
            pa.ipc.new_file(stream, self._part_schema) as writer,
        ):
            for batch in rows:
                writer.write_batch(batch)

    def _read(self, part: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        try:
            with os.fdopen(self.own.file(part), "rb") as stream:
                yield from part_batches(stream, self._part_schema, columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise OutputError(
                f"{str(self.folder)!r} cannot be read: {error}; start over: {self._start_over}"
            ) from error
