"""Values become one HTML page that needs nothing beside itself."""

import hashlib
import secrets
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from batchcls import __version__
from batchcls.storage.atomic import write_whole, writing


def page(name: str, **values: Any) -> str:
    """The page ``name`` of ``batchcls/evaluation/templates``, with every value escaped that is not marked as safe.

    Its policy lets no style or script count that does not carry its nonce.
    """
    environment = Environment(
        loader=PackageLoader("batchcls", "evaluation/templates"),
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
        OutputError: If the disk refuses, or what stands there is no file.
    """
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, text.encode(errors="backslashreplace"))  # names may be no UTF-8
