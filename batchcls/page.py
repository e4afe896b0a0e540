"""Values become one HTML page that needs nothing beside itself."""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from batchcls import __version__
from batchcls.errors import writing


def page(name: str, **values: Any) -> str:
    """The page ``name`` of ``batchcls/pages``, with every value escaped that is not marked as safe.

    Its policy lets no style or script count that does not carry its nonce.
    """
    environment = Environment(
        loader=PackageLoader("batchcls", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = "{:,}".format
    environment.filters["percent"] = "{:.2%}".format
    place = secrets.token_urlsafe()
    text = environment.get_template(f"{name}.html").render(version=__version__, nonce=place, **values)
    # The same values give the same page, and none of them can hold the digest of all.
    return text.replace(place, hashlib.sha256(text.replace(place, "").encode(errors="replace")).hexdigest())


def write_page(out: Path, text: str) -> None:
    """Leave ``out`` with this content, or untouched.

    Raises:
        OutputError: If the disk refuses.
    """
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(text.encode(errors="backslashreplace"))  # names may be no UTF-8
            unfinished.replace(out)
    finally:
        with suppress(OSError):
            unfinished.unlink()
