"""Batches out of files that are read ahead, whatever decodes them; a file that fails takes no other with it."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Protocol

import numpy as np

from batchcls.decoders.ahead import ahead
from batchcls.decoders.reader import Encoded, ReadAhead
from batchcls.records import Batch, Failure, Pixels, Slide

_GROUP_PIXELS = 64_000_000
"""Decoded at full size at one time, so that a batch of huge images does not take a batch of huge memory."""
_BATCHES_AHEAD = 2


class GroupDecoder(Protocol):
    """Decodes some files at one time."""

    def __call__(self, group: Sequence[Encoded]) -> Pixels:
        """(N, H, W, 3) uint8, which the caller owns; raises anything if one of the files cannot be decoded."""

    def close(self) -> None:
        """End every thread; calling it twice is harmless."""


class BatchingDecoder:
    """A `batchcls.contracts.Decoder` around whatever decodes a group."""

    def __init__(
        self, decode_group: GroupDecoder, size_px: tuple[int, int], *, batch_size: int, max_pixels: int
    ) -> None:
        self._decode_group = decode_group
        self._size_px = size_px
        self._batch_size = batch_size
        self._max_pixels = max_pixels

    def decode(self, slides: Iterable[Slide]) -> Generator[Batch]:
        files = ReadAhead(slides, self._max_pixels)
        batches = ahead(self._batches(files), _BATCHES_AHEAD)
        try:
            for batch in batches:  # noqa: UP028  # `yield from` would close the batches before the files they wait for
                yield batch
        finally:
            files.close()
            batches.close()

    def close(self) -> None:
        self._decode_group.close()

    def _batches(self, files: Iterable[Encoded | Failure]) -> Iterator[Batch]:
        group: list[Encoded] = []
        failures: list[Failure] = []
        pixels = 0
        waited_s = 0.0
        since = perf_counter()
        for item in files:
            waited_s += perf_counter() - since
            if isinstance(item, Failure):
                failures.append(item)
            else:
                group.append(item)
                pixels += item.width * item.height
            if len(group) + len(failures) >= self._batch_size or pixels >= _GROUP_PIXELS:
                yield self._batch(group, failures, waited_s)
                group, failures, pixels, waited_s = [], [], 0, 0.0
            since = perf_counter()
        if group or failures:
            yield self._batch(group, failures, waited_s)

    def _batch(self, group: list[Encoded], failures: list[Failure], read_s: float) -> Batch:
        since = perf_counter()
        # A file without its end mark would most likely cost the others a second decode: it goes alone at once.
        sound = [item for item in group if not item.suspect]
        decoded, pixels = self._decode(sound, failures)
        for suspect in (item for item in group if item.suspect):
            kept, more = self._decode([suspect], failures)
            decoded += kept
            pixels += more
        return Batch(
            slides=[item.slide for item in decoded],
            sizes=[(item.width, item.height) for item in decoded],
            pixels=np.concatenate([np.empty((0, *self._size_px, 3), np.uint8), *pixels])
            if len(pixels) != 1
            else pixels[0],
            failures=failures,
            read_s=read_s,
            decode_s=perf_counter() - since,
        )

    def _decode(self, group: list[Encoded], failures: list[Failure]) -> tuple[list[Encoded], list[Pixels]]:
        """What could be decoded, and its pixels; the others are appended to ``failures``."""
        if not group:
            return [], []
        try:
            return group, [self._decode_group(group)]
        except MemoryError:  # says nothing of the files
            raise
        except Exception:  # noqa: BLE001  # of one file; its batch is decoded again, file by file, to tell which
            if len(group) == 1:
                failures.append(_failure(group[0]))
                return [], []
        decoded: list[Encoded] = []
        pixels: list[Pixels] = []
        for item in group:
            kept, more = self._decode([item], failures)
            decoded += kept
            pixels += more
        return decoded, pixels


def _failure(item: Encoded) -> Failure:
    reason = "it ends early" if item.suspect else "its image data cannot be decoded"
    return Failure(item.slide, "corrupt", reason, item.width, item.height)
