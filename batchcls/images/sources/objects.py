"""Objects of stores and web servers as a source of slides."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from batchcls.errors import SlidesError
from batchcls.images.servers.name_queue import LISTED_PART, NameQueue, packed_names
from batchcls.images.sources.base import NOTHING_KEPT, SourceOptions
from batchcls.images.sources.listing import Listing
from batchcls.images.sources.object_readers import open_object_process
from batchcls.records import Slide
from batchcls.storage.transient_errors import NO_ANSWER
from batchcls.storage.urls import bucket_and_key, is_web


@dataclass(frozen=True, slots=True)
class _Place:
    """A URL that the user names."""

    url: str
    """The URL, without slashes at its end."""
    is_prefix: bool
    """Whether the URL can name no object, because it names a bucket, or ended with a slash."""

    @classmethod
    def of(cls, url: str) -> Self:
        """The place of a URL as the user gives it."""
        bucket, key = bucket_and_key(url)
        is_prefix = not key or key.endswith("/")
        if is_prefix and is_web(url):
            raise SlidesError(
                f"{url!r} names a folder, and web servers list none; name an image in it, or a list: @FILE"
            )
        _, _, rest = url.partition("://")
        return cls(f"{bucket.partition('://')[0]}://{rest.rstrip('/')}", is_prefix)

    def contains(self, other: Self) -> bool:
        """Whether another place is below this one, or is the same."""
        return f"{other.url}/".startswith(f"{self.url}/")


class ObjectSource:
    """A `batchcls.images.sources.base.Source` of the images below URLs, listed by another process.

    Objects come in the order of the store, which is that of their names' bytes, while it is asked for more. Sizes and
    times of change come along. An object is listed once, even if it is named, or is below several of the URLs. Hidden
    names, and names without an image's ending, are skipped unless the user names them.

    Args:
        urls: URLs of buckets, of prefixes in them, and of objects.
        options: How to list.

    Raises:
        SlidesError: If a URL cannot be used, or obstore is not installed.
    """

    def __init__(self, urls: Sequence[str], options: SourceOptions) -> None:
        self.count = 0
        self.skipped: Counter[str] = Counter()
        self.unlisted: list[str] = []
        self._places = tuple(dict.fromkeys(map(_Place.of, urls)))
        self._kinds: Future[dict[_Place, bool]] = Future()
        """Whether each place is an object."""
        self._queue = NameQueue()
        self._timeout_s = options.timeout_s
        self._listing = Listing(self._list, self._queue.end, options.timeout_s, open_object_process)
        if options.at_once:
            self._listing.start()

    @property
    def complete(self) -> bool:
        """Whether the list has ended, so that ``count`` is final."""
        return self._listing.complete

    @property
    def kept(self) -> pa.Schema:
        """No columns: stores have none."""
        return NOTHING_KEPT

    @property
    def roots(self) -> tuple[str, ...]:
        """All URLs that the ``root`` of a slide may name, in the order in which the user named the places.

        Raises:
            SlidesError: If a store cannot be used.
        """
        self._listing.start()
        kinds = self._kinds.result()
        return tuple(dict.fromkeys(_parent(place)[0] if kinds[place] else place.url for place in self._places))

    def __iter__(self) -> Iterator[Slide]:
        self._listing.start()
        yield from self._queue
        self._listing.check()

    def waiting(self) -> tuple[str, float] | None:
        """The URL that is waited for, and the seconds since then; None if there is none.

        Any thread may call this method.
        """
        return self._listing.waiting()

    def close(self) -> None:
        """Stop listing; calling it twice is harmless."""
        self._listing.close()

    def _list(self) -> None:
        """List all slides into the queue; runs in a thread of its own."""
        try:
            self._list_all()
        except BaseException as error:
            if not self._kinds.done():
                self._kinds.set_exception(error)
            raise

    def _list_all(self) -> None:
        urls = [f"{place.url}/" if place.is_prefix else place.url for place in self._places]
        answer = self._ask(self._places[0], b"K", "\0".join(urls))
        kinds = dict(zip(self._places, map(bool, answer), strict=True))
        objects = [place for place in self._places if kinds[place]]
        prefixes: list[_Place] = []
        for place in self._places:
            if kinds[place]:
                root, name = _parent(place)
                self._queue.put(root, "", packed_names([name.encode()]))
                self.count += 1
                self._know(kinds)
            elif any(prefix.contains(place) for prefix in prefixes):
                self.skipped["folder listed already"] += 1
            else:
                listed = [f"{prefix.url}/" for prefix in prefixes if place.contains(prefix)]
                excluded = [*(other.url for other in objects if place.contains(other)), *listed]
                self._ask(place, b"L", "\0".join([place.url, *excluded]))
                while part := self._ask(place, b"N"):
                    self._know(kinds)
                    self._take(place, part)
                prefixes.append(place)

    def _know(self, kinds: dict[_Place, bool]) -> None:
        """Tell the kinds, once the first answer has shown that the store can be used."""
        if not self._kinds.done():
            self._kinds.set_result(kinds)

    def _take(self, place: _Place, part: bytes) -> None:
        """Take a part of the listing of a place."""
        count, hidden, others, names_bytes = LISTED_PART.unpack_from(part)
        names_end = LISTED_PART.size + names_bytes
        if hidden:
            self.skipped["hidden"] += hidden
        if others:
            self.skipped["not an image"] += others
        if count:
            self.count += count
            self._queue.put(place.url, "", part[LISTED_PART.size : names_end], part[names_end:])

    def _ask(self, place: _Place, operation: bytes, urls: str = "") -> bytes:
        self._listing.wait_for(place.url)
        try:
            return self._listing.lane.ask(operation, urls.encode("utf-8", "surrogateescape"))
        except TimeoutError as error:
            raise SlidesError(
                f"{place.url!r} cannot be listed: {NO_ANSWER} {self._timeout_s:g} s; run the same command again, or "
                "wait longer: --read-timeout SECONDS"
            ) from error
        except OSError as error:
            raise SlidesError(error.strerror or str(error)) from error
        finally:
            self._listing.wait_for(None)


def _parent(place: _Place) -> tuple[str, str]:
    """URL of what holds an object, and the object's name in it."""
    parent, _, name = place.url.rpartition("/")
    return parent, name
