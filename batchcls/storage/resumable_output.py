"""An output that is written in parts, in a locked folder, so that another run can go on after a kill."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from batchcls.errors import OutputError
from batchcls.storage.differences import differences
from batchcls.storage.local_output_folder import LocalOutputFolder
from batchcls.storage.output_folder import open_output_folder
from batchcls.storage.owned_folder import OwnedFolder
from batchcls.storage.part_file import part_batches


class ResumableOutput:
    """Rows written in parts to the folder ``path``.partial, which this process alone holds until `close`.

    Attributes:
        path: Path of the finished output, or its URL in an object store.
        identity: Argument ``identity`` after a round trip through JSON.
        started: Time at which the first of the runs that share this output started; UTC, ISO 8601.

    Args:
        path: Path of the finished output, to which `finish` moves it, or its URL in an object store.
        part_schema: Schema of the rows that `append` takes.
        identity: Values that must be the same for two runs to share one output; JSON values.
        limits: Values that may differ between such runs although rows depend on them; JSON values.
        others: Names of other files in the folder, which `finish` removes.
        is_folder: Whether the finished output is a folder of files, by `whole_files`, and not a file.

    Raises:
        OutputError: If another run holds the folder, an earlier run began it with another identity, or the folder
            contains files that batchcls did not create.
    """

    def __init__(
        self,
        path: Path | str,
        part_schema: pa.Schema,
        identity: Mapping[str, Any],
        *,
        limits: Mapping[str, Any] | None = None,
        others: Iterable[str] = (),
        is_folder: bool = False,
    ) -> None:
        self.path = path
        self._part_schema = part_schema
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._limits = dict(limits or {})
        self._folder = open_output_folder(path, others, is_folder=is_folder)
        try:
            with self.output_errors():
                self.started, self._earlier_limits = self._read_or_record_run()
                self._parts = self._folder.parts()
        except BaseException:
            self.close()
            raise

    @property
    def own(self) -> OwnedFolder:
        """Open handle of the folder, which an output on a disk has.

        Raises:
            TypeError: If the output is in an object store.
        """
        if not isinstance(self._folder, LocalOutputFolder):
            raise TypeError(f"{self.path!r} is on no disk")
        return self._folder.own

    @property
    def folder(self) -> Path:
        """Path of the folder, which an output on a disk has."""
        return self.own.path

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
        part = self._parts[-1] + 1 if self._parts else 0
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
        """An empty file without a name, on the disk of the parts or else of temporary files, for writing and reading.

        Raises:
            OSError: If the disk refuses.
        """
        return self._folder.scratch()

    @contextmanager
    def whole(self) -> Iterator[BinaryIO]:
        """A context that yields a stream for the whole output; `finish` comes next."""
        with self.output_errors(), self._folder.writing_whole() as stream:
            yield stream

    @contextmanager
    def whole_files(self) -> Iterator[OwnedFolder]:
        """A context that yields a folder for the files of the whole output; `finish` comes next."""
        with self.output_errors(), self._folder.writing_files() as folder:
            yield folder

    def write_beside(self, content: bytes) -> None:
        """Write the whole JSON file that belongs beside ``path``; `finish` comes next."""
        with self.output_errors():
            self._folder.write_beside(content)

    def finish(self) -> None:
        """Move what was written by `whole` or `whole_files` to ``path``, and remove the folder with its parts.

        A file that was written by `write_beside` follows; if this process is killed between the two, whoever locks the
        folder next moves the second one.
        """
        with self.output_errors():
            self._folder.publish()

    def discard(self) -> None:
        """Remove the folder with all parts and other files in it."""
        with self.output_errors():
            self._folder.discard()

    def close(self) -> None:
        """Release the output for another run; finished parts stay."""
        self._folder.close()

    def output_errors(self) -> AbstractContextManager[None]:
        """A context in which an OSError becomes an `OutputError` that says which rows are kept, and how to go on."""
        return self._folder.errors()

    def _read_or_record_run(self) -> tuple[str, Mapping[str, Any]]:
        """The time at which the first of the runs that share this output started, and the limits of the last run."""
        note = self._folder.read_note()
        if note is None:
            self._folder.drop_parts()  # without a note, nobody knows which run wrote these rows
            self.started = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._record_run()
            return self.started, self._limits
        try:
            earlier = json.loads(note)
            recorded, started, limits = (
                dict(earlier["identity"]),
                str(earlier["started"]),
                dict(earlier.get("limits", {})),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise OutputError(
                f"{f'{self._folder.place}/run.json'!r} cannot be read; to start over: {self._folder.start_over}"
            ) from error
        if recorded != self.identity:
            raise OutputError(
                f"{str(self._folder.place)!r} was begun with {differences(recorded, self.identity)}, this run has "
                f"{differences(self.identity, recorded)}; finish it as it was begun, or start over: "
                f"{self._folder.start_over}"
            )
        return started, limits

    def _record_run(self) -> None:
        note = {"started": self.started, "identity": self.identity, "limits": self._limits}
        self._folder.write_note(json.dumps(note, indent=2).encode())

    def _write(self, part: int, rows: Iterable[pa.RecordBatch]) -> None:
        with (
            self.output_errors(),
            self._folder.writing_part(part) as stream,
            pa.ipc.new_file(stream, self._part_schema) as writer,
        ):
            for batch in rows:
                writer.write_batch(batch)

    def _read(self, part: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        try:
            with self._folder.reading_part(part) as stream:
                yield from part_batches(stream, self._part_schema, columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise OutputError(
                f"{str(self._folder.place)!r} cannot be read: {error}; start over: {self._folder.start_over}"
            ) from error
