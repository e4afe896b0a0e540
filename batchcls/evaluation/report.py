"""Report on a predictions file as one page: counts, histograms, the least certain images, and a table of rows."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchcls.errors import OutputError
from batchcls.evaluation.embedded_rows import embed_rows
from batchcls.evaluation.histograms import draw_histogram
from batchcls.evaluation.html import render_page, write_page
from batchcls.evaluation.provenance import describe_drift, describe_novelty, describe_provenance, describe_throughput
from batchcls.evaluation.report_rows import UNREADABLE, LowestRanked, RowCounter, novelty_ranks, ranked_rows
from batchcls.images.sources import slide_exists
from batchcls.images.thumbnails import ANSWER_TIMEOUT_S, data_uri, jpeg, thumbnail
from batchcls.predictions.answer_columns import MANY_NOVEL, NOVEL, NOVELTY
from batchcls.predictions.integrity import rewrite_notes
from batchcls.predictions.reader import PredictionsFile
from batchcls.records import Slide
from batchcls.storage.atomic import check_replaceable_file
from batchcls.storage.file_names import original, printable

_MAX_HISTOGRAMS = 59
_THUMBNAIL_PX = 240
_KINDS = 3
"""Most kinds of drift that are named at the top of the page."""
_MISSING = "not there now"


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Contents of a report on a predictions file."""

    images: int = 24
    """Number of the least certain images to show, and of the most novel ones."""
    rows: int = 100_000
    """Largest number of rows in the table: unreadable files first, then the least certain."""
    labels: tuple[str, ...] = ()
    """Labels in the order of the probabilities, for a predictions file that has lost its metadata."""


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """Row counts of the predictions file of a report, and notes on the file."""

    rows: int
    """Number of rows in the predictions file."""
    unreadable: int
    """Number of rows without a label."""
    warnings: tuple[str, ...]
    """Sentences on images that are unlike those that the engine was made for."""
    notes: tuple[str, ...]
    """Sentences on changes to the file since `batchcls run` wrote it."""


@dataclass(frozen=True, slots=True)
class _Case:
    """An image on the page, with its two most probable labels."""

    file: str
    """Root and path, joined."""
    path: str
    image: str
    """Data URI of a thumbnail; empty where none can be made."""
    instead: str
    """Text in place of a missing thumbnail."""
    label: str
    probability: float
    second: str
    """Second most probable label; empty where there is none."""
    chance: float
    """Probability of the second label; NaN where there is none."""
    novelty: float
    """Novelty of the image; NaN where the file has none."""
    novel: bool


def write_report(
    predictions: Path, out: Path, options: ReportOptions = ReportOptions(), *, overwrite: bool = False
) -> ReportSummary:
    """Write one HTML page about a predictions file; the page needs no other file and no network.

    Args:
        predictions: Predictions file of `batchcls run`.
        out: HTML file to write.
        options: Contents of the page.
        overwrite: Whether an existing ``out`` may be replaced, once the new page is whole.

    Raises:
        LabelsError: If ``predictions`` is no predictions file.
        OutputError: If ``out`` may not, or cannot, be written.
    """
    check_replaceable_file(out)
    if os.path.exists(out) and out.samefile(predictions):
        raise OutputError(f"--out {str(out)!r} is the predictions file itself; choose another")
    if os.path.exists(out) and not overwrite:
        raise OutputError(f"{str(out)!r} exists; choose another --out, or replace it with --overwrite")
    parts = PredictionsFile.parts(predictions, options.labels, (NOVELTY, NOVEL))
    head = next(parts)
    head.check_labels(options.labels)
    counter, listed = RowCounter(len(head.labels)), LowestRanked(options.rows)
    least_certain, most_novel = LowestRanked(options.images), LowestRanked(options.images)
    for part in chain([head], parts):
        rows, ranks = ranked_rows(part)
        counter.add(rows, ranks)
        listed.add(rows, ranks)
        readable = ranks > UNREADABLE
        least_certain.add(rows.filter(pa.array(readable)), ranks[readable])
        has_novelty, strangest = novelty_ranks(rows)
        most_novel.add(rows.filter(pa.array(has_novelty)), strangest[has_novelty])
    summary = ReportSummary(
        counter.rows,
        counter.unreadable,
        tuple(_warnings(counter, head)),
        tuple(rewrite_notes(head.metadata, head.labels, counter.rows)),
    )
    values = {
        **_count_values(counter, head.labels),
        **{
            name: _case_values(kept.rows(), head.labels)
            for name, kept in (("least", least_certain), ("most_novel", most_novel))
        },
        **_row_values(listed.rows(), head.labels, has_novelty=head.has(NOVELTY)),
        **_novelty_values(counter, head),
    }
    write_page(
        out, render_page("report", **values, **_file_values(head), warnings=summary.warnings, notes=summary.notes)
    )
    return summary


def _warnings(counter: RowCounter, head: PredictionsFile) -> list[str]:
    """Sentences on images that are unlike those that the engine was made for."""
    share = counter.novel / max(1, counter.novel + counter.familiar)
    many = (
        f"{share:.1%} of the images are novel: unlike those that the engine knows. Its labels and probabilities say "
        "little of such images; look at the most novel ones below."
    )
    kinds = [effect.kind for effect in describe_drift(head.metadata)[0] if effect.is_drift]
    more = f" and {len(kinds) - _KINDS} more" if len(kinds) > _KINDS else ""
    drift = (
        f"The images, as a whole, have drifted from those of the engine's reference: {', '.join(kinds[:_KINDS])}{more}."
    )
    return [*([many] if share > MANY_NOVEL else []), *([drift] if kinds else [])]


def _to_case(row: Mapping[str, Any], labels: Sequence[str]) -> _Case:
    """A row of `ranked_rows` as a case."""
    slide = Slide(original(row["root"]), original(row["path"]))
    image = thumbnail(slide, _THUMBNAIL_PX)
    exists = image is not None or slide_exists(slide, ANSWER_TIMEOUT_S)
    return _Case(
        file=f"{row['root']}/{row['path']}",
        path=row["path"],
        image=data_uri(jpeg(image), "image/jpeg") if image else "",
        instead="cannot be opened" if exists else _MISSING,
        label=labels[row["label"]],
        probability=row["probability"],
        second=labels[row["second"]] if row["second"] >= 0 else "",
        chance=row["chance"],
        novelty=row[NOVELTY],
        novel=row[NOVEL] == 1,
    )


def _count_values(counter: RowCounter, labels: Sequence[str]) -> dict[str, object]:
    """Template values on all rows: counts and histograms, the most frequent labels first."""
    ranked = sorted(range(len(labels)), key=lambda code: (-counter.by_label[code], labels[code]))
    present = [code for code in ranked if counter.by_label[code]]
    return {
        "counter": counter,
        "numbers": int(counter.histograms.sum()),
        "labels": [(labels[code], int(counter.by_label[code])) for code in ranked],
        "present": len(present),
        "whole": draw_histogram("All labels", counter.histograms.sum(axis=0)),
        "histograms": [draw_histogram(labels[code], counter.histograms[code]) for code in present[:_MAX_HISTOGRAMS]],
    }


def _case_values(rows: pa.Table, labels: Sequence[str]) -> dict[str, object]:
    """Template values on a few images."""
    cases = [_to_case(row, labels) for row in rows.to_pylist()]
    return {
        "cases": cases,
        "absent": sum(not case.image for case in cases),
        "moved": any(not case.image and case.instead == _MISSING for case in cases),
    }


def _novelty_values(counter: RowCounter, head: PredictionsFile) -> dict[str, object]:
    """Template values on the novelty of all images, and on the drift of the run."""
    effects, note = describe_drift(head.metadata)
    return {
        "has_novelty": head.has(NOVELTY),
        "novelty": draw_histogram("Novelty", counter.novelty),
        "calibration": describe_novelty(head.metadata),
        "drift": effects,
        "drift_note": note,
    }


def _row_values(listed: pa.Table, labels: Sequence[str], *, has_novelty: bool) -> dict[str, object]:
    """Template values of the table of rows."""
    unreadable = int((listed["label"].to_numpy() < 0).sum())
    return {
        "held": {"rows": len(listed), "unreadable": unreadable, "others": len(listed) - unreadable},
        "embedded": embed_rows(listed if has_novelty else listed.drop_columns([NOVELTY, NOVEL]), labels),
    }


def _file_values(predictions: PredictionsFile) -> dict[str, object]:
    """Template values on the predictions file itself."""
    return {
        "title": f"Predictions of {printable(predictions.path.name)}",
        "throughput": describe_throughput(predictions.metadata),
        "provenance": describe_provenance(predictions.metadata),
        "metadata": json.dumps(predictions.metadata, indent=2, ensure_ascii=False),
    }
