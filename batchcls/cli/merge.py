"""The command ``batchcls merge``."""

from pathlib import Path, PurePath

import click

from batchcls.cli.libraries import extra
from batchcls.cli.options import OutPath, SlidesPlace
from batchcls.cli.printing import echo, next_line
from batchcls.storage.urls import is_url


@click.command()
@click.argument("shards", type=SlidesPlace())
@click.option(
    "--out",
    type=OutPath(takes_urls=True, dir_okay=False, path_type=Path),
    required=True,
    help="Parquet file to write; or its URL in an object store.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file when the new one is whole.")
@click.option("--quiet", is_flag=True, help="Show errors only.")
def merge(shards: Path | str, out: Path | str, overwrite: bool, quiet: bool) -> None:
    """Merge the files of all shards of a job into one predictions file.

    SHARDS is the folder that `batchcls run --shard` wrote to, or its URL. The merged file is the one that a single run
    would have written. Shards that are missing or unfinished, or made by another engine or from another list than the
    others, are refused; the message says which ones to run again.
    """
    from batchcls.predictions.merge import merge_shards  # after parsing: --help stays light
    from batchcls.storage.shards import index_ranges

    shards = shards if is_url(str(shards)) else Path(shards)
    if any(isinstance(place, str) for place in (shards, out)):
        with extra("cloud", "merging in an object store"):
            import batchcls.storage.object_url  # noqa: F401

    summary = merge_shards(shards, out, overwrite=overwrite)
    if quiet:
        return
    echo(f"{summary.rows:,} rows of {summary.shards:,} shards, {summary.errors.total():,} unreadable -> {out}")
    if summary.unreadable_shards:
        echo(
            "again     a disk or a network did not hand out all files; these shards, run again, try them again: "
            f"{index_ranges(summary.unreadable_shards)}; then merge with --overwrite"
        )
    echo(next_line("batchcls", "report", out, "--out", PurePath(out).with_suffix(".html").name))
