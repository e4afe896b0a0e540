"""The command ``batchcls list``."""

import sys
from pathlib import Path
from typing import Any

import click

from batchcls.cli.libraries import library_noise_hidden
from batchcls.cli.options import ALLOW_REMOTE, KEEP, ROOT, FiniteRange, OutPath, SlidesPlace
from batchcls.cli.printing import echo, next_line


@click.command("list")
@click.argument("slides", type=SlidesPlace(), nargs=-1, required=True)
@click.option("--out", type=OutPath(dir_okay=False, path_type=Path), required=True, help="Parquet file to write.")
@click.option(
    "--read-timeout",
    "read_timeout_s",
    type=FiniteRange(0.001, 86_400),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that the file system may take for one answer; a folder without an answer is not listed.",
)
@ROOT
@ALLOW_REMOTE
@KEEP
@click.option("--overwrite", is_flag=True, help="Replace an existing file when the new one is whole.")
@click.option("--strict", is_flag=True, help="Exit with code 3 if any folder could not be listed.")
@click.option("--quiet", is_flag=True, help="Show errors and warnings only.")
def list_slides(slides: tuple[str | Path, ...], out: Path, strict: bool, quiet: bool, **options: Any) -> None:
    """List every image below SLIDES in one Parquet file, for many runs to share out.

    SLIDES are those of run. The list names each file once, with the size and the time of change where they are known
    without opening it; batchcls run classifies what a list names, in shards too.
    """
    from batchcls.images.slide_list import ListOptions, list_slides  # after parsing: --help stays light

    with library_noise_hidden() as console:
        console.quiet = quiet
        summary = list_slides(slides, out, ListOptions(**options), console)
    for folder in summary.unlisted:
        echo(f"warning: this folder could not be listed: {folder}", err=True)
    if not quiet:
        echo(f"{summary.rows:,} files -> {out}")
        if summary.skipped:
            echo("passed by " + ", ".join(f"{name} {count:,}" for name, count in summary.skipped.most_common()))
        echo(next_line("batchcls", "run", out, "--shard", "0/10", "--out", "preds"))
    if strict and summary.unlisted:
        sys.exit(3)
