"""Files that are opened only if they lie in a folder, wherever symbolic links lead.

A file is judged once it is open, so that no link can be put in its place in between. Nothing of it has been read then.
"""

import errno
import os
from functools import lru_cache

from batchcls.storage import long_paths

_MARK = "/.//"
"""What stands between the folder and the path; no path of ours has it, for they are normalized."""


def confined_path(folder: str, path: str) -> str:
    """The spelling of a path for `open_confined`, which opens it only if it lies in ``folder``."""
    return f"{folder}{_MARK}{path}"


def open_confined(path: str | bytes, flags: int) -> int:
    """An open descriptor of a file, as by `long_paths.open_file`; the caller closes it.

    Args:
        path: Path, or what `confined_path` returned for it.
        flags: Those of `os.open`.

    Raises:
        OSError: If the file cannot be opened; with EXDEV if it does not lie in the folder that it has to.
    """
    name = os.fsdecode(path)
    folder, mark, confined = name.partition(_MARK)
    if not mark:
        return long_paths.open_file(name, flags)
    descriptor = long_paths.open_file(confined, flags)
    try:
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith(_real_folder(folder)):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@lru_cache(1024)
def _real_folder(folder: str) -> str:
    """The folder's path without symbolic links, with a slash at its end."""
    return os.path.realpath(folder).rstrip("/") + "/"
