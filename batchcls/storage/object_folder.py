"""An unfinished output in an object store: its parts, as objects below ``URL.partial/``, and how it becomes whole.

One object, ``parts.json``, says which objects are the parts. It is only replaced while it is as this run left it, and
who takes the lock replaces it first, so a run that lost the lock can change nothing: what it still writes has its own
token in the name, and is in no index.
"""

import hashlib
import shlex
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import BinaryIO, cast

from batchcls.errors import OutputError, temporary_files
from batchcls.storage.object_lock import STALE_AFTER_S, ObjectLock
from batchcls.storage.object_store import RemoteError
from batchcls.storage.object_upload import ObjectUpload
from batchcls.storage.object_url import ObjectUrl, object_output_errors
from batchcls.storage.output_names import beside_path, partial_folder
from batchcls.storage.own_index import LARGEST_NOTE_BYTES, OwnIndex
from batchcls.storage.owned_folder import OwnedFolder
from batchcls.storage.part_index import INDEX, LOCK, Finish, PartIndex, check_names, part_name

_LARGEST_IN_MEMORY_BYTES = 64 << 20
"""Size of a part from which it stands on a disk while it is read or written."""


class ObjectFolder:
    """The objects below ``url``.partial/; see `OutputFolder`.

    Args:
        url: URL of the finished output.
        stale_after_s: Age of the last heartbeat from which the lock of another run counts as a dead run's.

    Raises:
        OutputError: If another run holds the folder, no object can be written there, or the folder contains objects
            that batchcls did not create.
    """

    def __init__(self, url: str, stale_after_s: float = STALE_AFTER_S) -> None:
        self._whole, self._folder = ObjectUrl.of(url), ObjectUrl.of(partial_folder(url))
        self._failure: OutputError | None = None
        self._is_removed = False
        self._upload: ObjectUpload | None = None
        self._beside: str | None = None
        with object_output_errors(self.place):
            check_names(self._folder.names(), self.place)
            self._lock = ObjectLock(self._folder.named(LOCK), url, stale_after_s)
            self._index = OwnIndex(self._folder.named(INDEX), self._lock)
            try:
                self._take_over()
            except BaseException:
                self.close()
                raise

    @classmethod
    def clear_leftovers(cls, url: str) -> None:
        """Remove the objects of a run that was killed after ``url`` was whole; those of an unfinished run stay.

        Raises:
            OutputError: If a run is writing ``url``, or batchcls did not make all objects below ``url``.partial/.
        """
        with object_output_errors(partial_folder(url)):
            if not ObjectUrl.of(partial_folder(url)).names():
                return
        folder = cls(url)
        try:
            if folder.read_note() is None:
                with folder.errors():
                    folder.discard()
        finally:
            folder.close()

    @property
    def place(self) -> str:
        return str(self._folder)

    @property
    def start_over(self) -> str:
        program = "aws s3 rm --recursive" if self.place.startswith("s3:") else "rclone purge"
        return f"{program} {shlex.quote(self.place)}"

    def read_note(self) -> bytes | None:
        note = self._index.content.note
        return None if note is None else self._folder.named(note).read(LARGEST_NOTE_BYTES)

    def write_note(self, content: bytes) -> None:
        name = f"run-{self._index.serial}-{self._lock.token}.json"
        self._folder.named(name).write(content)
        self._index.replace(replace(self._index.content, note=name))

    def drop_parts(self) -> None:
        if self._index.content.parts:
            self._index.replace(PartIndex())

    def parts(self) -> list[int]:
        return list(range(len(self._index.content.parts)))

    @contextmanager
    def reading_part(self, number: int) -> Iterator[BinaryIO]:
        with _brief_file() as stream:
            for block in self._folder.named(self._index.content.part_name(number)).blocks():
                stream.write(block)
            stream.seek(0)
            yield stream

    @contextmanager
    def writing_part(self, number: int) -> Iterator[BinaryIO]:
        if self._failure is not None:  # nobody waits twice for a store that does not answer
            raise self._failure
        with _brief_file() as stream:
            yield stream
            self._lock.check()
            self._folder.named(part_name(number, self._lock.token)).write(stream)
        parts = [*self._index.content.parts[:number], self._lock.token, *self._index.content.parts[number + 1 :]]
        self._index.replace(replace(self._index.content, parts=parts))

    def scratch(self) -> BinaryIO:
        with temporary_files():
            return cast(BinaryIO, TemporaryFile())

    @contextmanager
    def writing_whole(self) -> Iterator[BinaryIO]:
        self._lock.check()
        self._upload = ObjectUpload(self._whole)
        try:
            yield cast(BinaryIO, self._upload)
        except BaseException:
            self._upload.abandon()
            raise

    def writing_files(self) -> AbstractContextManager[OwnedFolder]:
        raise OutputError(f"{str(self._whole)!r}: a folder of files is written to a disk only; name one object")

    def write_beside(self, content: bytes) -> None:
        name = f"beside-{self._lock.token}.json"
        self._folder.named(name).write(content)
        self._beside = name

    def publish(self) -> None:
        """Make the whole output visible, and remove the folder.

        Should this process stand still between its last look at the lock and the store's answer to its last request,
        for longer than makes a lock stale, and another run end meanwhile, then the output that this run makes visible
        replaces that run's. Both are whole, and of the same rows: only the same command goes on with these parts.
        """
        assert self._upload is not None  # noqa: S101
        finish = Finish(self._upload.size, self._upload.digest.hexdigest(), self._beside)
        self._index.replace(replace(self._index.content, finish=finish))
        self._upload.complete(self._lock.confirm)
        self._upload = None
        self._put_beside(finish)
        self.discard()

    def discard(self) -> None:
        """Remove all objects: first from the index, so that the next run takes no part for one, and the lock last."""
        names = self._folder.names()
        self._index.replace(PartIndex())
        self._remove(names)
        self._lock.confirm()
        self._index.remove()
        self._lock.remove()
        self._is_removed = True

    def close(self) -> None:
        """Release the lock, if the store still answers; without an answer, it becomes stale."""
        if self._upload is not None:
            self._upload.abandon()
            self._upload = None
        if self._is_removed or self._failure is not None:
            self._lock.abandon()
            return
        with suppress(OSError):
            self._lock.release()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """A context in which an OSError becomes an `OutputError` that says which rows are kept, and how to go on."""
        try:
            with object_output_errors(self.place, is_begun=self._index.content.note is not None):
                yield
        except OutputError as error:
            if isinstance(error.__cause__, RemoteError):
                self._failure = error
            raise

    def _take_over(self) -> None:
        """Make the index this run's, complete what a run left at its end, and remove what is in no index.

        The objects are listed before: so none of a run that takes over from this one, meanwhile, is removed.
        """
        names = self._folder.names()
        self._index.take_over()
        if (finish := self._index.content.finish) is not None:
            self._settle(finish)
        self._remove(set(names) - self._index.content.names())

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in (LOCK, INDEX):
                self._folder.named(name).remove()

    def _settle(self, finish: Finish) -> None:
        """Complete what a run that was killed at its very end left, or go on with its parts."""
        if self._is_whole(finish):
            self._put_beside(finish)
            self._index.replace(PartIndex())
        else:
            self._index.replace(replace(self._index.content, finish=None))

    def _is_whole(self, finish: Finish) -> bool:
        """Whether the output that a run was about to make visible is visible."""
        status = self._whole.status()
        if status is None or status["size"] != finish.size:
            return False
        digest = hashlib.sha256()
        for block in self._whole.blocks():
            digest.update(block)
        return digest.hexdigest() == finish.sha256

    def _put_beside(self, finish: Finish) -> None:
        if finish.beside is not None:
            content = self._folder.named(finish.beside).read(LARGEST_NOTE_BYTES)
            ObjectUrl.of(beside_path(str(self._whole))).write(content)


def _brief_file() -> BinaryIO:
    """A file for one part, in memory if it is small, or else on the disk of temporary files, without a name."""
    return cast(BinaryIO, SpooledTemporaryFile(_LARGEST_IN_MEMORY_BYTES))
