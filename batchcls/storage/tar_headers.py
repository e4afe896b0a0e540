"""The headers of tar files, followed from one to the next without reading the members between them.

The formats are those of POSIX.1-2017, "pax", sections "ustar Interchange Format" and "pax Interchange Format", and of
GNU tar's manual, "Basic Tar Format" and "Storing Sparse Files".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from batchcls.storage.tar_fields import extended_fields, nanoseconds, number

Pread = Callable[[int, int], bytes]
"""Returns the bytes from an offset on; fewer than the length only where the file ends."""
BLOCK_BYTES = 512
REGULAR, FOLDER, LINK, HARD_LINK, SPARSE, OTHER = b"-", b"/", b"@", b"=", b"s", b"?"
"""Kinds of members. A hard link is one more name of a member before; a sparse file has holes, which its data leaves
out."""
UNKNOWN_TIME = -(1 << 63)
"""Placeholder for a time that 64 bits do not hold in nanoseconds."""
_ZEROS = bytes(BLOCK_BYTES)
_KINDS = {
    **dict.fromkeys((b"0", b"\0", b"7"), REGULAR),
    b"1": HARD_LINK,
    b"2": LINK,
    b"5": FOLDER,
    b"S": SPARSE,
}
_WITHOUT_DATA = b"123456"
_LARGEST_EXTRA_BYTES = 1 << 20
"""Largest plausible size of a long name, or of a member's extended fields."""
_LARGEST_NAME_BYTES, _LARGEST_NUMBER = 1 << 15, 1 << 62
_LONGEST_PADDING_BYTES = 1 << 20  # in which another archive is looked for
_UNPACKERS = {b"\x1f\x8b": "gunzip", b"\x28\xb5\x2f\xfd": "unzstd", b"\xfd7zXZ\0": "unxz", b"BZh": "bunzip2"}


class TarError(ValueError):
    """An archive that cannot be followed any further; the message says where and why."""


class Member(NamedTuple):
    """A member of a tar file."""

    kind: bytes
    offset: int
    """Offset of the first byte of its data."""
    size_bytes: int
    modified_ns: int
    """Time of the last change, in nanoseconds since 1970, UTC; or `UNKNOWN_TIME`."""
    name: bytes
    """Name without a leading ``./``; as the archive has it otherwise, also if it leads elsewhere."""
    target: bytes = b""
    """Name of the member that a hard link leads to; otherwise empty."""


@dataclass(slots=True)
class _Extra:
    """What the headers before a member's own say of it."""

    long_name: bytes = b""
    long_target: bytes = b""
    fields: dict[bytes, bytes] = field(default_factory=dict)
    """Fields in the pax format, by keyword."""


def members(pread: Pread, size_bytes: int) -> Iterator[Member]:
    """The members of a tar file in their order; the last one may end after the file does.

    Raises:
        TarError: If the archive ends early, is damaged, or is none; the members before have been yielded.
        OSError: If ``pread`` raises it.
    """
    at, name = 0, b""
    extra, shared = _Extra(), _Extra()
    while (block := pread(at, BLOCK_BYTES)) != _ZEROS:
        if len(block) < BLOCK_BYTES:
            raise TarError(_early_end(at, size_bytes, name, block))
        kind, header_at = block[156:157], at
        try:
            _check_sum(block)
            size = number(block[124:136])
            at += BLOCK_BYTES
            if kind in b"LKxXg":
                if not 0 <= size <= _LARGEST_EXTRA_BYTES:
                    raise ValueError(f"a name or fields of {size:,} bytes")
                data = pread(at, size)
                if len(data) < size:
                    raise TarError(_early_end(at + size, size_bytes, name, block))
                _add(extra if kind != b"g" else shared, kind, data)
                at += _padded(size)
                continue
            if kind == b"S" and block[482]:
                at = _behind_sparse_map(pread, at)
            member = _member(block, at, extra, shared)
        except ValueError as error:
            if isinstance(error, TarError):
                raise
            raise TarError(_damage(header_at, block, error)) from error
        name, extra = member.name, _Extra()
        yield member
        if kind not in _WITHOUT_DATA:
            at += _padded(member.size_bytes)
    _check_end(pread, at, size_bytes)


def stored_name(block: bytes) -> bytes:
    """The name in a header block, without a leading ``./``; a long one is cut there."""
    name = block[:100].partition(b"\0")[0]
    if block[345] and block[257:263] == b"ustar\0":
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    return _plain(name)


def stored_size(block: bytes) -> int:
    """The size of a member that its header block states.

    Raises:
        ValueError: If the block is no header.
    """
    _check_sum(block)
    return number(block[124:136])


def is_header_of(block: bytes, name: bytes, size_bytes: int) -> bool:
    """Whether a block may be the header of the member of that name and size, so that its data follows.

    Of a name that is stored before the header, because it is long or not ASCII, only the size is compared.
    """
    try:
        if len(block) < BLOCK_BYTES or number(block[124:136]) != size_bytes or _KINDS.get(block[156:157]) != REGULAR:
            return False
        if stored_name(block) != name:
            _check_sum(block)
    except ValueError:
        return False
    return len(name) > 97 or not name.isascii() or stored_name(block) == name


def _member(block: bytes, at: int, extra: _Extra, shared: _Extra) -> Member:
    """The member whose header is ``block``, and whose data begins at ``at``."""
    fields = {**shared.fields, **extra.fields} if shared.fields else extra.fields
    kind = _KINDS.get(block[156:157], OTHER)
    size, modified_ns, name = number(block[124:136]), number(block[136:148]) * 10**9, b""
    if fields:
        size = int(extra.fields.get(b"size") or size)
        modified_ns = nanoseconds(fields[b"mtime"]) if fields.get(b"mtime") else modified_ns
        name = _plain(fields.get(b"GNU.sparse.name") or fields.get(b"path") or b"")
        if kind == REGULAR and any(keyword.startswith(b"GNU.sparse.") for keyword in fields):
            kind = SPARSE
    name = name or extra.long_name or stored_name(block)
    if kind == REGULAR and name.endswith(b"/"):  # as programs wrote folders before 1988
        kind = FOLDER
    if abs(modified_ns) >= -UNKNOWN_TIME:
        modified_ns = UNKNOWN_TIME
    target = b""
    if kind == HARD_LINK:
        target = _plain(fields.get(b"linkpath") or b"") or extra.long_target or _plain(block[157:257])
    if size < 0 or max(len(name), len(target)) > _LARGEST_NAME_BYTES:
        raise ValueError("an impossible size" if size < 0 else "a name that is too long")
    return Member(kind, at, min(size, _LARGEST_NUMBER), modified_ns, name, target)


def _add(extra: _Extra, kind: bytes, data: bytes) -> None:
    """Take over what an extra header says of the next member."""
    if kind == b"L":
        extra.long_name = _plain(data)
    elif kind == b"K":
        extra.long_target = _plain(data)
    else:
        extra.fields.update(extended_fields(data))


def _behind_sparse_map(pread: Pread, at: int) -> int:
    """Offset behind the blocks that continue the map of a sparse file's holes."""
    while (block := pread(at, BLOCK_BYTES)) and len(block) == BLOCK_BYTES:
        at += BLOCK_BYTES
        if not block[504]:
            break
    return at


def _check_sum(block: bytes) -> None:
    """Refuse a block that is no header; some old programs added up its bytes as signed numbers."""
    wanted, rest = number(block[148:156]), block[:148] + b" " * 8 + block[156:]
    if len(rest) < BLOCK_BYTES or (sum(rest) != wanted and sum(rest) - 256 * sum(it > 127 for it in rest) != wanted):
        raise ValueError("a wrong checksum")


def _plain(name: bytes) -> bytes:
    name = name.partition(b"\0")[0]
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return name


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _check_end(pread: Pread, at: int, size_bytes: int) -> None:
    """Refuse other bytes than zeros behind the end mark, which is at offset ``at``."""
    padding = pread(at, _LONGEST_PADDING_BYTES)
    if rest := padding.lstrip(b"\0"):
        left = size_bytes - at - len(padding) + len(rest)
        raise TarError(
            f"{left:,} bytes follow its end mark, such as those of an archive that was joined to it by cat; unpack it: "
            "tar --ignore-zeros -xf"
        )


def _early_end(at: int, size_bytes: int, name: bytes, block: bytes) -> str:
    if not size_bytes:
        return "it has no bytes"
    if at == 0:
        return f"it is no tar file: it begins with {block[:8]!r}"
    last = name[-200:].decode(errors="backslashreplace")
    if at > size_bytes:
        return f"it ends early: it has {size_bytes:,} bytes, and its last member, {last!r}, goes on to byte {at:,}"
    return f"it ends early: no end mark follows its last member, {last!r}"


def _damage(at: int, block: bytes, error: ValueError) -> str:
    if at:
        return f"its header at byte {at:,} is damaged ({error}); only the members before are listed"
    for magic, program in _UNPACKERS.items():
        if block.startswith(magic):
            return f"it is compressed; unpack it first: {program}"
    return f"it is no tar file: it begins with {block[:8]!r}"
