"""What is measured of batchcls: whole runs, and each stage alone."""

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
from batchcls.engine.postprocess import predictions
from batchcls.images.decoders import DecoderName, open_decoder
from batchcls.images.decoders.read_ahead import Encoded, ReadAhead, ReadOptions
from batchcls.images.sources.folder import FolderSource
from batchcls.inference.options import RunOptions, backend_for
from batchcls.inference.run import classify_images
from batchcls.machine import cores
from batchcls.predictions.writer import PredictionsWriter, open_writer
from batchcls.prefetch import parallel_map
from batchcls.records import BatchResult, DevicePixels, Pixels, Slide
from batchcls.storage.file_client import FileProcess
from benchmarks.sample import Sample, Task

_BATCH = 64
_ROWS = 200_000
"""Of the cases that measure the output alone."""

Engine = Literal["", "committed", "int8"]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure."""

    measure: Callable[[Task], Sample]
    engine: Engine = ""
    """Which engine it is of, if it makes a difference."""
    of_the_folder: bool = True
    """False: it is the same whatever the images, so one workload is enough."""
    slow_disk: bool = False
    """Whether every file and folder takes 5 ms longer to open, as across a network."""


def end_to_end(task: Task) -> Sample:
    """`batchcls run` over all of the folder, from the first file to the finished Parquet."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "preds.parquet"
        options = RunOptions(device=task.device, **task.settings)
        tally = classify_images([task.folder], task.engine, out, options, Console(file=io.StringIO()))
        table = pq.read_table(out, columns=["path", "probabilities"]) if options.backend != "null" else None
    answers = zip(*(column.to_pylist() for column in table.columns), strict=True) if table else ()
    details = {"stages_s": tally.seconds, "unreadable": sum(tally.errors.values())}
    return Sample(tally.elapsed_s - tally.seconds["start"], tally.rows, dict(answers), details=details)


def read_only(task: Task) -> Sample:
    """Listing the folder and reading all of it, up to what the headers say."""
    since = perf_counter()
    with closing(FileProcess()) as process:
        files = ReadAhead(FolderSource([task.folder]), process, ReadOptions(RunOptions().max_pixels))
        size = []
        with closing(files):
            for item in files:
                if item is not None:
                    size.append(len(item.data) if isinstance(item, Encoded) else 0)
                    files.release([item])
            elapsed_s = perf_counter() - since
    return Sample(elapsed_s, len(size), details={"bytes": sum(size)})


def decode_only(task: Task, *, decoder: DecoderName) -> Sample:
    """Reading, decoding and resizing all of the folder, with nobody to look at the pixels."""
    opened = open_decoder(
        decoder,
        Manifest.read(task.engine).preprocess,
        batch_size=_BATCH,
        threads=cores(),
        max_pixels=RunOptions().max_pixels,
        device=task.device,
    )
    with closing(opened):
        list(opened.decode(islice(FolderSource([task.folder]), 8)))
        since, cpu_since = perf_counter(), process_time()
        decoded = sum(len(batch.slides) + len(batch.failures) for batch in opened.decode(FolderSource([task.folder])))
        return Sample(perf_counter() - since, decoded, details={"cpu_s": process_time() - cpu_since})


def engine_only(task: Task) -> Sample:
    """Inference of a batch that stays where it is, ``images`` images or a little more."""
    backend, _ = backend_for(task.device)
    with closing(open_engine(task.engine, backend=backend, device=task.device, threads=cores())) as opened:
        size = opened.batch_size
        drawn = np.random.default_rng(0).integers(0, 256, (size, *opened.info.preprocess.size_px, 3), np.uint8)
        with resident(drawn, task.device) as pixels:
            opened.infer(pixels)
            batches = -(-task.images // size)
            since, cpu_since = perf_counter(), process_time()
            for _ in parallel_map(opened.infer, repeat(pixels, batches), opened.lanes):
                pass
            return Sample(perf_counter() - since, batches * size, details={"cpu_s": process_time() - cpu_since})


@contextmanager
def resident(pixels: Pixels, device: str) -> Iterator[Pixels | DevicePixels]:
    """``pixels`` in the memory of ``device``."""
    if device == "cpu":
        yield pixels
        return
    from batchcls.engine.backends import cuda

    cuda.use(int(device.removeprefix("cuda:")))
    with ExitStack() as stack:
        memory, pinned = cuda.DeviceMemory(pixels.nbytes), cuda.PinnedMemory(pixels.nbytes)
        stream = cuda.Stream()
        for held in (memory, pinned, stream):
            stack.callback(held.close)
        stream.copy_pixels(pixels, memory, pinned)
        stream.wait()
        yield DevicePixels(pixels.shape, memory.address, memory)


def write_only(task: Task) -> Sample:
    """Answers become parts on the disk, and those the whole Parquet file."""
    with tempfile.TemporaryDirectory() as scratch:
        since = perf_counter()
        with closing(_output(scratch, task)) as output:
            _write_all(output, task)
            output.finish({})
        return Sample(perf_counter() - since, _ROWS)


def resume_only(task: Task) -> Sample:
    """What going on costs: opening what is done, and finding that each of the files is."""
    with tempfile.TemporaryDirectory() as scratch:
        with closing(_output(scratch, task)) as output:
            _write_all(output, task)
            output.flush()
        since = perf_counter()
        with closing(_output(scratch, task)) as output:
            missing = list(output.missing(_slides()))
        if missing:
            raise RuntimeError(f"{len(missing)} rows were forgotten")
        return Sample(perf_counter() - since, _ROWS)


def start_up(task: Task) -> Sample:
    """`batchcls run` on one image, from the command to its end."""
    (file,) = islice((path for path in sorted(task.folder.rglob("*")) if path.is_file()), 1)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "batchcls", "run", str(file), "--engine", str(task.engine)]
        since = perf_counter()
        subprocess.run([*command, "--device", task.device, "--quiet", "--out", f"{scratch}/preds.parquet"], check=True)
        return Sample(perf_counter() - since, 1)


def build(task: Task) -> Sample:
    """`batchcls build` of the engine's own network, without verification over images."""
    from benchmarks.networks import prepared

    labels = ",".join(Manifest.read(task.engine).labels)
    with tempfile.TemporaryDirectory() as scratch:
        weights = prepared("googlenet", Path(scratch), task.engine).weights
        command = [sys.executable, "-m", "batchcls", "build", str(weights), "--labels", labels]
        since = perf_counter()
        command += ["--device", task.device, "--out", f"{scratch}/engine"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        return Sample(perf_counter() - since, 1)


def _slides() -> Iterator[Slide]:
    return (Slide("slides", f"a folder/an image {number:09d}.jpg") for number in range(_ROWS))


def _output(scratch: str, task: Task) -> PredictionsWriter:
    labels = Manifest.read(task.engine).labels
    output = open_writer(Path(scratch) / "preds.parquet", roots=["slides"], labels=labels, identity={}, overwrite=True)
    if not isinstance(output, PredictionsWriter):
        raise TypeError("a file that is to be overwritten is never done")
    return output


def _write_all(output: PredictionsWriter, task: Task) -> None:
    logits = np.random.default_rng(0).normal(size=(_BATCH, len(Manifest.read(task.engine).labels))).astype(np.float32)
    answers = predictions(logits)
    slides = _slides()
    while some := list(islice(slides, _BATCH)):
        output.write(BatchResult(some, [(1024, 768)] * _BATCH, answers))


CASES: dict[str, Case] = {
    "end-to-end": Case(end_to_end, "committed"),
    "end-to-end int8": Case(end_to_end, "int8"),
    "end-to-end, slow disk": Case(end_to_end, "committed", slow_disk=True),
    "read-only": Case(read_only),
    "read-only, slow disk": Case(read_only, slow_disk=True),
    **{f"decode-only {decoder}": Case(partial(decode_only, decoder=decoder)) for decoder in get_args(DecoderName)},
    "engine-only": Case(engine_only, "committed", of_the_folder=False),
    "engine-only int8": Case(engine_only, "int8", of_the_folder=False),
    "write-only": Case(write_only, of_the_folder=False),
    "resume-only": Case(resume_only, of_the_folder=False),
    "start-up": Case(start_up, "committed", of_the_folder=False),
    "build": Case(build, "committed", of_the_folder=False),
}
