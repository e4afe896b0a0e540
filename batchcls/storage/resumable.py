"""What a run leaves on disk until its output is whole: a locked folder of parts that another run can go on with."""

import json
import mmap
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from batchcls.errors import OutputError
from batchcls.storage.atomic import check_replaceable_file
from batchcls.storage.partial_folder import (
    FINISHED,
    LAST,
    LOCK,
    NOTE,
    PART,
    WHOLE,
    Names,
    locked_folder,
    partial_folder,
    refusals,
)

_LARGEST_NOTE_BYTES = 64 << 20


class ResumableOutput:
    """``path``.partial, held by this process alone from construction until `close`.

    Attributes:
        folder: Its path.
        own: The folder itself.
        identity: As it stands in JSON.
        started: When the first of the runs that share this output started; UTC, ISO 8601.

    Args:
        path: The output, which takes its place by `finish`.
        part_schema: Of the rows that `append` takes.
        identity: What must be the same for two runs to share one output; JSON values.
        limits: What two runs may have otherwise, and what rows depend on nevertheless; JSON values.
        others: Names of files that stand there too, until `finish` drops them.

    Raises:
        OutputError: If another run holds it, what an earlier run left is of another identity, or something there is
            not ours.
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
        self._path = path
        self.folder = partial_folder(path)
        self._part_schema = part_schema
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._limits = dict(limits or {})
        self._ours = Names(others)
        with self.refusals():
            check_replaceable_file(path)
            self.own, self._lock = locked_folder(path, self._ours)
        try:
            with self.refusals():
                self.started, self._earlier_limits = self._agree()
                self._parts = [name for name in self.own.names() if PART.fullmatch(name)]
        except BaseException:
            self.close()
            raise

    @property
    def begun(self) -> bool:
        """Whether any part is there."""
        return bool(self._parts)

    @property
    def changed_limits(self) -> frozenset[str]:
        """Which limits were others in the runs before."""
        return frozenset(key for key, value in self._limits.items() if self._earlier_limits.get(key) != value)

    def append(self, rows: Iterable[pa.RecordBatch]) -> None:
        """Bring ``rows`` to the disk as one more part, whole or not at all.

        Raises:
            OutputError: If the disk refuses; every part before stays.
        """
        last = PART.fullmatch(self._parts[-1]) if self._parts else None
        part = f"part-{int(last[1]) + 1 if last else 0:06d}.arrow"
        self._write(part, rows)
        self._parts.append(part)

    def drop(self, dropped: Callable[[pa.Table], pa.Array]) -> None:
        """Take rows out of the parts; from then on ``limits`` are those that all of their rows were made with.

        Args:
            dropped: Says of each row of a table whether it goes.

        Raises:
            OutputError: If the disk refuses; each part is as it was, or without those rows.
        """
        for part in self._parts:
            table = self._read(part)
            gone = dropped(table)
            if pc.any(gone).as_py():
                self._write(part, table.filter(pc.invert(gone)).to_batches())
        if self.changed_limits:
            with self.refusals():
                self._note()
            self._earlier_limits = self._limits

    def table(self) -> pa.Table:
        """Every row of every part, mapped from the disk rather than read."""
        return pa.concat_tables([self._part_schema.empty_table(), *map(self._read, self._parts)])

    @contextmanager
    def whole(self) -> Iterator[BinaryIO]:
        """A stream for the whole output, before `finish`."""
        with self.refusals(), self.own.writing(WHOLE) as stream:
            yield stream

    def finish(self) -> None:
        """Put `whole` in its place and drop the parts."""
        with self.refusals():
            self.own.mark(FINISHED)
            self.own.move_out(WHOLE, self._path)
            self.discard()

    def discard(self) -> None:
        """Forget everything that is not in its place yet."""
        with self.refusals():
            self.own.clear(self._ours, last=LAST)

    def close(self) -> None:
        """Let another run have the output; what is done stays."""
        os.close(self._lock)
        self.own.close()

    def refusals(self) -> AbstractContextManager[None]:
        """Turns what the operating system refuses into an error that says what is safe and how to go on."""
        return refusals(self.folder)

    @property
    def _start_over(self) -> str:
        return f"rm -r {shlex.quote(str(self.folder))}"

    def _agree(self) -> tuple[str, Mapping[str, Any]]:
        """When the first of the runs that share this output started, in UTC, ISO 8601; and the limits of the last."""
        if not self.own.holds(NOTE):
            for name in self.own.names():
                if name != LOCK:  # nobody knows whose rows these are
                    self.own.remove(name)
            self.started = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._note()
            return self.started, self._limits
        note = self.folder / NOTE
        try:
            with os.fdopen(self.own.file(NOTE), "rb") as stream:
                earlier = json.loads(stream.read(_LARGEST_NOTE_BYTES))
            found, started, limits = dict(earlier["identity"]), str(earlier["started"]), dict(earlier.get("limits", {}))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise OutputError(f"{str(note)!r} cannot be read; to start over: {self._start_over}") from error
        if found != self.identity:
            raise OutputError(
                f"{str(self.folder)!r} was begun with {differing(found, self.identity)}, this run has "
                f"{differing(self.identity, found)}; finish it as it was begun, or start over: {self._start_over}"
            )
        return started, limits

    def _note(self) -> None:
        note = {"started": self.started, "identity": self.identity, "limits": self._limits}
        self.own.write(NOTE, json.dumps(note, indent=2).encode())

    def _write(self, part: str, rows: Iterable[pa.RecordBatch]) -> None:
        with (
            self.refusals(),
            self.own.writing(part) as stream,
            pa.ipc.new_file(stream, self._part_schema) as writer,
        ):
            for batch in rows:
                writer.write_batch(batch)

    def _read(self, part: str) -> pa.Table:
        try:
            with os.fdopen(self.own.file(part), "rb") as stream:
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all().cast(self._part_schema)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise OutputError(
                f"{str(self.folder)!r} cannot be read: {error}; start over: {self._start_over}"
            ) from error


def differing(values: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """What of ``values`` is otherwise in ``others``, or is not there."""
    said = []
    for key in sorted(values.keys() | others.keys()):
        value, other = values.get(key), others.get(key)
        if value != other:
            if isinstance(value, dict) and isinstance(other, dict):
                value = {name: value[name] for name in value if name not in other or value[name] != other[name]}
            said.append(f"{key} {value!r}")
    return ", ".join(said)
