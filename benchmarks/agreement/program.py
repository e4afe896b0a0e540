"""Measure networks with random weights against the libraries that made them, one after the other."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.agreement.comparison import compare, draw_images
from benchmarks.agreement.table import keep, write_page


def measure_agreement(networks: Sequence[str]) -> None:
    """Measure networks, keep the results, and write the table of docs/reference/networks.md after each of them.

    Args:
        networks: Some of `benchmarks.agreement.names.AGREEMENT_NETWORKS`.
    """
    console = Console()
    with TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        draw_images(images)
        for place, network in enumerate(networks):
            library, name = network.split("/", 1)
            folder = Path(scratch) / str(place)
            folder.mkdir()
            result = compare(library, name, images, folder)
            console.print(result, markup=False)
            keep(result)
            write_page()
