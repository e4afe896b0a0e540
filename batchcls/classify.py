"""The run: discover, decode, infer, postprocess, write, as one plain loop."""

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

from rich.console import Console

from batchcls import machine
from batchcls.backends import BackendName, open_engine
from batchcls.contracts import Decoder, Engine
from batchcls.decoders import DEFAULT, DecoderName, open_decoder
from batchcls.discover import Listing
from batchcls.errors import EngineError, InterruptedRunError, SlidesError
from batchcls.output import ParquetOutput
from batchcls.postprocess import predictions
from batchcls.progress import RunProgress
from batchcls.records import Batch, EngineInfo, Failure, Predictions, Tally, printable


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is done; none of it changes which files get a row."""

    device: str = "auto"
    backend: BackendName | None = None
    """None: the one that is made for the device."""
    decoder: DecoderName = DEFAULT
    batch_size: int = 64
    threads: int | None = None
    """CPU threads that decode, and as many that infer; None: one a core that this process may use."""
    max_pixels: int = 200_000_000
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class _Run:
    """What a run is made of, once everything has opened."""

    listing: Listing
    decoder: Decoder
    engine: Engine
    output: ParquetOutput
    tally: Tally
    console: Console
    stop: "_Stop"


def classify(slides: Sequence[Path], engine: Path, out: Path, options: RunOptions, console: Console) -> Tally:
    """Classify every image below ``slides`` into one Parquet file.

    Args:
        slides: Folders, searched to any depth, and files.
        engine: An engine folder.
        out: The Parquet file. Until it is whole, ``out``.partial holds what is done, and another call goes on there.
        console: Where progress and notes go.

    Raises:
        SlidesError: If there is no image.
        EngineError: If the engine or its device cannot be used.
        OutputError: If ``out`` may not, or can not, be written.
        InterruptedRunError: After SIGINT or SIGTERM, with every row so far on disk.
    """
    started = perf_counter()
    threads = options.threads or machine.cores()
    device = machine.chosen_device(options.device)
    backend = options.backend or _backend_for(device, engine)
    listing, stop = Listing(slides), _Stop()
    with (
        stop.listening(),
        closing(listing),
        closing(open_engine(engine, backend=backend, device=device, threads=threads)) as runner,
    ):
        output = ParquetOutput(
            out,
            roots=listing.roots,
            labels=runner.info.labels,
            identity=_identity(listing.roots, runner.info, options),
            overwrite=options.overwrite,
        )
        decoder = open_decoder(
            options.decoder,
            runner.info.preprocess,
            batch_size=options.batch_size,
            threads=threads,
            max_pixels=options.max_pixels,
        )
        with closing(output), closing(decoder):
            tally = Tally(runner.info, output.resumed_rows, output.resumed_rows)
            run = _Run(listing, decoder, runner, output, tally, console, stop)
            tally.spend(start=perf_counter() - started)
            _classify_all(run, out)
            _finish(run, slides, options, started)
    return tally


def _backend_for(device: str, engine: Path) -> BackendName:
    if device == "cpu":
        return "openvino"
    gpu = machine.gpus()[int(device.removeprefix("cuda:"))]
    raise EngineError(
        f"engine {str(engine)!r} has no plan for {gpu.name} ({gpu.sm}, {device}), and this version's `batchcls build` "
        "makes none yet; run with --device cpu, or with --backend torch"
    )


def _identity(roots: Sequence[str], info: EngineInfo, options: RunOptions) -> dict[str, Any]:
    """What two runs must share for their rows to stand in one file."""
    return {
        "slides": [printable(root) for root in roots],
        **asdict(info),
        "decoder": options.decoder,
        "max_pixels": options.max_pixels,
    }


def _classify_all(run: _Run, out: Path) -> None:
    tally, output = run.tally, run.output
    if tally.resumed_rows:
        run.console.print(f"going on with {out}.partial: {tally.resumed_rows:,} rows are done", highlight=False)
    with (
        RunProgress(run.console, "classifying", tally.rows) as progress,
        closing(run.decoder.decode(output.missing(run.listing))) as batches,
    ):
        try:
            for batch in batches:
                _classify_batch(run, batch)
                progress.show(tally, run.listing.found if run.listing.complete else None)
                if run.stop.signal is not None:
                    raise InterruptedRunError(
                        f"stopped by {run.stop.signal.name}; {tally.rows:,} rows are in {out}.partial; "
                        "to go on, run the same command again",
                        run.stop.signal,
                    )
        finally:
            output.flush()


def _classify_batch(run: _Run, batch: Batch) -> None:
    tally = run.tally
    since = perf_counter()
    answers = predictions(run.engine.infer(batch.pixels))
    inferred = perf_counter()
    batch, answers = _only_finite(batch, answers)
    run.output.write(batch, answers)
    tally.spend(read=batch.read_s, decode=batch.decode_s, infer=inferred - since, write=perf_counter() - inferred)
    tally.rows += batch.files
    tally.errors.update(failure.kind for failure in batch.failures)


def _only_finite(batch: Batch, answers: Predictions) -> tuple[Batch, Predictions]:
    """Images that the network answered with NaN or infinity become failures."""
    if answers.finite.all():
        return batch, answers
    kept = answers.finite.nonzero()[0].tolist()
    silent = [
        Failure(batch.slides[row], "no answer", "the network's output is not a number", *batch.sizes[row])
        for row in (~answers.finite).nonzero()[0].tolist()
    ]
    sound = replace(
        batch,
        slides=[batch.slides[row] for row in kept],
        sizes=[batch.sizes[row] for row in kept],
        pixels=batch.pixels[kept],
        failures=[*batch.failures, *silent],
    )
    return sound, Predictions(answers.labels[kept], answers.probabilities[kept], answers.finite[kept])


def _finish(run: _Run, slides: Sequence[Path], options: RunOptions, started: float) -> None:
    listing, output, tally = run.listing, run.output, run.tally
    for folder in listing.unlisted:
        run.console.print(f"warning: this folder could not be listed: {folder}", highlight=False)
    counts = output.counts()
    tally.skipped, tally.unlisted = listing.skipped, tuple(listing.unlisted)
    if not counts.rows:
        output.discard()
        passed = ", ".join(f"{count:,} {reason}" for reason, count in tally.skipped.items()) or "nothing else either"
        raise SlidesError(f"no image was found in {', '.join(map(repr, map(str, slides)))} ({passed})")
    if counts.rows < listing.found:
        raise RuntimeError(
            f"{listing.found} files were found, {counts.rows} have a row: this is a bug, please report it"
        )
    tally.rows, tally.labels, tally.errors = counts.rows, Counter(counts.labels), Counter(counts.errors)
    since = perf_counter()
    output.finish(_metadata(run, slides, options))
    tally.spend(write=perf_counter() - since)
    tally.elapsed_s = perf_counter() - started
    tally.peak_memory_bytes = machine.peak_memory_bytes()


def _metadata(run: _Run, slides: Sequence[Path], options: RunOptions) -> dict[str, Any]:
    """What the file says of its own making."""
    tally, info = run.tally, asdict(run.engine.info)
    return {
        "versions": machine.versions(),
        "engine": {key: info[key] for key in ("name", "onnx_sha256", "checkpoint_sha256")},
        "labels": info["labels"],
        "preprocess": info["preprocess"],
        **{key: info[key] for key in ("precision", "backend", "device")},
        "arguments": {"slides": [str(path) for path in slides], **asdict(options)},
        "counts": {
            "rows": tally.rows,
            "resumed_rows": tally.resumed_rows,
            "labels": tally.labels,
            "errors": tally.errors,
            "skipped": tally.skipped,
        },
        "unlisted_folders": tally.unlisted,
        "started": run.output.started,
        "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


class _Stop:
    """Remembers the first SIGINT or SIGTERM; a second one ends the process as if nobody listened."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
