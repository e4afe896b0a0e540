"""Standard output and error as a command may find them: closed, full, or left by whoever read them."""

import errno
import io
import os
import re
import sys
from typing import TextIO, cast

from batchcls.storage.terminal_text import escaped_lines

_KEPT_CHARACTERS = 1 << 16
_STREAMS = {"stdout": 1, "stderr": 2}
_WORDS = {"stdout": "standard output", "stderr": "standard error"}


class Guarded(io.TextIOBase):
    """A text stream on which nothing harmful is shown, and that notes what it cannot write instead of raising it.

    Args:
        stream: Where the text goes; it is never closed from here.
        keep: Whether to remember what did not arrive.
    """

    def __init__(self, stream: TextIO, *, keep: bool = True) -> None:
        self._stream, self._keep = stream, keep
        self._unflushed = ""
        self.lost = ""
        """What did not arrive, as far as it is kept."""
        self.failure: str | None = None
        """Why something did not arrive."""
        self.left = False
        """Whether the failure is that nobody reads any more."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    @property
    def unescaped(self) -> "Guarded":
        """The same stream for a program that writes control sequences of its own, and escapes the rest itself."""
        return _Unescaped(self._stream, keep=False)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        shown = self._shown(text).encode(self.encoding, "backslashreplace").decode(self.encoding)
        if self._keep:
            self._unflushed = (self._unflushed + shown)[-_KEPT_CHARACTERS:]
        try:
            self._stream.write(shown)
        except (OSError, ValueError) as error:
            self._note(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
            self._unflushed = ""
        except (OSError, ValueError) as error:
            self._note(error)

    def _shown(self, text: str) -> str:
        return escaped_lines(text)

    def _note(self, error: OSError | ValueError) -> None:
        self.lost = (self.lost + self._unflushed)[-_KEPT_CHARACTERS:]
        self._unflushed = ""
        number = error.errno if isinstance(error, OSError) else errno.EBADF  # a ValueError: it is closed
        self.left = number == errno.EPIPE
        self.failure = "it is closed" if number == errno.EBADF else os.strerror(number or errno.EIO)


class _Unescaped(Guarded):
    def _shown(self, text: str) -> str:
        return text


def guard() -> None:
    """Make the standard streams `Guarded`, and the terminal's size one that can be."""
    for name in ("COLUMNS", "LINES"):
        if not re.fullmatch(r"[1-9][0-9]{0,3}", os.environ.get(name, "80")):
            del os.environ[name]
    _fill_closed()
    for name, descriptor in _STREAMS.items():
        stream = getattr(sys, name)
        if not isinstance(stream, Guarded):
            stream = open(descriptor, "w", closefd=False) if stream is None else stream  # noqa: SIM115
            setattr(sys, name, Guarded(cast(TextIO, stream)))


def settle() -> None:
    """Say on either stream what did not arrive on the other."""
    streams = _guarded()
    for stream in streams.values():
        stream.flush()
    for name, stream in streams.items():
        others = [other for other in streams.values() if other is not stream and not other.failure]
        if stream.failure and not stream.left and others:
            others[0].write(f"batchcls: {_WORDS[name]} cannot be written: {stream.failure}\n{stream.lost}")
            others[0].flush()


def output_failure() -> str | None:
    """Why standard output did not take everything; None if it did, or if its reader had enough of it."""
    output = _guarded().get("stdout")
    return output.failure if output and not output.left else None


def _guarded() -> dict[str, Guarded]:
    return {name: stream for name in _STREAMS if isinstance(stream := getattr(sys, name), Guarded)}


def _fill_closed() -> None:
    """Let no file that is opened later be taken for a standard stream, and written to by whoever prints."""
    for descriptor in (0, *_STREAMS.values()):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # the lowest that is free; writing to it fails as if it were closed
