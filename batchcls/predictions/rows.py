"""Predictions as rows of Arrow, in a part of an unfinished run and in the whole file."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.predictions.answer_columns import answer_columns, replaced_values
from batchcls.predictions.row_key import column_values
from batchcls.predictions.schema import ANSWERS, DIGEST, LABEL_LISTS, NOTHING_KEPT, part_schema
from batchcls.records import BatchResult, Slide
from batchcls.storage.column_values import one_array
from batchcls.storage.file_names import printable


class PredictionRows:
    """A converter of predictions to rows of a part, and of rows between a part and the whole file.

    Args:
        roots: Every `Slide.root` of the run.
        labels: The engine's labels, by position.
        added: Columns of `batchcls.predictions.schema.added_schema`.
    """

    def __init__(self, roots: Sequence[str], labels: Sequence[str], added: pa.Schema = NOTHING_KEPT) -> None:
        self.schema = part_schema(len(labels), added)
        """The schema of a part."""
        self._roots = {root: position for position, root in enumerate(roots)}
        self._classes = len(labels)
        self._has_digests = DIGEST in added.names
        self._answers = pa.schema([field for field in self.schema if field.name in ANSWERS])
        self._kept = [field for field in added if field.name not in (DIGEST, *ANSWERS)]
        self._label_lists = [field.name for field in added if field.type == LABEL_LISTS]
        self._words = {"root": [printable(root) for root in roots], "label": list(labels)}

    def of(self, result: BatchResult) -> pa.RecordBatch:
        """The rows of a part for a batch: one for each prediction, then one for each failure."""
        predictions = result.predictions
        decoded, failed = len(result.slides), len(result.failures)
        slides = [*result.slides, *(failure.slide for failure in result.failures)]
        sizes = [*result.sizes, *((failure.width, failure.height) for failure in result.failures)]
        is_failure = np.arange(decoded + failed) >= decoded
        labels = np.concatenate([predictions.labels, np.zeros(failed, np.int32)])
        probabilities = np.concatenate([predictions.probabilities, np.zeros((failed, self._classes), np.float32)])
        columns = {
            **column_values(slides, self._roots),
            "label": pa.array(labels, mask=is_failure),
            "probability": pa.array(probabilities.max(axis=1, initial=0), mask=is_failure),
            "probabilities": pa.FixedSizeListArray.from_arrays(
                pa.array(probabilities.ravel()),
                type=self.schema.field("probabilities").type,
                mask=pa.array(is_failure),
            ),
            "width": pa.array([width for width, _ in sizes], pa.int32()),
            "height": pa.array([height for _, height in sizes], pa.int32()),
            "size_bytes": pa.array([slide.size_bytes for slide in slides], pa.int64()),
            "modified": pa.array([_microseconds(slide.modified_ns) for slide in slides], pa.timestamp("us", "UTC")),
            "error": pa.array([None] * decoded + [failure.text for failure in result.failures], pa.string()),
            **self._kept_columns(slides),
            **{
                name: pa.concat_arrays([column, pa.nulls(failed, column.type)])
                for name, column in answer_columns(predictions, self._answers).items()
            },
            DIGEST: pa.array([slide.digest for slide in slides] if self._has_digests else [], pa.string()),
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)

    def _kept_columns(self, slides: Sequence[Slide]) -> dict[str, pa.Array]:
        """The columns that the slides carry with them; null for a slide of a source that has no such columns."""
        return {
            field.name: pa.array([slide.kept[number] if slide.kept else None for slide in slides], field.type)
            for number, field in enumerate(self._kept)
        }

    def with_words(self, rows: pa.Table) -> pa.Table:
        """Rows of parts, with the text of each root and label in place of its position."""
        for name, words in self._words.items():
            codes = rows[name].combine_chunks()
            words_of = pa.DictionaryArray.from_arrays(codes, pa.array(words, pa.string()))
            rows = rows.set_column(rows.schema.get_field_index(name), name, words_of)
        labels = pa.array(self._words["label"], pa.string())
        for name in self._label_lists:
            lists = replaced_values(one_array(rows[name]), labels.take)
            rows = rows.set_column(rows.schema.get_field_index(name), name, lists)
        return rows

    def of_whole(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of a whole file as rows of a part; any of the columns will do."""
        for name in self._words.keys() & set(rows.schema.names):
            words = self._words[name]
            codes = pc.index_in(rows[name].cast(pa.string()), pa.array(words, pa.string()))
            rows = rows.set_column(rows.schema.get_field_index(name), name, codes)
        labels = pa.array(self._words["label"], pa.string())
        for name in set(self._label_lists) & set(rows.schema.names):
            lists = replaced_values(rows[name], lambda texts: pc.index_in(texts, labels))
            rows = rows.set_column(rows.schema.get_field_index(name), name, lists)
        return rows.cast(pa.schema([self.schema.field(name) for name in rows.schema.names]))


def _microseconds(nanoseconds: int | None) -> int | None:
    return None if nanoseconds is None else nanoseconds // 1000
