"""Fuzzing of everything that reads a file: ``python -m tests.faults.fuzz --minutes 60``.

Each case runs in a process that is forked for some hundreds of them, within 30 s and 1 GB; what comes out is nothing,
or an error that the command turns into a line. Cases that end in a new way, by what was raised and where, are changed
further.
"""

import argparse
import hashlib
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from batchcls.machine import cpu_model
from tests.faults.mutations import LONGEST
from tests.faults.targets import TARGETS, Target

_SECONDS = 30
_BYTES, _MOST_BYTES = 1 << 30, 4 << 30
"""What a case may take, and what no process gets: allocators and threads reserve more than they use."""
_BATCH_SECONDS = 20.0
_OURS = "/batchcls/"
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
_MOST_KEPT = 400


@dataclass(slots=True)
class Tally:
    """What was found of one target."""

    cases: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    finds: dict[str, Path] = field(default_factory=dict)
    """By how they ended."""


class Shared:
    """What a child tells: counts, and the case that it is at."""

    _HEAD = struct.Struct("<QQdQ")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._HEAD.size + 4 * LONGEST)
        self.tell(0, 0, 0.0)

    def tell(self, cases: int, refused: int, slowest_s: float, case: bytes = b"") -> None:
        self._HEAD.pack_into(self._memory, 0, cases, refused, slowest_s, len(case))
        self._memory[self._HEAD.size : self._HEAD.size + len(case)] = case

    def told(self) -> tuple[int, int, float, bytes]:
        cases, refused, slowest_s, length = self._HEAD.unpack_from(self._memory)
        return cases, refused, slowest_s, self._memory[self._HEAD.size : self._HEAD.size + length]


def fuzz(targets: Sequence[Target], folder: Path, *, seconds: float, cases: int, seed: int) -> dict[str, Tally]:
    """Take turns among ``targets`` until the time is over, or each has had so many cases; finds go to ``folder``."""
    tallies = {target.name: Tally() for target in targets}
    until, turn = time.monotonic() + seconds, 0
    while time.monotonic() < until and any(tally.cases < cases for tally in tallies.values()):
        for target in targets:
            tally = tallies[target.name]
            if tally.cases < cases and time.monotonic() < until:
                _batch(target, tally, folder / target.name.replace(" ", "_"), cases - tally.cases, f"{seed} {turn}")
        turn += 1
    return tallies


def _batch(target: Target, tally: Tally, folder: Path, cases: int, seed: str) -> None:
    (folder / "kept").mkdir(parents=True, exist_ok=True)
    shared, since = Shared(), time.monotonic()
    errors = folder / "stderr"
    child = os.fork()
    if child == 0:
        _child(target, folder, cases, seed, shared, errors)  # never returns
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done, refused, slowest_s, case = shared.told()
    tally.cases += max(done, 1)
    tally.refused += refused
    tally.slowest_s = max(tally.slowest_s, slowest_s)
    tally.seconds += time.monotonic() - since
    if status in (-signal.SIGALRM, -signal.SIGPROF):
        _keep(tally, folder, f"no end in {_SECONDS} s", case, "")
    elif status == 1:
        told = errors.read_text(errors="replace")
        _keep(tally, folder, told.partition("\n")[0] or "it could not begin", case, told)
    elif status:
        _keep(tally, folder, f"ended with {status}", case, errors.read_text(errors="replace")[-3000:])


def _keep(tally: Tally, folder: Path, how: str, case: bytes, told: str) -> None:
    if how in tally.finds:
        return
    path = folder / f"find-{hashlib.sha256(how.encode()).hexdigest()[:8]}"
    path.write_bytes(case)
    path.with_suffix(".txt").write_text(f"{how}\n{told}", errors="replace")
    tally.finds[how] = path
    sys.stdout.write(f"found: {how}: {path}\n")
    sys.stdout.flush()


def _child(target: Target, folder: Path, cases: int, seed: str, shared: Shared, errors: Path) -> None:
    """Ends with 0, with 1 for a find, or however a case ends the process."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    silence = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    warnings.simplefilter("ignore")
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    resource.setrlimit(resource.RLIMIT_DATA, (pages * resource.getpagesize() + _MOST_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code = 1
    try:
        code = _cases(target, folder, cases, random.Random(seed), shared)
    except BaseException:  # noqa: BLE001  # of the fuzzing itself
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _cases(target: Target, folder: Path, cases: int, chance: random.Random, shared: Shared) -> int:
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        seeds = [*target.seeds(scratch), *(path.read_bytes() for path in sorted((folder / "kept").iterdir()))]
        endings = {path.name for path in (folder / "kept").iterdir()}
        refused, slowest_s, until = 0, 0.0, time.monotonic() + _BATCH_SECONDS
        for number in range(cases):
            case = target.mutated(chance, seeds)
            shared.tell(number, refused, slowest_s, case)
            since, before = time.monotonic(), _peak_bytes()
            ending, find = _tried(target, case, scratch)
            if not find and (more := _peak_bytes() - before) > _BYTES:
                find = f"more than {more >> 30} GB\n"
            slowest_s = max(slowest_s, time.monotonic() - since)
            if find:
                os.ftruncate(2, 0)
                os.lseek(2, 0, os.SEEK_SET)
                sys.stderr.write(find)
                sys.stderr.flush()
                shared.tell(number + 1, refused, slowest_s, _smaller(target, case, scratch, find.partition("\n")[0]))
                return 1
            refused += ending != "read"
            name = hashlib.sha256(ending.encode()).hexdigest()[:16]
            if name not in endings and len(endings) < _MOST_KEPT:
                endings.add(name)
                (folder / "kept" / name).write_bytes(case)
                if target.mutated.__name__ not in ("mutated_json", "_mutated_safetensors"):
                    seeds.append(case)
            shared.tell(number + 1, refused, slowest_s)
            if time.monotonic() > until:
                break
        return 0
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _root(error: BaseException) -> str:
    """What an error was first, and where: what a library raised, mostly."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    last = traceback.extract_tb(error.__traceback__)[-3:]
    return " ".join([type(error).__name__, *(f"{frame.name}:{frame.lineno}" for frame in last)])


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _tried(target: Target, case: bytes, scratch: Path) -> tuple[str, str]:
    """How a case ended, and what there is to find of that; empty if nothing."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)  # of this process, however busy the machine is
    signal.setitimer(signal.ITIMER_REAL, 10 * _SECONDS)  # of waiting
    try:
        target.tried(case, folder)
        return "read", ""
    except BaseException as error:  # noqa: BLE001  # it is what is looked for
        frames = traceback.extract_tb(error.__traceback__)
        ours = next((frame for frame in reversed(frames) if _OURS in frame.filename), frames[-1])
        ending = f"{type(error).__name__} in {Path(ours.filename).name}:{ours.lineno}"
        if isinstance(error, target.allowed):
            return f"{ending}: {_root(error)}", ""
        return ending, f"{ending}\n{''.join(traceback.format_exception(error))[-6000:]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        shutil.rmtree(folder, ignore_errors=True)


def _smaller(target: Target, case: bytes, scratch: Path, how: str) -> bytes:
    """A part of ``case`` that ends alike, without what could be left out."""
    until, step = time.monotonic() + 5, len(case) // 2
    while step and time.monotonic() < until:
        start = 0
        while start < len(case) and time.monotonic() < until:
            less = case[:start] + case[start + step :]
            if _tried(target, less, scratch)[1].partition("\n")[0] == how:
                case = less
            else:
                start += step
        step //= 2
    return case


def _table(tallies: dict[str, Tally]) -> str:
    lines = [f"{'target':16}{'cases':>12}{'refused':>9}{'cases/s':>9}{'slowest':>9}{'finds':>7}"]
    for name, tally in tallies.items():
        share, speed = tally.refused / max(1, tally.cases), tally.cases / max(1e-9, tally.seconds)
        lines.append(
            f"{name:16}{tally.cases:>12,}{share:>9.0%}{speed:>9,.0f}{tally.slowest_s:>7.1f} s{len(tally.finds):>7}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--cases", type=int, default=1 << 62, help="Of each target, at most.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", choices=[target.name for target in TARGETS])
    parser.add_argument("--out", type=Path, help="A folder for finds; default: one below the temporary files.")
    options = parser.parse_args()
    if not _ENVIRONMENT.items() <= os.environ.items():  # they are read when libraries are loaded
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | _ENVIRONMENT)  # noqa: S606
    chosen = [target for target in TARGETS if not options.target or target.name in options.target]
    folder = options.out or Path(tempfile.mkdtemp(prefix="fuzz-finds-"))
    sys.stdout.write(f"{cpu_model()}; seed {options.seed}; {options.minutes:g} minutes at most\n")
    sys.stdout.flush()
    tallies = fuzz(chosen, folder, seconds=60 * options.minutes, cases=options.cases, seed=options.seed)
    finds = [f"{name}: {how}: {path}" for name, tally in tallies.items() for how, path in tally.finds.items()]
    sys.stdout.write("\n".join([_table(tallies), *finds, ""]))
    return int(bool(finds))


if __name__ == "__main__":
    sys.exit(main())
