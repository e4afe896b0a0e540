"""Reading of members of tar files into a group's buffer: those that lie close together in one go."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from batchcls.images.servers.group_buffer import ALONE, GROUP_BYTES, READY, GroupBuffer
from batchcls.storage.file_server import FILE_FLAGS
from batchcls.storage.tar_headers import BLOCK_BYTES, is_header_of, stored_size

_LARGEST_GAP_BYTES = 64 << 10
"""Largest distance of two members that are read in one go, with what is between them."""
UNKNOWN_SIZE = (1 << 64) - 1
"""Size of a member of which only the offset is known."""
Place = tuple[int, int, int]
"""Length of a member's name, and offset and size of its data."""


Read = Callable[[bytes, memoryview, int], int]
"""Reads a tar file from an offset on into memory; returns the number of bytes, fewer only where the file ends."""


def read_members(
    buffer: GroupBuffer, paths: Sequence[bytes], places: Sequence[Place], most_bytes: int, read: Read | None = None
) -> None:
    """Read members of tar files, and write their states and places; the states are not final yet.

    Args:
        paths: The path of each member: that of the tar file, and the name in it.
        places: The place of each member; size 0 where nothing is known, or nothing is there to read.
        most_bytes: Largest size of a member.
        read: Reads the tar files; None: they are files.
    """
    read = read or _read
    if any(size == UNKNOWN_SIZE for _, _, size in places):
        places = [_with_size(path, place, read) for path, place in zip(paths, places, strict=True)]
    offset = number = 0
    records: list[tuple[int, int, int, int]] = []
    while number < len(paths):
        buffer.progress[0] = number
        if number >= buffer.progress[1]:
            break
        _, begin, size = places[number]
        if not 0 < size <= most_bytes or begin < BLOCK_BYTES:
            records.append((ALONE, 0, 0, 0))
            number += 1
            continue
        run = _run(paths[number:], places[number:], most_bytes, GROUP_BYTES - offset)
        if not run:
            break
        start = begin - BLOCK_BYTES
        length = places[number + run - 1][1] + places[number + run - 1][2] - start
        count = 0
        with suppress(OSError):  # the error that counts is that of reading a member alone
            count = read(_tar(paths[number], places[number]), buffer.data[offset : offset + length], start)
        for path, (name_length, begin, size) in zip(paths[number : number + run], places[number:], strict=False):
            at = offset + begin - start
            header = bytes(buffer.data[at - BLOCK_BYTES : at])
            whole = begin - start + size <= count and is_header_of(header, path[len(path) - name_length :], size)
            records.append((READY, at, size, 0) if whole else (ALONE, 0, 0, 0))
        offset += length
        number += run
    buffer.write_places(records, len(paths))


def _tar(path: bytes, place: Place) -> bytes:
    """The tar file's path in the path of a member."""
    return path[: len(path) - place[0] - 1]


def _run(paths: Sequence[bytes], places: Sequence[Place], most_bytes: int, room: int) -> int:
    """Number of members, from the first one on, that are read in one go and fit into ``room`` bytes."""
    tar = _tar(paths[0], places[0])
    start = places[0][1] - BLOCK_BYTES
    run, end = 0, start
    for path, place in zip(paths, places, strict=True):
        _, begin, size = place
        near = end <= begin - BLOCK_BYTES <= end + _LARGEST_GAP_BYTES
        if not near or not 0 < size <= most_bytes or begin + size - start > room or _tar(path, place) != tar:
            break
        end = begin + size
        run += 1
    return run


def _with_size(path: bytes, place: Place, read: Read) -> Place:
    """A place with the size that the member's header states; 0 if there is no header."""
    name_length, begin, size = place
    if size == UNKNOWN_SIZE:
        size = 0
        header = memoryview(bytearray(BLOCK_BYTES))
        with suppress(OSError, ValueError):
            if read(_tar(path, place), header, begin - BLOCK_BYTES) == BLOCK_BYTES:
                size = max(0, stored_size(bytes(header)))
    return name_length, begin, size


def _read(tar: bytes, data: memoryview, start: int) -> int:
    """Read a tar file from an offset on; returns the number of bytes read, fewer than asked for at the file's end."""
    file = os.open(tar, FILE_FLAGS)
    try:
        return os.preadv(file, (data,), start)
    finally:
        os.close(file)
