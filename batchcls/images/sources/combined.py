"""Several sources, one after the other."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TypeVar

import pyarrow as pa

from batchcls.errors import SlidesError
from batchcls.images.sources.base import NOTHING_KEPT, Source
from batchcls.records import Slide

T = TypeVar("T")


def combined(opener: Callable[[T], Source], places: Sequence[T]) -> Source:
    """The slides of several places, each of which ``opener`` opens; none stays open if one of them cannot be."""
    sources: list[Source] = []
    with ExitStack() as opened:
        for place in places:
            sources.append(opened.enter_context(closing(opener(place))))
        opened.pop_all()
    return sources[0] if len(sources) == 1 else CombinedSource(sources)


class CombinedSource:
    """A `batchcls.images.sources.base.Source` of the slides of several sources, in their order."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    @property
    def count(self) -> int:
        return sum(source.count for source in self._sources)

    @property
    def complete(self) -> bool:
        return all(source.complete for source in self._sources)

    @property
    def skipped(self) -> Counter[str]:
        return sum((source.skipped for source in self._sources), Counter())

    @property
    def unlisted(self) -> list[str]:
        return [place for source in self._sources for place in source.unlisted]

    @property
    def kept(self) -> pa.Schema:
        schemas = [source.kept for source in self._sources if len(source.kept)]
        for schema in schemas[1:]:
            if not schema.equals(schemas[0]):
                raise SlidesError(
                    f"--keep: the tables have columns of different types, {_types(schemas[0])} and {_types(schema)}; "
                    "write them with the same ones"
                )
        return schemas[0] if schemas else NOTHING_KEPT

    @property
    def roots(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(root for source in self._sources for root in source.roots))

    def __iter__(self) -> Iterator[Slide]:
        for source in self._sources:
            yield from source

    def waiting(self) -> tuple[str, float] | None:
        return next(filter(None, (source.waiting() for source in self._sources)), None)

    def close(self) -> None:
        for source in self._sources:
            source.close()


def _types(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
