"""Temporary folders beside an output, from which finished files move to their places."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchcls.storage.atomic import temporary_name


@contextmanager
def temporary_folder(inside: Path) -> Iterator[Path]:
    """A context that yields a new folder inside another one; at its end the folder is removed with its content.

    Raises:
        OSError: If the folder cannot be made.
    """
    path = inside / temporary_name()
    os.mkdir(path, 0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)  # rmtree follows no link
