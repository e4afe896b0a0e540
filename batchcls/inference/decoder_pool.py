"""Decoders of the streams that are open together, which share the threads and the memory of the first one."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from batchcls.errors import MemoryShortageError
from batchcls.images.decoders import default_batch_size, open_decoder
from batchcls.images.decoders.base import Decoder, DecoderOptions
from batchcls.inference.executor import DeviceConfig
from batchcls.networks.preprocess import Preprocess
from batchcls.storage.memory import available_bytes, format_bytes, resident_bytes

_SHARE = 0.75
"""Share of the memory that the first stream's decoder, and all decoding of further streams, may take."""
_FURTHER_BYTES = 32 << 20
"""Memory of each further stream, for files that are read and not decoded yet."""
_LEAST_BYTES = 64 << 20
"""Memory of the first decoder, at least: a few small images at a time can be decoded in it."""


class DecoderPool:
    """Decoders, each lent to one stream at a time.

    Args:
        config: Decoder, limits and device.
        preprocess: What the engine wants.
        batch_size: Batch size that the engine is fastest with.
    """

    def __init__(self, config: DeviceConfig, preprocess: Preprocess, batch_size: int) -> None:
        self._config = config
        self._preprocess = preprocess
        self._batch_size = batch_size
        self._taken_bytes = resident_bytes()
        """Memory of the program and of its open engine."""
        self._left_bytes = min(config.memory_bytes - self._taken_bytes, available_bytes())
        self._lock = Lock()
        self._first: Decoder | None = None
        self._idle: list[Decoder] = []
        """Decoders that no stream uses; last the first one that was opened, which may read most ahead."""

    @contextmanager
    def lent(self) -> Iterator[Decoder]:
        """A decoder that no other stream uses meanwhile.

        Raises:
            MemoryShortageError: If too many streams are open for the memory of one more.
        """
        with self._lock:
            decoder = self._idle.pop() if self._idle else self._opened()
        try:
            yield decoder
        finally:
            with self._lock:
                self._idle.insert(len(self._idle) if decoder is self._first else 0, decoder)

    def advice(self, needed_bytes: int) -> str:
        """How to give a decoder ``needed_bytes``: by opening the engine with more memory, or by freeing some.

        The engine's memory includes what the program holds, which may grow by a little until the engine is opened.
        """
        least = self._taken_bytes + math.ceil(needed_bytes / _SHARE) + _FURTHER_BYTES
        if least > self._config.memory_bytes:
            return f"open the engine with memory={least}, where the machine and its limits leave so much"
        return "free so much, or raise this process's limits (ulimit -v, cgroup), and open the engine again"

    def close(self) -> None:
        """End the threads of all decoders; calling it twice is harmless."""
        if self._first:
            self._first.close()

    def _opened(self) -> Decoder:
        share = _FURTHER_BYTES if self._first else max(_LEAST_BYTES, int(self._left_bytes * _SHARE))
        if self._left_bytes < share:
            more = "finish or close a stream, or open the engine with more memory: Engine.load(..., memory=BYTES)"
            raise MemoryShortageError(
                f"{format_bytes(max(0, self._left_bytes))} of memory are left for a stream of images; "
                f"{more if self._first else self.advice(share)}"
            )
        decoder = self._first.sibling(share) if self._first else self._open_first(share)
        self._left_bytes -= share
        return decoder

    def _open_first(self, memory_bytes: int) -> Decoder:
        config = self._config
        device = config.opened_device
        batch_size = config.batch_size or default_batch_size(config.decoder, device, self._batch_size)
        options = DecoderOptions(
            batch_size, config.threads, config.max_pixels, memory_bytes, config.read_timeout_s, device
        )
        self._first = open_decoder(config.decoder, self._preprocess, options)
        return self._first
