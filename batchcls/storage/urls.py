"""URLs of objects in stores and on web servers.

``s3://BUCKET/KEY``, ``gs://BUCKET/KEY`` and ``az://CONTAINER/KEY`` hold a key as it is, without percent-encoding, as
the providers' own tools take it; the environment names Azure's account. ``https://HOST/PATH`` is a URL of the web.
"""

import re
from urllib.parse import unquote

from batchcls.errors import SlidesError

_URL = re.compile(r"(s3|gs|az|https?)://", re.IGNORECASE)


def is_url(place: str) -> bool:
    """Whether a place is named by a URL of an object store or a web server."""
    return _URL.match(place) is not None


def is_web(url: str) -> bool:
    """Whether a URL names an object on a web server, which lists no folders."""
    return url[:4].lower() == "http"


def bucket_and_key(url: str) -> tuple[str, str]:
    """The URL of the bucket, or of the web server, and the key below it, as the object's own name spells it.

    Raises:
        SlidesError: If the URL names no bucket, or holds credentials, or a web query, which may hold some.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if "@" in bucket or (is_web(url) and re.search(r"[?#]", rest)):
        bare = re.split(r"[?#]", rest.rpartition("@")[2])[0]
        raise SlidesError(
            f"the URL of {f'{scheme}://{bare}'!r} holds a user name, a query or a fragment, which would be written to "
            "the predictions; give credentials in the provider's own environment variables or files"
        )
    if not bucket:
        raise SlidesError(f"{url!r} names no bucket; name one, such as s3://BUCKET/FOLDER")
    return f"{scheme.lower()}://{bucket}", unquote(key) if is_web(url) else key
