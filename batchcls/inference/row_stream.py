"""A stream of rows that any thread may end."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from threading import Lock

import pyarrow as pa

from batchcls.errors import EngineError
from batchcls.images.decoders.base import Decoder
from batchcls.inference.image_feed import ImageFeed
from batchcls.inference.input_order import InputOrder


@dataclass(slots=True)
class StreamState:
    """The parts of a stream that have to be stopped to end it, from any thread."""

    order: InputOrder
    feed: ImageFeed
    decoder: Decoder | None = None
    """Decoder in use; None between runs of files."""
    closed: bool = False
    """Whether the stream was ended before its last image."""

    def stop(self) -> None:
        """End reading and computing, without waiting for it."""
        self.closed = True
        self.order.close()
        self.feed.close()
        if self.decoder:
            self.decoder.stop()


class RowStream(Iterator[pa.RecordBatch]):
    """Rows of a program's images in their order; ends its threads when it is closed, exhausted or dropped."""

    def __init__(self, rows: Generator[pa.RecordBatch], state: StreamState) -> None:
        self._rows = rows
        self._state = state
        self._lock = Lock()

    def __next__(self) -> pa.RecordBatch:
        self._check_caller()
        with self._lock:
            rows = next(self._rows, None)
        if rows is not None:
            return rows
        if self._state.closed:
            raise EngineError(
                "the engine, or this stream, has been closed before its last image; open the engine again"
            )
        raise StopIteration

    def close(self) -> None:
        """End reading and computing; calling it twice is harmless."""
        self._check_caller()
        self._state.stop()
        with self._lock:
            self._rows.close()

    def _check_caller(self) -> None:
        """Raise an `EngineError` in a thread for which this stream waits."""
        if self._state.feed.calls:
            raise EngineError("the images of a stream cannot go on with this stream, or close it or its engine")
