"""Object stores and web servers, by URL: S3 and what speaks its protocol, Google Cloud Storage, Azure, HTTPS.

The one module that wraps obstore. Credentials are found by the provider's own chain: environment, files of the
provider's tools, the machine's role.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any

import obstore
from obstore import exceptions
from obstore.store import ObjectStore, from_url

from batchcls.errors import SlidesError

RETRIES = 6
"""Times that a request is tried again after an answer 5xx, 429, or a broken connection."""
_RETRY_CONFIG: Any = {
    "max_retries": RETRIES,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
    "retry_timeout": timedelta(seconds=60),
}


class RemoteError(OSError):
    """A request that a store or the network has not answered as it should; another day it may."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EREMOTEIO, f"{os.strerror(errno.EREMOTEIO)}: {reason}")


@lru_cache(64)
def open_store(bucket_url: str) -> ObjectStore:
    """The store of a bucket, which all threads of this process share.

    Raises:
        SlidesError: If the URL, or the provider's configuration, is none that can be used.
    """
    try:
        return from_url(bucket_url, retry_config=_RETRY_CONFIG)
    except (exceptions.BaseError, ValueError) as error:
        raise SlidesError(f"{bucket_url!r} cannot be used: {_first_line(error)}") from error


@contextmanager
def object_errors(url: str) -> Iterator[None]:
    """A context in which errors of obstore become an OSError with a number, as reading a file raises it.

    Raises:
        FileNotFoundError: If there is no such object or bucket.
        FileExistsError: If a create-only request found the object there.
        RemoteError: If access is refused, or the store or the network fails; after all tries.
    """
    try:
        yield
    except (exceptions.NotFoundError, FileNotFoundError) as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except exceptions.AlreadyExistsError as error:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), url) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise RemoteError(f"access is refused: {_first_line(error)}") from error
    except exceptions.BaseError as error:
        raise RemoteError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    """The message of an error in one line, without a query of a URL, which may hold a signature."""
    text = re.sub(r"\?\S+", "?...", str(error).strip())
    return " ".join(text.split())[:300]


__all__ = ["RETRIES", "RemoteError", "object_errors", "obstore", "open_store"]
