"""Options that several commands of the benchmarks share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

CHECKOUT = Path(os.path.relpath(Path(__file__).parent.parent))
ENGINE = CHECKOUT / "engines" / "all4-googlenet"

engine_option = click.option(
    "--engine",
    type=click.Path(exists=True, path_type=Path),
    default=ENGINE,
    show_default="the committed one",
    help="Engine folder to measure.",
)


def repeats_option(default: int, samples: str) -> Callable[[Any], Any]:
    """The option ``--repeats``.

    Args:
        default: Number of repeats.
        samples: What is repeated, in the help's words.
    """
    return click.option(
        "--repeats", type=click.IntRange(1), default=default, show_default=True, help=f"Samples of {samples}."
    )


def out_option(folder: str) -> Callable[[Any], Any]:
    """The option ``--out``.

    Args:
        folder: Folder of the default file, in the help's words.
    """
    return click.option(
        "--out",
        type=click.Path(path_type=Path),
        help=f"JSON Lines file to append records to.  [default: {folder}/DATE.jsonl]",
    )
