"""A predictions file becomes one page: counts, histograms, the least certain images, and a table of its rows."""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.errors import OutputError
from batchcls.evaluation.embedded_rows import embedded_rows
from batchcls.evaluation.html import page, write_page
from batchcls.images.image_file import is_there
from batchcls.images.thumbnails import ANSWER_TIMEOUT_S, data_uri, jpeg, thumbnail
from batchcls.predictions.provenance import provenance, rewriting, throughput
from batchcls.predictions.reader import PredictionsFile
from batchcls.storage.atomic import check_replaceable_file
from batchcls.storage.file_names import original, printable

_BINS = 40
_PLOT_PX = 100
_HISTOGRAMS = 59
_LARGEST_PROBABILITY = 1 + 1e-5
"""float32 probabilities that sum to 1 may be as large as that."""
_UNREADABLE, _NO_NUMBER = -2.0, -1.0
"""Keys of rows without a probability; all others have theirs."""
_THUMBNAIL_PX = 240
_EXAMPLES = 3
_GONE = "not there now"


class Seen:
    """What was counted of all rows."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.rows = 0
        self.notes: list[str] = []
        """What became of the file since it was run."""
        self.labelled: npt.NDArray[np.int64] = np.zeros(len(labels), np.int64)
        """(classes,) rows."""
        self.histograms: npt.NDArray[np.int64] = np.zeros((len(labels), _BINS), np.int64)
        """(classes, bins) rows, by the probability of their label."""
        self.kinds: Counter[str] = Counter()
        self.examples: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        """A few files of each kind, and why."""

    @property
    def unreadable(self) -> int:
        return self.rows - int(self.labelled.sum())

    def add(self, rows: pa.Table, keys: npt.NDArray[np.float32]) -> None:
        """Count what `_rows` and `_keys` gave."""
        codes, number = rows["label"].to_numpy(), keys > _NO_NUMBER
        self.rows += len(codes)
        self.labelled += np.bincount(codes[codes >= 0], minlength=len(self.labelled))
        bins = codes[number] * _BINS + (keys[number] * _BINS).astype(int).clip(max=_BINS - 1)
        self.histograms += np.bincount(bins, minlength=self.histograms.size).reshape(self.histograms.shape)
        for row in rows.filter(pa.array(codes < 0)).select(["root", "path", "error"]).to_pylist():
            kind, _, reason = row["error"].partition(":")
            self.kinds[kind] += 1
            if len(self.examples[kind]) < _EXAMPLES:
                self.examples[kind].append((f"{row['root']}/{row['path']}", reason.strip()))


class _Least:
    """Of all rows that were added, those with the smallest keys; of equal ones, the first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tables: list[pa.Table] = []
        self._held = 0
        self._below = math.inf if limit else -math.inf

    def add(self, rows: pa.Table, keys: npt.NDArray[np.float32]) -> None:
        wanted = keys < self._below
        if wanted.any() or not self._tables:
            self._tables.append(rows.append_column("key", pa.array(keys)).filter(pa.array(wanted)))
            self._held += int(wanted.sum())
        if self._held > 2 * self._limit:
            self._tables = [self.rows()]
            self._held = self._limit
            self._below = self._tables[0]["key"][-1].as_py()

    def rows(self) -> pa.Table:
        """They, by key."""
        held = pa.concat_tables(self._tables)
        return held.take(pa.array(np.argsort(held["key"].to_numpy(), kind="stable")[: self._limit]))


def write_report(
    source: Path,
    out: Path,
    *,
    images: int = 24,
    rows: int = 100_000,
    labels: Sequence[str] = (),
    overwrite: bool = False,
) -> Seen:
    """Write a page about a predictions file, which needs nothing beside itself.

    Args:
        images: How many of the least certain to show.
        rows: How many the table may hold; if there are more, the unreadable come first, then the least certain.
        labels: In the order of the probabilities, where ``source`` does not say.
        overwrite: Whether an existing ``out`` may be replaced, which happens when the new one is whole.

    Raises:
        LabelsError: If ``source`` is no predictions file.
        OutputError: If ``out`` may not, or can not, be written.
    """
    check_replaceable_file(out)
    if os.path.exists(out) and out.samefile(source):
        raise OutputError(f"--out {str(out)!r} is the predictions file itself; choose another")
    if os.path.exists(out) and not overwrite:
        raise OutputError(f"{str(out)!r} exists; choose another --out, or replace it with --overwrite")
    parts = PredictionsFile.parts(source, labels)
    head = next(parts)
    head.check_labels(labels)
    seen, listed, least = Seen(head.labels), _Least(rows), _Least(images)
    for part in chain([head], parts):
        some, keys = _rows(part)
        seen.add(some, keys)
        listed.add(some, keys)
        readable = keys > _UNREADABLE
        least.add(some.filter(pa.array(readable)), keys[readable])
    seen.notes = rewriting(head.metadata, head.labels, seen.rows)
    cases = [_case(row, head.labels) for row in least.rows().to_pylist()]
    write_page(out, _page(source, head, seen, cases, listed.rows()))
    return seen


def _rows(part: PredictionsFile) -> tuple[pa.Table, npt.NDArray[np.float32]]:
    """What a page may show of each row, with labels as their positions (-1: none), and how certain each is."""
    codes, others = part.codes, part.probabilities.copy()
    probability = np.array(pc.fill_null(part.table["probability"], math.nan).to_numpy(), np.float32)
    each = np.arange(len(codes))
    others[each, codes] = -1  # of the label itself; an unreadable row loses nothing that means anything
    others[~np.isfinite(others)] = -1
    second = others.argmax(axis=1).astype(np.int32)
    chance = others[each, second]
    probability[codes < 0], second[(codes < 0) | (chance < 0)] = math.nan, -1
    chance[second < 0] = math.nan
    text = part.table["error"]
    shown = part.table.select(["path", "width", "height"])
    columns = {
        "root": part.table["root"].cast(pa.string()),
        "error": pc.if_else(pa.array(codes < 0), pc.fill_null(text, "no reason is recorded"), text),
        "label": pa.array(codes),
        "probability": pa.array(probability),
        "second": pa.array(second),
        "chance": pa.array(chance),
    }
    for name, column in columns.items():
        shown = shown.append_column(name, column)
    number = (probability >= 0) & (probability <= _LARGEST_PROBABILITY)
    return shown, np.where(codes < 0, _UNREADABLE, np.where(number, probability, _NO_NUMBER)).astype(np.float32)


def _case(row: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """A row with its picture, or why there is none."""
    file = os.path.join(original(row["root"]), original(row["path"]))
    image = thumbnail(file, _THUMBNAIL_PX)
    here = image is not None or is_there(file, ANSWER_TIMEOUT_S)
    return {
        "file": f"{row['root']}/{row['path']}",
        "path": row["path"],
        "image": data_uri(jpeg(image), "image/jpeg") if image else "",
        "instead": "cannot be opened" if here else _GONE,
        "label": labels[row["label"]],
        "probability": row["probability"],
        "second": labels[row["second"]] if row["second"] >= 0 else "",
        "chance": row["chance"],
    }


def _page(source: Path, head: PredictionsFile, seen: Seen, cases: Sequence[Mapping[str, Any]], listed: pa.Table) -> str:
    unreadable = int((listed["label"].to_numpy() < 0).sum())
    ranked = sorted(range(len(head.labels)), key=lambda code: (-seen.labelled[code], head.labels[code]))
    met = [code for code in ranked if seen.labelled[code]]
    histograms = [_histogram(head.labels[code], seen.histograms[code]) for code in met[:_HISTOGRAMS]]
    return page(
        "report",
        title=f"Predictions of {printable(source.name)}",
        seen=seen,
        numbers=int(seen.histograms.sum()),
        labels=[(head.labels[code], int(seen.labelled[code])) for code in ranked],
        met=len(met),
        whole=_histogram("All labels", seen.histograms.sum(axis=0)),
        histograms=histograms,
        cases=cases,
        absent=sum(not case["image"] for case in cases),
        moved=any(not case["image"] and case["instead"] == _GONE for case in cases),
        held={"rows": len(listed), "unreadable": unreadable, "others": len(listed) - unreadable},
        embedded=embedded_rows(listed, head.labels),
        throughput=throughput(head.metadata),
        provenance=provenance(head.metadata),
        metadata=json.dumps(head.metadata, indent=2, ensure_ascii=False),
    )


def _histogram(title: str, counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Bars and grid lines on a logarithmic scale, in pixels from the foot of a plot."""
    decades = max(1, math.ceil(math.log10(max(1, counts.max()))))

    def height(count: float) -> float:
        return round(_PLOT_PX * (1 + math.log10(count)) / (1 + decades), 1)

    bars = [
        {"bin": step, "height": height(count), "says": f"{step / _BINS:.3f} to {(step + 1) / _BINS:.3f}: {count:,}"}
        for step, count in enumerate(counts.tolist())
        if count
    ]
    steps = [10**decade for decade in range(0, decades + 1, 1 if decades < 5 else 2)]
    lines = [{"height": height(step), "says": f"{step:,}"} for step in steps]
    return {"title": title, "rows": int(counts.sum()), "bars": bars, "lines": lines}
