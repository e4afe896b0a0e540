"""One shard of the slides of a source."""

from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b

import pyarrow as pa

from batchcls.images.sources.base import Source
from batchcls.records import Slide
from batchcls.storage.file_names import printable
from batchcls.storage.shards import Shard


def slide_hash(slide: Slide) -> int:
    """The hash by which slides are shared out: the BLAKE2b digest, of 8 bytes, of root, a zero byte and path.

    Root and path are taken as they stand in a predictions file, in UTF-8; the digest is read as a little-endian number.
    So a slide is in the same shard on every machine, whatever else is listed.
    """
    key = f"{printable(slide.root)}\0{printable(slide.path)}"
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")


class ShardSource:
    """A `batchcls.images.sources.base.Source` of those slides of another source that are in one shard."""

    def __init__(self, source: Source, shard: Shard) -> None:
        self.count = 0
        self.complete = False
        self._source = source
        self._shard = shard

    @property
    def skipped(self) -> Counter[str]:
        return self._source.skipped

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
        index, shards = self._shard.index, self._shard.count
        for slide in self._source:
            if slide_hash(slide) % shards == index:
                self.count += 1
                yield slide
        self.complete = True

    def waiting(self) -> tuple[str, float] | None:
        return self._source.waiting()

    def close(self) -> None:
        self._source.close()
