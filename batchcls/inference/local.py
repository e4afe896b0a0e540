"""One device's share of a run: slides in, a prediction or a failure for each out."""

import math
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Protocol

from batchcls.engine.backends import BackendName, open_engine
from batchcls.engine.check import check
from batchcls.engine.manifest import ONNX, Manifest
from batchcls.engine.postprocess import predictions
from batchcls.errors import MemoryShortageError
from batchcls.images.decoders import DecoderName, open_decoder
from batchcls.memory import available_bytes, resident_bytes, text_of
from batchcls.prefetch import parallel_map
from batchcls.records import Batch, BatchResult, EngineInfo, Failure, Predictions, Slide
from batchcls.storage.file_client import READ_TIMEOUT_S

_LEAST_BYTES = 64 << 20
"""Less is not enough to decode a few small images at a time."""
_LEAST_START_BYTES = 320 << 20
_TIMES_THE_MODEL = 4
"""Room for a backend's libraries and threads, and for what it makes of a network."""
_BATCHES = 8
"""Of pixels, on their way from a decoder to the end of inference."""


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """What a device's part of a run is opened from."""

    engine: Path
    backend: BackendName
    device: str
    decoder: DecoderName
    batch_size: int | None
    """Of the decoder; None: the engine's own."""
    threads: int
    max_pixels: int
    memory_bytes: int
    """The most that the whole run may take, with all its processes."""
    read_timeout_s: float = READ_TIMEOUT_S
    precision: str | None = None
    """What to compute in, in the backend's words; None: the fastest that the device has."""


class Executor(Protocol):
    """What classifies slides, on however many devices."""

    @property
    def info(self) -> EngineInfo:
        """Of the engine."""

    @property
    def peak_memory_bytes(self) -> int:
        """The most that other processes have had resident for it, all together; known when all is scored."""

    def score(self, slides: Iterable[Slide]) -> Generator[BatchResult]:
        """A prediction or a failure for each slide, in batches, in any order; call it once."""

    def waiting(self) -> tuple[str, float] | None:
        """The file that the file system's answer has been awaited for longest, and seconds; from any thread."""

    def stop(self) -> None:
        """Read nothing more: `score` ends with what has been read; from any thread."""

    def close(self) -> None:
        """Release every device; calling it twice is harmless."""


def _check_room(share: DeviceConfig) -> None:
    """Refuse to open an engine where libraries would end the process for want of memory."""
    model = share.engine / ONNX
    needed = _LEAST_START_BYTES + _TIMES_THE_MODEL * (model.stat().st_size if model.exists() else 0)
    if share.backend != "null" and (left := available_bytes()) < needed:
        raise MemoryShortageError(
            f"{text_of(left)} of memory are left for this process, and its engine may need {text_of(needed)}; free "
            "some, or raise its limits (ulimit -v, cgroup)"
        )


class LocalExecutor:
    """A `Executor` on one device, in this process.

    Raises:
        EngineError: If the engine or its device cannot be used.
        VerificationError: If it answers the probes otherwise than the trained network.
    """

    def __init__(self, share: DeviceConfig) -> None:
        _check_room(share)
        with ExitStack() as stack:
            self._engine = open_engine(
                share.engine,
                backend=share.backend,
                device=share.device,
                threads=share.threads,
                precision=share.precision,
            )
            stack.callback(self._engine.close)
            self._check(Manifest.read(share.engine))
            preprocess = self._engine.info.preprocess
            batch_size = share.batch_size or self._engine.batch_size
            self._taken_bytes = resident_bytes() + _BATCHES * batch_size * 3 * math.prod(preprocess.size_px)
            self._decoder = open_decoder(
                share.decoder,
                preprocess,
                batch_size=batch_size,
                threads=share.threads,
                max_pixels=share.max_pixels,
                memory_bytes=self._left_bytes(share.memory_bytes),
                read_timeout_s=share.read_timeout_s,
                device=share.device,
            )
            stack.pop_all()

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    def _check(self, manifest: Manifest) -> None:
        """Let the engine answer its probes: what was verified elsewhere holds here, or the run does not begin.

        Folders from before there were probes have none to answer, which a GPU's plan, made elsewhere, may not lack.
        """
        info = self._engine.info
        if info.backend != "null" and (manifest.reference or info.device != "cpu"):
            check(self._engine, manifest)

    def _left_bytes(self, memory_bytes: int) -> int:
        """What is left for files and images once the engine has answered its probes.

        Raises:
            MemoryShortageError: If that is too little to begin with.
        """
        left = min(memory_bytes - self._taken_bytes, available_bytes())
        if left < _LEAST_BYTES:
            raise MemoryShortageError(
                f"the run may take {text_of(memory_bytes)} of memory, and {text_of(max(0, left))} are left of it with "
                f"the engine loaded; it needs --memory {text_of(self._taken_bytes + _LEAST_BYTES)} at least, on a "
                "machine that has so much, or a smaller --batch-size"
            )
        return left

    def score(self, slides: Iterable[Slide]) -> Generator[BatchResult]:
        # The consumer of batches is closed before their producer.
        with (
            closing(self._decoder.decode(slides)) as batches,
            closing(parallel_map(self._scored, batches, self._engine.lanes, self._decoder.stop)) as scored,
        ):
            yield from scored

    @property
    def peak_memory_bytes(self) -> int:
        return self._decoder.peak_memory_bytes

    def waiting(self) -> tuple[str, float] | None:
        return self._decoder.waiting()

    def stop(self) -> None:
        self._decoder.stop()

    def close(self) -> None:
        self._decoder.close()
        self._engine.close()

    def _scored(self, batch: Batch) -> BatchResult:
        since = perf_counter()
        answers = predictions(self._engine.infer(batch.pixels))
        seconds = {"read": batch.read_s, "decode": batch.decode_s, "infer": perf_counter() - since}
        postponed = [replace(file, needed_bytes=file.needed_bytes + self._taken_bytes) for file in batch.postponed]
        if answers.finite.all():
            return BatchResult(batch.slides, batch.sizes, answers, batch.failures, postponed, seconds)
        kept = answers.finite.nonzero()[0].tolist()
        silent = [
            Failure(batch.slides[row], "no answer", "the network's output is not a number", *batch.sizes[row])
            for row in (~answers.finite).nonzero()[0].tolist()
        ]
        return BatchResult(
            slides=[batch.slides[row] for row in kept],
            sizes=[batch.sizes[row] for row in kept],
            predictions=Predictions(answers.labels[kept], answers.probabilities[kept], answers.finite[kept]),
            failures=[*batch.failures, *silent],
            postponed=postponed,
            seconds=seconds,
        )
