"""An object that is written as a stream, and that nobody sees before it is whole."""

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from enum import Enum
from queue import Full, Queue
from threading import Thread
from typing import Any

from batchcls.storage.object_store import object_errors, obstore
from batchcls.storage.object_url import ObjectUrl

_PIECE_BYTES = 8 << 20
"""Size of a piece, of which S3 takes 10,000."""
_PIECES_AHEAD = 2
_LANES = 4
_PATIENCE_S, _POLL_S = 1.0, 0.01


class _AbandonedError(Exception):
    """Ends an upload whose object shall not appear."""


class _Word(Enum):
    """What follows the last piece."""

    COMPLETE = "complete"
    ABANDON = "abandon"


class ObjectUpload(io.RawIOBase):
    """A stream whose content becomes an object by `complete`; until then an object of that name is as it was.

    A thread uploads in pieces what is written (S3: multipart upload). A process that is killed leaves invisible pieces
    in the store, which a life-cycle rule of the bucket can remove.

    Attributes:
        size: Bytes written so far.
        digest: SHA-256 of the bytes written so far.

    Raises:
        OSError: From every method, if the store fails.
    """

    def __init__(self, url: ObjectUrl) -> None:
        self._url = url
        self.size, self.digest = 0, hashlib.sha256()
        self._open_piece = bytearray()
        self._pieces: Queue[bytes | _Word] = Queue(_PIECES_AHEAD)
        self._outcome: Future[None] = Future()
        Thread(target=self._upload, name="upload", daemon=True).start()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        self.digest.update(view)
        self.size += len(view)
        self._open_piece += view
        if len(self._open_piece) >= _PIECE_BYTES:
            self._give(bytes(self._open_piece))
            self._open_piece.clear()
        return len(view)

    def complete(self, confirm: Callable[[], None]) -> None:
        """Make the object appear.

        Args:
            confirm: Function that is called when all but the last requests are on their way; if it raises an error, no
                object appears.
        """
        if self._open_piece:
            self._give(bytes(self._open_piece))
        while self._pieces.unfinished_tasks and not self._outcome.done():
            wait([self._outcome], _POLL_S)
        try:
            confirm()
        except BaseException:
            self.abandon()
            raise
        self._give(_Word.COMPLETE)
        self._outcome.result()

    def abandon(self) -> None:
        """Let no object appear; after `complete` this does nothing."""

        with suppress(Exception):
            self._give(_Word.ABANDON)
            self._outcome.result()

    def _give(self, item: bytes | _Word) -> None:
        while True:
            if self._outcome.done():
                self._outcome.result()
                raise OSError("the upload has ended")
            with suppress(Full):
                self._pieces.put(item, timeout=_PATIENCE_S)
                return

    def _upload(self) -> None:
        try:
            with object_errors(str(self._url)):
                obstore.put(
                    self._url.store, self._url.key, self._all_pieces(), chunk_size=_PIECE_BYTES, max_concurrency=_LANES
                )
            self._outcome.set_result(None)
        except BaseException as error:  # noqa: BLE001  # raised in the thread that writes
            self._outcome.set_exception(error)

    def _all_pieces(self) -> Iterator[bytes]:
        while isinstance(item := self._pieces.get(), bytes):
            yield item
            self._pieces.task_done()
        if item is _Word.ABANDON:
            raise _AbandonedError
