"""SIGKILL just before each of a run's own calls that change the disk, and once after each write; then the same command.

    python -m tests.faults.kill_everywhere SCRATCH [--csv|--jsonl] [SCENARIO...]

Prints a table, and ends with 1 if any command after a kill did not end with 0 and the same rows.
"""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

import batchcls.engine.backends.null
import batchcls.images.decoders.pillow
import batchcls.inference.run  # noqa: F401  # before the first fork, so that each run is quick
from batchcls.cli import main
from batchcls.predictions.formats.text_files import DigestedStream

EVENTS = frozenset(("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"))
TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
SMALL = ("--max-pixels", "1000")
SCENARIOS = {
    "a first run": ((), ()),
    "--overwrite": (((),), ("--overwrite",)),
    "images that were too large": ((SMALL,), ()),
    "--update": ((SMALL,), ("--update",)),
    "nothing to do": (((),), ()),
}
"""Options of the runs before, and of the run that is killed."""


class Killer:
    """Kills this process at the Nth of its steps on the disk."""

    def __init__(self) -> None:
        self.left = 0
        sys.addaudithook(self._see)
        os.fsync = self._before(os.fsync)
        pq.ParquetWriter.write_table = self._after(pq.ParquetWriter.write_table)
        DigestedStream.write = self._after(DigestedStream.write)
        pa.RecordBatchFileWriter.write_batch = self._after(pa.RecordBatchFileWriter.write_batch)

    def _see(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & TO_WRITE):
            self._step()

    def _step(self) -> None:
        if self.left:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)

    def _before(self, call: Callable[..., object]) -> Callable[..., object]:
        def stepping(*arguments: object, **options: object) -> object:
            self._step()
            return call(*arguments, **options)

        return stepping

    def _after(self, call: Callable[..., object]) -> Callable[..., object]:
        def stepping(*arguments: object, **options: object) -> object:
            answer = call(*arguments, **options)
            self._step()
            return answer

        return stepping


def run(killer: Killer, arguments: Sequence[str], step: int = 0) -> int:
    """The exit code of a run in a process of its own, which is killed at its Nth step; negative: the signal."""
    child = os.fork()
    if not child:
        killer.left = step
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            main(["run", "--device", "cpu", "--backend", "null", "--decoder", "pillow", "--quiet", *arguments])
        except SystemExit as end:
            os._exit(int(end.code or 0))
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_everywhere(
    killer: Killer, common: Sequence[str], folder: Path, name: str, scenario: str, stride: int
) -> list[tuple[int, int, Path]]:
    """Step, exit code of the same command again, and output, for every so-many-th step until a run gets through."""
    before, options = SCENARIOS[scenario]
    outcomes = []
    step, code = 1 - stride, -signal.SIGKILL
    while code == -signal.SIGKILL:
        step += stride
        out = folder / f"{step:03d}" / name
        out.parent.mkdir(parents=True)
        for earlier in before:
            run(killer, [*common, *earlier, "--out", str(out)])
        command = [*common, *options, "--out", str(out)]
        code = run(killer, command, step)
        again = run(killer, command) if code == -signal.SIGKILL else code
        outcomes.append((step, again, out))
    return outcomes


def killed_again_and_again(killer: Killer, common: Sequence[str], out: Path) -> list[tuple[int, int, Path]]:
    """One output whose run is killed at its first step, the next at its second, until one gets through."""
    out.parent.mkdir(parents=True)
    step = 1
    while (code := run(killer, [*common, "--out", str(out)], step)) == -signal.SIGKILL:
        step += 1
    return [(step, code, out)]


def is_equal(out: Path, undisturbed: Path) -> bool:
    """Whether an output has the rows of another, and a CSV file the record that describes it."""
    if not out.exists() or out.suffix == ".parquet":
        return out.exists() and bool(pq.read_table(out).equals(pq.read_table(undisturbed)))
    record = json.loads(out.with_name(f"{out.name}.json").read_text())
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    return out.read_bytes() == undisturbed.read_bytes() and record[out.suffix[1:]]["sha256"] == digest


def faults(outcomes: Sequence[tuple[int, int, Path]], undisturbed: Path) -> list[str]:
    """What is wrong with each outcome that is not as it should be."""
    wrong = []
    for step, code, out in outcomes:
        beside = {f"{out.name}.json"} if out.suffix != ".parquet" else set()
        there = set(os.listdir(out.parent))
        left = sorted(there - {out.name} - beside)
        equal = beside <= there and is_equal(out, undisturbed)
        if code or left or not equal:
            wrong.append(f"step {step}: exit {code}, {'equal' if equal else 'other rows'}, left over {left}")
    return wrong


def all_faults(
    slides: Path, engine: Path, scratch: Path, scenarios: Sequence[str], stride: int = 1, name: str = "k.parquet"
) -> list[tuple[str, int, list[str]]]:
    """Scenario, number of runs that were killed, and what was wrong after the same command again."""
    killer = Killer()
    common = [str(slides), "--engine", str(engine)]
    undisturbed = scratch / f"undisturbed-{name}"
    run(killer, [*common, "--out", str(undisturbed)])
    outcomes = {
        scenario: killed_everywhere(killer, common, scratch / scenario.strip("-"), name, scenario, stride)
        for scenario in scenarios
    }
    outcomes["again and again"] = killed_again_and_again(killer, common, scratch / "again" / name)
    # Files are read after the last fork: Arrow starts threads.
    return [(title, (steps[-1][0] - 1) // stride, faults(steps, undisturbed)) for title, steps in outcomes.items()]


def _cpu() -> str:
    lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines())
    values = {key.strip(): value.strip() for key, value in lines.items()}
    sets = [name for name in values["flags"].split() if name.startswith(("avx", "amx"))]
    return f"{values['model name']}; {' '.join(sets)}"


if __name__ == "__main__":
    from tests.conftest import ALL4, draw

    where = Path(sys.argv[1])
    for seed in range(6):
        draw(where / "slides" / f"{seed}.png", seed, (64, 48) if seed % 2 else (16, 12))
    (where / "slides" / "empty.jpg").touch()
    click.echo(f"# {_cpu()}\n| scenario | killed | then exit 0, equal rows, nothing left over |\n|---|---|---|")
    bad = 0
    endings = [word.removeprefix("--") for word in sys.argv[2:] if word in ("--csv", "--jsonl")]
    chosen = [word for word in sys.argv[2:] if word.removeprefix("--") not in endings]
    file = f"k.{endings[0] if endings else 'parquet'}"
    for title, kills, wrong in all_faults(where / "slides", ALL4, where, chosen or list(SCENARIOS), name=file):
        click.echo("\n".join([f"| {title} | {kills} | {kills - len(wrong)} |", *wrong]))
        bad += len(wrong)
    sys.exit(bool(bad))
