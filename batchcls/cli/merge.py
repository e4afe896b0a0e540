"""The command ``batchcls merge``."""

from pathlib import Path

import click

from batchcls.cli.options import OutPath
from batchcls.cli.printing import echo, next_line


@click.command()
@click.argument("shards", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=OutPath(dir_okay=False, path_type=Path), required=True, help="Parquet file to write.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file when the new one is whole.")
@click.option("--quiet", is_flag=True, help="Show errors only.")
def merge(shards: Path, out: Path, overwrite: bool, quiet: bool) -> None:
    """Merge the files of all shards of a job into one predictions file.

    SHARDS is the folder that `batchcls run --shard` wrote to. The merged file is the one that a single run would have
    written. Shards that are missing or unfinished, or made by another engine or from another list than the others, are
    refused; the message says which ones to run again.
    """
    from batchcls.predictions.merge import merge_shards  # after parsing: --help stays light
    from batchcls.storage.shards import index_ranges

    summary = merge_shards(shards, out, overwrite=overwrite)
    if quiet:
        return
    echo(f"{summary.rows:,} rows of {summary.shards:,} shards, {summary.errors.total():,} unreadable -> {out}")
    if summary.unreadable_shards:
        echo(
            "again     a disk or a network did not hand out all files; these shards, run again, try them again: "
            f"{index_ranges(summary.unreadable_shards)}; then merge with --overwrite"
        )
    echo(next_line("batchcls", "report", out, "--out", out.with_suffix(".html")))
