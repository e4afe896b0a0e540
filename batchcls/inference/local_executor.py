"""Classify slides on one device, in this process."""

import math
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import replace

from batchcls.errors import MemoryShortageError
from batchcls.images.decoders import default_batch_size, open_decoder
from batchcls.images.decoders.base import DecoderOptions
from batchcls.inference.added_answers import AddedAnswers
from batchcls.inference.answers import answer, open_checked_engine, with_taken_memory
from batchcls.inference.executor import DeviceConfig
from batchcls.networks.preprocess import Preprocess
from batchcls.prefetch import parallel_map
from batchcls.records import Batch, BatchResult, Slide
from batchcls.storage.memory import available_bytes, format_bytes, resident_bytes

_LEAST_BYTES = 64 << 20
"""Least memory for files and images, in which a few small images at a time can be decoded."""
_BATCHES_IN_FLIGHT = 8
"""Batches of pixels between a decoder and the end of inference."""


def _host_bytes(config: DeviceConfig, preprocess: Preprocess, batch_size: int) -> int:
    """Memory of the batches between decoder and engine; 0 where their pixels stay on a GPU."""
    stay = config.decoder == "dali" and config.device != "cpu" and preprocess.interpolation != "nearest"
    return 0 if stay else _BATCHES_IN_FLIGHT * batch_size * 3 * math.prod(preprocess.size_px)


class LocalExecutor:
    """An `Executor` on one device, in this process.

    Args:
        why: Reason for the device or the backend, if the user did not choose it.

    Raises:
        EngineError: If the engine or its device cannot be used.
        VerificationError: If the engine's answers to its probes differ too much from the recorded ones.
    """

    def __init__(self, config: DeviceConfig, why: str = "") -> None:
        self.decoder, self.why = config.decoder, why
        with ExitStack() as stack:
            self._engine = open_checked_engine(config)
            stack.callback(self._engine.close)
            self._added = AddedAnswers(config.engine, config.manifest, config.answers)
            self.info = replace(self._engine.info, device=config.device)
            self.notes = tuple(self._engine.notes)
            preprocess = self._engine.info.preprocess
            batch_size = config.batch_size or default_batch_size(
                config.decoder, config.opened_device, self._engine.batch_size
            )
            self._taken_bytes = resident_bytes() + _host_bytes(config, preprocess, batch_size)
            self._decoder = open_decoder(
                config.decoder,
                preprocess,
                DecoderOptions(
                    batch_size,
                    config.threads,
                    config.max_pixels,
                    self._left_bytes(config),
                    config.read_timeout_s,
                    config.opened_device,
                    config.digests,
                ),
            )
            stack.pop_all()

    def _left_bytes(self, config: DeviceConfig) -> int:
        """Memory left for files and images once the engine has answered its probes.

        Raises:
            MemoryShortageError: If too little memory is left to decode any image.
        """
        left = min(config.process_bytes - self._taken_bytes, available_bytes())
        if left < _LEAST_BYTES:
            needed = config.processes * (self._taken_bytes + _LEAST_BYTES) + config.parent_bytes
            several = config.processes > 1
            raise MemoryShortageError(
                f"the run may take {format_bytes(config.memory_bytes)} of memory, and {format_bytes(max(0, left))} are "
                f"left of it {f'for each of its {config.processes} processes ' if several else ''}with the engine "
                f"loaded; it needs --memory {format_bytes(needed)} at least, on a machine that has so much, "
                f"{'fewer processes, ' if several else ''}or a smaller --batch-size"
            )
        return left

    def execute(self, slides: Iterable[Slide]) -> Generator[BatchResult]:
        # The consumer of batches is closed before their producer.
        with (
            closing(self._decoder.decode(slides)) as batches,
            closing(parallel_map(self._classify, batches, self._engine.lanes, self._decoder.stop)) as results,
        ):
            yield from results

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

    def _classify(self, batch: Batch) -> BatchResult:
        return with_taken_memory(answer(self._engine, batch, self._added), self._taken_bytes)
