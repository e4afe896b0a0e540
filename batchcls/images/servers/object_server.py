"""The program that lists and reads objects of stores and web servers, in a process of its own.

obstore has threads of its own, which do not survive a fork, and a request to a network may take for ever. This is a
`batchcls.storage.file_server` for URLs instead of paths, and a `batchcls.images.servers.group_server` for groups; it
touches no file. On top of ``O`` and ``R``, a lane has the requests

    K URLs, joined by NUL   data: for each URL 1 if it names one object, or else 0
    L URL, and URLs that are excluded from it, joined by NUL   opens a listing; no data
    N                       lists the next objects; data: see `object_listing`; no data once all are listed

and ``A`` and ``M``, as a `batchcls.storage.file_server` has them, list a tar file. The slides of a group may be members
of tar files, with places like those of a `batchcls.images.servers.group_server`.
"""

import errno
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from batchcls.errors import SlidesError
from batchcls.images.servers.group_buffer import GroupBuffer
from batchcls.images.servers.group_server import Places, serve_groups
from batchcls.images.servers.object_groups import ObjectGroups
from batchcls.images.servers.object_listing import are_objects, listed_parts
from batchcls.images.servers.object_reads import RemoteObject
from batchcls.images.servers.remote_tars import read_remote_members, remote_members
from batchcls.storage.file_server import (
    DATA_ANSWER,
    LIST_TAR,
    NEXT_MEMBERS,
    OPEN_ANSWER,
    SPAN,
    UNKNOWN_TIME,
    Answer,
    error_answer,
    run_server,
    serve_lanes,
    serve_requests,
)
from batchcls.storage.tar_listing import TarListing

_STACK_BYTES = 2 << 20
"""Stack of a thread, on which obstore waits for its answers."""


def main() -> None:
    """Serve the lanes that are sent through standard input, a socket, until it is closed; then end the process."""
    run_server(serve)


def serve(control: socket.socket) -> int:
    """Serve the lanes that are sent through ``control``, see `batchcls.storage.file_server.serve_lanes`."""
    threading.stack_size(_STACK_BYTES)
    groups = ObjectGroups()

    def serve_lane(lane: socket.socket, memory: int | None = None) -> None:
        if memory is None:
            serve_requests(lane, _ObjectLane().answer)
        else:
            serve_groups(lane, memory, read)

    def read(buffer: GroupBuffer, paths: list[bytes], places: Places, most_bytes: int) -> tuple[float, float]:
        if places[0][0]:  # a member of a tar file has a name
            return read_remote_members(buffer, paths, places, most_bytes)
        return groups.read(buffer, paths, places, most_bytes)

    return serve_lanes(control, serve_lane)


class _ObjectLane:
    """Carries out the requests of one lane, which has at most one open object and one listing."""

    def __init__(self) -> None:
        self._object: RemoteObject | None = None
        self._parts: Iterator[bytes] = iter(())
        self._tar = TarListing(iter(()))

    def answer(self, operation: bytes, operand: bytes) -> Answer:
        """The answer to a request."""
        head, call = _OPERATIONS[operation]
        try:
            *values, data = call(self, operand)
        except OSError as error:
            return error_answer(head, error, error.strerror or "")
        except SlidesError as error:
            return error_answer(head, OSError(errno.EREMOTEIO, ""), str(error))
        return head.pack(0, *values, len(data)), data

    def open(self, url: bytes) -> tuple[int, int, int, bytes]:
        self._object = None
        opened = self._object = RemoteObject(os.fsdecode(url))
        return stat.S_IFREG, opened.size_bytes, opened.modified_ns or UNKNOWN_TIME, opened.first_bytes

    def read(self, span: bytes) -> tuple[bytes]:
        return (self._object.read(*SPAN.unpack(span)) if self._object else b"",)

    def kinds(self, urls: bytes) -> tuple[bytes]:
        return (are_objects(os.fsdecode(urls).split("\0")),)

    def list(self, urls: bytes) -> tuple[bytes]:
        url, *excluded = os.fsdecode(urls).split("\0")
        self._parts = listed_parts(url, excluded)
        return (b"",)

    def next(self, nothing: bytes) -> tuple[bytes]:
        return (next(self._parts, b""),)

    def list_tar(self, url: bytes) -> tuple[bytes]:
        self._tar = TarListing(remote_members(os.fsdecode(url)))
        return (b"",)

    def next_members(self, nothing: bytes) -> tuple[bytes]:
        return (self._tar.next(),)


_OPERATIONS: dict[bytes, tuple[struct.Struct, Callable[..., tuple[Any, ...]]]] = {
    b"O": (OPEN_ANSWER, _ObjectLane.open),
    b"R": (DATA_ANSWER, _ObjectLane.read),
    b"K": (DATA_ANSWER, _ObjectLane.kinds),
    b"L": (DATA_ANSWER, _ObjectLane.list),
    b"N": (DATA_ANSWER, _ObjectLane.next),
    LIST_TAR: (DATA_ANSWER, _ObjectLane.list_tar),
    NEXT_MEMBERS: (DATA_ANSWER, _ObjectLane.next_members),
}


if __name__ == "__main__":
    main()
