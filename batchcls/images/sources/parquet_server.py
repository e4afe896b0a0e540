"""The program that reads images out of Parquet files, by groups into shared memory, or one at a time.

It is a `batchcls.images.servers.group_server` whose files are rows. In a group, a path is that of the Parquet file and
the slide's name in it, and the place is the length of the name, the number of the row, and the time of the file's last
change in microseconds, if the slides were listed then. On a lane for single files the operand of ``O`` is the path of
the Parquet file, NUL, and the number of the row in decimal digits.
"""

import errno
import os
import socket
import stat
from contextlib import suppress
from functools import partial
from time import perf_counter, thread_time

from batchcls.images.formats.refusal import RefusedError
from batchcls.images.servers.group_buffer import ALONE, GROUP_BYTES, READY, GroupBuffer
from batchcls.images.servers.group_server import Places, serve_groups
from batchcls.images.sources.parquet_rows import ParquetFiles, present
from batchcls.records import FailureKind
from batchcls.storage.file_server import (
    DATA_ANSWER,
    LARGEST_DATA_BYTES,
    LARGEST_FIRST_BYTES,
    OPEN_ANSWER,
    SPAN,
    Answer,
    error_answer,
    run_server,
    serve_lanes,
    serve_requests,
)

REFUSALS: dict[FailureKind, int] = {
    "missing": errno.ENODATA,
    "corrupt": errno.EBADMSG,
    "too large": errno.EFBIG,
    "unsupported": errno.EOPNOTSUPP,
    "unreadable": errno.ELIBBAD,
}
"""Error numbers that stand for kinds of failures."""


def main() -> None:
    """Serve the lanes that are sent through standard input, a socket, until it is closed; then end the process."""
    run_server(serve)


def serve(control: socket.socket) -> int:
    """Serve the lanes that are sent through ``control``, see `batchcls.storage.file_server.serve_lanes`."""
    return serve_lanes(control, partial(_serve, ParquetFiles()))


def _serve(files: ParquetFiles, lane: socket.socket, memory: int | None = None) -> None:
    if memory is None:
        serve_requests(lane, _RowLaneServer(files).answer)
    else:
        serve_groups(lane, memory, partial(read_rows, files))


def read_rows(
    files: ParquetFiles, buffer: GroupBuffer, paths: list[bytes], places: Places, most_bytes: int
) -> tuple[float, float]:
    """Read rows into a group's buffer, and write their states and places, see `serve_groups`."""
    since, cpu_since = perf_counter(), thread_time()
    offset = 0
    records: list[tuple[int, int, int, int]] = []
    for number, (path, (name_length, row, listed_us)) in enumerate(zip(paths, places, strict=True)):
        buffer.progress[0] = number
        if number >= buffer.progress[1]:
            break
        state, length, modified_ns = ALONE, 0, 0
        with suppress(OSError, RefusedError, IndexError):  # the reason is that of reading the row alone
            file = files.open(os.fsdecode(path[: len(path) - name_length - 1]))
            value = file.value(row)
            if value and len(value) <= most_bytes and listed_us in (0, max(0, file.modified_ns // 1000)):
                if offset + len(value) > GROUP_BYTES:
                    break
                buffer.data[offset : offset + len(value)] = value
                state, length, modified_ns = READY, len(value), file.modified_ns
        records.append((state, offset, length, modified_ns))
        offset += length
    buffer.write_places(records, len(paths))
    return thread_time() - cpu_since, perf_counter() - since


class _RowLaneServer:
    """Carries out the requests of one lane, which has at most one open row."""

    def __init__(self, files: ParquetFiles) -> None:
        self._files = files
        self._value = memoryview(b"")

    def answer(self, operation: bytes, operand: bytes) -> Answer:
        """The answer to a request; its data is valid until the next answer."""
        if operation == b"R":
            offset, length = SPAN.unpack(operand)
            data = self._value[offset : offset + min(length, LARGEST_DATA_BYTES)]
            return DATA_ANSWER.pack(0, len(data)), data
        path, _, row = operand.rpartition(b"\0")
        try:
            file = self._files.open(os.fsdecode(path))
            self._value = present(file.value(int(row)))
            first = self._value[:LARGEST_FIRST_BYTES]
            return OPEN_ANSWER.pack(0, stat.S_IFREG, len(self._value), file.modified_ns, len(first)), first
        except RefusedError as error:
            kind, reason, *_ = error.details
            return error_answer(OPEN_ANSWER, OSError(REFUSALS[kind], ""), reason)
        except IndexError:
            return error_answer(OPEN_ANSWER, FileNotFoundError(errno.ENOENT, ""))
        except MemoryError:
            return error_answer(OPEN_ANSWER, OSError(errno.ENOMEM, ""))
        except OSError as error:
            return error_answer(OPEN_ANSWER, error)


if __name__ == "__main__":
    main()
