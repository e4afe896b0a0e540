"""The program that lists, opens and reads files in a process of its own, where a read that never ends harms nobody.

A thread that waits for a dead network disk cannot be ended, nor can its process. So files are read by another process,
at the other end of a socket, which can be left behind if it hangs. It imports nothing but Python's own library, to
start in some 20 ms.

Each socket (a lane) is served by a thread. A request is the byte of an operation, the length (uint32) of its operand,
and the operand. An answer is a head, which begins with errno (int32, 0: no error) and ends with the length (uint32) of
the data, and the data: of an error its reason, or nothing. Numbers are little-endian. In between, a head has the values
in brackets:

    O path             opens a file [mode (uint32), size, mtime in ns (int64)]; data: its first bytes
    R offset, length   (uint64, uint32) reads the open file []; data: the bytes
    S path             queries a file's status [mode (uint32), inode, device (uint64)]; no data
    T paths            queries sizes and times of files, whose paths NUL separates; each has an answer of its own, sent
                       as soon as it is known [size, mtime in ns (int64)]; no data
    L path             opens a folder to list []; no data
    N                  lists the next entries of the folder []; data: for each entry `/` if it is a folder, `@` if it is
                       a link to a folder, else `-`; then its name and NUL; no data once all entries are listed
    A path             opens a tar file to list []; no data
    M                  lists its next members []; data: their `batchcls.storage.tar_listing`, empty once all are listed

No byte is read of anything but regular files.
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
from batchcls.storage.confined_files import open_confined
from batchcls.storage.tar_listing import TarListing, members_of_file

LARGEST_FIRST_BYTES = 256 << 10
"""Largest number of a file's first bytes in the answer to ``O``; most files are smaller."""
LARGEST_DATA_BYTES = 1 << 20
"""Largest size of the data of an answer."""
LIST_TAR, NEXT_MEMBERS = b"A", b"M"
"""Requests to begin to list a tar file, and for its next members."""
REQUEST = struct.Struct("<cI")
OPEN_ANSWER = struct.Struct("<iIqqI")
DATA_ANSWER = struct.Struct("<iI")
STATUS_ANSWER = struct.Struct("<iIQQI")
TIMES_ANSWER = struct.Struct("<iqqI")
SPAN = struct.Struct("<QI")
_LENGTH = struct.Struct("<I")
UNKNOWN_TIME = -(1 << 63)
"""Placeholder for a time that 64 bits do not hold in nanoseconds, such as any after the year 2262."""
_ENTRIES = 2048
"""Number of a folder's entries in one answer; a name has 255 bytes at most."""
FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_STACK_BYTES = 256 << 10
_REQUEST_BYTES = 8192
Answer = tuple[bytes, bytes | memoryview]
"""The head and the data of an answer."""
_MOST_FILES = 2
"""Most descriptors that are sent with a lane, its socket included; the byte that they are sent with is their number."""


def main() -> None:
    """Serve the lanes that are sent through standard input, a socket, until it is closed; then end the process."""
    run_server(serve)


def run_server(serve_control: Callable[[socket.socket], int]) -> None:
    """Run a server whose control socket is standard input, as `batchcls.storage.file_client` starts it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever started this process decides when it ends
    threading.stack_size(_STACK_BYTES)
    os._exit(serve_control(socket.socket(fileno=os.dup(sys.stdin.fileno()))))


def serve(control: socket.socket) -> int:
    """Serve the lanes that are sent through ``control``, see `serve_lanes`."""
    return serve_lanes(control, serve_file_lane)


def serve_lanes(control: socket.socket, serve_lane: Callable[..., None]) -> int:
    """Serve the lanes that are sent through ``control``, each in a thread, until ``control`` is closed.

    Args:
        serve_lane: Serves one lane; takes the lane's socket, and the number of each further file sent with it.

    Returns:
        0, or EMFILE if this process may not open as many files, so that a lane was lost.
    """
    with control:
        while (received := socket.recv_fds(control, 1, _MOST_FILES))[0]:
            sent = received[0][0]
            if len(received[1]) < sent:  # this process may not open as many
                return errno.EMFILE
            lane = socket.socket(fileno=received[1][0])
            threading.Thread(target=serve_lane, args=(lane, *received[1][1:]), name="file server", daemon=True).start()
    return 0


def serve_file_lane(lane: socket.socket) -> None:
    """Answer the requests of one lane for files, until its other end is closed."""
    serve_requests(lane, _LaneServer().answer)


def serve_requests(lane: socket.socket, answer_request: Callable[[bytes, bytes], Answer]) -> None:
    """Answer the requests of one lane, until its other end is closed.

    Args:
        answer_request: Takes an operation and its operand.
    """
    with lane, suppress(OSError):
        while request := lane.recv(_REQUEST_BYTES):
            operation, length = REQUEST.unpack_from(request)
            while missing := REQUEST.size + length - len(request):  # an extraordinarily long path
                if not (more := lane.recv(missing)):  # the client has closed its end
                    return
                request += more
            for operand in request[REQUEST.size :].split(b"\0") if operation == b"T" else (request[REQUEST.size :],):
                _send(lane, answer_request(operation, operand))


def _send(lane: socket.socket, answer: Answer) -> None:
    sent = lane.sendmsg(answer)
    for part in answer:
        if sent < len(part):
            lane.sendall(memoryview(part)[sent:])
        sent = max(0, sent - len(part))


def error_answer(head: struct.Struct, error: OSError, reason: str = "") -> Answer:
    """The answer to a request that has failed; its data is a reason, if the number of the error does not say enough."""
    data = os.fsencode(reason)
    number = struct.pack("<i", error.errno or errno.EIO).ljust(head.size - _LENGTH.size, b"\0")
    return number + _LENGTH.pack(len(data)), data


class _LaneServer:
    """Carries out the requests of one lane, which has at most one open file and one folder being listed."""

    def __init__(self) -> None:
        self._file = -1
        self._buffer = memoryview(mmap.mmap(-1, LARGEST_DATA_BYTES))  # only the pages in use take memory
        self._entries: Iterator[os.DirEntry[str]] = iter(())
        self._tar: TarListing | None = None

    def answer(self, operation: bytes, operand: bytes) -> Answer:
        """The answer to a request; its data is valid until the next answer."""
        head, call = _OPERATIONS[operation]
        try:
            *values, data = call(self, operand)
        except OSError as error:
            return error_answer(head, error)
        return head.pack(0, *values, len(data)), data

    def open(self, path: bytes) -> tuple[int, int, int, memoryview]:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._file = open_confined(path, FILE_FLAGS)
        status = os.fstat(self._file)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        count = os.readv(self._file, [self._buffer[:LARGEST_FIRST_BYTES]]) if stat.S_ISREG(status.st_mode) else 0
        return status.st_mode, status.st_size, _modified_ns(status), self._buffer[:count]

    def read(self, span: bytes) -> tuple[memoryview]:
        offset, length = SPAN.unpack(span)
        return (self._buffer[: os.preadv(self._file, [self._buffer[:length]], offset)],)

    def status(self, path: bytes) -> tuple[int, int, int, bytes]:
        status = long_paths.status(os.fsdecode(path))
        return status.st_mode, status.st_ino, status.st_dev, b""

    def times(self, path: bytes) -> tuple[int, int, bytes]:
        status = long_paths.status(os.fsdecode(path))
        return status.st_size, _modified_ns(status), b""

    def list(self, path: bytes) -> tuple[bytes]:
        self._entries = _open_then_entries(path)
        next(self._entries)  # opens the folder
        return (b"",)

    def next(self, nothing: bytes) -> tuple[bytes]:
        return (b"".join(map(_entry_bytes, islice(self._entries, _ENTRIES))),)

    def list_tar(self, path: bytes) -> tuple[bytes]:
        file = long_paths.open_file(os.fsdecode(path), FILE_FLAGS)
        self._tar = TarListing(members_of_file(file))
        return (b"",)

    def next_members(self, nothing: bytes) -> tuple[bytes]:
        return (self._tar.next() if self._tar else b"",)


_OPERATIONS: dict[bytes, tuple[struct.Struct, Callable[[_LaneServer, bytes], tuple[Any, ...]]]] = {
    b"O": (OPEN_ANSWER, _LaneServer.open),
    b"R": (DATA_ANSWER, _LaneServer.read),
    b"S": (STATUS_ANSWER, _LaneServer.status),
    b"T": (TIMES_ANSWER, _LaneServer.times),
    b"L": (DATA_ANSWER, _LaneServer.list),
    b"N": (DATA_ANSWER, _LaneServer.next),
    LIST_TAR: (DATA_ANSWER, _LaneServer.list_tar),
    NEXT_MEMBERS: (DATA_ANSWER, _LaneServer.next_members),
}


def _modified_ns(status: os.stat_result) -> int:
    return status.st_mtime_ns if abs(status.st_mtime_ns) < -UNKNOWN_TIME else UNKNOWN_TIME


def _open_then_entries(path: bytes) -> Iterator[Any]:
    """None when the folder has been opened, then its entries."""
    with long_paths.scanned_folder(os.fsdecode(path)) as entries:
        yield None
        yield from entries


def _entry_bytes(entry: os.DirEntry[str]) -> bytes:
    kind = b"-"
    if entry.is_dir(follow_symlinks=False):
        kind = b"/"
    elif entry.is_symlink():
        with suppress(OSError):  # such as a loop of links; if it has an image's ending, its row tells the error
            kind = b"@" if entry.is_dir() else kind
    return kind + os.fsencode(entry.name) + b"\0"


if __name__ == "__main__":
    main()
