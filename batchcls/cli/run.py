"""``batchcls run``."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchcls.cli.finite import FiniteRange
from batchcls.cli.memory_size import MemorySize
from batchcls.cli.options import known_device
from batchcls.cli.out_path import OutPath
from batchcls.cli.streams import Guarded
from batchcls.cli.terminal import echo
from batchcls.errors import EngineError

if TYPE_CHECKING:
    from rich.console import Console

    from batchcls.inference.stats import RunStats


@click.command()
@click.argument("slides", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True)
@click.option("--out", type=OutPath(dir_okay=False, path_type=Path), required=True, help="The Parquet file.")
@click.option(
    "--engine",
    type=click.Path(path_type=Path),
    envvar="BATCHCLS_ENGINE",
    help="An engine folder; else $BATCHCLS_ENGINE, else the only one below ./engines.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]|all",
    callback=lambda context, option, device: known_device(device, several=True),
    help="Where to infer; all: every GPU.",
)
@click.option(
    "--backend", type=click.Choice(["openvino", "tensorrt", "torch", "null"]), help="Default: the device's own."
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    help="What a CPU computes in.  [default: bf16 where the CPU has it in hardware]",
)
@click.option(
    "--decoder",
    type=click.Choice(["turbo", "dali", "pillow"]),
    help="turbo: the CPU's fast way, the default there; dali: JPEGs on the GPU, the default there; pillow: the very "
    "pixels of training, slowly.",
)
@click.option("--batch-size", type=click.IntRange(1, 4096), help="Images at a time.  [default: the engine's own]")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.  [default: one a core]")
@click.option(
    "--max-pixels",
    type=click.IntRange(1, 10**11),
    default=200_000_000,
    show_default=True,
    help="Larger images are refused from their header.",
)
@click.option(
    "--memory",
    type=MemorySize(),
    metavar="SIZE",
    help="What the run may take in all, such as 4G or 1500M.  [default: half of what is free]",
)
@click.option(
    "--read-timeout",
    "read_timeout_s",
    type=FiniteRange(0.001, 86_400),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="A file whose disk gives no answer for so long has a row that says so; a later run reads it again.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file, once the new one is whole.")
@click.option("--strict", is_flag=True, help="Exit with 3 if any file or folder could not be read.")
@click.option("--quiet", is_flag=True, help="Show errors and warnings only.")
def run(slides: tuple[Path, ...], out: Path, engine: Path | None, strict: bool, quiet: bool, **options: Any) -> None:
    """Classify every image below SLIDES into one Parquet file.

    SLIDES are folders, searched to any depth, and files. Each file has one row, whatever is wrong with it. Stop the
    run whenever you like: the same command goes on where it was.
    """
    from batchcls.memory import use_sparingly  # after parsing: --help stays light

    use_sparingly()
    from batchcls.inference.options import RunOptions
    from batchcls.inference.run import classify_images

    engine = engine or only_engine()
    with library_noise_hidden() as console:
        console.quiet = quiet
        tally = classify_images(slides, engine, out, RunOptions(**options), console)
    for warning in tally.warnings:
        echo(f"warning: {warning}", err=True)
    if not quiet:
        echo(*summary(tally, out))
    if strict and (tally.unreadable or tally.unlisted):
        sys.exit(3)


def only_engine() -> Path:
    """The engine folder below ./engines, if there is just one."""
    from batchcls.engine.manifest import engines_below

    found = engines_below(Path("engines"))
    if len(found) != 1:
        listed = ", ".join(map(str, found)) or "none"
        raise EngineError(
            f"no --engine was named, and ./engines holds {len(found)} ({listed}); run: batchcls run --engine DIR"
        )
    return found[0]


@contextmanager
def library_noise_hidden() -> Iterator["Console"]:
    """Hide what libjpeg and its like print about each broken file; the row says it. Python's own errors still show."""
    import faulthandler

    from batchcls.cli.console import console

    sys.stderr.flush()
    terminal = os.dup(2)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    os.close(silence)
    stream = os.fdopen(os.dup(terminal), "w", buffering=1, errors="backslashreplace")
    try:
        faulthandler.enable(stream)
        yield console(Guarded(stream))
    finally:
        faulthandler.disable()
        with suppress(OSError):
            stream.close()
        os.dup2(terminal, 2)
        os.close(terminal)


def summary(tally: "RunStats", out: Path) -> list[str]:
    """The lines that a finished run prints: rows, engine, labels, errors, speed, memory."""
    info = tally.info
    why = f", because {tally.why}" if tally.why else ""
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in tally.seconds.items())
    lines = [
        f"{tally.rows:,} rows, {tally.unreadable:,} unreadable -> {out}",
        f"engine    {info.name}, {info.backend} {info.precision} on {info.device}{why}",
        f"labels    {listed(tally.labels)}",
        f"speed     {tally.images_per_s:,.1f} images/s; {tally.elapsed_s:,.1f} s in all",
        f"memory    {tally.peak_memory_bytes / 2**20:,.0f} MiB at most",
        f"seconds   {stages} (stages overlap)",
    ]
    if tally.unanswered:
        lines.append(f"again     {tally.unanswered:,} files were not handed out; the same command reads them again")
    if tally.errors:
        lines.insert(3, f"errors    {listed(tally.errors)}")
    if tally.skipped:
        lines.insert(3, f"passed by {listed(tally.skipped)}")
    if tally.resumed_rows:
        lines.insert(1, f"resumed   {tally.resumed_rows:,} of the rows were done before")
    if tally.hint:
        lines.append(f"hint      {tally.hint}")
    return lines


def listed(counts: dict[str, int]) -> str:
    """Counts in words, the largest first."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"
