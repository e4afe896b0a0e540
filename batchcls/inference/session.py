"""An open engine that classifies a program's images, in their order and in any number of threads."""

import atexit
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import cast
from weakref import WeakSet, ref

import numpy as np
import pyarrow as pa

from batchcls.errors import DecoderError, EngineError
from batchcls.images.decoders.arrays import array_batches
from batchcls.images.decoders.base import Decoder
from batchcls.images.sources import open_readers
from batchcls.images.sources.base import SlideReaders
from batchcls.images.sources.memory import MemoryReaders, MemorySlide
from batchcls.inference.added_answers import AddedAnswers
from batchcls.inference.answers import answer, open_checked_engine
from batchcls.inference.decoder_pool import DecoderPool
from batchcls.inference.device_configs import device_configs
from batchcls.inference.image_feed import ImageFeed
from batchcls.inference.input_order import InputOrder
from batchcls.inference.inputs import PixelsSlide
from batchcls.inference.options import RunOptions
from batchcls.inference.row_stream import RowStream, StreamState
from batchcls.inference.slide_runs import FAILURES, RunKind, without_failures
from batchcls.predictions.schema import added_schema, file_schema
from batchcls.prefetch import parallel_map
from batchcls.records import Batch, BatchResult, Failure, Pixels, Predictions, Slide
from batchcls.storage.memory import format_bytes


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
        self._added = AddedAnswers(folder, self._config.manifest, self._config.answers)
        self.info = replace(self._engine.info, device=self._config.device)
        self.notes = tuple(self._engine.notes)
        self.decoder = self._config.decoder
        self._lanes = BoundedSemaphore(self._engine.lanes)
        self._lock = Lock()
        self._decoders = DecoderPool(self._config, self.info.preprocess, self._engine.batch_size)
        self._streams: WeakSet[RowStream] = WeakSet()
        self._readers: SlideReaders | None = None
        """Readers of files, once a stream has needed them."""
        self._closed = False
        self._process = os.getpid()
        # Before concurrent.futures waits for its threads, as itself does; atexit comes after that.
        getattr(threading, "_register_atexit", atexit.register)(_close, ref(self))
        self._added_schema = added_schema(self._config.answers.identity)
        self.schema = file_schema(len(self.info.labels), self._added_schema)
        """Schema of the rows: the columns of a predictions file."""

    def rows(self, slides: Iterable[Slide | Failure]) -> RowStream:
        """The rows of ``slides``, in their order, computed ahead of the consumer within a bounded memory.

        Raises:
            EngineError: If the session is closed.
        """
        self._check_open()  # before the lock, which a thread may have held at a fork
        with self._lock:
            self._check_open()
            order = InputOrder(self.info.labels, self._added_schema)
            state = StreamState(order, ImageFeed(order.taken(slides)))
            stream = RowStream(self._rows(state), state)
            self._streams.add(stream)
        return stream

    def close(self) -> None:
        """End every stream, thread and process of this session, and release the device; twice is harmless."""
        if os.getpid() != self._process:  # a fork has none of the threads
            return
        with self._lock:
            self._closed = True
            streams = list(self._streams)
        for stream in streams:
            stream.close()
        with self._lock:
            readers, self._readers = self._readers, None
        self._decoders.close()
        if readers:
            readers.close()
        self._engine.close()

    def _check_open(self) -> None:
        if os.getpid() != self._process:
            raise EngineError(
                "the engine was opened before this process was forked from the one that opened it, and does not work "
                "here; open it again, with Engine.load, or start processes with multiprocessing.get_context('spawn')"
            )
        if self._closed:
            raise EngineError("the engine has been closed; open it again")

    def _rows(self, state: StreamState) -> Generator[pa.RecordBatch]:
        try:
            for kind, run in groupby(state.feed, key=RunKind()):
                with closing(self._results(kind, run, state)) as results:
                    for result in results:
                        if (rows := state.order.add(result)) is not None:
                            yield rows
                if state.closed:
                    return
            if (rows := state.order.add(self._no_result())) is not None:
                yield rows
            state.order.check_complete()
        finally:
            state.order.close()
            state.feed.close()

    def _results(self, kind: type, run: Iterator[Slide | Failure | None], state: StreamState) -> Generator[BatchResult]:
        """The results of consecutive slides of one kind, without those of failures, whose rows are in order already."""
        if kind is Failure:
            for number, failure in enumerate(run, 1):
                if failure is not None:
                    state.order.fail(cast(Failure, failure))
                if failure is None or number % FAILURES == 0:
                    yield self._no_result()
            return
        slides = without_failures(run, state.order)
        if kind is PixelsSlide:
            pixels = cast(Iterator[PixelsSlide | None], slides)
            arrays = ((slide, slide.pixels) if slide else None for slide in pixels)
            source = _Source(self._array_batches(arrays))
            yield from self._answers(source, lambda: None if source.ended else state.feed.close())
        else:
            files = (slide for slide in slides if slide is not None)
            with self._decoders.lent() as decoder:
                yield from self._decoded(decoder, files, kind, state)

    def _decoded(
        self, decoder: Decoder, files: Iterator[Slide], kind: type, state: StreamState
    ) -> Generator[BatchResult]:
        readers = MemoryReaders() if kind is MemorySlide else self._file_readers()
        state.decoder = decoder
        try:
            with closing(decoder.decode(files, readers)) as batches:
                yield from self._answers(batches, decoder.stop)
        except DecoderError:  # such as a reading process that was killed
            self._drop(readers)
            raise
        finally:
            state.decoder = None

    def _answers(self, batches: Iterator[Batch], stop: Callable[[], None]) -> Generator[BatchResult]:
        with closing(parallel_map(self._answer, batches, self._engine.lanes, stop)) as results:
            yield from results

    def _answer(self, batch: Batch) -> BatchResult:
        with self._lanes:
            result = answer(self._engine, batch, self._added)
        too_large = [
            Failure(
                file.slide,
                "too large",
                f"decoding needs {format_bytes(file.needed_bytes)} of memory; "
                f"{self._decoders.advice(file.needed_bytes)}",
            )
            for file in result.postponed
        ]
        return replace(result, failures=[*result.failures, *too_large], postponed=()) if too_large else result

    def _array_batches(self, arrays: Iterator[tuple[Slide, Pixels] | None]) -> Iterator[Batch]:
        config = self._config
        return array_batches(
            arrays,
            self.info.preprocess,
            decoder=config.decoder,
            batch_size=config.batch_size or self._engine.batch_size,
            threads=config.threads,
        )

    def _file_readers(self) -> SlideReaders:
        with self._lock:
            self._check_open()
            if self._readers is None:
                self._readers = open_readers()
            return self._readers

    def _drop(self, readers: SlideReaders) -> None:
        """Let the next stream open other readers."""
        with self._lock:
            if self._readers is readers:
                self._readers = None
        readers.close()

    def _no_result(self) -> BatchResult:
        classes = len(self.info.labels)
        return BatchResult(
            [], [], Predictions(np.empty(0, np.int32), np.empty((0, classes), np.float32), np.empty(0, np.bool_))
        )


def _close(session: "ref[Session]") -> None:
    """Close a session that is still open at the end of the interpreter."""
    if opened := session():
        opened.close()
