"""Cases that show what a file costs without decoding: reading alone, and the whole loop of a run."""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from batchcls.engine.backends import open_engine
from batchcls.engine.base import Engine
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import to_predictions
from batchcls.images.decoders.base import DecoderOptions
from batchcls.images.decoders.batching import CPU_GROUP_PIXELS, BatchingDecoder
from batchcls.images.decoders.read_ahead import Encoded, ReadAhead, ReadOptions
from batchcls.images.sources import open_readers, open_source
from batchcls.inference.options import RunOptions
from batchcls.machine import cores, peak_memory_bytes
from batchcls.predictions.writer import PredictionsWriter, open_writer
from batchcls.prefetch import parallel_map, poll
from batchcls.records import Batch, BatchResult, Failure, Pixels, Postponed, Slide
from benchmarks.processes import cpu_seconds
from benchmarks.sample import Sample, Task

if TYPE_CHECKING:
    from batchcls.storage.memory import Memory  # elsewhere in older commits, which this module measures too

BATCH_SIZE = 64
_POLL_S = 0.25
"""Seconds without a row after which the loop looks at the clock, as `batchcls.inference.run` does."""
_WARM_UP_IMAGES = 8
_START_TIMEOUT_S = 60.0
"""Seconds that processes wait for one another before they begin."""
_EXIT_TIMEOUT_S = 30.0


class StandInGroup:
    """A `batchcls.images.decoders.batching.GroupDecoder` that decodes nothing: every image is the same gray."""

    lanes = 1
    group_pixels = CPU_GROUP_PIXELS

    def __init__(self, size_px: tuple[int, int]) -> None:
        self._pixels = np.full((BATCH_SIZE, *size_px, 3), 128, np.uint8)

    def part(self, item: Encoded) -> str:
        return "suspect" if item.header.suspect else "sound"

    def cost_bytes(self, item: Encoded) -> int:
        return 0

    def __call__(self, group: Sequence[Encoded], memory: "Memory") -> Pixels:
        return self._pixels[: len(group)]

    def close(self) -> None:
        """There is nothing to end."""


def first_slides(folder: Path, count: int = _WARM_UP_IMAGES) -> list[Slide]:
    """The first slides of a folder, for a warm-up; the rest of the folder is not listed any further."""
    with closing(open_source([folder])) as source:
        return list(islice(source, count))


def measure_reading(task: Task) -> Sample:
    """List the folder and read every file, up to the inspection of its header."""
    since, cpu_since = perf_counter(), cpu_seconds()
    sizes_bytes: list[int] = []
    with closing(open_readers()) as readers, closing(open_source([task.folder])) as source:
        files = ReadAhead(source, readers, ReadOptions(RunOptions().max_pixels))
        held: list[Encoded | Failure | Postponed] = []
        with closing(files):
            for item in files:
                if item is not None:
                    sizes_bytes.append(len(item.data) if isinstance(item, Encoded) else 0)
                    held.append(item)
                if item is None or len(held) == BATCH_SIZE:  # as a decoder releases them
                    files.release(held)
                    held = []
            elapsed_s = perf_counter() - since
    details = {"bytes": sum(sizes_bytes), "cpu_s": cpu_seconds() - cpu_since}
    memory_bytes = peak_memory_bytes() + readers.peak_memory_bytes
    return Sample(elapsed_s, len(sizes_bytes), peak_memory_bytes=memory_bytes, details=details)


def measure_loop(task: Task, ready: Callable[[], object] = lambda: None) -> Sample:
    """List, read and batch the whole folder, and write Parquet, without decoding or inference.

    The loop is that of `batchcls.inference.run` and `batchcls.inference.local_executor`, without the display of
    progress and the counts that it shows.

    Args:
        ready: Function that is called after the warm-up, before the measurement begins.
    """
    with _null_engine(task) as engine:
        _write_all(engine, [str(task.folder)], first_slides(task.folder))
        ready()
        since, cpu_since = perf_counter(), cpu_seconds()
        with closing(open_source([task.folder])) as source:
            rows, readers_bytes = _write_all(engine, source.roots, source)
        elapsed_s = perf_counter() - since
    if rows != source.count:
        raise RuntimeError(f"{source.count} files were listed, and {rows} have a row")
    details = {"cpu_s": cpu_seconds() - cpu_since}
    return Sample(elapsed_s, rows, peak_memory_bytes=peak_memory_bytes() + readers_bytes, details=details)


def measure_loops(task: Task, *, processes: int) -> Sample:
    """Run the loop of `measure_loop` in several processes at once, each on all files.

    The time is that of the slowest process, from a common start after all warm-ups; the images are those of all.
    """
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(processes, timeout=_START_TIMEOUT_S)
    with ExitStack() as stack:
        receivers: list[Connection] = []
        for _ in range(processes):
            receiver, sender = spawn.Pipe(duplex=False)
            worker = spawn.Process(target=_run_loop, args=(task, start, sender))
            worker.start()
            stack.callback(worker.join, _EXIT_TIMEOUT_S)
            sender.close()
            receivers.append(stack.enter_context(receiver))
        samples: list[Sample] = [receiver.recv() for receiver in receivers]
    return Sample(
        max(sample.elapsed_s for sample in samples),
        sum(sample.images for sample in samples),
        peak_memory_bytes=peak_memory_bytes() + sum(sample.peak_memory_bytes for sample in samples),
        details={"cpu_s": sum(sample.details["cpu_s"] for sample in samples)},
    )


def _run_loop(task: Task, start: Barrier, samples: Connection) -> None:
    """Send the sample of one of several processes, which begin together; the program of each process."""
    try:
        samples.send(measure_loop(task, start.wait))
    except BaseException:
        start.abort()  # the others would wait for ever
        raise


@contextmanager
def _null_engine(task: Task) -> Iterator[Engine]:
    manifest = Manifest.read(task.engine)
    with closing(open_engine(task.engine, manifest, backend="null", device="cpu", threads=1)) as engine:
        yield engine


def _write_all(engine: Engine, roots: Sequence[str], slides: Iterable[Slide]) -> tuple[int, int]:
    """Write a row for each slide into a Parquet file that is thrown away.

    Returns:
        The number of rows, and the peak memory of the decoder's other processes in bytes.
    """
    size_px = engine.info.preprocess.size_px
    decoder = BatchingDecoder(
        StandInGroup(size_px), size_px, DecoderOptions(BATCH_SIZE, cores(), RunOptions().max_pixels)
    )
    with (
        tempfile.TemporaryDirectory() as scratch,
        closing(decoder),
        closing(open_output(Path(scratch), roots, engine.info.labels)) as output,
        closing(decoder.decode(output.missing(slides))) as batches,
        closing(parallel_map(partial(_classify, engine), batches, engine.lanes, decoder.stop)) as results,
        closing(poll(results, _POLL_S)) as polled,
    ):
        for result in polled:
            if result is not None:
                output.write(result)
            output.flush_if_due()
        rows = output.counts().rows
        output.finish({})
    return rows, decoder.peak_memory_bytes


def _classify(engine: Engine, batch: Batch) -> BatchResult:
    predictions = to_predictions(engine.infer(batch.pixels).logits)
    return BatchResult(batch.slides, batch.sizes, predictions, batch.failures, batch.postponed)


def open_output(folder: Path, roots: Sequence[str], labels: Sequence[str]) -> PredictionsWriter:
    """The writer of a predictions file in ``folder``, which goes on with the rows that are there."""
    output = open_writer(folder / "preds.parquet", roots=roots, labels=labels, identity={}, overwrite=True)
    if not isinstance(output, PredictionsWriter):
        raise TypeError("an output that is overwritten cannot be complete already")
    return output
