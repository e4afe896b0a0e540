"""What not every installation has."""

from collections.abc import Iterator
from contextlib import contextmanager

from batchcls.errors import BatchclsError


@contextmanager
def extra(name: str, task: str) -> Iterator[None]:
    """Around the imports that ``task`` needs the extra ``name`` for.

    Raises:
        BatchclsError: If something of it is not installed, or has no folder for its temporary files.
    """
    try:
        yield
    except ImportError as error:
        raise BatchclsError(
            f"{task} needs {error.name}, which is not installed; run: pip install 'batchcls[{name}]'"
        ) from error
    except OSError as error:  # matplotlib finds no folder that it may write to, and says which variable names one
        raise BatchclsError(f"{task} cannot begin: {' '.join(str(error).split())}; or: export TMPDIR=DIR") from error
