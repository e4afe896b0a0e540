"""The run: list, decode, infer and write every slide, as one plain loop."""

from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO, cast

from rich.console import Console

from batchcls.errors import InterruptedRunError, SlidesError
from batchcls.images.decoders.base import shortage_error
from batchcls.images.sources import open_source
from batchcls.images.sources.base import Source, SourceOptions
from batchcls.images.sources.places import Place
from batchcls.inference.answer_options import AnswerOptions
from batchcls.inference.engine_notes import no_probes_warnings, speed_hint
from batchcls.inference.executor_choice import choose_executor
from batchcls.inference.open_run import OpenRun
from batchcls.inference.options import RunOptions
from batchcls.inference.run_end import finish_run, stats_of_existing
from batchcls.inference.run_metadata import run_identity
from batchcls.inference.run_novelty import RunNovelty
from batchcls.inference.shard_identity import shard_identity
from batchcls.inference.stats import RunStats
from batchcls.inference.update import open_output
from batchcls.interrupts import GRACE_S, Interrupt
from batchcls.predictions.existing_output import ExistingOutput
from batchcls.predictions.formats import format_to_write
from batchcls.predictions.schema import check_kept
from batchcls.prefetch import poll
from batchcls.progress import RunProgress
from batchcls.records import BatchResult, Postponed
from batchcls.storage.file_or_object import exists
from batchcls.storage.memory import format_bytes
from batchcls.storage.shards import shard_file
from batchcls.storage.transient_errors import is_transient

_POLL_S = 0.25
"""Seconds without a row after which the run looks at signals, the clock and the progress."""


def classify_images(
    slides: Sequence[Place], engine: Path, out: Place, options: RunOptions, console: Console, *, listens: bool = True
) -> RunStats:
    """Classify every image below ``slides`` into one predictions file.

    Args:
        slides: Places, as `batchcls.images.sources.open_source` takes them.
        engine: The engine folder.
        out: The predictions file, .parquet or .csv, or its URL in an object store. Until it is whole, the folder
            ``out``.partial holds the rows, and another call goes on there. With ``options.shard``, the folder in which
            the shard's file is written.
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
    out = shard_file(out, options.shard) if options.shard else out
    format_to_write(out, options.rows_per_file)  # before anything takes time
    manifest, open_executor = choose_executor(engine, options)
    source = _open_source(slides, out, options)
    interrupt = _new_interrupt(console)
    listening = interrupt.listening() if listens else nullcontext()
    console.print(f"loading engine {manifest.name}, listing files ...", highlight=False)
    with listening, closing(source), closing(open_executor(slides, source.roots)) as executor:
        identity = run_identity(source, executor.info, executor.decoder, options)
        answers = AnswerOptions.of(manifest, options)
        identity |= answers.identity | shard_identity(options.shard, slides)
        writer, update = open_output(out, source.roots, executor.info.labels, identity, options)
        if isinstance(writer, ExistingOutput):
            console.print(f"{out} is whole already: every row is done", markup=False, highlight=False)
            return stats_of_existing(writer, RunStats(executor.info, executor.why, coverage=answers.coverage), started)
        with closing(writer), closing(update) if update else nullcontext():
            resumed_rows = update.rows.resumed_rows if update else writer.resumed_rows
            stats = RunStats(executor.info, executor.why, rows=resumed_rows, resumed_rows=resumed_rows)
            stats.coverage = answers.coverage
            stats.warnings += [*no_probes_warnings(manifest, executor.info), *executor.notes]
            stats.hint = speed_hint(manifest, executor.info, options.precision)
            novelty = RunNovelty.of(manifest, answers)
            run = OpenRun(source, executor, writer, stats, console, interrupt, novelty=novelty, update=update)
            stats.spend({"start": perf_counter() - started})
            _classify_all(run, out)
            arguments = {"slides": [str(path) for path in slides], **_arguments(options)}
            finish_run(run, arguments, started)
    return stats


def _open_source(slides: Sequence[Place], out: Place, options: RunOptions) -> Source:
    with ExitStack() as opened:
        source = opened.enter_context(closing(open_source(slides, _source_options(options, out))))
        check_kept(source.kept)
        opened.pop_all()
        return source


def _source_options(options: RunOptions, out: Place) -> SourceOptions:
    return SourceOptions(
        # An output that exists is probably this run's finished file, for which no folder has to be listed.
        at_once=options.overwrite or options.update or not exists(out),
        timeout_s=options.read_timeout_s,
        root=None if options.root is None else Path(options.root),
        allow_remote=options.allow_remote,
        keep=tuple(options.keep),
        shard=options.shard,
    )


def _arguments(options: RunOptions) -> dict[str, Any]:
    """The options as JSON values."""
    root = None if options.root is None else str(options.root)
    return asdict(replace(options, root=root, keep=list(options.keep)))


def _new_interrupt(console: Console) -> Interrupt:
    interrupt = Interrupt(cast(TextIO, console.file), GRACE_S)
    interrupt.answer = "" if console.quiet else "stopping after this batch, nothing is lost"
    return interrupt


def _classify_all(run: OpenRun, out: Place) -> None:
    stats = run.stats
    postponed: list[Postponed] = []
    if stats.resumed_rows:
        run.console.print(f"going on with {out}.partial: {stats.resumed_rows:,} rows are done", highlight=False)
    with (
        RunProgress(run.console, "classifying", stats.rows) as progress,
        closing(run.executor.execute(run.missing())) as batches,
        closing(poll(batches, _POLL_S)) as results,
    ):
        try:
            for result in results:
                if result is not None:
                    _write_result(run, result)
                    postponed += result.postponed
                run.writer.flush_if_due()
                compared = run.update.rows.kept if run.update else 0
                total = run.source.count if run.source.complete else None
                progress.show(stats.rows + compared, stats.unreadable, total, run.waiting())
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


def _show_new_notes(run: OpenRun) -> None:
    """Show the notes of the executor that have come since the run began."""
    for note in run.executor.notes:
        if note not in run.stats.warnings:
            run.stats.warnings.append(note)
            run.console.print(note)


def _check_interruption(run: OpenRun, out: Place) -> None:
    """End the run after a signal, or if its files cannot be read any more."""
    if (number := run.interrupt.signal) is not None:
        raise InterruptedRunError(f"stopped by {number.name}; {_resume_advice(run, out)}", number)
    if message := run.reads.failure_message:
        raise SlidesError(f"{message}; {_resume_advice(run, out)}, once the disk or the network works again")


def _resume_advice(run: OpenRun, out: Place) -> str:
    return f"{run.stats.rows:,} rows are in {out}.partial; to go on, run the same command again"


def _write_result(run: OpenRun, result: BatchResult) -> None:
    stats = run.stats
    since = perf_counter()
    run.writer.write(result)
    stats.spend({**result.seconds, "write": perf_counter() - since})
    stats.rows += result.files
    stats.errors.update(failure.kind for failure in result.failures)
    stats.transient_errors += sum(is_transient(failure.text) for failure in result.failures)
    run.reads.add(result)
