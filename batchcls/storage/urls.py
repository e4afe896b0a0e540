"""URLs of objects in stores and on web servers."""

import re
from urllib.parse import urlsplit

from batchcls.errors import SlidesError

_URL = re.compile(r"(s3|gs|az|https?)://", re.IGNORECASE)


def is_url(place: str) -> bool:
    """Whether a place is named by a URL of an object store or a web server."""
    return _URL.match(place) is not None


def bucket_and_key(url: str) -> tuple[str, str]:
    """The URL of the bucket, or of the web server, and the key below it, as the object's own name spells it.

    Raises:
        SlidesError: If the URL holds credentials, or a query, which may hold some.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise SlidesError(
            f"the URL of {bare!r} holds a user name, a query or a fragment, which would be written to the predictions; "
            "give credentials in the provider's own environment variables or files"
        )
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme.lower()}://{bucket}", key
