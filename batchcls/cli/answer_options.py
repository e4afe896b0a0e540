"""The options for answers beyond labels and probabilities."""

from collections.abc import Callable
from typing import Any

import click

from batchcls.cli.options import FiniteRange

_OPTIONS = (
    click.option(
        "--top",
        type=click.IntRange(1, 1000),
        metavar="N",
        help="Write the N most probable labels of each image, and their probabilities, into columns of their own.",
    ),
    click.option(
        "--embeddings",
        is_flag=True,
        help="Write the embedding of each image into a column: the network's last pooled layer, in float16.",
    ),
    click.option(
        "--novel-above",
        type=FiniteRange(0.5, 1),
        default=0.99,
        show_default=True,
        metavar="SHARE",
        help="Novelty from which on an image counts as novel, if the engine tells novelty: the share of images of the "
        "kind that the engine was made for which look less strange.",
    ),
    click.option(
        "--coverage",
        type=FiniteRange(0.5, 0.9999),
        metavar="SHARE",
        help="Share of images whose set of labels shall hold the true one, if the engine promises it.  [default: the "
        "highest that the engine promises]",
    ),
)


def ANSWER_OPTIONS(command: Callable[..., Any]) -> Callable[..., Any]:  # noqa: N802  # as the other shared options
    """Give a command the options for answers beyond labels and probabilities."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
