"""Batches out of files that are read ahead, whatever decodes them; a file that fails takes no other with it."""

from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Protocol

import numpy as np

from batchcls.ahead import ahead, overlapped
from batchcls.decoders.reader import Encoded, ReadAhead, ReadOptions
from batchcls.errors import BatchclsError, DecoderError
from batchcls.file_client import FileProcess
from batchcls.records import Batch, DevicePixels, Failure, Pixels, Slide

CPU_GROUP_PIXELS = 64_000_000
"""A `GroupDecoder.group_pixels` that a CPU's memory bears, for a lane."""
_BATCHES_AHEAD = 2


class GroupDecoder(Protocol):
    """Decodes some files at one time."""

    @property
    def lanes(self) -> int:
        """How many threads may call it at one time."""

    @property
    def group_pixels(self) -> int:
        """Decoded at full size at one time, so that a batch of huge images does not take a batch of huge memory."""

    def part(self, item: Encoded) -> str:
        """Of a group, files of different parts are decoded apart from one another."""

    def __call__(self, group: Sequence[Encoded]) -> Pixels | DevicePixels:
        """(N, H, W, 3) uint8, which the caller owns; raises anything if one of the files cannot be decoded."""

    def close(self) -> None:
        """End every thread; calling it twice is harmless."""


@dataclass(slots=True)
class _Group:
    """Files that have been read, to be decoded at one time."""

    encoded: list[Encoded] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    pixels: int = 0
    read_s: float = 0.0

    @property
    def files(self) -> int:
        return len(self.encoded) + len(self.failures)

    def add(self, item: Encoded | Failure) -> None:
        if isinstance(item, Failure):
            self.failures.append(item)
        else:
            self.encoded.append(item)
            self.pixels += item.header.width * item.header.height


class BatchingDecoder:
    """A `batchcls.contracts.Decoder` around whatever decodes a group."""

    def __init__(
        self, decode_group: GroupDecoder, size_px: tuple[int, int], *, batch_size: int, read: ReadOptions
    ) -> None:
        self._decode_group = decode_group
        self._size_px = size_px
        self._batch_size = batch_size
        self._read = read
        self._files: ReadAhead | None = None

    def decode(self, slides: Iterable[Slide]) -> Generator[Batch]:
        with closing(FileProcess()) as process:
            files = self._files = ReadAhead(slides, process, self._read)
            yield from self._decoded(files)

    def _decoded(self, files: ReadAhead) -> Generator[Batch]:
        def decoded(group: _Group) -> list[Batch]:
            try:
                return self._batches(group)
            finally:
                files.release(group.encoded)

        groups = overlapped(decoded, self._groups(files), self._decode_group.lanes, files.close)
        batches = ahead((batch for group in groups for batch in group), _BATCHES_AHEAD)
        try:
            for batch in batches:  # noqa: UP028  # `yield from` would close the batches before the files they wait for
                yield batch
        finally:
            files.close()
            batches.close()
            groups.close()

    def waiting(self) -> tuple[str, float] | None:
        return self._files.waiting() if self._files else None

    def stop(self) -> None:
        if self._files:
            self._files.close()

    def close(self) -> None:
        self._decode_group.close()

    def _groups(self, files: Iterable[Encoded | Failure | None]) -> Iterator[_Group]:
        """Files enough for a batch, or those that are there when no more come for a moment."""
        group = _Group()
        since = perf_counter()
        for item in files:
            group.read_s += perf_counter() - since
            if item is not None:
                group.add(item)
            full = group.files >= self._batch_size or group.pixels >= self._decode_group.group_pixels
            if full or (item is None and group.files):
                yield group
                group = _Group()
            since = perf_counter()
        if group.files:
            yield group

    def _batches(self, group: _Group) -> list[Batch]:
        """One batch of the group, or a few where a file cannot be decoded."""
        parts: dict[str, list[Encoded]] = defaultdict(list)
        for item in group.encoded:
            parts[self._decode_group.part(item)].append(item)
        batches = [batch for part in parts.values() for batch in self._isolated(part)]
        if group.failures:
            batches.append(self._failed(group.failures))
        return [replace(batches[0], read_s=group.read_s), *batches[1:]]

    def _isolated(self, part: Sequence[Encoded]) -> Iterator[Batch]:
        """``part`` decoded at one time; if that fails, in halves, until what cannot be decoded is alone."""
        since = perf_counter()
        try:
            pixels = self._decode_group(part)
        except BatchclsError:  # which says nothing of the files
            raise
        except MemoryError as error:
            raise DecoderError(
                f"there is not enough memory to decode {len(part)} files at a time; "
                "run the same command with a smaller --batch-size, or a smaller --max-pixels"
            ) from error
        except Exception:  # noqa: BLE001  # of one file: this is where it becomes that file's row
            if len(part) == 1:
                yield self._failed([_failure(part[0])])
            else:
                middle = len(part) // 2
                yield from self._isolated(part[:middle])
                yield from self._isolated(part[middle:])
            return
        yield Batch(
            slides=[item.slide for item in part],
            sizes=[(item.header.width, item.header.height) for item in part],
            pixels=pixels,
            decode_s=perf_counter() - since,
        )

    def _failed(self, failures: Sequence[Failure]) -> Batch:
        return Batch([], [], np.empty((0, *self._size_px, 3), np.uint8), failures)


def _failure(item: Encoded) -> Failure:
    reason = "it ends early" if item.header.suspect else "its image data cannot be decoded"
    return Failure(item.slide, "corrupt", reason, item.header.width, item.header.height)
