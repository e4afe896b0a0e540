"""Whole files in object stores, copied to the local disk for as long as they are read."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from batchcls.errors import LabelsError, SlidesError, temporary_files
from batchcls.storage.file_or_object import is_object
from batchcls.storage.output_names import beside_path

_BLOCK_BYTES = 8 << 20


@contextmanager
def local_copy(place: Path | str) -> Iterator[Path]:
    """A context that yields the path of a file; of an object, that of a copy, with the JSON file beside it.

    Args:
        place: Path of a file, or URL of an object.

    Raises:
        LabelsError: If there is no such object, or the store cannot be used.
        OutputError: If the folder for temporary files has no room for it.
    """
    if not is_object(place):
        yield Path(place)
        return
    url = str(place)
    with temporary_files():
        folder = TemporaryDirectory(prefix="batchcls-")
    with folder:
        copy = Path(folder.name, os.path.basename(url) or "predictions")
        if not _copied(url, copy):
            raise LabelsError(f"{url!r} does not exist; name a predictions file that batchcls run has written")
        _copied(beside_path(url), beside_path(copy))
        yield copy


def _copied(url: str, path: Path) -> bool:
    """Copy an object to a new file; whether there is such an object."""
    from batchcls.storage.object_reader import open_object  # obstore is an extra

    try:
        source = open_object(url)
        with source:
            size = source.seek(0, os.SEEK_END)
            source.seek(0)
            with temporary_files():
                if size > (free := shutil.disk_usage(path.parent).free):
                    raise OSError(f"{url!r} has {size:,} bytes, and {free:,} are free")
                target = path.open("xb")
            with target:
                while block := source.read(_BLOCK_BYTES):
                    with temporary_files():
                        target.write(block)
    except FileNotFoundError:
        return False
    except (OSError, SlidesError) as error:
        raise LabelsError(f"{url!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return True
