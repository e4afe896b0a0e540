"""Each slide once, however often lists, tables and folders name it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchcls.images.sources.base import ChunkedSource, Source
from batchcls.records import Slide

_CHUNK_SLIDES = 1024
_DIGEST_BYTES = 16
_RUN_SLIDES = 1 << 20
"""Largest number of digests that are sorted together."""
_Words = npt.NDArray[np.uint64]


class DistinctSource:
    """A `batchcls.images.sources.base.Source` of the slides of another one, each of them once."""

    def __init__(self, source: Source) -> None:
        self.count = 0
        self._source = source
        self._seen = SeenSlides()
        self._doubled = 0

    @property
    def complete(self) -> bool:
        return self._source.complete

    @property
    def skipped(self) -> Counter[str]:
        return self._source.skipped + Counter({"listed already": self._doubled})

    @property
    def unlisted(self) -> list[str]:
        return self._source.unlisted

    @property
    def kept(self) -> pa.Schema:
        return self._source.kept

    @property
    def roots(self) -> tuple[str, ...]:
        return self._source.roots

    def __iter__(self) -> Iterator[Slide]:
        for slides in self._chunks():
            new = self._seen.new(slides)
            self._doubled += len(slides) - len(new)
            self.count += len(new)
            yield from new

    def _chunks(self) -> Iterator[Sequence[Slide]]:
        # A list may come slowly through standard input: no slide waits for the next one.
        if isinstance(self._source, ChunkedSource):
            yield from self._source.chunks()
            return
        slides = iter(self._source)
        while chunk := list(islice(slides, _CHUNK_SLIDES)):
            yield chunk

    def waiting(self) -> tuple[str, float] | None:
        return self._source.waiting()

    def close(self) -> None:
        self._source.close()


class SeenSlides:
    """The slides that have been seen, each kept as 16 bytes."""

    def __init__(self) -> None:
        self._runs: list[tuple[_Words, _Words]] = []
        """Digests in two halves, each run sorted by the first one."""

    def new(self, slides: Sequence[Slide]) -> list[Slide]:
        """Those of ``slides`` that have not been seen, each once; they count as seen from now on."""
        by_digest: dict[bytes, Slide] = {}
        for slide in slides:
            by_digest.setdefault(_digest(slide), slide)
        slides = list(by_digest.values())
        words = np.frombuffer(b"".join(by_digest), np.uint64).reshape(-1, 2)
        first, second = words[:, 0], words[:, 1]
        is_new = ~np.any([_holds(run, first, second) for run in self._runs], axis=0) if self._runs else None
        if is_new is not None and not is_new.all():
            slides = [slide for slide, new in zip(slides, is_new.tolist(), strict=True) if new]
            first, second = first[is_new], second[is_new]
        if slides:
            self._add(first, second)
        return slides

    def _add(self, first: _Words, second: _Words) -> None:
        self._runs.append((first, second))
        while len(self._runs) > 1:
            larger, smaller = len(self._runs[-2][0]), len(self._runs[-1][0])
            if larger > 2 * smaller or larger + smaller > _RUN_SLIDES:
                break
            runs = [self._runs.pop(), self._runs.pop()]
            self._runs.append((np.concatenate([run[0] for run in runs]), np.concatenate([run[1] for run in runs])))
        order = np.argsort(self._runs[-1][0], kind="stable")
        self._runs[-1] = (self._runs[-1][0][order], self._runs[-1][1][order])


def _holds(run: tuple[_Words, _Words], first: _Words, second: _Words) -> npt.NDArray[np.bool_]:
    """Whether each digest is in a run."""
    place = np.searchsorted(run[0], first)
    found = np.zeros(len(first), np.bool_)
    while True:  # twice only if two digests begin with the same 8 bytes
        inside = place < len(run[0])
        same = np.zeros(len(first), np.bool_)
        same[inside] = run[0][place[inside]] == first[inside]
        found[same] |= run[1][place[same]] == second[same]
        if not (same & ~found).any():
            return found
        place = np.where(same & ~found, place + 1, len(run[0]))


def _digest(slide: Slide) -> bytes:
    key = f"{slide.root}\0{slide.path}"
    return blake2b(key.encode(errors="surrogateescape"), digest_size=_DIGEST_BYTES).digest()
