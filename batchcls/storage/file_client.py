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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any, Self

from batchcls.errors import DecoderError
from batchcls.machine import peak_memory_bytes
from batchcls.storage.file_server import (
    DATA_ANSWER,
    LARGEST_DATA_BYTES,
    LARGEST_FIRST_BYTES,
    OPEN_ANSWER,
    REQUEST,
    SPAN,
    STATUS_ANSWER,
    UNKNOWN_TIME,
)

_PROGRAM = (
    "import sys; from importlib import import_module; sys.path = sys.argv[2:3] + sys.path + sys.argv[3:]; "
    "import_module(sys.argv[1]).main()"
)
_FILE_SERVER = "batchcls.storage.file_server"
_EXIT_WAIT_S = 0.2


class FileProcess:
    """A process that opens and reads files; `close` does not wait for a file system that does not answer.

    Where no other Python can be started (Python is embedded, or may start no process), threads of this process do the
    same work; then a file system that never answers keeps this process from ending.

    Args:
        server: Name of the module to run, which has functions like `batchcls.storage.file_server.main` and ``serve``.
        packages: Folders from which the server imports other packages.
    """

    def __init__(self, server: str = _FILE_SERVER, packages: Sequence[str] = ()) -> None:
        self.peak_memory_bytes = 0
        """Peak resident memory of the process, in bytes; 0 until `close`."""
        self._control, server_end = socket.socketpair()
        self._process: subprocess.Popen[bytes] | None = None
        package = str(Path(__file__).parents[2])
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own program
                # -I -S: without the user's and the site's packages Python starts sooner, and nothing there can hang it.
                [sys.executable, "-I", "-S", "-c", _PROGRAM, server, package, *packages],
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # NumPy's threads would take memory, and do nothing
                stdin=server_end.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's signals are for this process, which ends the other one
            )
            server_end.close()
        except OSError:
            Thread(target=import_module(server).serve, args=(server_end,), name="file server", daemon=True).start()

    def lane(self, timeout_s: float) -> "FileLane":
        """A new connection to the process, for one thread.

        Args:
            timeout_s: How long each answer may take.

        Raises:
            DecoderError: If the process has ended.
        """
        client_end = self.connect()
        client_end.settimeout(timeout_s)
        return FileLane(client_end, self.ended_error, memoryview(mmap.mmap(-1, OPEN_ANSWER.size + LARGEST_DATA_BYTES)))

    def connect(self, *files: int) -> socket.socket:
        """A new connection to the process, which gets open ``files`` with it.

        Raises:
            DecoderError: If the process has ended.
        """
        client_end, server_end = socket.socketpair()
        server_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST_FIRST_BYTES)  # most answers in one call
        with server_end:
            try:
                socket.send_fds(self._control, [bytes((1 + len(files),))], [server_end.fileno(), *files])
            except OSError as error:
                client_end.close()
                raise self.ended_error() from error
        return client_end

    def ended_error(self) -> DecoderError:
        """The error to raise when the process has ended."""
        code = self._exit_code()
        first_step = "allow more open files (ulimit -n), then " if code == errno.EMFILE else ""
        return DecoderError(
            f"the process that reads files has ended ({code}); every finished part is kept: {first_step}run the same "
            "command again"
        )

    def close(self) -> None:
        """Kill the process; a second call is harmless. A process that is stuck in a read ends when the read returns."""
        if self._process and self._process.returncode is None:
            self.peak_memory_bytes = peak_memory_bytes(self._process.pid)  # not known any more once it has ended
        self._control.close()
        if self._process and self._process.returncode is None:
            self._process.kill()
            if self._exit_code() is None:
                self._process.returncode = -signal.SIGKILL  # otherwise Python would wait for the process at its own end

    def _exit_code(self) -> int | None:
        try:
            return self._process.wait(_EXIT_WAIT_S) if self._process else None
        except subprocess.TimeoutExpired:
            return None


@dataclass(frozen=True, slots=True)
class FileLane:
    """Opens and reads one file after another, for one thread.

    Each method raises the OSError that the operating system raised in the other process, or a TimeoutError without
    ``errno`` if no answer comes in time; after a timeout the lane cannot be used any more.
    """

    socket: socket.socket
    ended_error: Callable[[], DecoderError]
    """A function that returns the error to raise when the process has ended."""
    buffer: memoryview
    """Memory of the latest answer, overwritten by the next one."""

    def open(self, path: str) -> "OpenFile":
        """The opened file; it stays open until this lane opens another one."""
        mode, size, modified_ns, first = self._answer(b"O", os.fsencode(path), OPEN_ANSWER)
        known_ns = None if modified_ns == UNKNOWN_TIME else modified_ns
        return OpenFile(self, stat.S_ISREG(mode), size, known_ns, bytes(first))

    def read(self, offset: int, length: int) -> memoryview:
        """Up to ``length`` bytes of the open file from ``offset`` on, valid until the lane is used again."""
        data: memoryview = self._answer(b"R", SPAN.pack(offset, min(length, LARGEST_DATA_BYTES)), DATA_ANSWER)[0]
        return data

    def status(self, path: str) -> tuple[bool, tuple[int, int]]:
        """Whether a path leads to a folder, and the device and inode that it leads to; links are followed."""
        mode, inode, device, _ = self._answer(b"S", os.fsencode(path), STATUS_ANSWER)
        return stat.S_ISDIR(mode), (device, inode)

    def entries(self, folder: str) -> Iterator[list[bytes]]:
        """The entries of a folder, in no order, some at a time: each one's kind, and its name behind it.

        The kind is ``/`` for a folder, ``@`` for a link to a folder, and ``-`` for anything else.
        """
        self._answer(b"L", os.fsencode(folder), DATA_ANSWER)
        while names := bytes(self._answer(b"N", b"", DATA_ANSWER)[0]):
            yield names.removesuffix(b"\0").split(b"\0")

    def ask(self, operation: bytes, operand: bytes = b"") -> bytes:
        """The data of the answer to a request that has no method here, see the server's description."""
        return bytes(self._answer(operation, operand, DATA_ANSWER)[0])

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
        """The answer to a request: the values of its head, and its data, which is valid until the next answer.

        Args:
            head: Layout of the first part of the answer; its first value, errno, and its last, the length of the data,
                are not returned.
        """
        try:
            self.socket.sendall(REQUEST.pack(operation, len(operand)) + operand)
        except TimeoutError:
            raise
        except OSError as error:
            raise self.ended_error() from error
        received = self._receive(0, head.size)
        number, *values, length = head.unpack_from(self.buffer)
        self._receive(received, head.size + length)
        if number:
            reason = os.fsdecode(bytes(self.buffer[head.size : head.size + length]))
            raise OSError(number, reason or os.strerror(number))
        return *values, self.buffer[head.size : head.size + length]

    def _receive(self, start: int, end: int) -> int:
        """Fill the buffer from ``start`` to at least ``end``; returns the offset after the last byte received."""
        while start < end:
            try:
                count = self.socket.recv_into(self.buffer[start:])
            except TimeoutError:
                raise
            except OSError as error:
                raise self.ended_error() from error
            if not count:
                raise self.ended_error()
            start += count
        return start


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file as it was when it was opened."""

    lane: FileLane
    is_regular: bool
    size_bytes: int
    modified_ns: int | None
    """Time of the last change, in nanoseconds since 1970, UTC; None if 64 bits do not hold it."""
    first_bytes: bytes
    """First bytes of the file, sent when it was opened: usually all bytes of a file of at most 256 KiB."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on; fewer than ``length`` only where the file ends.

        Raises:
            OSError: If the operating system cannot read the file.
            TimeoutError: If no answer comes in time.
        """
        if offset == 0 and length == len(self.first_bytes):
            return self.first_bytes
        data = io.BytesIO()  # its getvalue() makes no copy
        data.write(self.first_bytes[offset : offset + length])
        while data.tell() < length and (more := self.lane.read(offset + data.tell(), length - data.tell())):
            data.write(more)
        return data.getvalue()
