"""The program that opens and reads slides, in a process of its own: a read that never returns holds up nobody else.

A thread that waits for a dead file server cannot be ended, and with it the whole process that it is part of. So those
who read ahead hold one end of a socket, and whatever hangs at its other end can be left behind. Python's own library is
all that this process imports: it starts in some 20 ms.

Each socket (a lane) is served by a thread. Numbers are little-endian; a request has a length (uint32) and a path, or,
if that length is 0, an offset (uint64) and a length (uint32):

    path             opens a file; answer: errno (int32), mode (uint32), size, mtime in ns (int64), and its first bytes
    offset, length   reads of the open file; answer: errno (int32), and bytes

Bytes are preceded by their number (uint32). Of what is no regular file, nothing is read.
"""

import errno
import os
import signal
import socket
import stat
import struct
import sys
import threading
from contextlib import suppress

FIRST_BYTES = 256 << 10
"""Handed over with the answer to an opening: most files whole."""
MOST_BYTES = 1 << 20
"""Of one read."""
OPENED = struct.Struct("<iIqqI")
READ = struct.Struct("<iI")
LENGTH = struct.Struct("<I")
SPAN = struct.Struct("<QI")
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_STACK_BYTES = 256 << 10
_REQUEST_BYTES = 8192


def main() -> None:
    """Serve the lanes that come through the socket that is standard input, until that is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever started this process decides when it ends
    threading.stack_size(_STACK_BYTES)
    control = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            os._exit(0)
        lane = socket.socket(fileno=descriptors[0])
        _give_up_rights(lane)
        threading.Thread(target=_serve, args=(lane,), daemon=True).start()


def _give_up_rights(lane: socket.socket) -> None:
    """Read as the user whom the other end's process has become since it started this one."""
    _, user, group = struct.unpack("3i", lane.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if user != os.geteuid():
        os.setgid(group)
        os.setuid(user)


def _serve(lane: socket.socket) -> None:
    descriptor = -1
    with lane, suppress(OSError):
        while request := lane.recv(_REQUEST_BYTES):
            (length,) = LENGTH.unpack_from(request)
            end = LENGTH.size + (length or SPAN.size)
            while len(request) < end:  # an extraordinarily long path
                request += lane.recv(end - len(request))
            if length:
                if descriptor >= 0:
                    os.close(descriptor)
                descriptor, *answer = _opened(request[LENGTH.size :])
            else:
                answer = _read(descriptor, *SPAN.unpack_from(request, LENGTH.size))
            sent = lane.sendmsg(answer)
            for part in answer:
                if sent < len(part):
                    lane.sendall(memoryview(part)[sent:])
                sent = max(0, sent - len(part))


def _opened(path: bytes) -> tuple[int, bytes, bytes]:
    """A descriptor, or -1; and the two parts of the answer."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        return -1, OPENED.pack(error.errno or 0, 0, 0, 0, 0), b""
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        first = os.read(descriptor, FIRST_BYTES) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        os.close(descriptor)
        return -1, OPENED.pack(error.errno or 0, 0, 0, 0, 0), b""
    return descriptor, OPENED.pack(0, status.st_mode, status.st_size, status.st_mtime_ns, len(first)), first


def _read(descriptor: int, offset: int, length: int) -> list[bytes]:
    try:
        data = os.pread(descriptor, min(length, MOST_BYTES), offset)
    except OSError as error:
        return [READ.pack(error.errno or 0, 0), b""]
    return [READ.pack(0, len(data)), data]


if __name__ == "__main__":
    main()
