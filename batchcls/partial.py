"""What a run leaves on disk until its output is whole: a locked folder of parts that another run can go on with."""

import fcntl
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchcls.errors import OutputError


class Partial:
    """``path``.partial, held by this process alone from construction until `close`.

    Attributes:
        folder: It; other files may stand there too, until `finish` drops them.
        started: When the first of the runs that share this output started; UTC, ISO 8601.

    Args:
        path: The output, which takes its place by `finish`.
        part_schema: Of the rows that `append` takes.
        identity: What must be the same for two runs to share one output; JSON values.

    Raises:
        OutputError: If another run holds it, or what an earlier run left is of another identity.
    """

    def __init__(self, path: Path, part_schema: pa.Schema, identity: Mapping[str, Any]) -> None:
        self._path = path
        self.folder = path.with_name(path.name + ".partial")
        self._part_schema = part_schema
        with self.refusals():
            self._lock = self._locked()
        try:
            with self.refusals():
                self.started = self._agree(json.loads(json.dumps(identity)))
                self._parts = sorted(self.folder.glob("part-*.arrow"))
        except OutputError:
            self.close()
            raise

    @property
    def whole(self) -> Path:
        """Where to write the output, whole, before `finish`."""
        return self.folder / "whole.parquet"

    def append(self, rows: list[pa.RecordBatch]) -> None:
        """Bring ``rows`` to the disk as one more part, whole or not at all.

        Raises:
            OutputError: If the disk refuses; every part before stays.
        """
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, self._part_schema) as writer:
            for batch in rows:
                writer.write_batch(batch)
        number = int(self._parts[-1].stem.removeprefix("part-")) + 1 if self._parts else 0
        part = self.folder / f"part-{number:06d}.arrow"
        with self.refusals():
            _write_whole(part, sink.getvalue())
        self._parts.append(part)

    def table(self) -> pa.Table:
        """Every row of every part, mapped from the disk rather than read."""
        try:
            tables = [pa.ipc.open_file(pa.memory_map(os.fsencode(part))).read_all() for part in self._parts]
            return pa.concat_tables([self._part_schema.empty_table(), *tables])
        except (pa.ArrowException, OSError) as error:
            raise OutputError(
                f"{str(self.folder)!r} cannot be read: {error}; start over: {self._start_over}"
            ) from error

    def finish(self) -> None:
        """Put `whole` in its place and drop the parts."""
        with self.refusals():
            _sync(self.whole)
            self._finished.touch()
            self.whole.replace(self._path)
            _sync(self._path.parent)
            self.discard()

    def discard(self) -> None:
        """Forget everything that is not in its place yet."""
        for path in self.folder.iterdir():
            if path not in (self._finished, self._lock_file):
                path.unlink()
        # Last, so that a kill in between leaves no part that a later run could take for its own.
        self._finished.unlink(missing_ok=True)
        self._lock_file.unlink()
        self.folder.rmdir()

    def close(self) -> None:
        """Let another run have the output; what is done stays."""
        os.close(self._lock)

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Turns what the operating system refuses into an error that says what is safe and how to go on."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            mend = "choose another --out"
            if os.path.isdir(self.folder):
                mend = "every finished part is kept there: mend that, then run the same command again"
            raise OutputError(f"cannot write {str(self.folder)!r}: {reason}; {mend}") from error

    @property
    def _start_over(self) -> str:
        return f"rm -r {shlex.quote(str(self.folder))}"

    @property
    def _finished(self) -> Path:
        """Stands from just before the whole file moves to its place until the parts are gone."""
        return self.folder / "finished"

    @property
    def _lock_file(self) -> Path:
        return self.folder / "lock"

    def _locked(self) -> int:
        """The lock, held in a folder that is still in its place."""
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # the run that held it has just finished, folder and all
                lock = os.open(self._lock_file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(lock)
                    raise OutputError(f"another run is writing {str(self._path)!r}; wait for it, or stop it") from None
                if not os.path.samestat(os.fstat(lock), os.stat(self._lock_file)):
                    os.close(lock)
                elif self._finished.exists() and not (self.folder / "whole.parquet").exists():
                    self.discard()  # killed after the file was in its place
                    os.close(lock)
                else:
                    return lock

    def _agree(self, identity: Mapping[str, Any]) -> str:
        """When the first of the runs that share this output started; UTC, ISO 8601."""
        note = self.folder / "run.json"
        if not note.exists():
            started = datetime.now(UTC).isoformat(timespec="milliseconds")
            _write_whole(note, json.dumps({"started": started, "identity": identity}, indent=2).encode())
            return started
        try:
            earlier = json.loads(note.read_text())
            found, started = dict(earlier["identity"]), str(earlier["started"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise OutputError(f"{str(note)!r} cannot be read; to start over: {self._start_over}") from error
        if found != identity:
            raise OutputError(
                f"{str(self.folder)!r} was begun with {_differing(found, identity)}, this run has "
                f"{_differing(identity, found)}; finish it as it was begun, or start over: {self._start_over}"
            )
        return started


def _differing(values: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """What of ``values`` is otherwise in ``others``, or is not there."""
    said = []
    for key in sorted(values.keys() | others.keys()):
        value, other = values.get(key), others.get(key)
        if value != other:
            if isinstance(value, dict) and isinstance(other, dict):
                value = {name: value[name] for name in value if name not in other or value[name] != other[name]}
            said.append(f"{key} {value!r}")
    return ", ".join(said)


def _write_whole(path: Path, content: bytes | pa.Buffer) -> None:
    """``path`` with this content, or untouched."""
    unfinished = path.with_suffix(".tmp")
    try:
        with unfinished.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
        _sync(path.parent)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    """Return once what ``path`` holds would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
