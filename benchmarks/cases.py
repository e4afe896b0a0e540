"""The cases that are measured of batchcls: runs from end to end, and each stage alone."""

import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from time import perf_counter, process_time
from typing import Literal, get_args

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from batchcls.engine.backends import open_engine
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import to_predictions
from batchcls.images.decoders import DecoderName, default_batch_size, open_decoder
from batchcls.images.decoders.base import DecoderOptions
from batchcls.images.decoders.read_ahead import Encoded, ReadAhead, ReadOptions
from batchcls.images.sources import open_readers, open_source
from batchcls.inference.options import RunOptions, backend_for
from batchcls.inference.run import classify_images
from batchcls.machine import cores
from batchcls.predictions.writer import PredictionsWriter, open_writer
from batchcls.prefetch import parallel_map
from batchcls.records import BatchResult, DevicePixels, Pixels, Slide
from benchmarks.sample import Sample, Task

_BATCH_SIZE = 64
_ROWS = 200_000
"""Rows of the cases that measure the output alone."""
_WARM_UP_IMAGES = 8

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


def measure_end_to_end(task: Task) -> Sample:
    """Classify the whole folder as `batchcls run` does, from the first file to the finished Parquet file."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "preds.parquet"
        options = RunOptions(device=task.device, **task.settings)
        stats = classify_images([task.folder], task.engine, out, options, Console(file=io.StringIO()))
        table = pq.read_table(out, columns=["path", "probabilities"]) if options.backend != "null" else None
    answers = zip(*(column.to_pylist() for column in table.columns), strict=True) if table else ()
    details = {"stages_s": stats.seconds, "unreadable": sum(stats.errors.values())}
    return Sample(stats.elapsed_s - stats.seconds["start"], stats.rows, dict(answers), details=details)


def measure_reading(task: Task) -> Sample:
    """List the folder and read every file, up to the inspection of its header."""
    since = perf_counter()
    with closing(open_readers()) as readers:
        files = ReadAhead(open_source([task.folder]), readers, ReadOptions(RunOptions().max_pixels))
        sizes_bytes = []
        with closing(files):
            for item in files:
                if item is not None:
                    sizes_bytes.append(len(item.data) if isinstance(item, Encoded) else 0)
                    files.release([item])
            elapsed_s = perf_counter() - since
    return Sample(elapsed_s, len(sizes_bytes), details={"bytes": sum(sizes_bytes)})


def measure_decoding(task: Task, *, name: DecoderName) -> Sample:
    """Read, decode and resize the whole folder, without inference."""
    decoder = open_decoder(
        name,
        Manifest.read(task.engine).preprocess,
        DecoderOptions(
            default_batch_size(name, task.device, _BATCH_SIZE), cores(), RunOptions().max_pixels, device=task.device
        ),
    )
    with closing(decoder):
        list(decoder.decode(islice(open_source([task.folder]), _WARM_UP_IMAGES)))
        since, cpu_since = perf_counter(), process_time()
        images = sum(len(batch.slides) + len(batch.failures) for batch in decoder.decode(open_source([task.folder])))
        return Sample(perf_counter() - since, images, details={"cpu_s": process_time() - cpu_since})


def measure_inference(task: Task) -> Sample:
    """Infer one batch repeatedly, at least ``task.images`` images in all; the pixels are copied to the device once."""
    backend, _ = backend_for(task.device)
    with closing(
        open_engine(task.engine, Manifest.read(task.engine), backend=backend, device=task.device, threads=cores())
    ) as engine:
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


def measure_start_up(task: Task) -> Sample:
    """Run the command `batchcls run` on one image, from its start to its exit."""
    (file,) = islice((path for path in sorted(task.folder.rglob("*")) if path.is_file()), 1)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "batchcls", "run", str(file), "--engine", str(task.engine)]
        since = perf_counter()
        subprocess.run([*command, "--device", task.device, "--quiet", "--out", f"{scratch}/preds.parquet"], check=True)
        return Sample(perf_counter() - since, 1)


def measure_build(task: Task) -> Sample:
    """Run the command `batchcls build` on the engine's own network, without verification on images."""
    from benchmarks.networks import prepare_network  # imported here: PyTorch would count in the memory of other cases

    labels = ",".join(Manifest.read(task.engine).labels)
    with tempfile.TemporaryDirectory() as scratch:
        weights = prepare_network("googlenet", Path(scratch), task.engine).weights
        command = [sys.executable, "-m", "batchcls", "build", str(weights), "--labels", labels]
        since = perf_counter()
        command += ["--device", task.device, "--out", f"{scratch}/engine"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        return Sample(perf_counter() - since, 1)


def _slides() -> Iterator[Slide]:
    return (Slide("slides", f"a folder/an image {number:09d}.jpg") for number in range(_ROWS))


def _open_output(scratch: str, task: Task) -> PredictionsWriter:
    labels = Manifest.read(task.engine).labels
    output = open_writer(Path(scratch) / "preds.parquet", roots=["slides"], labels=labels, identity={}, overwrite=True)
    if not isinstance(output, PredictionsWriter):
        raise TypeError("an output that is overwritten cannot be complete already")
    return output


def _write_rows(output: PredictionsWriter, task: Task) -> None:
    logits = (
        np.random.default_rng(0).normal(size=(_BATCH_SIZE, len(Manifest.read(task.engine).labels))).astype(np.float32)
    )
    scores = to_predictions(logits)
    slides = _slides()
    while batch := list(islice(slides, _BATCH_SIZE)):
        output.write(BatchResult(batch, [(1024, 768)] * _BATCH_SIZE, scores))


CASES: dict[str, Case] = {
    "end-to-end": Case(measure_end_to_end, "committed"),
    "end-to-end int8": Case(measure_end_to_end, "int8"),
    "end-to-end, slow disk": Case(measure_end_to_end, "committed", slow_disk=True),
    "read-only": Case(measure_reading),
    "read-only, slow disk": Case(measure_reading, slow_disk=True),
    **{f"decode-only {name}": Case(partial(measure_decoding, name=name)) for name in get_args(DecoderName)},
    "engine-only": Case(measure_inference, "committed"),
    "engine-only int8": Case(measure_inference, "int8"),
    "write-only": Case(measure_writing),
    "resume-only": Case(measure_resuming),
    "start-up": Case(measure_start_up, "committed"),
    "build": Case(measure_build, "committed"),
}
"""All cases, by the name that records and the command line use."""
