"""The run: discover, decode, infer, postprocess, write, as one plain loop."""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TextIO, cast

from rich.console import Console

from batchcls import machine, memory
from batchcls.errors import InterruptedRunError, SlidesError
from batchcls.images.decoders.base import postponed_error
from batchcls.images.sources.folder import FolderSource
from batchcls.inference.hints import faster, unchecked
from batchcls.inference.local import DeviceConfig, Executor, LocalExecutor
from batchcls.inference.metadata import identity, metadata
from batchcls.inference.options import RunOptions, device_configs
from batchcls.inference.processes import ProcessExecutor
from batchcls.inference.stats import RecentReads, RunStats
from batchcls.interrupts import GRACE_S, Interrupt
from batchcls.predictions.existing import ExistingOutput
from batchcls.predictions.writer import PredictionsWriter, open_writer
from batchcls.prefetch import ticking
from batchcls.progress import RunProgress
from batchcls.records import BatchResult, Postponed, is_transient

_TICK_S = 0.25
"""How long a signal, the clock and the progress wait for rows."""
_SUSPICIOUS_FILES = 20
"""So many corrupt files and not a sound one are more likely to be a fault of ours."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What a run is made of, once everything has opened."""

    listing: FolderSource
    share: DeviceConfig
    """What each device opens; the ``device`` in it is the first one's."""
    scorer: Executor
    output: PredictionsWriter
    tally: RunStats
    console: Console
    stop: Interrupt
    reads: RecentReads = field(default_factory=RecentReads)


def classify_images(slides: Sequence[Path], engine: Path, out: Path, options: RunOptions, console: Console) -> RunStats:
    """Classify every image below ``slides`` into one Parquet file.

    Args:
        slides: Folders, searched to any depth, and files.
        engine: An engine folder.
        out: The Parquet file. Until it is whole, ``out``.partial holds what is done, and another call goes on there.
        console: Where progress and notes go.

    Raises:
        SlidesError: If there is no image.
        EngineError: If the engine or its device cannot be used.
        DecoderError: If the decoder fails, whatever the file.
        OutputError: If ``out`` may not, or can not, be written.
        MemoryShortageError: If there is too little to begin with, or for some of the files; all others have their row
            on disk then.
        InterruptedRunError: After SIGINT or SIGTERM, with every row so far on disk.
    """
    started = perf_counter()
    shares, why = device_configs(engine, options)
    # What stands there already is probably this run's file, and then there is nothing to list.
    listing = FolderSource(
        slides, at_once=options.overwrite or not os.path.lexists(out), timeout_s=options.read_timeout_s
    )
    stop = Interrupt(cast(TextIO, console.file), GRACE_S)
    with stop.listening(), closing(listing), closing(_scorer(shares)) as scorer:
        output = open_writer(
            out,
            roots=listing.roots,
            labels=scorer.info.labels,
            identity=identity(listing.roots, scorer.info, shares[0].decoder),
            limits={"max_pixels": options.max_pixels},
            overwrite=options.overwrite,
        )
        if isinstance(output, ExistingOutput):
            console.print(f"{out} is whole already: every row is done", markup=False, highlight=False)
            return _done_before(output, RunStats(scorer.info, why), started)
        with closing(output):
            tally = RunStats(scorer.info, why, rows=output.resumed_rows, resumed_rows=output.resumed_rows)
            tally.warnings += unchecked(engine, scorer.info)
            tally.hint = faster(engine, scorer.info, options.precision)
            run = _Run(listing, shares[0], scorer, output, tally, console, stop)
            tally.spend({"start": perf_counter() - started})
            _classify_all(run, out)
            _finish(run, slides, options, started)
    return tally


def _done_before(standing: ExistingOutput, tally: RunStats, started: float) -> RunStats:
    """``tally``, of a run that had nothing to do."""
    counts = standing.metadata["counts"]
    tally.rows = tally.resumed_rows = counts["rows"]
    tally.labels, tally.errors = Counter(counts["labels"]), Counter(counts["errors"])
    tally.skipped = Counter(counts["skipped"])
    tally.peak_memory_bytes = machine.peak_memory_bytes()
    tally.spend({"start": perf_counter() - started})
    tally.elapsed_s = perf_counter() - started
    return tally


def _scorer(shares: Sequence[DeviceConfig]) -> Executor:
    return LocalExecutor(shares[0]) if len(shares) == 1 else ProcessExecutor(shares)


def _classify_all(run: _Run, out: Path) -> None:
    tally = run.tally
    postponed: list[Postponed] = []
    if tally.resumed_rows:
        run.console.print(f"going on with {out}.partial: {tally.resumed_rows:,} rows are done", highlight=False)
    with (
        RunProgress(run.console, "classifying", tally.rows) as progress,
        closing(run.scorer.score(run.output.missing(run.listing))) as scored,
        closing(ticking(scored, _TICK_S)) as ticks,
    ):
        try:
            for some in ticks:
                if some is not None:
                    _write(run, some)
                    postponed += some.postponed
                run.output.flush_if_due()
                progress.show(
                    tally.rows,
                    tally.unreadable,
                    run.listing.found if run.listing.complete else None,
                    run.scorer.waiting() or run.listing.waiting(),
                )
                _check(run, out)
        except BaseException:
            try:
                run.output.flush()
                run.stop.last_word = _to_go_on(run, out)
            finally:
                run.scorer.stop()  # or a file that is waited for would be waited for here
            raise
        run.output.flush()
    if postponed:
        needed = max(file.needed_bytes for file in postponed)
        raise postponed_error(
            postponed,
            f"all others are done, {tally.rows:,} rows are in {out}.partial; run the same command with --memory "
            f"{memory.text_of(needed)}, where the machine and its limits (ulimit -v, cgroup) leave so much",
        )


def _check(run: _Run, out: Path) -> None:
    """End the run if somebody asked, or if the files cannot be read any more."""
    if run.stop.signal is not None:
        raise InterruptedRunError(f"stopped by {run.stop.signal.name}; {_to_go_on(run, out)}", run.stop.signal)
    if worst := run.reads.failing:
        raise SlidesError(f"{worst}; {_to_go_on(run, out)}, once the disk or the network is well")


def _to_go_on(run: _Run, out: Path) -> str:
    return f"{run.tally.rows:,} rows are in {out}.partial; to go on, run the same command again"


def _write(run: _Run, scored: BatchResult) -> None:
    tally = run.tally
    since = perf_counter()
    run.output.write(scored)
    tally.spend({**scored.seconds, "write": perf_counter() - since})
    tally.rows += scored.files
    tally.errors.update(failure.kind for failure in scored.failures)
    tally.unanswered += sum(is_transient(failure.text) for failure in scored.failures)
    run.reads.add(scored)


def _finish(run: _Run, slides: Sequence[Path], options: RunOptions, started: float) -> None:
    listing, output, tally = run.listing, run.output, run.tally
    tally.warnings += [f"this folder could not be listed: {folder}" for folder in listing.unlisted]
    counts = output.counts()
    tally.skipped, tally.unlisted = listing.skipped, tuple(listing.unlisted)
    if not counts.rows:
        output.discard()
        passed = ", ".join(f"{count:,} {reason}" for reason, count in tally.skipped.items()) or "nothing else either"
        raise SlidesError(f"no image was found in {', '.join(map(repr, map(str, slides)))} ({passed})")
    if counts.rows < listing.found:
        raise RuntimeError(
            f"{listing.found} files were found, {counts.rows} have a row: this is a bug, please report it"
        )
    if counts.errors.get("corrupt", 0) == counts.rows >= _SUSPICIOUS_FILES:
        tally.warnings.append(f"not one of {counts.rows:,} files could be decoded; see whether --decoder pillow can")
    tally.rows, tally.labels, tally.errors = counts.rows, Counter(counts.labels), Counter(counts.errors)
    _measure(run, started)
    since = perf_counter()
    arguments = {"slides": [str(path) for path in slides], **asdict(options)}
    output.finish(metadata(run.scorer.info, run.share.decoder, arguments, tally, output.started))
    tally.spend({"write": perf_counter() - since})
    _measure(run, started)


def _measure(run: _Run, started: float) -> None:
    run.tally.elapsed_s = perf_counter() - started
    run.tally.peak_memory_bytes = machine.peak_memory_bytes() + run.scorer.peak_memory_bytes
