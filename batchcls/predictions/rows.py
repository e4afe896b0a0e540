"""Predictions as rows of Arrow: as they stand in a part of a run, and as they stand in the whole file."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.records import BatchResult
from batchcls.storage.file_names import printable


def schema(classes: int) -> pa.Schema:
    """The columns of a predictions file, for an engine of so many classes."""
    return pa.schema(
        [
            ("root", pa.dictionary(pa.int32(), pa.string())),
            ("path", pa.string()),
            ("label", pa.dictionary(pa.int32(), pa.string())),
            ("probability", pa.float32()),
            ("probabilities", pa.list_(pa.float32(), classes)),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("size_bytes", pa.int64()),
            ("modified", pa.timestamp("us", "UTC")),
            ("error", pa.string()),
        ]
    )


def part_schema(classes: int) -> pa.Schema:
    """The columns of a part, which holds root and label as positions in lists that the whole run shares."""
    final = schema(classes)
    return pa.schema([field.with_type(pa.int32()) if pa.types.is_dictionary(field.type) else field for field in final])


class PredictionRows:
    """Turns predictions into rows of a part, and those into rows of the whole file.

    Args:
        roots: Every `Slide.root` that may come.
        labels: The engine's, by position.
    """

    def __init__(self, roots: Sequence[str], labels: Sequence[str]) -> None:
        self.schema = part_schema(len(labels))
        """The columns of a part."""
        self._roots = {root: position for position, root in enumerate(roots)}
        self._classes = len(labels)
        self._words = {"root": [printable(root) for root in roots], "label": list(labels)}

    def of(self, scored: BatchResult) -> pa.RecordBatch:
        """A row of a part for each file of ``scored``."""
        predictions = scored.predictions
        decoded, failed = len(scored.slides), len(scored.failures)
        slides = [*scored.slides, *(failure.slide for failure in scored.failures)]
        sizes = [*scored.sizes, *((failure.width, failure.height) for failure in scored.failures)]
        error = np.arange(decoded + failed) >= decoded
        labels = np.concatenate([predictions.labels, np.zeros(failed, np.int32)])
        probabilities = np.concatenate([predictions.probabilities, np.zeros((failed, self._classes), np.float32)])
        values = pa.array(probabilities.ravel())
        columns = [
            pa.array([self._roots[slide.root] for slide in slides], pa.int32()),
            pa.array([printable(slide.path) for slide in slides], pa.string()),
            pa.array(labels, mask=error),
            pa.array(probabilities.max(axis=1, initial=0), mask=error),
            pa.FixedSizeListArray.from_arrays(
                values, type=self.schema.field("probabilities").type, mask=pa.array(error)
            ),
            pa.array([width for width, _ in sizes], pa.int32()),
            pa.array([height for _, height in sizes], pa.int32()),
            pa.array([slide.size_bytes for slide in slides], pa.int64()),
            pa.array([_microseconds(slide.modified_ns) for slide in slides], pa.timestamp("us", "UTC")),
            pa.array([None] * decoded + [failure.text for failure in scored.failures], pa.string()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def with_words(self, rows: pa.Table) -> pa.Table:
        """``rows`` of parts, with root and label as the words that they stand for."""
        for name, words in self._words.items():
            codes = rows[name].combine_chunks()
            words_of = pa.DictionaryArray.from_arrays(codes, pa.array(words, pa.string()))
            rows = rows.set_column(rows.schema.get_field_index(name), name, words_of)
        return rows

    def of_whole(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of a part, out of some columns of a whole file."""
        for name in self._words.keys() & set(rows.schema.names):
            words = self._words[name]
            codes = pc.index_in(rows[name].cast(pa.string()), pa.array(words, pa.string()))
            rows = rows.set_column(rows.schema.get_field_index(name), name, codes)
        return rows.cast(pa.schema([self.schema.field(name) for name in rows.schema.names]))

    @property
    def keys(self) -> pa.Schema:
        """The columns that tell a slide's row from all others."""
        return pa.schema([self.schema.field(name) for name in ("root", "path")])


def _microseconds(nanoseconds: int | None) -> int | None:
    return None if nanoseconds is None else nanoseconds // 1000
