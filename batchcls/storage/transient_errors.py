"""Errors of a disk or a network that may be gone another day."""

import errno
import os

NO_ANSWER = "no answer in"
"""Beginning of the reason for a read that the file system did not answer."""
ARCHIVE_ENDS = "its archive ends"
"""Beginning of the reason for a slide whose archive is cut; it may be on its way still."""
TRANSIENT_ERRNOS = frozenset(
    (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.EREMOTEIO)
    + (errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.ENOLINK)
    + (errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ESHUTDOWN, errno.EAGAIN, errno.ECOMM)
)
"""Error numbers of disk and network failures that may be temporary."""
_TRANSIENT_TEXTS = tuple(
    f"unreadable: {reason}" for reason in (NO_ANSWER, ARCHIVE_ENDS, *map(os.strerror, TRANSIENT_ERRNOS))
)


def is_transient(error: str) -> bool:
    """Whether the ``error`` of a row may be gone another day, so that its file is worth reading again."""
    return error.startswith(_TRANSIENT_TEXTS)
