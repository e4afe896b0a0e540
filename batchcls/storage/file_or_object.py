"""Whole files on a disk, by their path, or in an object store, by their URL."""

import io
import os
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from batchcls.errors import OutputError
from batchcls.storage.atomic import check_replaceable_file, open_regular_file
from batchcls.storage.regular_file import open_regular
from batchcls.storage.urls import is_url


def exists(path: Path | str) -> bool:
    """Whether there is such a file or object.

    Raises:
        OutputError: If a store cannot tell, or the URL names no object that could be written.
    """
    if not is_object(path):
        return os.path.lexists(path)
    from batchcls.storage.object_url import ObjectUrl, object_output_errors  # obstore is an extra

    with object_output_errors(str(path)):
        return ObjectUrl.of(str(path)).status() is not None


def is_object(path: Path | str) -> bool:
    """Whether a path is the URL of an object in a store.

    Raises:
        OutputError: If it is, and the library for stores is not installed.
    """
    if not isinstance(path, str) or not is_url(path):
        return False
    if find_spec("obstore") is None:
        raise OutputError(f"{path!r} needs obstore, which is not installed; run: pip install 'batchcls[cloud]'")
    return True


def check_replaceable(path: Path | str) -> None:
    """Refuse to replace what is neither a regular file nor an object; a path where nothing stands is fine.

    Raises:
        OutputError: If ``path`` is a link, a folder, a pipe or a device, or its kind cannot be determined.
    """
    if not is_object(path):
        check_replaceable_file(Path(path))


def opened_for_reading(path: Path | str, *, follows_links: bool = False) -> BinaryIO:
    """A file or an object, open for reading from its beginning; the caller closes it.

    Raises:
        OSError: If it cannot be opened, is a pipe or a device, or is a link that is not to be followed.
    """
    if not is_object(path):
        if follows_links:
            return io.BufferedReader(open_regular(Path(path))[0])
        return os.fdopen(open_regular_file(Path(path)), "rb")
    from batchcls.storage.object_reader import open_object

    return open_object(str(path))
