"""The program that reads files by groups into shared memory, and their headers; it reads single files as well.

It is a `batchcls.storage.file_server` with one more kind of lane: one that comes with a `GroupBuffer`. A request on
such a lane is the length of the paths, the length of the places (uint32), the largest size of a file in bytes, the
largest number of pixels (uint64), the paths, joined by NUL, and the places. The answer is one byte, which says that the
buffer holds the group. Here a file is either sound or left to be read alone; why it is refused is decided there.

There are no places, unless the slides are in tar files. Then a path is that of the tar file and the name in it, and the
place is the length of the name (uint32), and offset and size of the data (uint64).
"""

import mmap
import os
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter, thread_time

import numpy as np
import numpy.typing as npt

from batchcls.images.formats import memory_costs
from batchcls.images.formats.inspection import Header, examine
from batchcls.images.formats.signatures import is_whole_slide_name
from batchcls.images.formats.usual_jpegs import usual_jpegs
from batchcls.images.servers.group_buffer import (
    ALONE,
    BUFFER_BYTES,
    FORMATS,
    GROUP_BYTES,
    READY,
    GroupBuffer,
)
from batchcls.images.servers.tar_members import read_members
from batchcls.storage.confined_files import open_confined
from batchcls.storage.file_server import FILE_FLAGS, UNKNOWN_TIME, run_server, serve_file_lane, serve_lanes

GROUP_REQUEST = struct.Struct("<IIQQ")
PLACE = struct.Struct("<IQQ")
Places = list[tuple[int, int, int]]
"""Places of members of archives, each packed by ``PLACE``; empty for files."""
ReadGroup = Callable[[GroupBuffer, list[bytes], Places, int], tuple[float, float]]


def main() -> None:
    """Serve the lanes that are sent through standard input, a socket, until it is closed; then end the process."""
    run_server(serve)


def serve(control: socket.socket) -> int:
    """Serve the lanes that are sent through ``control``, see `batchcls.storage.file_server.serve_lanes`."""
    return serve_lanes(control, _serve)


def _serve(lane: socket.socket, memory: int | None = None) -> None:
    if memory is None:
        serve_file_lane(lane)
    else:
        serve_groups(lane, memory, _read_group)


def serve_groups(lane: socket.socket, memory: int, read_group: ReadGroup) -> None:
    """Read and examine the groups that are requested through a lane, until its other end is closed.

    Args:
        lane: The lane's socket.
        memory: Descriptor of the shared memory of a `GroupBuffer`.
        read_group: Reads the files of some paths, or some places in them, up to a size in bytes, and writes their
            states; returns the CPU time and the wall time that count for the group, without those of examining it.
    """
    buffer = GroupBuffer(mmap.mmap(memory, BUFFER_BYTES))
    os.close(memory)
    with lane, suppress(OSError):
        while head := lane.recv(GROUP_REQUEST.size, socket.MSG_WAITALL):
            length, places_length, most_bytes, max_pixels = GROUP_REQUEST.unpack(head)
            paths = lane.recv(length, socket.MSG_WAITALL).split(b"\0")
            places = list(PLACE.iter_unpack(lane.recv(places_length, socket.MSG_WAITALL) if places_length else b""))
            cpu_s = wall_s = 0.0
            since, cpu_since = perf_counter(), thread_time()
            try:
                cpu_s, wall_s = read_group(buffer, paths, places, most_bytes)
                since, cpu_since = perf_counter(), thread_time()
                examine_files(buffer, paths, max_pixels)
            except MemoryError:  # a file that is read alone is postponed, if memory is still short then
                buffer.records["state"] = ALONE
            buffer.times_s[0] = cpu_s + thread_time() - cpu_since
            buffer.times_s[1] = wall_s + perf_counter() - since
            lane.send(b"\0")


def _read_group(buffer: GroupBuffer, paths: list[bytes], places: Places, most_bytes: int) -> tuple[float, float]:
    since, cpu_since = perf_counter(), thread_time()
    if places:
        read_members(buffer, paths, places, most_bytes)
    else:
        read_files(buffer, paths, most_bytes)
    return thread_time() - cpu_since, perf_counter() - since


def read_files(buffer: GroupBuffer, paths: list[bytes], most_bytes: int) -> None:
    """Read files one behind the other, and write their states, places and times; the states are not final yet."""
    offset = 0
    records: list[tuple[int, int, int, int]] = []
    progress = buffer.progress
    for number, path in enumerate(paths):
        progress[0] = number
        if number >= progress[1]:
            break
        state, length, modified_ns = ALONE, 0, 0
        with suppress(OSError):  # the error that counts is that of reading the file alone
            file = open_confined(path, FILE_FLAGS)
            try:
                status = os.fstat(file)
                size = status.st_size
                if stat.S_ISREG(status.st_mode) and 0 < size <= most_bytes:
                    if offset + size > GROUP_BYTES:
                        break
                    count = os.readv(file, (buffer.data[offset : offset + size],))
                    if count == size and abs(status.st_mtime_ns) < -UNKNOWN_TIME:
                        state, length, modified_ns = READY, size, status.st_mtime_ns
            finally:
                os.close(file)
        records.append((state, offset, length, modified_ns))
        offset += length
    buffer.write_places(records, len(paths))


def examine_files(buffer: GroupBuffer, paths: list[bytes], max_pixels: int) -> None:
    """Write the headers of the files that have been read; a file whose header is refused is left to be read alone."""
    numbers = np.flatnonzero(buffer.records["state"][: len(paths)] == READY)
    if not len(numbers):
        return
    numbers = numbers[np.argsort(buffer.records["offset"][numbers])]  # in the order of their bytes
    records = buffer.records[numbers]
    starts = records["offset"].astype(np.int64)
    headers = usual_jpegs(np.frombuffer(buffer.data, np.uint8), starts, starts + records["length"])
    usual = headers.usual & (headers.widths * headers.heights <= max_pixels)
    usual &= ~np.fromiter(
        (is_whole_slide_name(os.fsdecode(paths[number])) for number in numbers), np.bool_, len(numbers)
    )
    records["format"], records["suspect"], records["plain_jpeg"] = FORMATS.index("JPEG"), False, True
    records["width"], records["height"] = headers.widths, headers.heights
    records["decode_bytes"] = _usual_costs(headers.widths, headers.heights, headers.components)
    buffer.records[numbers] = records
    for number in numbers[~usual].tolist():
        _examine_alone(buffer, number, os.fsdecode(paths[number]), max_pixels)


def _usual_costs(
    widths: npt.NDArray[np.int64], heights: npt.NDArray[np.int64], components: npt.NDArray[np.int64]
) -> list[int]:
    """Bytes that decoding takes, of each JPEG of one scan."""
    sizes = list(zip(widths.tolist(), heights.tolist(), components.tolist(), strict=True))
    costs = {size: memory_costs.of_jpeg(*size, 0.0) for size in set(sizes)}
    return [costs[size] for size in sizes]


def _examine_alone(buffer: GroupBuffer, number: int, path: str, max_pixels: int) -> None:
    record = buffer.records[number : number + 1]
    offset, length = int(record["offset"][0]), int(record["length"][0])
    try:
        _write_header(record, examine(path, bytes(buffer.data[offset : offset + length]), max_pixels))
    except Exception:  # noqa: BLE001  # whatever it is, it comes again where the file is read alone
        record["state"] = ALONE


def _write_header(record: npt.NDArray[np.void], header: Header) -> None:
    record["format"] = FORMATS.index(header.format)
    record["suspect"], record["plain_jpeg"] = header.suspect, header.plain_jpeg
    record["width"], record["height"] = header.width, header.height
    record["decode_bytes"] = header.decode_bytes


if __name__ == "__main__":
    main()
