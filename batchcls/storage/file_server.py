"""The program that lists, opens and reads files in a process of its own, where a read that never ends harms nobody.

A thread that waits for a dead network disk cannot be ended, nor can its process. So the run holds one end of a socket,
and a process that hangs at the other end can be left behind. This process imports nothing but Python's own library, to
start in some 20 ms.

Each socket (a lane) is served by a thread. A request is one byte, the length (uint32) of what follows, and that; an
answer is two parts, of which the second is bytes, preceded by their number (uint32). Numbers are little-endian.

    O path             opens a file; answers errno (int32), mode (uint32), size, mtime in ns (int64); its first bytes
    R offset, length   (uint64, uint32) reads the open file; answers errno; bytes
    S path             answers errno, mode, inode, device (uint64); nothing
    L path             opens a folder to list; answers errno; nothing
    N                  answers errno; what is next in the folder, none at its end: for each entry `/` if it is a folder,
                       `@` if a link to one, else `-`; its name; and NUL

Of what is no regular file, nothing is read.
"""

import errno
import mmap
import os
import signal
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from batchcls.storage import long_paths

FIRST_BYTES = 256 << 10
"""Bytes handed over with the answer to an opening: all of most files."""
MOST_BYTES = 1 << 20
"""Largest size of the second part of an answer."""
REQUEST = struct.Struct("<cI")
OPENED = struct.Struct("<iIqqI")
DATA = struct.Struct("<iI")
STATUS = struct.Struct("<iIQQI")
SPAN = struct.Struct("<QI")
UNKNOWN_TIME = -(1 << 63)
"""Stands for a time that 64 bits do not hold in nanoseconds, such as any after the year 2262."""
_ENTRIES = 2048
"""Number of a folder's entries in one answer; a name has 255 bytes at most."""
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_STACK_BYTES = 256 << 10
_REQUEST_BYTES = 8192


def main() -> None:
    """Serve the lanes that come through the socket that is standard input, until that is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever started this process decides when it ends
    threading.stack_size(_STACK_BYTES)
    os._exit(serve_lanes(socket.socket(fileno=os.dup(sys.stdin.fileno()))))


def serve_lanes(control: socket.socket) -> int:
    """Serve the lanes that come through ``control``, each by a thread, until that is closed; EMFILE if one got lost."""
    with control:
        while (received := socket.recv_fds(control, 1, 1))[0]:
            if not received[1]:  # this process may not open as many
                return errno.EMFILE
            lane = socket.socket(fileno=received[1][0])
            threading.Thread(target=_serve, args=(lane,), name="file server", daemon=True).start()
    return 0


def _serve(lane: socket.socket) -> None:
    served = _Served()
    with lane, suppress(OSError):
        while request := lane.recv(_REQUEST_BYTES):
            operation, length = REQUEST.unpack_from(request)
            while missing := REQUEST.size + length - len(request):  # an extraordinarily long path
                if not (more := lane.recv(missing)):  # whoever asked has gone
                    return
                request += more
            answer = served.answer(operation, request[REQUEST.size :])
            sent = lane.sendmsg(answer)
            for part in answer:
                if sent < len(part):
                    lane.sendall(memoryview(part)[sent:])
                sent = max(0, sent - len(part))


class _Served:
    """A lane's open file, and the folder that it lists."""

    def __init__(self) -> None:
        self._file = -1
        self._buffer = memoryview(mmap.mmap(-1, MOST_BYTES))  # only what is used of it takes memory
        self._entries: Iterator[os.DirEntry[str]] = iter(())

    def answer(self, operation: bytes, operand: bytes) -> tuple[bytes, bytes | memoryview]:
        """The two parts of an answer; the second holds until the next answer."""
        head, call = _OPERATIONS[operation]
        try:
            *values, data = call(self, operand)
        except OSError as error:
            return struct.pack("<i", error.errno or errno.EIO).ljust(head.size, b"\0"), b""
        return head.pack(0, *values, len(data)), data

    def open(self, path: bytes) -> tuple[int, int, int, memoryview]:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._file = long_paths.open_file(os.fsdecode(path), _FLAGS)
        status = os.fstat(self._file)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        count = os.readv(self._file, [self._buffer[:FIRST_BYTES]]) if stat.S_ISREG(status.st_mode) else 0
        modified_ns = status.st_mtime_ns if abs(status.st_mtime_ns) < -UNKNOWN_TIME else UNKNOWN_TIME
        return status.st_mode, status.st_size, modified_ns, self._buffer[:count]

    def read(self, span: bytes) -> tuple[memoryview]:
        offset, length = SPAN.unpack(span)
        return (self._buffer[: os.preadv(self._file, [self._buffer[:length]], offset)],)

    def status(self, path: bytes) -> tuple[int, int, int, bytes]:
        status = long_paths.status(os.fsdecode(path))
        return status.st_mode, status.st_ino, status.st_dev, b""

    def list(self, path: bytes) -> tuple[bytes]:
        self._entries = _listed(path)
        next(self._entries)  # opens the folder
        return (b"",)

    def next(self, nothing: bytes) -> tuple[bytes]:
        return (b"".join(map(_entry, islice(self._entries, _ENTRIES))),)


_OPERATIONS: dict[bytes, tuple[struct.Struct, Callable[[_Served, bytes], tuple[Any, ...]]]] = {
    b"O": (OPENED, _Served.open),
    b"R": (DATA, _Served.read),
    b"S": (STATUS, _Served.status),
    b"L": (DATA, _Served.list),
    b"N": (DATA, _Served.next),
}


def _listed(path: bytes) -> Iterator[Any]:
    """None once the folder is open, and then its entries."""
    with long_paths.listed(os.fsdecode(path)) as entries:
        yield None
        yield from entries


def _entry(entry: os.DirEntry[str]) -> bytes:
    kind = b"-"
    if entry.is_dir(follow_symlinks=False):
        kind = b"/"
    elif entry.is_symlink():
        with suppress(OSError):  # a loop, say; its row says so if it is called like an image
            kind = b"@" if entry.is_dir() else kind
    return kind + os.fsencode(entry.name) + b"\0"


if __name__ == "__main__":
    main()
