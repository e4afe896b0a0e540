"""Rows of a predictions file in the form that a report displays, with their ranks and counts."""

import math
from collections import Counter, defaultdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.evaluation.histograms import BINS, bins_of
from batchcls.predictions.answer_columns import NOVEL, NOVELTY
from batchcls.predictions.reader import PredictionsFile

UNREADABLE, NO_PROBABILITY = -2.0, -1.0
"""Ranks of rows without a label, and of labeled rows whose probability is no number from 0 to 1."""
_LARGEST_PROBABILITY = 1 + 1e-5
"""Largest value that counts as a probability: 1, and what float32 sums round 1 to."""
_EXAMPLES = 3

_TIE = 1e-8
"""Weight of the probability in the order by novelty, below any step of it."""

Ranks = npt.NDArray[np.floating]
"""(rows,) the order in which rows are shown, lowest first: `UNREADABLE`, `NO_PROBABILITY`, or the probability."""


def ranked_rows(part: PredictionsFile) -> tuple[pa.Table, Ranks]:
    """The displayed columns of rows, and the rank of each row.

    Args:
        part: Rows of a predictions file, all of them or a part.

    Returns:
        (rows) path, width, height, root, error, ``label`` and ``second`` as positions among the labels (-1: none),
        ``probability`` and ``chance``, the probability of ``second``, ``novelty`` (NaN: none) and ``novel`` (-1: not
        known); and (rows,) ranks.
    """
    codes, others = part.codes, part.probabilities.copy()
    probability = np.array(pc.fill_null(part.table["probability"], math.nan).to_numpy(), np.float32)
    rows = np.arange(len(codes))
    others[rows, codes] = -1  # the label itself; unreadable rows (code -1) have no meaningful probabilities to lose
    others[~np.isfinite(others)] = -1
    second = others.argmax(axis=1).astype(np.int32)
    chance = others[rows, second]
    probability[codes < 0], second[(codes < 0) | (chance < 0)] = math.nan, -1
    chance[second < 0] = math.nan
    error = part.table["error"]
    table = part.table.select(["path", "width", "height"])
    columns = {
        "root": part.table["root"].cast(pa.string()),
        "error": pc.if_else(pa.array(codes < 0), pc.fill_null(error, "no reason is recorded"), error),
        "label": pa.array(codes),
        "probability": pa.array(probability),
        "second": pa.array(second),
        "chance": pa.array(chance),
        NOVELTY: pa.array(_novelty(part)),
        NOVEL: pa.array(np.nan_to_num(_optional(part, NOVEL), nan=-1).astype(np.int8)),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    is_number = (probability >= 0) & (probability <= _LARGEST_PROBABILITY)
    ranks = np.where(codes < 0, UNREADABLE, np.where(is_number, probability, NO_PROBABILITY))
    return table, ranks.astype(np.float32)


def novelty_ranks(rows: pa.Table) -> tuple[npt.NDArray[np.bool_], Ranks]:
    """(rows,) whether a row has a novelty, and ranks by it: the most novel first, of equally novel ones the surest."""
    novelty = rows[NOVELTY].to_numpy().astype(np.float64)
    probability = np.nan_to_num(rows["probability"].to_numpy())
    return ~np.isnan(novelty), -novelty - _TIE * probability.clip(0, 1)


def _novelty(part: PredictionsFile) -> npt.NDArray[np.float32]:
    """(rows,) novelty from 0 to 1; NaN where the file has none, or another number."""
    values = _optional(part, NOVELTY)
    return np.where((values >= 0) & (values <= 1), values, np.float32(math.nan)).astype(np.float32)


def _optional(part: PredictionsFile, name: str) -> npt.NDArray[np.floating]:
    return part.numbers(name) if part.has(name) else np.full(len(part.table), math.nan, np.float32)


class RowCounter:
    """Counts of all rows that were added, by label, by probability and by kind of error.

    Args:
        classes: Number of labels.
    """

    def __init__(self, classes: int) -> None:
        self.rows = 0
        """Number of all rows."""
        self.by_label: npt.NDArray[np.int64] = np.zeros(classes, np.int64)
        """(classes,) number of rows with each label."""
        self.histograms: npt.NDArray[np.int64] = np.zeros((classes, BINS), np.int64)
        """(classes, bins) number of rows by label and by the probability of that label."""
        self.novelty: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        """(bins,) number of rows by novelty."""
        self.novel = self.familiar = 0
        """Numbers of rows that are novel, and that are not."""
        self.errors: Counter[str] = Counter()
        """Number of unreadable files, by kind of error."""
        self.examples: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        """Path and reason of the first few unreadable files, by kind of error."""

    @property
    def unreadable(self) -> int:
        """The number of rows without a label."""
        return self.rows - int(self.by_label.sum())

    def add(self, rows: pa.Table, ranks: Ranks) -> None:
        """Count more rows, with the columns and ranks that `ranked_rows` returns."""
        codes, has_probability = rows["label"].to_numpy(), ranks > NO_PROBABILITY
        self.rows += len(codes)
        self.by_label += np.bincount(codes[codes >= 0], minlength=len(self.by_label))
        cells = codes[has_probability] * BINS + bins_of(ranks[has_probability])
        self.histograms += np.bincount(cells, minlength=self.histograms.size).reshape(self.histograms.shape)
        novelty, novel = rows[NOVELTY].to_numpy(), rows[NOVEL].to_numpy()
        self.novelty += np.bincount(bins_of(novelty[novelty >= 0]), minlength=BINS)
        self.novel += int((novel == 1).sum())
        self.familiar += int((novel == 0).sum())
        for row in rows.filter(pa.array(codes < 0)).select(["root", "path", "error"]).to_pylist():
            kind, _, reason = row["error"].partition(":")
            self.errors[kind] += 1
            if len(self.examples[kind]) < _EXAMPLES:
                self.examples[kind].append((f"{row['root']}/{row['path']}", reason.strip()))


class LowestRanked:
    """The rows of lowest rank among all added rows; among equal ranks, the rows that were added first.

    Args:
        limit: Largest number of rows to keep.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tables: list[pa.Table] = []
        self._row_count = 0
        self._rank_limit = math.inf if limit else -math.inf

    def add(self, rows: pa.Table, ranks: Ranks) -> None:
        """Consider more rows, with the columns and ranks that `ranked_rows` returns."""
        is_candidate = ranks < self._rank_limit
        if is_candidate.any() or not self._tables:
            self._tables.append(rows.append_column("rank", pa.array(ranks)).filter(pa.array(is_candidate)))
            self._row_count += int(is_candidate.sum())
        if self._row_count > 2 * self._limit:
            self._tables = [self.rows()]
            self._row_count = self._limit
            self._rank_limit = self._tables[0]["rank"][-1].as_py()

    def rows(self) -> pa.Table:
        """The rows of lowest rank, lowest first, with the column ``rank``."""
        candidates = pa.concat_tables(self._tables)
        return candidates.take(pa.array(np.argsort(candidates["rank"].to_numpy(), kind="stable")[: self._limit]))
