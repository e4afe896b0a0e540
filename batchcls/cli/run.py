"""The command ``batchcls run``."""

import sys
from pathlib import Path, PurePosixPath
from typing import Any

import click

from batchcls.cli.answer_options import ANSWER_OPTIONS
from batchcls.cli.libraries import library_noise_hidden
from batchcls.cli.options import (
    ALLOW_REMOTE,
    ENGINE,
    KEEP,
    ROOT,
    ROWS_OF_FILES,
    FiniteRange,
    MemorySize,
    OutPath,
    SlidesPlace,
    check_cluster,
    check_device,
)
from batchcls.cli.printing import echo, next_line
from batchcls.cli.run_summary import run_summary
from batchcls.cli.shard_option import SHARD
from batchcls.errors import EngineError


@click.command()
@click.argument("slides", type=SlidesPlace(), nargs=-1, required=True)
@click.option(
    "--out",
    type=OutPath(takes_urls=True, takes_folders=True, dir_okay=False, path_type=Path),
    required=True,
    help="File to write, .parquet, .csv or .jsonl; or its URL in an object store, such as "
    "s3://bucket/predictions.parquet; or a folder of Parquet files, such as predictions/.",
)
@ROWS_OF_FILES
@ENGINE
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]|all",
    callback=lambda context, option, device: check_device(device, several=True),
    help="Device to classify on; auto: the first GPU if there is one, or else the CPU; all: every GPU.",
)
@click.option(
    "--backend",
    type=click.Choice(["openvino", "tensorrt", "torch", "onnxruntime", "null"]),
    help="Runtime of the engine; null answers without computing, to time the rest.  [default: the fastest installed "
    "one for the device]",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    help="Arithmetic on a CPU.  [default: bf16 if the CPU has it in hardware, or else fp32]",
)
@click.option(
    "--decoder",
    type=click.Choice(["turbo", "dali", "pillow"]),
    help="Image decoder. turbo: fast, on the CPU; dali: JPEGs on the GPU; pillow: exactly the pixels of training, but "
    "slow.  [default: dali on a GPU, or else turbo]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 4096),
    help="Images in a batch.  [default: the engine's own; for decoding on a GPU, at least 256]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="CPU threads that decode, and as many that classify, in all processes together.  [default: one a core]",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    help="Processes for each device, which share out its images, the CPU threads and the memory.  [default: 1]",
)
@click.option(
    "--cluster",
    metavar="ray|HOST:PORT|ray://HOST:PORT",
    callback=lambda context, option, cluster: check_cluster(cluster),
    help="Ray cluster to classify on, on all its GPUs or cores. ray: the one that $RAY_ADDRESS names or that runs on "
    "this machine, or else one that is started for the run; HOST:PORT: the one with this head; ray://HOST:PORT: by Ray "
    "Client. Threads, processes and memory are then those of each node.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1, 10**11),
    default=200_000_000,
    show_default=True,
    help="Largest image to decode; the row of a larger one says so.",
)
@click.option(
    "--memory",
    type=MemorySize(),
    metavar="SIZE",
    help="Most memory for all processes of the run together, such as 4G or 1500M.  [default: half of the free memory]",
)
@click.option(
    "--read-timeout",
    "read_timeout_s",
    type=FiniteRange(0.001, 86_400),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that the file system may take for one answer; a file without an answer has a row that says so, and the "
    "next run reads it again.",
)
@ANSWER_OPTIONS
@SHARD
@ROOT
@ALLOW_REMOTE
@KEEP
@click.option("--overwrite", is_flag=True, help="Replace an existing file when the new one is whole.")
@click.option(
    "--update",
    is_flag=True,
    help="Where FILE is whole already, classify the files that have come since, and again those whose size or time of "
    "change is another one; all other rows are kept.",
)
@click.option(
    "--prune",
    is_flag=True,
    help="With --update, drop the rows of files that are gone. None is dropped if a folder could not be listed.",
)
@click.option(
    "--by-content",
    is_flag=True,
    help="Write a digest of each file's bytes into a column; with --update, only files with other bytes than their "
    "digest says count as changed, whatever their time. Every file is read for that.",
)
@click.option("--strict", is_flag=True, help="Exit with code 3 if any file or folder could not be read.")
@click.option("--quiet", is_flag=True, help="Show errors and warnings only.")
def run(
    slides: tuple[str | Path, ...], out: Path | str, engine: Path | None, strict: bool, quiet: bool, **options: Any
) -> None:
    """Classify every image below SLIDES into one file, or a folder of Parquet files.

    SLIDES are folders, which are searched to any depth, and files; a table, in CSV or Parquet, with a column path; a
    list of paths, as @FILE, or - for standard input. Each file has one row, whatever is wrong with it. A run can be
    stopped at any time: the same command goes on where it was.
    """
    if options["update"] and options["overwrite"]:
        raise click.UsageError("--update keeps rows, and --overwrite drops all of them; leave out one of the two.")
    if options["prune"] and not options["update"]:
        raise click.UsageError("--prune drops rows of files that are gone, with --update only; add --update.")
    if options["shard"] and options["rows_per_file"]:
        raise click.UsageError("--shard writes one file for each shard; leave out --rows-per-file.")
    from batchcls.storage.memory import limit_memory_use  # after parsing: --help stays light

    limit_memory_use()
    from batchcls.inference.options import RunOptions
    from batchcls.inference.run import classify_images

    engine = engine or only_engine()
    with library_noise_hidden() as console:
        console.quiet = quiet
        stats = classify_images(slides, engine, out, RunOptions(**options), console)
    for warning in stats.warnings:
        echo(f"warning: {warning}", err=True)
    if not quiet:
        name = PurePosixPath(out).name if isinstance(out, str) else out.resolve().name
        if shard := options["shard"]:
            following = next_line("batchcls", "merge", out, "--out", f"{name or 'merged'}.parquet")
            out = f"{out.rstrip('/')}/{shard.file_name}" if isinstance(out, str) else out / shard.file_name
        else:
            page = Path(name if isinstance(out, str) else out).with_suffix(".html")
            following = next_line("batchcls", "report", out, "--out", page)
        echo(*run_summary(stats, out), following)
    if strict and (stats.unreadable or stats.unlisted):
        sys.exit(3)


def only_engine() -> Path:
    """The only engine folder below ./engines.

    Raises:
        EngineError: If there is none, or more than one.
    """
    from batchcls.engine.manifest import engine_folders_below

    engines = engine_folders_below(Path("engines"))
    if len(engines) != 1:
        names = ", ".join(map(str, engines)) or "none"
        raise EngineError(
            f"no --engine was named, and ./engines holds {len(engines)} ({names}); run: batchcls run --engine DIR"
        )
    return engines[0]
