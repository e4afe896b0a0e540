"""Listing of buckets, and of what is below a prefix, in the order of the store, a part at a time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING

from batchcls.images.servers.image_names import IMAGE_ENDINGS, has_image_ending
from batchcls.images.servers.name_queue import LISTED_PART, packed_names, packed_numbers
from batchcls.images.servers.object_reads import LONGEST_S, PAUSES_S, modified_ns, patiently, pause
from batchcls.storage.object_reasons import is_final
from batchcls.storage.object_store import exceptions, obstore, open_store, place_errors
from batchcls.storage.urls import bucket_and_key, is_web

if TYPE_CHECKING:
    from obstore import ObjectMeta

_PART_NAMES, _PART_BYTES, _PART_S = 16_384, 512 << 10, 0.2
"""Names and bytes of names in a part, and time after which it is handed over all the same."""
_PAGE = 256
_MOST_QUERIES = 32


def are_objects(urls: Sequence[str]) -> bytes:
    """For each URL 1 if it names one object, or else 0: a bucket, or what is below a prefix.

    Raises:
        SlidesError: If a bucket cannot be used at all.
    """
    with ThreadPoolExecutor(min(_MOST_QUERIES, len(urls))) as pool:
        return bytes(pool.map(_is_object, urls))


def _is_object(url: str) -> bool:
    bucket_url, key = bucket_and_key(url)
    if is_web(url):
        return True
    if not key or key.endswith("/"):
        return False
    store = open_store(bucket_url)
    try:
        size = patiently(url, lambda: obstore.head(store, key)["size"])
    except OSError:  # where access is refused, listing is refused too, and tells the reason
        return False
    return size > 0 or key[key.rfind(".") :].lower() in IMAGE_ENDINGS  # folders of Azure are empty objects


def listed_parts(url: str, excluded: Sequence[str]) -> Iterator[bytes]:
    """The images below a URL, in parts that begin with `LISTED_PART`; an empty part now and then.

    Args:
        url: URL of a bucket, or of a place in it.
        excluded: URLs in the same bucket that are left out: of objects, and, with a slash at the end, of prefixes.

    Raises:
        SlidesError: If it cannot be listed.
    """
    bucket_url, key = bucket_and_key(url)
    prefix = key.strip("/")
    below = len(prefix) + 1 if prefix else 0
    keys = [bucket_and_key(other)[1] for other in excluded]
    objects, prefixes = frozenset(keys), tuple(key for key in keys if key.endswith("/"))
    part = _Part()
    with place_errors(url):
        for page in _pages(bucket_url, prefix or None):
            for meta in page:
                path = meta["path"]
                if path not in objects and not path.startswith(prefixes):
                    part.add(path[below:].encode(), meta["size"], modified_ns(meta["last_modified"]))
            if part.is_due:
                yield part.packed()
                part = _Part()
    yield part.packed()


def _pages(bucket_url: str, prefix: str | None) -> Iterator["Sequence[ObjectMeta]"]:
    """The objects below a prefix, some at a time; after an error that may pass, listing goes on behind the last one."""
    store, last, failures, since = open_store(bucket_url), None, 0, monotonic()
    while True:
        try:
            for page in obstore.list(store, prefix, offset=last, chunk_size=_PAGE):
                yield page
                last, failures, since = page[-1]["path"], 0, monotonic()
            return
        except exceptions.BaseError as error:
            if failures == len(PAUSES_S) or monotonic() - since > LONGEST_S or is_final(error):
                raise
        pause(failures)
        failures += 1


class _Part:
    """Objects that have been listed and not been handed over."""

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self._sizes: list[int] = []
        self._times_ns: list[int] = []
        self._hidden = self._others = self._bytes = 0
        self._since = monotonic()

    def add(self, name: bytes, size_bytes: int, time_ns: int) -> None:
        """Add an object, if it is an image; else count it."""
        if name.startswith(b".") or b"/." in name:
            self._hidden += 1
        elif not has_image_ending(name) or b"\0" in name:
            self._others += 1
        else:
            self._names.append(name)
            self._sizes.append(size_bytes)
            self._times_ns.append(time_ns)
            self._bytes += len(name)

    @property
    def is_due(self) -> bool:
        """Whether it is to be handed over."""
        full = len(self._names) >= _PART_NAMES or self._bytes >= _PART_BYTES
        return full or monotonic() - self._since > _PART_S

    def packed(self) -> bytes:
        """The part as bytes."""
        names = packed_names(self._names) if self._names else b""
        numbers = packed_numbers(self._sizes, self._times_ns) if self._names else b""
        head = LISTED_PART.pack(len(self._names), self._hidden, self._others, len(names))
        return head + names + numbers
