"""Files opened and read by another process: every wait has an end."""

import io
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from batchcls.errors import DecoderError
from batchcls.file_server import LENGTH, MOST_BYTES, OPENED, READ, SPAN

_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from batchcls.file_server import main; main()"
_PATIENCE_S = 0.2


class FileProcess:
    """A process that opens and reads files; `close` never waits for it, whatever it waits for."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        package = str(Path(__file__).parent.parent)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own program
                # Neither the user's nor the site's packages: it starts sooner, and nothing there can hang it.
                [sys.executable, "-I", "-S", "-c", _PROGRAM, package],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",  # it keeps no folder from being unmounted
                start_new_session=True,  # what a terminal sends is for the process that decides
            )

    def lane(self, timeout_s: float) -> "FileLane":
        """Another way to the process, for one thread.

        Args:
            timeout_s: How long each answer may take.

        Raises:
            DecoderError: If the process has ended.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"L"], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise self.ended() from error
        ours.settimeout(timeout_s)
        return FileLane(ours, self.ended, memoryview(bytearray(OPENED.size + MOST_BYTES)))

    def ended(self) -> DecoderError:
        """What to raise where the process is gone."""
        try:
            code: int | str = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            code = "no exit code yet"
        return DecoderError(
            f"the process that reads files has ended ({code}); every finished part is kept: run the same command again"
        )

    def close(self) -> None:
        """End the process; calling it twice is harmless. One that cannot be ended now ends when its read returns."""
        self._control.close()
        self._process.kill()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.returncode = -9  # or it would be waited for when nobody knows it any more


@dataclass(frozen=True, slots=True)
class FileLane:
    """Opens and reads one file after the other.

    Each method raises OSError as the operating system does there, and TimeoutError if no answer comes in time, after
    which the lane is of no use.
    """

    socket: socket.socket
    ended: Callable[[], DecoderError]
    buffer: memoryview
    """An answer; borrowed until the next one."""

    def open(self, path: str) -> "OpenFile":
        """The file, until this lane opens another."""
        raw = os.fsencode(path)
        self._send(LENGTH.pack(len(raw)) + raw)
        received = self._received(OPENED)
        number, mode, size, modified_ns, length = OPENED.unpack_from(self.buffer)
        if number:
            raise OSError(number, os.strerror(number))
        self._receive(received, OPENED.size + length)
        first = bytes(self.buffer[OPENED.size : OPENED.size + length])
        return OpenFile(self, stat.S_ISREG(mode), size, modified_ns, first)

    def read(self, offset: int, length: int) -> memoryview:
        """Up to ``length`` bytes from ``offset`` on of the file that is open, until the lane is used again."""
        self._send(LENGTH.pack(0) + SPAN.pack(offset, min(length, MOST_BYTES)))
        received = self._received(READ)
        number, count = READ.unpack_from(self.buffer)
        if number:
            raise OSError(number, os.strerror(number))
        self._receive(received, READ.size + count)
        return self.buffer[READ.size : READ.size + count]

    def close(self) -> None:
        """Wake whoever waits here, and serve nobody any more; calling it twice is harmless."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _send(self, request: bytes) -> None:
        try:
            self.socket.sendall(request)
        except TimeoutError:
            raise
        except OSError as error:
            raise self.ended() from error

    def _received(self, head: struct.Struct) -> int:
        """How many bytes of an answer are in the buffer, its head for certain."""
        return self._receive(0, head.size)

    def _receive(self, start: int, end: int) -> int:
        """Fill the buffer from ``start`` to ``end``, and on if more is there; where that ended."""
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
    modified_ns: int
    first_bytes: bytes
    """As many as came with the opening: usually all, of a file of at most 256 KiB."""

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
