"""An open engine that classifies a program's images, in their order and in any number of threads."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import cast
from weakref import WeakSet

import numpy as np
import pyarrow as pa

from batchcls.errors import DecoderError, EngineError, MemoryShortageError
from batchcls.images.decoders import default_batch_size, open_decoder
from batchcls.images.decoders.arrays import array_batches
from batchcls.images.decoders.base import Decoder, DecoderOptions
from batchcls.images.sources import open_readers
from batchcls.images.sources.base import SlideReaders
from batchcls.images.sources.memory import MemoryReaders, MemorySlide
from batchcls.inference.answers import answer, open_checked_engine
from batchcls.inference.input_order import InputOrder
from batchcls.inference.inputs import PixelsSlide
from batchcls.inference.options import RunOptions, device_configs
from batchcls.inference.row_stream import RowStream, StreamState
from batchcls.predictions.schema import file_schema
from batchcls.prefetch import parallel_map
from batchcls.records import Batch, BatchResult, Failure, Pixels, Predictions, Slide
from batchcls.storage.memory import available_bytes, format_bytes, resident_bytes

_SHARE = 0.75
"""Share of the memory that is left which the decoder of one more stream may take."""
_LEAST_BYTES = 64 << 20
"""Memory of a stream's decoder, at least: a few small images at a time can be decoded in it."""
_FAILURES = 64
"""Number of failures that become one result."""


class _Source(Iterator[Batch]):
    """Batches, and whether their iterator has ended."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.ended = False

    def __next__(self) -> Batch:
        batch = next(self._batches, None)
        if batch is None:
            self.ended = True
            raise StopIteration
        return batch


class Session:
    """An engine on one device, open until `close`; any number of threads may use it.

    Args:
        folder: The engine folder.
        options: Device, backend, limits; as of a run.

    Raises:
        EngineError: If the engine or its device cannot be used, or several devices are named.
        VerificationError: If the engine's answers to its probes differ too much from the recorded ones.
        MemoryShortageError: If there is too little memory to begin with.
    """

    def __init__(self, folder: Path, options: RunOptions) -> None:
        configs, self.why = device_configs(folder, options)
        if len(configs) > 1 or configs[0].visible is not None:
            raise EngineError(
                f"device {options.device!r} takes several processes, and an open engine has one; name one device, such "
                "as device='cuda:0', or classify a folder with batchcls.run"
            )
        self._config = configs[0]
        self._engine = open_checked_engine(self._config)
        self.info = replace(self._engine.info, device=self._config.device)
        self.notes = tuple(self._engine.notes)
        self.decoder = self._config.decoder
        self._lanes = BoundedSemaphore(self._engine.lanes)
        self._lock = Lock()
        self._left_bytes = min(self._config.memory_bytes - resident_bytes(), available_bytes())
        self._idle: list[Decoder] = []
        """Decoders that no stream uses."""
        self._streams: WeakSet[RowStream] = WeakSet()
        self._readers: SlideReaders | None = None
        """Readers of files, once a stream has needed them."""
        self._closed = False
        self.schema = file_schema(len(self.info.labels))
        """Schema of the rows: the columns of a predictions file."""

    def rows(self, slides: Iterable[Slide | Failure]) -> RowStream:
        """The rows of ``slides``, in their order, computed ahead of the consumer within a bounded memory.

        Raises:
            EngineError: If the session is closed.
        """
        with self._lock:
            self._check_open()
            state = StreamState(InputOrder(self.info.labels))
            stream = RowStream(self._rows(slides, state), state)
            self._streams.add(stream)
        return stream

    def close(self) -> None:
        """End every stream, thread and process of this session, and release the device; twice is harmless."""
        with self._lock:
            self._closed = True
            streams = list(self._streams)
        for stream in streams:
            stream.close()
        with self._lock:
            decoders, self._idle = self._idle, []
            readers, self._readers = self._readers, None
        for decoder in decoders:
            decoder.close()
        if readers:
            readers.close()
        self._engine.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine has been closed; open it again")

    def _rows(self, slides: Iterable[Slide | Failure], state: StreamState) -> Generator[pa.RecordBatch]:
        try:
            for kind, run in groupby(state.order.taken(slides), key=type):
                with closing(self._results(kind, run, state)) as results:
                    for result in results:
                        if (rows := state.order.add(result)) is not None:
                            yield rows
            if not state.closed:
                state.order.check_complete()
        finally:
            state.order.close()

    def _results(self, kind: type, run: Iterator[Slide | Failure], state: StreamState) -> Generator[BatchResult]:
        """The results of consecutive slides of one kind."""
        if kind is Failure:
            while group := cast(list[Failure], list(islice(run, _FAILURES))):
                yield BatchResult([], [], _no_predictions(len(self.info.labels)), group)
        elif kind is PixelsSlide:
            arrays = ((slide, slide.pixels) for slide in cast(Iterator[PixelsSlide], run))
            source = _Source(self._array_batches(arrays))
            yield from self._answers(source, lambda: None if source.ended else state.order.close())
        else:
            with self._decoder(state) as decoder:
                readers = MemoryReaders() if kind is MemorySlide else self._file_readers()
                try:
                    with closing(decoder.decode(cast(Iterator[Slide], run), readers)) as batches:
                        yield from self._answers(batches, decoder.stop)
                except DecoderError:  # such as a reading process that was killed
                    self._drop(readers)
                    raise

    def _answers(self, batches: Iterator[Batch], stop: Callable[[], None]) -> Generator[BatchResult]:
        with closing(parallel_map(self._answer, batches, self._engine.lanes, stop)) as results:
            yield from results

    def _answer(self, batch: Batch) -> BatchResult:
        with self._lanes:
            result = answer(self._engine, batch)
        too_large = [
            Failure(
                file.slide,
                "too large",
                f"decoding needs {format_bytes(file.needed_bytes)} of memory; open the engine with so much, "
                f"memory={file.needed_bytes}",
            )
            for file in result.postponed
        ]
        return replace(result, failures=[*result.failures, *too_large], postponed=()) if too_large else result

    def _array_batches(self, arrays: Iterator[tuple[Slide, Pixels]]) -> Iterator[Batch]:
        config = self._config
        return array_batches(
            arrays,
            self.info.preprocess,
            decoder=config.decoder,
            batch_size=config.batch_size or self._engine.batch_size,
            threads=config.threads,
        )

    @contextmanager
    def _decoder(self, state: StreamState) -> Iterator[Decoder]:
        """A decoder that no other stream uses meanwhile.

        Raises:
            MemoryShortageError: If too many streams are open for one more decoder's memory.
        """
        with self._lock:
            self._check_open()
            decoder = self._idle.pop() if self._idle else self._open_decoder()
        state.decoder = decoder
        try:
            yield decoder
        finally:
            state.decoder = None
            with self._lock:
                self._idle.append(decoder)

    def _open_decoder(self) -> Decoder:
        share = int(self._left_bytes * _SHARE)
        if share < _LEAST_BYTES:
            raise MemoryShortageError(
                f"{format_bytes(max(0, self._left_bytes))} of memory are left for one more stream of images; finish or "
                "close a stream, or open the engine with more memory: Engine.load(..., memory=BYTES)"
            )
        config = self._config
        batch_size = config.batch_size or default_batch_size(
            config.decoder, config.opened_device, self._engine.batch_size
        )
        options = DecoderOptions(
            batch_size, config.threads, config.max_pixels, share, config.read_timeout_s, config.opened_device
        )
        decoder = open_decoder(config.decoder, self.info.preprocess, options)
        self._left_bytes -= share
        return decoder

    def _file_readers(self) -> SlideReaders:
        with self._lock:
            if self._readers is None:
                self._readers = open_readers()
            return self._readers

    def _drop(self, readers: SlideReaders) -> None:
        """Let the next stream open other readers."""
        with self._lock:
            if self._readers is readers:
                self._readers = None
        readers.close()


def _no_predictions(classes: int) -> Predictions:
    return Predictions(np.empty(0, np.int32), np.empty((0, classes), np.float32), np.empty(0, np.bool_))
