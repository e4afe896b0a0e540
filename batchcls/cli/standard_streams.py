"""Standard output and error, which may be closed, full, or without a reader."""

import errno
import io
import os
import re
import sys
from typing import TextIO, cast

from batchcls.storage.terminal_text import escaped_lines

_KEPT_CHARACTERS = 1 << 16
"""Most characters of unwritten text that are kept, the last ones."""
_STREAMS = {"stdout": 1, "stderr": 2}
_TITLES = {"stdout": "standard output", "stderr": "standard error"}


class GuardedStream(io.TextIOBase):
    """A text stream that escapes what could harm a terminal, and records failed writes instead of raising.

    Args:
        stream: The stream that is written to, and never closed.
        keep: Whether to keep the text that could not be written.
    """

    def __init__(self, stream: TextIO, *, keep: bool = True) -> None:
        self._stream, self._keep = stream, keep
        self._unflushed = ""
        self.lost = ""
        """The last characters of the text that could not be written; empty if ``keep`` is False."""
        self.failure: str | None = None
        """Reason why text could not be written; None if all text was written."""
        self.has_no_reader = False
        """Whether the failure is that the reader has gone."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    @property
    def unescaped(self) -> "GuardedStream":
        """The same stream for a program that escapes text itself, and writes control sequences of its own."""
        return _Unescaped(self._stream, keep=False)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str | bytes) -> int:
        if isinstance(text, bytes):  # as click writes completions for a shell
            text = text.decode(errors="surrogateescape")
        safe = self._escaped(text).encode(self.encoding, "backslashreplace").decode(self.encoding)
        if self._keep:
            self._unflushed = (self._unflushed + safe)[-_KEPT_CHARACTERS:]
        try:
            self._stream.write(safe)
        except (OSError, ValueError) as error:
            self._record_failure(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
            self._unflushed = ""
        except (OSError, ValueError) as error:
            self._record_failure(error)

    def _escaped(self, text: str) -> str:
        return escaped_lines(text)

    def _record_failure(self, error: OSError | ValueError) -> None:
        self.lost = (self.lost + self._unflushed)[-_KEPT_CHARACTERS:]
        self._unflushed = ""
        number = error.errno if isinstance(error, OSError) else errno.EBADF  # a closed stream raises ValueError
        self.has_no_reader = number == errno.EPIPE
        self.failure = "it is closed" if number == errno.EBADF else os.strerror(number or errno.EIO)


class _Unescaped(GuardedStream):
    def _escaped(self, text: str) -> str:
        return text


def guard() -> None:
    """Make the standard streams `GuardedStream`, and ignore an impossible terminal size."""
    for name in ("COLUMNS", "LINES"):
        if not re.fullmatch(r"[1-9][0-9]{0,3}", os.environ.get(name, "80")):
            del os.environ[name]
    _open_null_for_closed()
    for name, descriptor in _STREAMS.items():
        stream = getattr(sys, name)
        if not isinstance(stream, GuardedStream):
            stream = open(descriptor, "w", closefd=False) if stream is None else stream  # noqa: SIM115
            setattr(sys, name, GuardedStream(cast(TextIO, stream)))


def report_lost_output() -> None:
    """Write text that one standard stream lost, and the reason, on the other one."""
    streams = _guarded_streams()
    for stream in streams.values():
        stream.flush()
    for name, stream in streams.items():
        others = [other for other in streams.values() if other is not stream and not other.failure]
        if stream.failure and not stream.has_no_reader and others:
            others[0].write(f"batchcls: {_TITLES[name]} cannot be written: {stream.failure}\n{stream.lost}")
            others[0].flush()


def output_failure() -> str | None:
    """The reason why standard output is incomplete; None if it is complete, or its reader has gone."""
    output = _guarded_streams().get("stdout")
    return output.failure if output and not output.has_no_reader else None


def _guarded_streams() -> dict[str, GuardedStream]:
    return {name: stream for name in _STREAMS if isinstance(stream := getattr(sys, name), GuardedStream)}


def _open_null_for_closed() -> None:
    """Open the null device for each closed standard stream, so that no later file gets a stream's number."""
    for descriptor in (0, *_STREAMS.values()):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # gets the lowest free number; writing to it fails as to a closed stream
