"""The end of a run: its counts, the record, and the whole predictions file."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

from batchcls import machine
from batchcls.errors import SlidesError
from batchcls.inference.open_run import OpenRun
from batchcls.inference.run_metadata import run_metadata
from batchcls.inference.run_novelty import COLUMNS, novelty_warnings
from batchcls.inference.stats import RunStats, one_label_warnings
from batchcls.predictions.existing_output import ExistingOutput

_SUSPICIOUS_FILES = 20
"""Least number of files that, if all are corrupt, hints at a fault of the decoder."""


def stats_of_existing(existing: ExistingOutput, stats: RunStats, started: float) -> RunStats:
    """``stats``, filled in for a run that has nothing to do."""
    counts = existing.metadata["counts"]
    stats.rows = stats.resumed_rows = counts["rows"]
    stats.labels, stats.errors = Counter(counts["labels"]), Counter(counts["errors"])
    stats.skipped, stats.sets = Counter(counts["skipped"]), Counter(counts.get("sets", {}))
    stats.novelty, stats.drift = (existing.metadata.get(key, {}) for key in ("novelty", "drift"))
    stats.warnings += [*one_label_warnings(stats.labels, stats.info), *novelty_warnings(stats.novelty)]
    stats.peak_memory_bytes = machine.peak_memory_bytes()
    stats.spend({"start": perf_counter() - started})
    stats.elapsed_s = perf_counter() - started
    return stats


def finish_run(run: OpenRun, arguments: Mapping[str, Any], started: float) -> None:
    source, writer, stats = run.source, run.writer, run.stats
    stats.warnings += [f"this could not be listed: {place}" for place in source.unlisted]
    if run.update and not run.update.keep_rows(source, stats):
        writer.discard()
        stats.unlisted = tuple(source.unlisted)
        stats.seconds.clear()
        stats_of_existing(run.update.rows.existing, stats, started)
        return
    counts = writer.counts()
    stats.skipped, stats.unlisted = source.skipped, tuple(source.unlisted)
    if not counts.rows and not arguments["shard"]:  # a shard may be empty, the slides of all shards may not
        writer.discard()
        raise SlidesError(_no_image_message(arguments["slides"], stats))
    if counts.rows < source.count:
        raise RuntimeError(
            f"{source.count} files were found, {counts.rows} have a row: this is a bug, please report it"
        )
    if counts.errors.get("corrupt", 0) == counts.rows >= _SUSPICIOUS_FILES:
        stats.warnings.append(f"not one of {counts.rows:,} files could be decoded; see whether --decoder pillow can")
    stats.warnings += one_label_warnings(counts.labels, run.executor.info)
    stats.resumed_rows += counts.rows - stats.rows  # the rows that an update keeps
    stats.rows, stats.labels, stats.errors = counts.rows, Counter(counts.labels), Counter(counts.errors)
    stats.sets = counts.sets
    if run.novelty:
        stats.novelty, stats.drift = run.novelty.record(writer.rows(COLUMNS)).values()
        stats.warnings += novelty_warnings(stats.novelty)
    _update_totals(run, started)
    since = perf_counter()
    record = run_metadata(run.executor.info, run.executor.decoder, arguments, stats, writer.started)
    writer.finish(record | run.update.rows.history if run.update else record)
    stats.spend({"write": perf_counter() - since})
    _update_totals(run, started)


def _no_image_message(slides: Sequence[str], stats: RunStats) -> str:
    passed_over = ", ".join(f"{count:,} {reason}" for reason, count in stats.skipped.items())
    message = f"no image was found in {', '.join(map(repr, slides))} ({passed_over or 'nothing else either'})"
    if stats.unlisted:
        message += f"; {stats.unlisted[0]}"
    for reason, pattern in (("archive", "*.tar"), ("Parquet file", "*.parquet")):
        if stats.skipped.get(reason):
            message += f"; {pattern} is read where it is named: batchcls run {os.path.join(slides[0], pattern)}"
    return message


def _update_totals(run: OpenRun, started: float) -> None:
    run.stats.elapsed_s = perf_counter() - started
    run.stats.peak_memory_bytes = machine.peak_memory_bytes() + run.executor.peak_memory_bytes
