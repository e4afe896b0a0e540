"""The cases that are measured of batchcls: runs from end to end, and each stage alone."""

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Literal, get_args

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from batchcls.engine.backends import open_engine
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import to_predictions
from batchcls.images.decoders import DecoderName, default_batch_size, open_decoder
from batchcls.images.decoders.base import DecoderOptions
from batchcls.images.sources import open_source
from batchcls.inference.device_configs import backend_for
from batchcls.inference.options import RunOptions
from batchcls.inference.run import classify_images
from batchcls.machine import cores, peak_memory_bytes
from batchcls.predictions.writer import PredictionsWriter
from batchcls.prefetch import parallel_map
from batchcls.records import BatchResult, DevicePixels, Pixels, Slide
from benchmarks.commands import measure_build, measure_command, measure_start_up
from benchmarks.file_costs import (
    BATCH_SIZE,
    first_slides,
    measure_loop,
    measure_loops,
    measure_reading,
    open_output,
)
from benchmarks.processes import cpu_seconds
from benchmarks.program_api import measure_arrays
from benchmarks.sample import Sample, Task

_ROWS = 200_000
"""Rows of the cases that measure the output alone."""
_NO_INFERENCE = {"backend": "null"}

EngineChoice = Literal["", "committed", "int8"]


@dataclass(frozen=True, slots=True)
class Case:
    """A way to measure batchcls."""

    measure: Callable[[Task], Sample]
    """Takes one measurement."""
    engine: EngineChoice = ""
    """Engine to measure: the committed one or its int8 variant; empty if the result does not depend on it."""
    slow_disk: bool = False
    """Whether opening each file and folder takes 5 ms longer, as across a network."""
    cores: int = 0
    """Largest number of CPU cores that the case may use; 0 for all."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `RunOptions` that differ from their defaults."""


def measure_end_to_end(task: Task) -> Sample:
    """Classify the whole folder as `batchcls run` does, from the first file to the finished Parquet file."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "preds.parquet"
        options = RunOptions(device=task.device, **task.settings)
        cpu_since = cpu_seconds()
        stats = classify_images([task.folder], task.engine, out, options, Console(file=io.StringIO()))
        cpu_s = cpu_seconds() - cpu_since
        table = pq.read_table(out, columns=["path", "probabilities"]) if options.backend != "null" else None
    answers = zip(*(column.to_pylist() for column in table.columns), strict=True) if table else ()
    details = {"stages_s": stats.seconds, "unreadable": sum(stats.errors.values()), "cpu_s": cpu_s}
    elapsed_s = stats.elapsed_s - stats.seconds["start"]
    return Sample(elapsed_s, stats.rows, dict(answers), stats.peak_memory_bytes, details)


def measure_decoding(task: Task, *, name: DecoderName) -> Sample:
    """Read, decode and resize the whole folder, without inference."""
    batch_size = default_batch_size(name, task.device, BATCH_SIZE)
    options = DecoderOptions(batch_size, cores(), RunOptions().max_pixels, device=task.device)
    with closing(open_decoder(name, Manifest.read(task.engine).preprocess, options)) as decoder:
        list(decoder.decode(first_slides(task.folder)))
        since, cpu_since = perf_counter(), cpu_seconds()
        with closing(open_source([task.folder])) as source:
            images = sum(len(batch.slides) + len(batch.failures) for batch in decoder.decode(source))
        elapsed_s = perf_counter() - since
        memory_bytes = peak_memory_bytes() + decoder.peak_memory_bytes
    return Sample(elapsed_s, images, peak_memory_bytes=memory_bytes, details={"cpu_s": cpu_seconds() - cpu_since})


def measure_inference(task: Task) -> Sample:
    """Infer one batch repeatedly, at least ``task.images`` images in all; the pixels are copied to the device once."""
    manifest = Manifest.read(task.engine)
    backend, _ = backend_for(task.device, task.engine, manifest)
    with closing(open_engine(task.engine, manifest, backend=backend, device=task.device, threads=cores())) as engine:
        batch_size = engine.batch_size
        noise = np.random.default_rng(0).integers(0, 256, (batch_size, *engine.info.preprocess.size_px, 3), np.uint8)
        with on_device(noise, task.device) as pixels:
            engine.infer(pixels)
            batches = -(-task.images // batch_size)
            since, cpu_since = perf_counter(), process_time()
            for _ in parallel_map(engine.infer, repeat(pixels, batches), engine.lanes):
                pass
            return Sample(perf_counter() - since, batches * batch_size, details={"cpu_s": process_time() - cpu_since})


@contextmanager
def on_device(pixels: Pixels, device: str) -> Iterator[Pixels | DevicePixels]:
    """A context that yields ``pixels``, copied to the memory of ``device`` if that is a GPU."""
    if device == "cpu":
        yield pixels
        return
    from batchcls.engine.backends import cuda

    cuda.use_gpu(int(device.removeprefix("cuda:")))
    with ExitStack() as stack:
        memory, pinned = cuda.DeviceMemory(pixels.nbytes), cuda.PinnedMemory(pixels.nbytes)
        stream = cuda.Stream()
        for resource in (memory, pinned, stream):
            stack.callback(resource.close)
        stream.copy_pixels(pixels, memory, pinned)
        stream.wait()
        yield DevicePixels(pixels.shape, memory.address, memory)


def measure_writing(task: Task) -> Sample:
    """Write predictions to the disk in parts, and join the parts into the finished Parquet file."""
    with tempfile.TemporaryDirectory() as scratch:
        since = perf_counter()
        with closing(_open_output(scratch, task)) as output:
            _write_rows(output, task)
            output.finish({})
        return Sample(perf_counter() - since, _ROWS)


def measure_resuming(task: Task) -> Sample:
    """Open an unfinished output and look up every file in it, as a resumed run does."""
    with tempfile.TemporaryDirectory() as scratch:
        with closing(_open_output(scratch, task)) as output:
            _write_rows(output, task)
            output.flush()
        since = perf_counter()
        with closing(_open_output(scratch, task)) as output:
            missing = list(output.missing(_slides()))
        if missing:
            raise RuntimeError(f"{len(missing)} of {_ROWS} rows are missing from the output that was opened again")
        return Sample(perf_counter() - since, _ROWS)


def _slides() -> Iterator[Slide]:
    return (Slide("slides", f"a folder/an image {number:09d}.jpg") for number in range(_ROWS))


def _open_output(scratch: str, task: Task) -> PredictionsWriter:
    return open_output(Path(scratch), ["slides"], Manifest.read(task.engine).labels)


def _write_rows(output: PredictionsWriter, task: Task) -> None:
    logits = (
        np.random.default_rng(0).normal(size=(BATCH_SIZE, len(Manifest.read(task.engine).labels))).astype(np.float32)
    )
    scores = to_predictions(logits)
    slides = _slides()
    while batch := list(islice(slides, BATCH_SIZE)):
        output.write(BatchResult(batch, [(1024, 768)] * BATCH_SIZE, scores))


CASES: dict[str, Case] = {
    "end-to-end": Case(measure_end_to_end, "committed"),
    "end-to-end int8": Case(measure_end_to_end, "int8"),
    "end-to-end, slow disk": Case(measure_end_to_end, "committed", slow_disk=True),
    "end-to-end, no inference": Case(measure_end_to_end, settings=_NO_INFERENCE),
    "command, no inference": Case(measure_command, settings=_NO_INFERENCE),
    "loop-only": Case(measure_loop),
    "loop-only, one core": Case(measure_loop, cores=1),
    "loop-only, two processes": Case(partial(measure_loops, processes=2), cores=2),
    "read-only": Case(measure_reading),
    "read-only, one core": Case(measure_reading, cores=1),
    "read-only, slow disk": Case(measure_reading, slow_disk=True),
    **{f"decode-only {name}": Case(partial(measure_decoding, name=name)) for name in get_args(DecoderName)},
    "engine-only": Case(measure_inference, "committed"),
    "engine-only int8": Case(measure_inference, "int8"),
    "arrays-only": Case(measure_arrays, "committed"),
    "write-only": Case(measure_writing),
    "resume-only": Case(measure_resuming),
    "start-up": Case(measure_start_up, "committed"),
    "build": Case(measure_build, "committed"),
}
"""All cases, by the name that records and the command line use."""

FILE_COST_CASES = (
    "read-only",
    "read-only, one core",
    "loop-only",
    "loop-only, one core",
    "loop-only, two processes",
    "decode-only turbo",
    "end-to-end, no inference",
)
"""Cases that show what a file costs besides the network."""
