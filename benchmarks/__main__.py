"""``python -m benchmarks``: measure, report, compare, and show."""

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from batchcls import machine
from batchcls.errors import EngineError
from benchmarks.options import CHECKOUT, ENGINE, engine_option, out_option, repeats_option
from benchmarks.record import MIN_SAMPLES, RESULTS, Record, utc_now
from benchmarks.sample import Task
from benchmarks.workload import CROPS, LARGER_CROPS, WORKLOADS

SCRATCH = CHECKOUT / "demo"


@click.group()
def main() -> None:
    """How fast batchcls is, against what, and how close to the limit."""


def _single_device(_context: click.Context, _option: click.Parameter, device: str) -> str:
    """The device's full name, if ``device`` names one device that this machine has."""
    try:
        names = machine.resolve_devices(device)
    except EngineError as error:
        raise click.ClickException(str(error)) from error
    if len(names) > 1:
        raise click.BadParameter(f"{device!r} names {len(names)} devices; choose one of {', '.join(names)}")
    return names[0]


@main.command()
@engine_option
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    type=click.Choice(list(WORKLOADS)),
    help="Workload to draw and measure; may be repeated.  [default: all]",
)
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Folder of your own images to measure instead of workloads; may be repeated.",
)
@click.option(
    "--case",
    "cases",
    multiple=True,
    help="Case of batchcls to measure, or 'none'; may be repeated.  [default: the cases that are reported]",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    help="Peer to measure, or 'none'; may be repeated.  [default: the reported peers that are installed]",
)
@click.option(
    "--device", default="cpu", show_default=True, callback=_single_device, help="Device to measure: cpu, or cuda:N."
)
@repeats_option(MIN_SAMPLES, "each case and peer")
@out_option("benchmarks/results")
def run(repeats: int, out: Path | None, **options: Any) -> None:
    """Measure every case and peer in turns, REPEATS times, each time in a process of its own."""
    from benchmarks.report import table  # imported here, because the demo runs without PyTorch
    from benchmarks.runs import newest_runs
    from benchmarks.selection import Selection
    from benchmarks.suite import run_suite

    records: list[Record] = []
    target = out or _todays_records()
    for config, candidates in Selection(**options).runs(SCRATCH, Console(stderr=True)):
        for record in run_suite(config, candidates, repeats=repeats):
            record.append(target)
            records.append(record)
    click.echo(f"records -> {target}")
    click.echo(table(newest_runs(records, min_samples=1)))


def _checkout(_context: click.Context, _parameter: click.Parameter, folder: Path) -> Path:
    """The folder, if it is a checkout of batchcls."""
    if not (folder / "batchcls" / "__init__.py").is_file():
        raise click.BadParameter(
            f"there is no batchcls in {str(folder)!r}; to have an older commit there, run: "
            f"git worktree add {folder} COMMIT"
        )
    return folder


@main.command()
@click.argument("before", type=click.Path(path_type=Path), callback=_checkout)
@engine_option
@click.option(
    "--workload",
    type=click.Choice(list(WORKLOADS)),
    default=LARGER_CROPS.name,
    show_default=True,
    help="Workload to draw and measure.",
)
@click.option(
    "--folder", type=click.Path(exists=True, path_type=Path), help="Folder of your own images instead of a workload."
)
@click.option(
    "--case",
    "cases",
    multiple=True,
    help="Case to measure; may be repeated.  [default: those that show what a file costs]",
)
@repeats_option(MIN_SAMPLES, "each case and side")
@out_option("benchmarks/results/comparisons")
def compare(before: Path, repeats: int, out: Path | None, **options: Any) -> None:
    """Measure the batchcls of the checkout BEFORE and that of this checkout in turns, on the CPU.

    The benchmarks are those of this checkout for both. An older commit becomes a checkout by: git worktree add BEFORE
    COMMIT. Nothing is copied into it.
    """
    from benchmarks.cases import CASES, FILE_COST_CASES
    from benchmarks.comparison import COMPARISONS, comparison_table
    from benchmarks.selection import check_names
    from benchmarks.suite import SuiteConfig, compared_candidates, run_suite

    check_names(options["cases"], CASES)
    folder, workload = options["folder"], options["workload"]
    name = folder.resolve().name if folder else workload
    folder = folder or WORKLOADS[workload].draw(SCRATCH)
    config = SuiteConfig(name, folder, options["engine"], SCRATCH, "cpu", Console(stderr=True))
    candidates = compared_candidates(config, before, options["cases"] or FILE_COST_CASES)
    records = run_suite(config, candidates, repeats=repeats)
    target = out or COMPARISONS / f"{utc_now()[:10]}.jsonl"
    for record in records:
        record.append(target)
    click.echo(f"records -> {target}")
    click.echo(comparison_table(records))


@main.command()
@repeats_option(3, "each step")
def growth(repeats: int) -> None:
    """Measure how speed and memory change with files, batch, threads and damaged files, on the CPU."""
    from benchmarks.growth import growth_candidates
    from benchmarks.runs import GROWTH
    from benchmarks.suite import SuiteConfig, run_suite

    config = SuiteConfig(GROWTH, CROPS.draw(SCRATCH), ENGINE, SCRATCH, "cpu", Console(stderr=True))
    for record in run_suite(config, list(growth_candidates(config)), repeats=repeats):
        record.append(_todays_records())


@main.command()
@click.option(
    "--files",
    "file_counts",
    type=click.IntRange(1),
    multiple=True,
    help="Number of files, which are links to drawn ones; may be repeated.  [default: 100,000 and 1,000,000]",
)
@repeats_option(1, "each number of files")
@out_option("benchmarks/results")
def scale(file_counts: tuple[int, ...], repeats: int, out: Path | None) -> None:
    """Run the command batchcls run without inference on a million files: rows, files/s, and memory a file."""
    from benchmarks.growth import SCALE_FILES, scale_candidates, scale_table
    from benchmarks.runs import SCALE
    from benchmarks.suite import SuiteConfig, run_suite

    config = SuiteConfig(SCALE, CROPS.draw(SCRATCH), ENGINE, SCRATCH, "cpu", Console(stderr=True))
    records = run_suite(config, list(scale_candidates(config, file_counts or SCALE_FILES)), repeats=repeats)
    for record in records:
        record.append(out or _todays_records())
    click.echo(scale_table(records))


@main.command()
@repeats_option(MIN_SAMPLES, "each step")
def steps(repeats: int) -> None:
    """Show what a file costs on the CPU besides decoding and its network, step by step."""
    from benchmarks.steps import steps_table

    Console().print(steps_table(Task(LARGER_CROPS.draw(SCRATCH), ENGINE, 0), repeats))


@main.command()
@click.option("--peer", "peers", multiple=True, help="Peer to install; may be repeated.  [default: all]")
def install(peers: tuple[str, ...]) -> None:
    """Install peers, each in an environment of its own below .venv; 12 GB in all."""
    from benchmarks.peers.registry import PEERS, install_peer
    from benchmarks.selection import check_names

    check_names(peers, PEERS)
    for name in peers or PEERS:
        click.echo(f"installing {name}", err=True)
        install_peer(PEERS[name])


@main.command()
@click.argument("engine", type=click.Path(exists=True, path_type=Path), default=ENGINE)
def layers(engine: Path) -> None:
    """Show where ENGINE's own time goes on the CPU, by kind of layer."""
    from benchmarks.layers import layer_table

    Console().print(layer_table(engine))


@main.command()
def report() -> None:
    """Write the newest records into README.md and docs/explanation/speed.md, as tables and charts."""
    from benchmarks.report import write_pages

    write_pages()


@main.command()
@click.argument("before", required=False, type=click.Path(exists=True, path_type=Path))
@click.argument("after", required=False, type=click.Path(exists=True, path_type=Path))
def check(before: Path | None, after: Path | None) -> None:
    """Compare the ratios of the runs in BEFORE and AFTER, two files of records; exit with 1 if any got slower.

    Without them, each workload's last run is compared with the one before it.
    """
    from benchmarks.check import changes_between

    compared = changes_between(before, after)
    for change in compared:
        click.echo(change)
    if not compared:
        click.echo("there are no two runs of one workload on one kind of CPU to compare; run: python -m benchmarks run")
    sys.exit(any(change.slower for change in compared))


@main.command()
def demo() -> None:
    """Draw 256 microscope fields, classify them, and show what comes out."""
    from benchmarks.demo import run_demo

    run_demo(ENGINE, SCRATCH)


def _todays_records() -> Path:
    return RESULTS / f"{utc_now()[:10]}.jsonl"


if __name__ == "__main__":
    main()
