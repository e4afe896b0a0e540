"""A folder for the time being, in which something comes about that is to take its place whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchcls.storage.atomic import temporary_name


@contextmanager
def temporary_folder(inside: Path) -> Iterator[Path]:
    """A fresh folder of ours inside another; it is gone afterwards, with what is left in it.

    Raises:
        OSError: If it cannot be made.
    """
    path = inside / temporary_name()
    os.mkdir(path, 0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)  # it follows no link
