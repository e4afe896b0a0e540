"""Object stores and web servers, by URL: S3 and what speaks its protocol, Google Cloud Storage, Azure, HTTPS.

The one module that wraps obstore. Credentials are found by the provider's own chain: environment, files of the
provider's tools, the machine's role.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import HTTPStore, ObjectStore, from_url

from batchcls.errors import SlidesError
from batchcls.storage.object_credentials import credential_options, is_true, provider_environment
from batchcls.storage.object_reasons import place_problem, short_reason

RETRIES = 6
"""Times that a request is tried again after an answer 5xx, 429, or a broken connection."""
_RETRY_CONFIG: Any = {
    "max_retries": RETRIES,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
    "retry_timeout": timedelta(seconds=60),
}
_TIMEOUTS: Any = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=30),
    "timeout": timedelta(minutes=15),  # a large object over a slow line takes long; `read_timeout` sees a silent one
}
_LOCAL_HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))


class RemoteError(OSError):
    """A request that a store or the network has not answered as it should; another day it may."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EREMOTEIO, f"{os.strerror(errno.EREMOTEIO)}: {reason}")


def open_store(bucket_url: str) -> ObjectStore:
    """The store of a bucket, or of a web server, which all threads of this process share.

    Raises:
        SlidesError: If the URL, or the provider's configuration, is none that can be used, or there are no credentials.
    """
    return _open_store(bucket_url, tuple(sorted(provider_environment().items())))


@lru_cache(64)
def _open_store(bucket_url: str, variables: tuple[tuple[str, str], ...]) -> ObjectStore:
    environment = dict(variables)
    is_web = bucket_url.startswith("http")
    server = bucket_url if is_web else endpoint_of(bucket_url, environment)
    allows_http = is_true(environment.get("AWS_ALLOW_HTTP")) or urlsplit(server).hostname in _LOCAL_HOSTS
    if server.startswith("http://") and not allows_http:
        raise SlidesError(
            f"{server!r} is not encrypted, so that others could read or change what is read; name it with https://, or "
            "allow it: export AWS_ALLOW_HTTP=true"
        )
    options: Any = {**_TIMEOUTS, "allow_http": server.startswith("http://") or allows_http}
    try:
        if is_web:
            return HTTPStore.from_url(bucket_url, client_options=options, retry_config=_RETRY_CONFIG)
        return from_url(
            bucket_url,
            client_options=options,
            retry_config=_RETRY_CONFIG,
            **credential_options(bucket_url, environment),
        )
    except (exceptions.BaseError, ValueError) as error:
        raise SlidesError(f"{bucket_url!r} cannot be used: {short_reason(error)}") from error


def endpoint_of(url: str, environment: dict[str, str] | None = None) -> str:
    """URL of the server that the environment names for the store of a URL; empty where it is the provider's own."""
    environment = provider_environment() if environment is None else environment
    names = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"), "az": ("AZURE_STORAGE_ENDPOINT",)}
    scheme = url.partition("://")[0]
    return next(filter(None, (environment.get(name) for name in names.get(scheme, ()))), "")


@contextmanager
def object_errors(url: str) -> Iterator[None]:
    """A context in which errors of obstore become an OSError with a number, as reading a file raises it.

    Raises:
        FileNotFoundError: If there is no such object or bucket.
        FileExistsError: If a create-only request found the object there.
        OSError: If the name is none that an object can have here, such as one with two slashes in a row.
        RemoteError: If access is refused, or the store or the network fails; after all tries.
    """
    try:
        yield
    except (exceptions.NotFoundError, FileNotFoundError) as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except exceptions.AlreadyExistsError as error:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), url) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise RemoteError(f"access is refused: {short_reason(error)}") from error
    except (exceptions.InvalidPathError, ValueError) as error:
        raise OSError(errno.EINVAL, f"{os.strerror(errno.EINVAL)}: {short_reason(error)}") from error
    except exceptions.BaseError as error:
        raise RemoteError(short_reason(error)) from error


@contextmanager
def place_errors(url: str) -> Iterator[None]:
    """A context in which an error of obstore means that nothing can be done at a place.

    Raises:
        SlidesError: Instead of any error of obstore, with what to set.
    """
    try:
        yield
    except (exceptions.BaseError, FileNotFoundError, ValueError) as error:
        raise SlidesError(place_problem(url, error, endpoint_of(url))) from error


__all__ = [
    "RETRIES",
    "ObjectStore",
    "RemoteError",
    "endpoint_of",
    "exceptions",
    "object_errors",
    "obstore",
    "open_store",
    "place_errors",
]
