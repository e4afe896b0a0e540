"""The interface of executors, which classify slides in one process or several, and the configuration of a process."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from batchcls.engine.backends import BackendName
from batchcls.engine.base import EngineInfo
from batchcls.engine.manifest import Manifest
from batchcls.images.decoders import DecoderName
from batchcls.inference.answer_options import AnswerOptions
from batchcls.records import BatchResult, Slide
from batchcls.storage.timeouts import READ_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """The engine and the decoder that one process of a run opens on one device, with their options."""

    engine: Path
    """The engine folder."""
    manifest: Manifest
    """The engine folder's manifest, read once for all devices."""
    backend: BackendName
    device: str
    """``cpu`` or ``cuda:N``, as the user names it."""
    decoder: DecoderName
    batch_size: int | None
    """Images in a decoded batch; None for the size that is fastest on the device."""
    threads: int
    """CPU threads that decode, and as many that infer."""
    max_pixels: int
    """Pixels of the largest image that is decoded."""
    memory_bytes: int
    """Most memory that all processes of the run may take together."""
    read_timeout_s: float = READ_TIMEOUT_S
    """Seconds that the file system may take for one answer."""
    digests: bool = False
    """Whether rows hold the digests of their files."""
    answers: AnswerOptions = field(default_factory=AnswerOptions)
    """Answers beyond labels and probabilities."""
    precision: str | None = None
    """Precision to compute in, by the backend's name for it; None for the fastest that the device has in hardware."""
    cores: frozenset[int] | None = None
    """CPU cores that the process keeps to; None for all that this process may use."""
    visible: str | None = None
    """Value of CUDA_VISIBLE_DEVICES with which the process opens its device as ``cuda:0``; None if it sees the device
    under its own name."""
    processes: int = 1
    """Number of processes of the run, each of which opens a device."""
    parent_bytes: int = 0
    """Memory of the process that has started the others."""

    @property
    def opened_device(self) -> str:
        """Name by which the process opens its device."""
        return self.device if self.visible is None else "cuda:0"

    @property
    def process_bytes(self) -> int:
        """Most memory that each process may take."""
        return (self.memory_bytes - self.parent_bytes) // self.processes

    @property
    def needs_own_process(self) -> bool:
        """Whether a process of its own has to be started for the device."""
        return self.cores is not None or self.visible is not None


class Executor(Protocol):
    """Classifies slides on one device or several."""

    @property
    def info(self) -> EngineInfo:
        """Description of the engine, and of the devices that it runs on."""

    @property
    def decoder(self) -> DecoderName:
        """Name of the image decoder."""

    @property
    def why(self) -> str:
        """Reason for a device or a backend that the user did not choose; empty if there is none."""

    @property
    def notes(self) -> Sequence[str]:
        """Notes of the engines on how they run on this machine, see `batchcls.engine.base.Engine.notes`.

        More of them may come while slides are classified.
        """

    @property
    def peak_memory_bytes(self) -> int:
        """Most resident memory of all other processes of the executor together; known once `execute` has ended."""

    def execute(self, slides: Iterable[Slide]) -> Generator[BatchResult]:
        """Batches with a prediction, a failure or a postponement for each slide, in any order; to be called once."""

    def waiting(self) -> tuple[str, float] | None:
        """The file that the file system has not answered for longest, and the seconds; from any thread."""

    def stop(self) -> None:
        """Read nothing more: `execute` ends with the files that have been read; from any thread."""

    def close(self) -> None:
        """Release every device; calling it twice is harmless."""
