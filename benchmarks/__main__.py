"""``python -m benchmarks``: measure, report, and show."""

import os
from pathlib import Path

import click
from rich.console import Console

from batchcls import machine
from batchcls.errors import EngineError
from benchmarks.cases import CASES
from benchmarks.record import LEAST_SAMPLES, RESULTS, now
from benchmarks.workload import CROPS, FIELDS, linked

_CHECKOUT = Path(os.path.relpath(Path(__file__).parent.parent))
ENGINE = _CHECKOUT / "engines" / "all4-googlenet"
SCRATCH = _CHECKOUT / "demo"

_GPU_IMAGES = 20_480


@click.group()
def main() -> None:
    """How fast batchcls is, against what, and how close to the limit."""


@main.command()
@click.option(
    "--engine", type=click.Path(exists=True, path_type=Path), default=ENGINE, show_default="the committed one"
)
@click.option("--case", "cases", multiple=True, type=click.Choice(list(CASES)), help="Default: all of them.")
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Images of your own; else the two workloads that are drawn.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, or cuda:N.")
@click.option("--repeats", type=click.IntRange(1), default=LEAST_SAMPLES, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON Lines to append to; default: a file of today's.")
def run(
    engine: Path, cases: tuple[str, ...], folders: tuple[Path, ...], device: str, repeats: int, out: Path | None
) -> None:
    """Measure every case in turns, REPEATS times, each time in a process of its own."""
    from benchmarks.report import table
    from benchmarks.suite import run_suite

    console = Console(stderr=True)
    try:
        (device,) = machine.chosen_devices(device)
    except EngineError as error:
        raise click.ClickException(str(error)) from error
    drawn = {} if folders else {workload.draw(SCRATCH): workload.name for workload in (FIELDS, CROPS)}
    if device != "cpu":  # which a GPU would be done with before it is warm
        drawn = {linked(folder, _GPU_IMAGES): f"{name}, {machine.gpu(device).name}" for folder, name in drawn.items()}
    named = {folder: folder.resolve().name for folder in folders} or drawn
    records = []
    target = out or RESULTS / f"{now()[:10]}.jsonl"
    for folder, workload in named.items():
        chosen = cases or list(CASES)
        for record in run_suite(folder, workload, engine, chosen, repeats=repeats, console=console, device=device):
            record.append(target)
            records.append(record)
    click.echo(f"records -> {target}")
    click.echo(table(records))


@main.command()
def report() -> None:
    """Write the table of the newest records into README.md."""
    from benchmarks.report import write_readme

    write_readme()


@main.command()
def demo() -> None:
    """Draw 256 microscope fields, classify them, and show what comes out."""
    from benchmarks.demo import show

    show(ENGINE, SCRATCH)


if __name__ == "__main__":
    main()
