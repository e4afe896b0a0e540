"""``python -m benchmarks.agreement``: measure networks with random weights against the libraries that made them."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console

from benchmarks.agreement.comparison import compare, draw_images
from benchmarks.agreement.names import AGREEMENT_NETWORKS
from benchmarks.agreement.table import keep, write_page


@click.command()
@click.option(
    "--network",
    "networks",
    multiple=True,
    type=click.Choice(AGREEMENT_NETWORKS),
    metavar="LIBRARY/NAME",
    help="Network to measure; may be repeated.  [default: all]",
)
def main(networks: tuple[str, ...]) -> None:
    """Compare engines of random networks with timm, torchvision, Keras and transformers, and write the table."""
    console, failures = Console(), []
    with TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        draw_images(images)
        for place, network in enumerate(networks or AGREEMENT_NETWORKS):
            library, name = network.split("/", 1)
            folder = Path(scratch) / str(place)
            folder.mkdir()
            try:
                result = compare(library, name, images, folder)
            except subprocess.CalledProcessError:
                failures.append(network)  # its command has said why
                continue
            console.print(result, markup=False)
            keep(result)
            write_page()
    if failures:
        raise click.ClickException(f"not measured: {', '.join(failures)}")


if __name__ == "__main__":
    main()
