"""The part of a run's identity that tells a shard, and the list that all shards of a job have in common."""

from collections.abc import Sequence
from typing import Any

from batchcls.images.sources.list_record import list_record
from batchcls.images.sources.places import Place
from batchcls.storage.shards import Shard


def shard_identity(shard: Shard | None, slides: Sequence[Place]) -> dict[str, Any]:
    """The entry ``shard`` of the identity of a run of one shard; JSON values, none for a run of all slides.

    Raises:
        SlidesError: If a list among ``slides`` cannot be read.
    """
    if shard is None:
        return {}
    record = list_record(slides) or {"list": None, "list_rows": None}
    return {"shard": {"index": shard.index, "count": shard.count, **record}}
