"""Check an HDF5 file of weights before anything of it is read: no links elsewhere, no other files, no huge shapes."""

import math
from collections.abc import Iterator
from pathlib import Path

import h5py

_LARGEST_EXPANSION = 4
"""Largest ratio of the bytes of all arrays to those of the file, with some space for small files."""
_SMALL_BYTES = 1 << 20
_MOST_OBJECTS = 200_000
_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
"""Filters that HDF5 holds itself; any other one would be looked for among plug-ins."""
_LARGEST_CONFIGURATION = 1 << 25

UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, UnicodeError)
"""Exceptions that h5py raises for damaged files, which share no base class of their own."""


class UnsafeWeightsError(ValueError):
    """An HDF5 file with more than plain arrays of numbers; the message says what."""


def check_weights(file: h5py.File, size_bytes: int) -> None:
    """Refuse an HDF5 file in which anything is no plain array of numbers within the file itself.

    Args:
        size_bytes: Size of the file.

    Raises:
        UnsafeWeightsError: If there is a link, an external or virtual array, another type, or too much of anything.
    """
    total = 0
    for name, array in _arrays(file):
        if array.external or array.is_virtual:
            kind = "another file" if array.external else "parts of other files"
            raise UnsafeWeightsError(f"its array {name!r} lies in {kind}, which is never read")
        if array.dtype.kind not in "fiub":
            raise UnsafeWeightsError(f"its array {name!r} holds {array.dtype}, and not numbers")
        layout = array.id.get_create_plist()
        if any(layout.get_filter(index)[0] not in _FILTERS for index in range(layout.get_nfilters())):
            raise UnsafeWeightsError(f"its array {name!r} is packed by a plug-in of HDF5; save it without")
        total += math.prod(array.shape or ()) * array.dtype.itemsize
        if total > _LARGEST_EXPANSION * size_bytes + _SMALL_BYTES:
            raise UnsafeWeightsError(f"it has {size_bytes:,} bytes but claims {total:,} of weights")


def _arrays(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every array of a file with its path; links, and objects of other kinds, are refused."""
    groups, visited, count = [file], set(), 0
    while groups:
        group = groups.pop()
        for name in group:
            path = f"{group.name.rstrip('/')}/{name}"[:200]
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                target = f" to {link.filename!r}" if isinstance(link, h5py.ExternalLink) else ""
                raise UnsafeWeightsError(f"its {path!r} is a link{target}, which is never followed")
            count += 1
            member = group[name]
            address = h5py.h5o.get_info(member.id).addr
            if count > _MOST_OBJECTS or (isinstance(member, h5py.Group) and address in visited):
                raise UnsafeWeightsError(f"its {path!r} is in a circle, or one of more than {_MOST_OBJECTS:,} objects")
            visited.add(address)
            if isinstance(member, h5py.Dataset):
                yield path, member
            elif isinstance(member, h5py.Group):
                groups.append(member)
            else:
                raise UnsafeWeightsError(f"its {path!r} is neither a group nor an array")


def model_configuration(file: h5py.File) -> str | None:
    """The text of the attribute ``model_config``, by which Keras 2 and 3 describe a network; None if there is none.

    Raises:
        UnsafeWeightsError: If the attribute is no text, or a huge one.
    """
    if "model_config" not in file.attrs:
        return None
    attribute = file.attrs.get_id("model_config")
    if attribute.get_storage_size() > _LARGEST_CONFIGURATION or attribute.shape not in ((), None):
        raise UnsafeWeightsError("its model_config is no text of a usual length")
    text = file.attrs["model_config"]
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    if not isinstance(text, str) or len(text) > _LARGEST_CONFIGURATION:
        raise UnsafeWeightsError("its model_config is no text of a usual length")
    return text


def opened(path: Path) -> h5py.File:
    """An HDF5 file, opened for reading, without a lock and without a cache of other files."""
    return h5py.File(path, "r", locking=False)
