"""Batches of decoded slides, by any decoder of groups of files; a file that fails does not affect the others."""

from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from copy import copy
from dataclasses import replace
from threading import BoundedSemaphore
from time import perf_counter
from typing import Protocol

import numpy as np

from batchcls.errors import BatchclsError
from batchcls.images.decoders.base import DecoderOptions
from batchcls.images.decoders.encoded import Encoded, EncodedGroup, ReadOptions
from batchcls.images.decoders.read_ahead import ReadAhead
from batchcls.images.sources import open_readers
from batchcls.images.sources.base import SlideReaders
from batchcls.prefetch import parallel_map, prefetch
from batchcls.records import Batch, DevicePixels, Failure, Pixels, Postponed, Slide
from batchcls.storage.memory import (
    READ_PART,
    Memory,
    MemoryPool,
    available_bytes,
    can_allocate,
    decode_budget_bytes,
    is_memory_error,
)

CPU_GROUP_PIXELS = 64_000_000
"""Value of `GroupDecoder.group_pixels` for decoders on the CPU."""
_BATCHES_AHEAD = 2
_FILES_AHEAD, _READ_BATCHES_AHEAD = 256, 4
"""Largest number of files that are read and not decoded yet: so many, or so many batches."""
_SMALL_COST_BYTES = 64 << 20
"""Memory with which a file that costs less must be decodable: if so much is free and decoding fails, it is corrupt."""
_LARGEST_COST_RATIO = 3
"""Largest memory that a file may take, as a multiple of its cost; with so much free, a failing file is corrupt."""


class GroupDecoder(Protocol):
    """Decodes a group of files at one time."""

    @property
    def lanes(self) -> int:
        """Number of threads that may call the decoder at one time."""

    @property
    def group_pixels(self) -> int:
        """Number of pixels at which a group is full, so that a batch of huge images does not take huge memory."""

    def part(self, item: Encoded) -> str:
        """Name of the part of a group that a file belongs to; the parts of a group are decoded separately."""

    def cost_bytes(self, item: Encoded) -> int:
        """Peak memory of decoding and resizing a file, in bytes, without the file itself."""

    def __call__(self, group: Sequence[Encoded], memory: Memory) -> Pixels | DevicePixels:
        """(N, H, W, 3) uint8 pixels of a group, owned by the caller.

        Args:
            group: Files of one part.
            memory: Pool from which each file's cost is leased while the file is decoded.

        Raises:
            Exception: Any error, if one of the files cannot be decoded.
        """

    def close(self) -> None:
        """End every thread; calling it twice is harmless."""


class BatchingDecoder:
    """A `batchcls.images.decoders.base.Decoder` that reads files ahead and decodes them in groups.

    Args:
        decode_group: Decoder of a group of files, which is closed with this decoder.
        size_px: Height and width of the engine's input.
        options: Batch size and limits.
    """

    def __init__(
        self,
        decode_group: GroupDecoder,
        size_px: tuple[int, int],
        options: DecoderOptions,
    ) -> None:
        self._decode_group = decode_group
        self._turns = BoundedSemaphore(decode_group.lanes)
        self._size_px = size_px
        self._batch_size = options.batch_size
        memory_bytes = options.memory_bytes or available_bytes() // 2
        reading = memory_bytes // READ_PART
        self._memory = MemoryPool(memory_bytes - reading)
        files_ahead = max(_FILES_AHEAD, _READ_BATCHES_AHEAD * options.batch_size)
        self._read = ReadOptions(
            options.max_pixels, options.read_timeout_s, reading, files_ahead, digests=options.digests
        )
        self._files: ReadAhead | None = None
        self.peak_memory_bytes = 0

    def decode(self, slides: Iterable[Slide], readers: SlideReaders | None = None) -> Generator[Batch]:
        if readers is not None:
            yield from self._read_and_decoded(slides, readers)
            return
        with closing(open_readers()) as own:
            yield from self._read_and_decoded(slides, own)
        self.peak_memory_bytes += own.peak_memory_bytes

    def _read_and_decoded(self, slides: Iterable[Slide], readers: SlideReaders) -> Generator[Batch]:
        files = self._files = ReadAhead(slides, readers, self._read)

        def decoded(group: EncodedGroup) -> list[Batch]:
            try:
                with self._turns:
                    return self._batches(group)
            finally:
                files.release(group.encoded)

        groups = parallel_map(decoded, self._groups(files), self._decode_group.lanes, files.close)
        batches = prefetch((batch for group in groups for batch in group), _BATCHES_AHEAD)
        try:
            for batch in batches:  # noqa: UP028  # `yield from` would close the batches before the files they wait for
                yield batch
        finally:
            files.close()
            batches.close()
            groups.close()

    def sibling(self, memory_bytes: int) -> "BatchingDecoder":
        decoder = copy(self)
        largest_file_bytes = self._read.largest_file_bytes or self._read.budget_bytes
        decoder._read = replace(self._read, budget_bytes=memory_bytes, largest_file_bytes=largest_file_bytes)
        decoder._files = None
        return decoder

    def waiting(self) -> tuple[str, float] | None:
        return self._files.waiting() if self._files else None

    def stop(self) -> None:
        if self._files:
            self._files.close()

    def close(self) -> None:
        self._decode_group.close()

    def _groups(self, files: Iterable[Encoded | Failure | Postponed | None]) -> Iterator[EncodedGroup]:
        """Groups of as many files as a batch may have, or of fewer if no more files arrive for a moment."""
        group = EncodedGroup()
        since = perf_counter()
        for item in files:
            group.read_s += perf_counter() - since
            if item is not None:
                group.add(item)
            full = group.files >= self._batch_size or group.pixels >= self._decode_group.group_pixels
            if full or (item is None and group.files):
                yield group
                group = EncodedGroup()
            since = perf_counter()
        if group.files:
            yield group

    def _batches(self, group: EncodedGroup) -> list[Batch]:
        """The batches of a group: usually one, more if a file cannot be decoded."""
        parts: dict[str, list[Encoded]] = defaultdict(list)
        postponed = group.postponed
        for item in group.encoded:
            if (cost := self._decode_group.cost_bytes(item)) > self._memory.size_bytes:
                postponed.append(Postponed(item.slide, decode_budget_bytes(cost)))
            else:
                parts[self._decode_group.part(item)].append(item)
        batches = [batch for part in parts.values() for batch in self._isolated(part)]
        if group.failures or postponed:
            batches.append(self._without_pixels(group.failures, postponed))
        return [replace(batches[0], read_s=group.read_s), *batches[1:]]

    def _isolated(self, part: Sequence[Encoded]) -> Iterator[Batch]:
        """The batches of a part: one if the part can be decoded, else those of its halves, down to single files."""
        try:
            batch = self._decoded(part, self._memory)
        except BatchclsError:  # no fault of the files
            raise
        except Exception as error:  # noqa: BLE001  # the fault of one file, which becomes that file's row
            short = is_memory_error(error)
        else:
            yield batch
            return
        # After the except block, when the exception is deleted with the pixels that its traceback holds.
        if len(part) == 1:
            yield self._decide_alone(part[0], short)
        else:
            middle = len(part) // 2
            yield from self._isolated(part[:middle])
            yield from self._isolated(part[middle:])

    def _decoded(self, part: Sequence[Encoded], memory: Memory) -> Batch:
        since = perf_counter()
        pixels = self._decode_group(part, memory)
        return Batch(
            slides=[item.slide for item in part],
            sizes=[(item.header.width, item.header.height) for item in part],
            pixels=pixels,
            decode_s=perf_counter() - since,
        )

    def _decide_alone(self, item: Encoded, short: bool) -> Batch:
        """The batch of a file that failed by itself: decoded at the second try, corrupt, or postponed.

        Many libraries do not say that they lacked memory. So a file counts as corrupt only after a second try, with
        nothing else being decoded and its cost being free. If decoding lacks memory even then, the file is corrupt if
        several times its cost is free, for damaged headers can demand any amount of memory.

        Args:
            item: The file.
            short: Whether the first try raised an error about memory.
        """
        cost = self._decode_group.cost_bytes(item)
        # If so much is free although other threads have taken memory since, the first try did not lack memory.
        plenty = _SMALL_COST_BYTES if cost < _SMALL_COST_BYTES else self._memory.size_bytes
        if not short and can_allocate(plenty):
            return self._without_pixels([_failure(item)])
        with self._memory.lease_all() as memory:
            if not can_allocate(cost):
                return self._without_pixels(postponed=[Postponed(item.slide, decode_budget_bytes(cost))])
            try:
                return self._decoded([item], memory)
            except BatchclsError:
                raise
            except Exception as again:  # noqa: BLE001  # as above
                short = is_memory_error(again)
            most = _LARGEST_COST_RATIO * cost + _SMALL_COST_BYTES
            if short and not can_allocate(most):
                return self._without_pixels(postponed=[Postponed(item.slide, decode_budget_bytes(most))])
        return self._without_pixels([_failure(item)])

    def _without_pixels(self, failures: Sequence[Failure] = (), postponed: Sequence[Postponed] = ()) -> Batch:
        return Batch([], [], np.empty((0, *self._size_px, 3), np.uint8), failures, postponed)


def _failure(item: Encoded) -> Failure:
    reason = "it ends early" if item.header.suspect else "its image data cannot be decoded"
    return Failure(item.slide, "corrupt", reason, item.header.width, item.header.height)
