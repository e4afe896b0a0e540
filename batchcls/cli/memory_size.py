"""The value of ``--memory``."""

import re

import click

_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?([KMGT])i?B?", re.IGNORECASE)
_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


class MemorySize(click.ParamType[int]):
    """Bytes, of a number and a unit of 1024 to some power: ``1500M``, ``4G``, ``2.5 GiB``."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        size = _SIZE.fullmatch(str(value).strip())
        size_bytes = int(float(size[1]) * (1 << _UNITS[size[2].upper()])) if size else 0
        if not size_bytes:
            self.fail(f"{value!r} is no size; use a number and a unit, such as 4G or 1500M", param, ctx)
        return size_bytes
