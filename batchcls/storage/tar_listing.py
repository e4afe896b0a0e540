"""The members of a tar file, listed in one process and packed for another.

A packed list is the number of members (uint32); for each its kind (a byte), offset and size (uint64), time of change
(int64) and length of the name (uint32), little-endian; the names, those of hard links with NUL and the name of the
target behind them; and the text of the error that ends the archive, if one does.
"""

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from time import monotonic

from batchcls.storage.tar_headers import Member, TarError, members

_COUNT = struct.Struct("<I")
_MEMBER = struct.Struct("<cQQqI")
_MOST_MEMBERS, _MOST_NAME_BYTES = 2048, 512 << 10
_ANSWER_S = 0.25
"""Time after which what has been listed is handed over, however little it is."""


class TarListing:
    """The members of a tar file, listed some at a time."""

    def __init__(self, listed: Iterator[Member]) -> None:
        self._members = listed
        self._ended = False

    def next(self) -> bytes:
        """The next members, packed; empty once all are listed, or after an error.

        Raises:
            OSError: If the file cannot be read.
        """
        listed: list[Member] = []
        name_bytes, until, error = 0, monotonic() + _ANSWER_S, ""
        while not self._ended:
            try:
                member = next(self._members, None)
            except TarError as reason:
                member, error = None, str(reason)
            if member is None:
                self._ended = True
                break
            listed.append(member)
            name_bytes += len(member.name) + len(member.target)
            if len(listed) == _MOST_MEMBERS or name_bytes >= _MOST_NAME_BYTES or monotonic() > until:
                break
        return packed(listed, error) if listed or error else b""


def packed(listed: Sequence[Member], error: str = "") -> bytes:
    """Members in the form that `unpacked` reads, and the error that ends the archive."""
    names = [b"%b\0%b" % (member.name, member.target) if member.target else member.name for member in listed]
    records = [_MEMBER.pack(*member[:4], len(name)) for member, name in zip(listed, names, strict=True)]
    return b"".join([_COUNT.pack(len(listed)), *records, *names, error.encode()])


def unpacked(data: bytes) -> Iterator[list[Member]]:
    """The members that were packed, as one list.

    Raises:
        TarError: If an error was packed with them; they are yielded before.
    """
    (count,) = _COUNT.unpack_from(data)
    at = _COUNT.size + count * _MEMBER.size
    listed = []
    for kind, offset, size, modified_ns, length in _MEMBER.iter_unpack(data[_COUNT.size : at]):
        name, _, target = data[at : at + length].partition(b"\0")
        listed.append(Member(kind, offset, size, modified_ns, name, target))
        at += length
    yield listed
    if at < len(data):
        raise TarError(data[at:].decode())


def members_of_file(file: int) -> Iterator[Member]:
    """The members of an open file, see `batchcls.storage.tar_headers.members`.

    Args:
        file: Descriptor of the file, which is closed when the iterator is.
    """
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise TarError("it is no regular file")
        yield from members(lambda offset, length: os.pread(file, length, offset), status.st_size)
    finally:
        os.close(file)
