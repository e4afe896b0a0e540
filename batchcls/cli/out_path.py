"""The value of ``--out``."""

from typing import Any

import click


class OutPath(click.Path):
    """As click's own, which takes an empty name for the current folder, and ``results/`` for a file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty; is a variable of the shell not set?", param, ctx)
        if not self.dir_okay and str(value).endswith("/"):
            self.fail(f"{str(value)!r} names a folder; name a file in it", param, ctx)
        return super().convert(value, param, ctx)
