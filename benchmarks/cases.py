"""What is measured: the whole run, each of its two costly stages alone, and the peers."""

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from time import perf_counter
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from batchcls.ahead import overlapped
from batchcls.backends import open_engine
from batchcls.classify import RunOptions, backend_for, classify
from batchcls.decoders import DecoderName, open_decoder
from batchcls.discover import Listing
from batchcls.machine import cores
from batchcls.manifest import Manifest
from batchcls.records import DevicePixels, Pixels
from benchmarks.sample import Sample

_BATCH = 64
PEER, PLAIN, EXPERT = "torchvision", "eager FP32", "channels_last bf16"


def end_to_end(folder: Path, engine: Path, images: int, device: str) -> Sample:
    """`batchcls run` over all of the folder, from the first file to the finished Parquet."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "preds.parquet"
        tally = classify([folder], engine, out, RunOptions(device=device), Console(file=io.StringIO()))
        table = pq.read_table(out, columns=["path", "label"])
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return Sample(tally.elapsed_s - tally.seconds["start"], tally.rows, dict(rows))


def decode_only(folder: Path, engine: Path, images: int, device: str, *, decoder: DecoderName) -> Sample:
    """Reading, decoding and resizing all of the folder, with nobody to look at the pixels."""
    opened = open_decoder(
        decoder,
        Manifest.read(engine).preprocess,
        batch_size=_BATCH,
        threads=cores(),
        max_pixels=RunOptions().max_pixels,
        device=device,
    )
    with closing(opened):
        list(opened.decode(islice(Listing([folder]), 8)))
        since = perf_counter()
        decoded = sum(len(batch.slides) for batch in opened.decode(Listing([folder])))
        return Sample(perf_counter() - since, decoded)


def engine_only(folder: Path, engine: Path, images: int, device: str) -> Sample:
    """Inference of a batch that stays where it is, ``images`` images or a little more."""
    backend, _ = backend_for(device)
    with closing(open_engine(engine, backend=backend, device=device, threads=cores())) as opened:
        size = opened.batch_size
        drawn = np.random.default_rng(0).integers(0, 256, (size, *opened.info.preprocess.size_px, 3), np.uint8)
        with resident(drawn, device) as pixels:
            opened.infer(pixels)
            batches = -(-images // size)
            since = perf_counter()
            for _ in overlapped(opened.infer, repeat(pixels, batches), opened.lanes):
                pass
            return Sample(perf_counter() - since, batches * size)


@contextmanager
def resident(pixels: Pixels, device: str) -> Iterator[Pixels | DevicePixels]:
    """``pixels`` in the memory of ``device``."""
    if device == "cpu":
        yield pixels
        return
    from batchcls import cuda

    cuda.use(int(device.removeprefix("cuda:")))
    with ExitStack() as stack:
        memory, pinned = cuda.DeviceMemory(pixels.nbytes), cuda.PinnedMemory(pixels.nbytes)
        stream = cuda.Stream()
        for held in (memory, pinned, stream):
            stack.callback(held.close)
        stream.copy_pixels(pixels, memory, pinned)
        stream.wait()
        yield DevicePixels(pixels.shape, memory.address, memory)


def torchvision_loop(folder: Path, engine: Path, images: int, device: str, *, workers: int, expert: bool) -> Sample:
    """See `benchmarks.peers`; over some of the folder, evenly spread. Torch is loaded for peers only."""
    from benchmarks import peers

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return peers.torchvision_loop(
        files[:: max(1, len(files) // images)], folder, engine, device, workers=workers, expert=expert
    )


CASES: dict[str, Callable[[Path, Path, int, str], Sample]] = {
    "end-to-end": end_to_end,
    **{f"decode-only {decoder}": partial(decode_only, decoder=decoder) for decoder in get_args(DecoderName)},
    "engine-only": engine_only,
    **{
        f"{PEER} {mode}, {workers} workers": partial(torchvision_loop, workers=workers, expert=mode == EXPERT)
        for mode in (PLAIN, EXPERT)
        for workers in (0, 1, 2)
    },
}
