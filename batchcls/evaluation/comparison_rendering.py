"""A comparison of two predictions files as lines for the terminal, as JSON, and its changed rows as CSV."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.csv

from batchcls.engine.drift import LABELS_KIND
from batchcls.evaluation.provenance import NOT_RECORDED
from batchcls.evaluation.run_comparison import ComparedRun, PairedAccuracy, RunComparison, SameImages
from batchcls.storage.spreadsheet_cells import text_cell

_NEAR_LABELS = 8
"""Most labels of which the shares are listed on the terminal."""


def comparison_summary(comparison: RunComparison, changed_rows: int) -> list[str]:
    """Lines for the terminal.

    Args:
        comparison: What is shown.
        changed_rows: Most changed rows that are listed.
    """
    return [*_runs(comparison), *_drift(comparison), *_same(comparison.same, changed_rows), *_ends(comparison)]


def comparison_json(comparison: RunComparison) -> bytes:
    """All results but the changed rows, of which only the number is there."""
    values: dict[str, Any] = asdict(comparison) | {
        "drift": comparison.drift.values(),
        "labels": asdict(comparison.labels) | {"is_drift": comparison.labels.is_drift},
    }
    if comparison.same:
        values["same"] = {name: value for name, value in asdict(comparison.same).items() if name != "changed"}
        values["same"]["changed"] = len(comparison.same.changed)
    return f"{json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)}\n".encode(errors="backslashreplace")


def changed_csv(same: SameImages | None) -> bytes:
    """The changed rows as a CSV table; only its head if there are none."""
    columns = ("path", "label_a", "probability_a", "label_b", "probability_b")
    table = same.changed if same else pa.table({name: pa.array([], pa.string()) for name in columns})
    for place, field in enumerate(table.schema):
        if field.type == pa.string():
            cells = pa.array(map(text_cell, table[field.name].to_pylist()), pa.string())
            table = table.set_column(place, field.name, cells)
    stream = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, stream)
    return bytes(stream.getvalue())


def _runs(comparison: RunComparison) -> Iterator[str]:
    for letter, run in (("A", comparison.a), ("B", comparison.b)):
        known = [run.provenance[name] for name in ("Engine", "Precision", "Backend")]
        engine = ", ".join(known) if set(known) != {NOT_RECORDED} else f"engine {NOT_RECORDED}"
        yield _line(letter, f"{run.path}: {run.rows:,} rows, {run.unreadable:,} unreadable ({engine})")
    for name in comparison.differences:
        yield _line("differs", f"{name}: {comparison.a.provenance[name]} in A, {comparison.b.provenance[name]} in B")


def _drift(comparison: RunComparison) -> Iterator[str]:
    drift = comparison.drift
    if drift.note:
        yield _line("drift", f"{drift.note}")
    else:
        kinds = [kind for kind in drift.kinds if kind != LABELS_KIND]
        yield _line("drift", f"of B's images against A's: {', '.join(kinds) or 'none'}")
    measured = [effect for effect in drift.effects if effect.kind != LABELS_KIND]
    yield from (_line("", effect.sentence.replace("the reference's", "A's")) for effect in measured if effect.is_drift)
    if steady := [effect.kind for effect in measured if not effect.is_drift]:
        yield _line("", f"none of {', '.join(steady)}")
    word = "drift" if comparison.labels.is_drift else "no drift"
    yield _line("labels", f"{word}: {_shares(comparison.a, comparison.b)}")
    means = [run.mean_probability for run in (comparison.a, comparison.b)]
    if None not in means and comparison.probability_effect is not None:
        change = f"{comparison.probability_effect:+.2f} standard deviations"
        yield _line("sureness", f"the largest probability is {means[0]:.4f} in A and {means[1]:.4f} in B ({change})")


def _shares(a: ComparedRun, b: ComparedRun) -> str:
    totals = [max(sum(run.labels.values()), 1) for run in (a, b)]
    shares = {label: (a.labels[label] / totals[0], b.labels[label] / totals[1]) for label in a.labels}
    farthest = sorted(shares, key=lambda label: -abs(shares[label][0] - shares[label][1]))[:_NEAR_LABELS]
    text = ", ".join(f"{label!r} {shares[label][0]:.1%} in A, {shares[label][1]:.1%} in B" for label in farthest)
    return f"{text} ..." if len(shares) > len(farthest) else text


def _same(same: SameImages | None, changed_rows: int) -> Iterator[str]:
    if not same:
        return
    yield _line("same", f"{same.images:,} images by {same.by}, {same.readable:,} with a label in both files")
    if same.other_sizes:
        yield _line("", f"{same.other_sizes:,} images of the same names have another size, and are not compared")
    if same.readable:
        yield _line(
            "agreement",
            f"{same.agreeing / same.readable:.4f}: {len(same.changed):,} labels changed; the largest probability "
            f"changed by {same.mean_change:+.4f} in the mean, by {same.mean_absolute_change:.4f} without signs",
        )
    for row in same.changed.slice(0, changed_rows).to_pylist():
        before, after = (f"{row[f'label_{side}']} {row[f'probability_{side}']:.4f}" for side in "ab")
        yield _line("changed", f"{row['path']}: {before} -> {after}")
    if len(same.changed) > changed_rows:
        yield _line("", f"and {len(same.changed) - changed_rows:,} more; --changed FILE lists all")


def _ends(comparison: RunComparison) -> Iterator[str]:
    if comparison.accuracy:
        yield _line("accuracy", _accuracy(comparison.accuracy))
    for note in comparison.notes:
        yield _line("note", note)


def _accuracy(accuracy: PairedAccuracy) -> str:
    return (
        f"{accuracy.right_a / accuracy.images:.4f} of A and {accuracy.right_b / accuracy.images:.4f} of B on "
        f"{accuracy.images:,} labeled images; only A is right on {accuracy.only_a:,}, only B on {accuracy.only_b:,} "
        f"(McNemar's exact test: p = {accuracy.p_value:.3g})"
    )


def _line(name: str, text: str) -> str:
    return f"{name:<9} {text}"
