"""The part of a predictions file that a comparison needs: names, labels and largest probabilities, and sums."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchcls.engine.measure_sums import MeasureSums
from batchcls.engine.measures import DISTANCE_PREFIX
from batchcls.errors import LabelsError
from batchcls.predictions.formats import format_to_read
from batchcls.predictions.reader import PredictionsFile
from batchcls.predictions.schema import MEASURES

_COLUMNS = ("root", "path", "label", "probability", "width", "height")


class UnreadRun:
    """A predictions file of which the record is known and the rows are still to be read.

    Args:
        path: The predictions file.
        labels: Labels in the order of the probabilities, for a file that has lost its metadata.

    Raises:
        LabelsError: If the file cannot be read, is no predictions file, or takes more memory than there is.
    """

    def __init__(self, path: Path, labels: Sequence[str] = ()) -> None:
        self._parts = PredictionsFile.parts(path, labels, [MEASURES])
        self.head = next(self._parts)
        """The file without its rows."""
        format_to_read(path).check_size(path, _COLUMNS, whole=True)

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures of the file's rows; empty where it has none, or does not name them."""
        identity = self.head.metadata.get("identity")
        names = identity.get(MEASURES) if isinstance(identity, dict) else None
        if not isinstance(names, list) or not self.head.has(MEASURES):
            return ()
        is_named = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
        length = self.head.numbers(MEASURES).shape[1]  # 0 where another program wrote lists of any length
        return tuple(names) if is_named and length in (0, len(names)) else ()

    @property
    def has_unnamed_measures(self) -> bool:
        """Whether the file has measures of which its record does not say what they are."""
        return self.head.has(MEASURES) and not self.measures

    def measures_in_common(self, other: "UnreadRun") -> tuple[str, ...]:
        """Names of measures of both files that mean the same: distances only if they are to the same images."""
        statistics = [run.head.metadata.get("identity", {}).get("novelty_statistics") for run in (self, other)]
        comparable = statistics[0] is not None and statistics[0] == statistics[1]
        names = (name for name in self.measures if name in other.measures)
        return tuple(name for name in names if comparable or not name.startswith(DISTANCE_PREFIX))

    def read(self, order: Sequence[str], sums: MeasureSums) -> "AnsweredImages":
        """Read the rows, and add their measures to ``sums``.

        Args:
            order: The file's labels, in the order of the codes that are wanted.
        """
        columns = [self.measures.index(name) for name in sums.names]
        codes_of = np.array([order.index(label) for label in self.head.labels] + [-1])
        tables, codes = [], []
        for part in self._checked_parts():
            codes.append(codes_of[part.codes])
            values = part.numbers(MEASURES) if columns else np.zeros((len(part.table), 0))
            is_without = not values.shape[1]  # no row of the part has a measure
            sums.add(np.full((len(values), len(columns)), np.nan) if is_without else values[:, columns], codes[-1])
            tables.append(part.table.select(_COLUMNS))
        table = pa.concat_tables(tables).unify_dictionaries()
        return AnsweredImages(replace(self.head, table=table), np.concatenate(codes))

    def _checked_parts(self) -> Iterator[PredictionsFile]:
        yield self.head
        for part in self._parts:
            if self.measures and part.numbers(MEASURES).shape[1] not in (0, len(self.measures)):
                raise LabelsError(f"{str(part.path)!r} has rows with other measures than it names; classify again")
            yield part


@dataclass(frozen=True, slots=True)
class AnsweredImages:
    """The rows of a predictions file, without all but the largest probability of each."""

    file: PredictionsFile
    codes: npt.NDArray[np.int64]
    """(rows,) position of each row's label among those of both files; -1 for a row without one."""

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(rows,) largest probability of each row, 0 to 1; NaN for a row without a label."""
        return np.asarray(self.file.table["probability"].to_numpy(), np.float64)

    @property
    def sizes(self) -> npt.NDArray[np.float64]:
        """(rows, 2) width and height in pixels; NaN where they are unknown."""
        return np.stack([np.asarray(self.file.table[name].to_numpy(), np.float64) for name in ("width", "height")], 1)
