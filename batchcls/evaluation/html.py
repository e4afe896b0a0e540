"""HTML pages that need no other file and no network, from templates."""

import hashlib
import secrets
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from batchcls import __version__
from batchcls.storage.atomic import write_whole, writing


def render_page(template: str, **values: object) -> str:
    """A page whose content security policy allows only the styles and scripts of the template.

    Args:
        template: Name of a file in ``batchcls/evaluation/templates``, without ``.html``.
        values: Values of the template, by name; each is escaped unless marked as safe.
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
    nonce = secrets.token_urlsafe()
    text = environment.get_template(f"{template}.html").render(version=__version__, nonce=nonce, **values)
    # A digest of the whole page as nonce: the same values give the same page, and no value can hold that digest.
    return text.replace(nonce, hashlib.sha256(text.replace(nonce, "").encode(errors="replace")).hexdigest())


def write_page(out: Path, text: str) -> None:
    """Write a page into the file ``out``, which is replaced as a whole or left untouched.

    Raises:
        OutputError: If the file cannot be written, or ``out`` exists and is no file.
    """
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, text.encode(errors="backslashreplace"))  # file names may not be UTF-8
