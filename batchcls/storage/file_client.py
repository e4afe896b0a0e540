"""Files opened and read by another process, so that every wait has an end."""

import errno
import io
import mmap
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Self

from batchcls.errors import DecoderError
from batchcls.machine import peak_memory_bytes
from batchcls.storage.file_server import (
    DATA,
    FIRST_BYTES,
    MOST_BYTES,
    OPENED,
    REQUEST,
    SPAN,
    STATUS,
    UNKNOWN_TIME,
    serve_lanes,
)

_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from batchcls.storage.file_server import main; main()"
_PATIENCE_S = 0.2


class FileProcess:
    """A process that opens and reads files; `close` does not wait for a file system that does not answer.

    Where no other Python can be started (Python is embedded, or may start no process), threads of this process do the
    same work; then a file system that never answers keeps this process from ending.
    """

    def __init__(self) -> None:
        self.peak_memory_bytes = 0
        """Most memory that the process has had resident, in bytes; known once it is closed."""
        self._control, theirs = socket.socketpair()
        self._process: subprocess.Popen[bytes] | None = None
        package = str(Path(__file__).parents[2])
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own program
                # -I -S: without the user's and the site's packages Python starts sooner, and nothing there can hang it.
                [sys.executable, "-I", "-S", "-c", _PROGRAM, package],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # what a terminal sends is for the process that decides
            )
            theirs.close()
        except OSError:
            Thread(target=serve_lanes, args=(theirs,), name="file server", daemon=True).start()

    def lane(self, timeout_s: float) -> "FileLane":
        """A new lane to the process, for one thread.

        Args:
            timeout_s: How long each answer may take.

        Raises:
            DecoderError: If the process has ended.
        """
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, FIRST_BYTES)  # most answers at one go
        with theirs:
            try:
                socket.send_fds(self._control, [b"L"], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise self.ended() from error
        ours.settimeout(timeout_s)
        return FileLane(ours, self.ended, memoryview(mmap.mmap(-1, OPENED.size + MOST_BYTES)))

    def ended(self) -> DecoderError:
        """The error to raise where the process is gone."""
        code = self._ended_with()
        mended = "allow more open files (ulimit -n), then " if code == errno.EMFILE else ""
        return DecoderError(
            f"the process that reads files has ended ({code}); every finished part is kept: {mended}run the same "
            "command again"
        )

    def close(self) -> None:
        """End the process; calling it twice is harmless. One that cannot be ended now ends when its read returns."""
        self._control.close()
        if self._process and self._process.returncode is None:
            self.peak_memory_bytes = peak_memory_bytes(self._process.pid)
            self._process.kill()
            if self._ended_with() is None:
                self._process.returncode = -signal.SIGKILL  # or it would be waited for, when nobody knows it any more

    def _ended_with(self) -> int | None:
        try:
            return self._process.wait(_PATIENCE_S) if self._process else None
        except subprocess.TimeoutExpired:
            return None


@dataclass(frozen=True, slots=True)
class FileLane:
    """Opens and reads one file after another, for one thread.

    Each method raises OSError as the operating system does in the other process; and TimeoutError without a number if
    no answer comes in time, after which the lane is of no use.
    """

    socket: socket.socket
    ended: Callable[[], DecoderError]
    buffer: memoryview
    """Holds an answer until the next one."""

    def open(self, path: str) -> "OpenFile":
        """A file, which is open until this lane opens another one."""
        mode, size, modified_ns, first = self._answer(b"O", os.fsencode(path), OPENED)
        known_ns = None if modified_ns == UNKNOWN_TIME else modified_ns
        return OpenFile(self, stat.S_ISREG(mode), size, known_ns, bytes(first))

    def read(self, offset: int, length: int) -> memoryview:
        """Up to ``length`` bytes of the open file, from ``offset`` on; they hold until the lane is used again."""
        data: memoryview = self._answer(b"R", SPAN.pack(offset, min(length, MOST_BYTES)), DATA)[0]
        return data

    def status(self, path: str) -> tuple[bool, tuple[int, int]]:
        """Whether a path is a folder, links followed; and its device and inode."""
        mode, inode, device, _ = self._answer(b"S", os.fsencode(path), STATUS)
        return stat.S_ISDIR(mode), (device, inode)

    def entries(self, folder: str) -> Iterator[tuple[str, str]]:
        """The kind and name of each entry of a folder, in no order.

        The kind is ``/`` of a folder, ``@`` of a link to a folder, and ``-`` of anything else.
        """
        self._answer(b"L", os.fsencode(folder), DATA)
        while names := bytes(self._answer(b"N", b"", DATA)[0]):
            for name in names.removesuffix(b"\0").split(b"\0"):
                yield chr(name[0]), os.fsdecode(name[1:])

    def close(self) -> None:
        """End the lane, and wake a thread that waits for an answer; calling it twice is harmless."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _answer(self, operation: bytes, operand: bytes, head: struct.Struct) -> tuple[Any, ...]:
        """An answer: the head's values but the first and the last; and the bytes, which hold until the next answer."""
        try:
            self.socket.sendall(REQUEST.pack(operation, len(operand)) + operand)
        except TimeoutError:
            raise
        except OSError as error:
            raise self.ended() from error
        received = self._receive(0, head.size)
        number, *values, length = head.unpack_from(self.buffer)
        if number:
            raise OSError(number, os.strerror(number))
        self._receive(received, head.size + length)
        return *values, self.buffer[head.size : head.size + length]

    def _receive(self, start: int, end: int) -> int:
        """Fill the buffer from ``start`` to ``end``, and further if more is there; the position of the last byte."""
        while start < end:
            try:
                count = self.socket.recv_into(self.buffer[start:])
            except TimeoutError:
                raise
            except OSError as error:
                raise self.ended() from error
            if not count:
                raise self.ended()
            start += count
        return start


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file as it was when it was opened."""

    lane: FileLane
    is_regular: bool
    size_bytes: int
    modified_ns: int | None
    first_bytes: bytes
    """The bytes that came with the opening: usually all of a file of at most 256 KiB."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on; fewer than ``length`` only where the file ends.

        Raises:
            OSError: As by the operating system.
            TimeoutError: If no answer comes in time.
        """
        if offset == 0 and length == len(self.first_bytes):
            return self.first_bytes
        data = io.BytesIO()  # which hands over what it has gathered, and makes no copy of it
        data.write(self.first_bytes[offset : offset + length])
        while data.tell() < length and (more := self.lane.read(offset + data.tell(), length - data.tell())):
            data.write(more)
        return data.getvalue()
