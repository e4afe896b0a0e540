"""``python -m benchmarks``: measure, report, compare, and show."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from batchcls import machine
from batchcls.errors import EngineError
from benchmarks.record import LEAST_SAMPLES, RESULTS, Record, now
from benchmarks.workload import CROPS, FIELDS, WORKLOADS, linked

_CHECKOUT = Path(os.path.relpath(Path(__file__).parent.parent))
ENGINE = _CHECKOUT / "engines" / "all4-googlenet"
SCRATCH = _CHECKOUT / "demo"

_GPU_IMAGES = 20_480
_MAIN = (FIELDS.name, CROPS.name, "crops-450x450-bmp")
"""Workloads on which each stage is measured alone, so that there is a roof."""
_EVERY_PEER = "fields-640x480"
_CASES = ("end-to-end", "end-to-end int8", "read-only", "decode-only turbo", "engine-only", "engine-only int8")
_RIVALS = tuple(f"torchvision-{mode}-{workers}" for mode in ("eager", "bf16") for workers in (0, 1, 2))


@click.group()
def main() -> None:
    """How fast batchcls is, against what, and how close to the limit."""


@main.command()
@click.option(
    "--engine", type=click.Path(exists=True, path_type=Path), default=ENGINE, show_default="the committed one"
)
@click.option("--workload", "workloads", multiple=True, type=click.Choice(list(WORKLOADS)), help="Default: all.")
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Images of your own, instead of workloads that are drawn.",
)
@click.option(
    "--case", "cases", multiple=True, help="Of batchcls; 'none' for none. Default: those of docs/explanation/speed.md."
)
@click.option("--peer", "peers", multiple=True, help="Likewise. Default: those that are installed.")
@click.option("--device", default="cpu", show_default=True, help="cpu, or cuda:N.")
@click.option("--repeats", type=click.IntRange(1), default=LEAST_SAMPLES, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON Lines to append to; default: a file of today's.")
def run(
    engine: Path,
    workloads: tuple[str, ...],
    folders: tuple[Path, ...],
    cases: tuple[str, ...],
    peers: tuple[str, ...],
    device: str,
    repeats: int,
    out: Path | None,
) -> None:
    """Measure every case and peer in turns, REPEATS times, each time in a process of its own."""
    from benchmarks.report import newest, table
    from benchmarks.suite import Course, run_suite
    from benchmarks.suite import cases as case_entrants
    from benchmarks.suite import rivals as peer_entrants

    _check_names(cases, peers)
    (device,) = _device(device)
    console = Console(stderr=True)
    records: list[Record] = []
    target = out or _today()
    named = {folder.resolve().name: folder for folder in folders}
    for name in named or workloads or WORKLOADS:
        folder = named.get(name) or WORKLOADS[name].draw(SCRATCH)
        workload = name
        if device != "cpu":  # which a GPU would be done with before it is warm
            folder, workload = linked(folder, _GPU_IMAGES), f"{name}, {machine.gpu(device).name}"
        course = Course(workload, folder, engine, SCRATCH, device, console)
        asked = [case for case in cases or _default_cases(name) if case != "none"]
        against = [peer for peer in peers or _default_peers(name, device) if peer != "none"]
        entrants = [*case_entrants(course, asked), *peer_entrants(course, against)]
        for record in run_suite(course, entrants, repeats=repeats):
            record.append(target)
            records.append(record)
    click.echo(f"records -> {target}")
    click.echo(table(newest(records, least_samples=1)))


@main.command()
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
def growth(repeats: int) -> None:
    """Measure how speed and memory change with files, batch, threads and damaged files, on the CPU."""
    from benchmarks.growth import steps
    from benchmarks.report import GROWTH
    from benchmarks.suite import Course, run_suite

    course = Course(GROWTH, CROPS.draw(SCRATCH), ENGINE, SCRATCH, "cpu", Console(stderr=True))
    for record in run_suite(course, list(steps(course)), repeats=repeats):
        record.append(_today())


@main.command()
@click.option("--peer", "peers", multiple=True, help="Default: all that run on this machine.")
def install(peers: tuple[str, ...]) -> None:
    """Install peers, each in an environment of its own below .venv; 12 GB in all."""
    from benchmarks.peers import PEERS
    from benchmarks.peers import install as install_peer

    _check_names((), peers)
    for name in peers or PEERS:
        click.echo(f"installing {name}", err=True)
        install_peer(PEERS[name])


@main.command()
@click.argument("engine", type=click.Path(exists=True, path_type=Path), default=ENGINE)
def layers(engine: Path) -> None:
    """Show where ENGINE's own time goes on the CPU, by kind of layer."""
    from benchmarks.layers import layers as table_of

    Console().print(table_of(engine))


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
    from benchmarks.check import changes
    from benchmarks.report import by_arithmetic, committed, newest

    old = by_arithmetic(Record.read_all(before) if before else committed())
    new = by_arithmetic(Record.read_all(after) if after else committed())
    found = [
        change
        for arithmetic in old.keys() & new.keys()
        for change in changes(newest(old[arithmetic], skipped=0 if before else 1), newest(new[arithmetic]))
    ]
    for change in found:
        click.echo(change)
    if not found:
        click.echo("there are no two runs of one workload on one kind of CPU to compare; run: python -m benchmarks run")
    sys.exit(any(change.slower for change in found))


@main.command()
def demo() -> None:
    """Draw 256 microscope fields, classify them, and show what comes out."""
    from benchmarks.demo import show

    show(ENGINE, SCRATCH)


def _default_cases(workload: str) -> Sequence[str]:
    from benchmarks.cases import CASES

    if workload == CROPS.name:
        return list(CASES)
    return _CASES if workload in _MAIN or workload not in WORKLOADS else ("end-to-end", "decode-only turbo")


def _default_peers(workload: str, device: str) -> list[str]:
    from benchmarks.peers import PEERS, installed

    if workload in WORKLOADS and WORKLOADS[workload].corrupt:
        return []  # a DataLoader's run ends at its first corrupt file
    wanted = PEERS if workload == _EVERY_PEER else _RIVALS
    return [name for name in wanted if device.partition(":")[0] in PEERS[name].devices and installed(PEERS[name])]


def _check_names(cases: Sequence[str], peers: Sequence[str]) -> None:
    from benchmarks.cases import CASES
    from benchmarks.peers import PEERS

    for given, known in ((cases, CASES), (peers, PEERS)):
        for name in given:
            if name not in known and name != "none":
                raise click.UsageError(f"there is no {name!r}; choose from: {', '.join(known)}, none")


def _device(asked: str) -> tuple[str, ...]:
    try:
        return machine.chosen_devices(asked)
    except EngineError as error:
        raise click.ClickException(str(error)) from error


def _today() -> Path:
    return RESULTS / f"{now()[:10]}.jsonl"


if __name__ == "__main__":
    main()
