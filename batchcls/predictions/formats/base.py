"""The protocol of the file formats of predictions files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa


class OpenPredictions(Protocol):
    """A predictions file, open for reading."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of `batchcls.predictions.schema`, as the file has them."""

    @property
    def record(self) -> Mapping[str, Any]:
        """The record of the run; empty where there is none."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the probabilities, in a format whose columns name them; else empty."""

    def is_as_written(self) -> bool:
        """Whether the file is the one that the record was written with."""

    def table(self, columns: Sequence[str]) -> pa.Table:
        """All rows, with these columns in this order.

        Raises:
            ArrowException, OSError, ValueError: If the file is damaged.
        """

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows, at most ``rows`` at a time, in memory that does not grow with the file.

        Raises:
            ArrowException, OSError, ValueError: If the file is damaged.
        """


class ReadableFormat(Protocol):
    """A format of predictions, for reading."""

    def opened(self, path: Path | str, stream: BinaryIO | None = None) -> AbstractContextManager[OpenPredictions]:
        """A context that yields the file, open for reading.

        Args:
            path: The predictions file, or its URL in an object store.
            stream: The file, where it is open already, as one in an object store has to be.

        Raises:
            ArrowException, OSError, ValueError: If the file is not of this format.
        """

    def check_size(self, path: Path, columns: Sequence[str], *, whole: bool) -> None:
        """Refuse a file that would take more memory than there is, or than a sound file of its size does.

        Args:
            columns: Columns that will be read.
            whole: Whether all rows will be in memory at one time.

        Raises:
            LabelsError: If the file would.
            ArrowException, OSError, ValueError: If the file is not of this format.
        """


class PredictionsFormat(ReadableFormat, Protocol):
    """One file format of predictions files."""

    @property
    def RECORD_IS_BESIDE(self) -> bool:  # noqa: N802  # a module's constant
        """Whether the record of the run is in a JSON file beside the predictions file."""

    def write(
        self, stream: BinaryIO, rows: Iterable[pa.Table], labels: Sequence[str], record: Mapping[str, Any]
    ) -> bytes | None:
        """Write a whole predictions file.

        Args:
            rows: The rows, in groups, with the columns of `batchcls.predictions.schema`.
            labels: Labels in the order of the probabilities.
            record: The record of the run; JSON values.

        Returns:
            The content of the file beside the predictions file, in a format that keeps the record there; else None.
        """
