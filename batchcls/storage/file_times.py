"""Sizes and times of many files at once, looked up by another process, so that every wait has an end."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from batchcls.storage.file_client import FileLane, FileProcess
from batchcls.storage.file_server import REQUEST, TIMES_ANSWER, UNKNOWN_TIME

_LANES = 8
"""Number of files that are looked up at the same time."""
_LEFT_S = 0.2
"""Seconds that other lanes have left to answer once one has had its full time."""


@dataclass(frozen=True, slots=True)
class FileTimes:
    """Size of a file, and time of its last change."""

    size_bytes: int
    modified_ns: int | None
    """Nanoseconds since 1970, UTC; None if 64 bits do not hold them."""


class FileTimesLookup:
    """Looks up sizes and times of files, for one thread; links are followed.

    Args:
        timeout_s: How long the file system may take for one file.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._process = FileProcess()
        self._lanes: list[FileLane] = []
        self._waiting: tuple[str, float] | None = None

    def __call__(self, paths: Sequence[str]) -> list[FileTimes | OSError]:
        """The size and time of each file, or the error; a TimeoutError without a number if no answer came in time.

        Raises:
            DecoderError: If the process has ended, also by `close`.
        """
        results: list[FileTimes | OSError] = [TimeoutError()] * len(paths)
        numbers: Sequence[int] = range(len(paths))
        while numbers:
            share = -(-len(numbers) // _LANES)
            portions = [numbers[start : start + share] for start in range(0, len(numbers), share)]
            self._send(paths, portions)
            numbers = self._collect(paths, portions, results)
        return results

    def waiting(self) -> tuple[str, float] | None:
        """A file that is waited for, and the seconds since then; None if there is none; from any thread."""
        waiting = self._waiting
        return waiting and (waiting[0], monotonic() - waiting[1])

    def close(self) -> None:
        """End the process, and wake the thread that waits for an answer; from any thread, and any number of times."""
        for lane in list(self._lanes):
            lane.close()
        self._process.close()

    def _send(self, paths: Sequence[str], portions: Sequence[Sequence[int]]) -> None:
        while len(self._lanes) < len(portions):
            self._lanes.append(self._process.lane(self._timeout_s))
        for lane, portion in zip(self._lanes, portions, strict=False):
            operand = os.fsencode("\0".join([paths[number] for number in portion]))
            try:
                lane.socket.sendall(REQUEST.pack(b"T", len(operand)) + operand)
            except OSError as error:
                raise self._process.ended_error() from error

    def _collect(
        self, paths: Sequence[str], portions: Sequence[Sequence[int]], results: list[FileTimes | OSError]
    ) -> list[int]:
        """Write the results of all portions; returns the numbers of files to ask for again, behind one that hangs."""
        again: list[int] = []
        lost: list[FileLane] = []
        for lane, portion in zip(self._lanes, portions, strict=False):
            if lost:
                lane.socket.settimeout(_LEFT_S)
            answers = self._receive(lane, [paths[number] for number in portion])
            count = len(answers) // TIMES_ANSWER.size
            for number, answer in zip(portion, TIMES_ANSWER.iter_unpack(answers), strict=False):
                results[number] = _result(*answer)
            if count < len(portion):  # the result of this file stays: no answer
                lost.append(lane)
                again += portion[count + 1 :]
            elif lost:
                lane.socket.settimeout(self._timeout_s)
        self._waiting = None
        for lane in lost:
            self._lanes.remove(lane)
            lane.close()
        return again

    def _receive(self, lane: FileLane, paths: Sequence[str]) -> bytes:
        """The answers for all paths, or for the first ones if the next one does not come in time."""
        received = bytearray()
        try:
            while (missing := TIMES_ANSWER.size * len(paths) - len(received)) > 0:
                self._waiting = (paths[len(received) // TIMES_ANSWER.size], monotonic())
                data = lane.socket.recv(missing)
                if not data:
                    raise self._process.ended_error()
                received += data
        except TimeoutError:
            pass
        except OSError as error:
            raise self._process.ended_error() from error
        return bytes(received[: len(received) // TIMES_ANSWER.size * TIMES_ANSWER.size])


def _result(number: int, size_bytes: int, modified_ns: int, nothing: int) -> FileTimes | OSError:
    if number:
        return OSError(number, os.strerror(number))
    return FileTimes(size_bytes, None if modified_ns == UNKNOWN_TIME else modified_ns)
