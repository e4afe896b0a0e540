"""The run: list, decode, infer and write every slide, as one plain loop."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO, cast

from rich.console import Console

from batchcls import machine
from batchcls.errors import InterruptedRunError, SlidesError
from batchcls.images.decoders.base import shortage_error
from batchcls.images.sources import open_source
from batchcls.images.sources.base import Source, SourceOptions
from batchcls.images.sources.places import Place
from batchcls.inference.engine_notes import no_probes_warnings, speed_hint
from batchcls.inference.executor import Executor
from batchcls.inference.executor_choice import choose_executor
from batchcls.inference.options import RunOptions
from batchcls.inference.run_metadata import run_identity, run_metadata
from batchcls.inference.stats import RecentReads, RunStats, one_label_warnings
from batchcls.interrupts import GRACE_S, Interrupt
from batchcls.predictions.existing_output import ExistingOutput
from batchcls.predictions.formats import format_to_write
from batchcls.predictions.writer import PredictionsWriter, open_writer
from batchcls.prefetch import poll
from batchcls.progress import RunProgress
from batchcls.records import BatchResult, Postponed
from batchcls.storage.memory import format_bytes
from batchcls.storage.transient_errors import is_transient

_POLL_S = 0.25
"""Seconds without a row after which the run looks at signals, the clock and the progress."""
_SUSPICIOUS_FILES = 20
"""Least number of files that, if all are corrupt, hints at a fault of the decoder."""


@dataclass(frozen=True, slots=True)
class _Run:
    """The open resources of a run, and its counts."""

    source: Source
    executor: Executor
    writer: PredictionsWriter
    stats: RunStats
    console: Console
    interrupt: Interrupt
    reads: RecentReads = field(default_factory=RecentReads)


def classify_images(
    slides: Sequence[Place], engine: Path, out: Path, options: RunOptions, console: Console, *, listens: bool = True
) -> RunStats:
    """Classify every image below ``slides`` into one predictions file.

    Args:
        slides: Places, as `batchcls.images.sources.open_source` takes them.
        engine: The engine folder.
        out: The predictions file, .parquet or .csv. Until it is whole, the folder ``out``.partial holds the rows, and
            another call goes on there.
        console: Shows progress and notes.
        listens: Whether SIGINT, SIGTERM and SIGHUP end the run with an `InterruptedRunError`; for the main thread only.
            Otherwise signals are the caller's, and a KeyboardInterrupt leaves the rows so far on disk as well.

    Raises:
        SlidesError: If there is no image, or the disk of the slides can no longer be read.
        EngineError: If the engine or its device cannot be used.
        DecoderError: If the decoder fails for a reason other than its files.
        OutputError: If ``out`` may not be written, or the disk refuses.
        MemoryShortageError: If there is too little memory to begin with, or for some files; the rows of all others are
            on disk then.
        InterruptedRunError: After SIGINT, SIGTERM or SIGHUP, with every row so far on disk.
    """
    started = perf_counter()
    format_to_write(out)  # before anything takes time
    manifest, open_executor = choose_executor(engine, options)
    # An output that exists is probably this run's finished file, for which no folder has to be listed.
    source = open_source(
        slides,
        SourceOptions(at_once=options.overwrite or not os.path.lexists(out), timeout_s=options.read_timeout_s),
    )
    interrupt = _new_interrupt(console)
    listening = interrupt.listening() if listens else nullcontext()
    console.print(f"loading engine {manifest.name}, listing files ...", highlight=False)
    with listening, closing(source), closing(open_executor(slides, source.roots)) as executor:
        writer = open_writer(
            out,
            roots=source.roots,
            labels=executor.info.labels,
            identity=run_identity(source.roots, executor.info, executor.decoder),
            limits={"max_pixels": options.max_pixels},
            overwrite=options.overwrite,
        )
        if isinstance(writer, ExistingOutput):
            console.print(f"{out} is whole already: every row is done", markup=False, highlight=False)
            return _stats_of_existing(writer, RunStats(executor.info, executor.why), started)
        with closing(writer):
            stats = RunStats(executor.info, executor.why, rows=writer.resumed_rows, resumed_rows=writer.resumed_rows)
            stats.warnings += [*no_probes_warnings(manifest, executor.info), *executor.notes]
            stats.hint = speed_hint(manifest, executor.info, options.precision)
            run = _Run(source, executor, writer, stats, console, interrupt)
            stats.spend({"start": perf_counter() - started})
            _classify_all(run, out)
            arguments = {"slides": [str(path) for path in slides], **asdict(options)}
            _finish(run, arguments, started)
    return stats


def _new_interrupt(console: Console) -> Interrupt:
    interrupt = Interrupt(cast(TextIO, console.file), GRACE_S)
    interrupt.answer = "" if console.quiet else "stopping after this batch, nothing is lost"
    return interrupt


def _stats_of_existing(existing: ExistingOutput, stats: RunStats, started: float) -> RunStats:
    """``stats``, filled in for a run that has nothing to do."""
    counts = existing.metadata["counts"]
    stats.rows = stats.resumed_rows = counts["rows"]
    stats.labels, stats.errors = Counter(counts["labels"]), Counter(counts["errors"])
    stats.skipped = Counter(counts["skipped"])
    stats.warnings += one_label_warnings(stats.labels, stats.info)
    stats.peak_memory_bytes = machine.peak_memory_bytes()
    stats.spend({"start": perf_counter() - started})
    stats.elapsed_s = perf_counter() - started
    return stats


def _classify_all(run: _Run, out: Path) -> None:
    stats = run.stats
    postponed: list[Postponed] = []
    if stats.resumed_rows:
        run.console.print(f"going on with {out}.partial: {stats.resumed_rows:,} rows are done", highlight=False)
    with (
        RunProgress(run.console, "classifying", stats.rows) as progress,
        closing(run.executor.execute(run.writer.missing(run.source))) as batches,
        closing(poll(batches, _POLL_S)) as results,
    ):
        try:
            for result in results:
                if result is not None:
                    _write_result(run, result)
                    postponed += result.postponed
                run.writer.flush_if_due()
                progress.show(
                    stats.rows,
                    stats.unreadable,
                    run.source.count if run.source.complete else None,
                    run.executor.waiting() or run.source.waiting(),
                )
                _show_new_notes(run)
                _check_interruption(run, out)
        except BaseException:
            try:
                run.writer.flush()
                run.interrupt.last_message = _resume_advice(run, out)
            finally:
                run.executor.stop()  # so that closing it waits for no file
            raise
        run.writer.flush()
    if postponed:
        needed = max(file.needed_bytes for file in postponed)
        raise shortage_error(
            postponed,
            f"all others are done, {stats.rows:,} rows are in {out}.partial; run the same command with --memory "
            f"{format_bytes(needed)}, where the machine and its limits (ulimit -v, cgroup) leave so much",
        )


def _show_new_notes(run: _Run) -> None:
    """Show the notes of the executor that have come since the run began."""
    for note in run.executor.notes:
        if note not in run.stats.warnings:
            run.stats.warnings.append(note)
            run.console.print(note)


def _check_interruption(run: _Run, out: Path) -> None:
    """End the run after a signal, or if its files cannot be read any more."""
    if (number := run.interrupt.signal) is not None:
        raise InterruptedRunError(f"stopped by {number.name}; {_resume_advice(run, out)}", number)
    if message := run.reads.failure_message:
        raise SlidesError(f"{message}; {_resume_advice(run, out)}, once the disk or the network works again")


def _resume_advice(run: _Run, out: Path) -> str:
    return f"{run.stats.rows:,} rows are in {out}.partial; to go on, run the same command again"


def _write_result(run: _Run, result: BatchResult) -> None:
    stats = run.stats
    since = perf_counter()
    run.writer.write(result)
    stats.spend({**result.seconds, "write": perf_counter() - since})
    stats.rows += result.files
    stats.errors.update(failure.kind for failure in result.failures)
    stats.transient_errors += sum(is_transient(failure.text) for failure in result.failures)
    run.reads.add(result)


def _finish(run: _Run, arguments: Mapping[str, Any], started: float) -> None:
    source, writer, stats = run.source, run.writer, run.stats
    stats.warnings += [f"this folder could not be listed: {folder}" for folder in source.unlisted]
    counts = writer.counts()
    stats.skipped, stats.unlisted = source.skipped, tuple(source.unlisted)
    if not counts.rows:
        writer.discard()
        passed_over = ", ".join(f"{count:,} {reason}" for reason, count in stats.skipped.items())
        folders = ", ".join(map(repr, arguments["slides"]))
        raise SlidesError(f"no image was found in {folders} ({passed_over or 'nothing else either'})")
    if counts.rows < source.count:
        raise RuntimeError(
            f"{source.count} files were found, {counts.rows} have a row: this is a bug, please report it"
        )
    if counts.errors.get("corrupt", 0) == counts.rows >= _SUSPICIOUS_FILES:
        stats.warnings.append(f"not one of {counts.rows:,} files could be decoded; see whether --decoder pillow can")
    stats.warnings += one_label_warnings(counts.labels, run.executor.info)
    stats.rows, stats.labels, stats.errors = counts.rows, Counter(counts.labels), Counter(counts.errors)
    _update_totals(run, started)
    since = perf_counter()
    writer.finish(run_metadata(run.executor.info, run.executor.decoder, arguments, stats, writer.started))
    stats.spend({"write": perf_counter() - since})
    _update_totals(run, started)


def _update_totals(run: _Run, started: float) -> None:
    run.stats.elapsed_s = perf_counter() - started
    run.stats.peak_memory_bytes = machine.peak_memory_bytes() + run.executor.peak_memory_bytes
