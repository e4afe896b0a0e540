"""What the commands call devices."""

import re

import click


def known_device(device: str, *, several: bool = False) -> str:
    """``device``, if it could be one; ``all`` only where there may be several."""
    if (device == "all" and several) or re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        return device
    raise click.BadParameter(f"{device!r} is not one of auto, cpu, cuda, cuda:N{', all' if several else ''}")
