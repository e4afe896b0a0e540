"""The actors of a `batchcls.inference.ray_executor.RayExecutor`, each a `LocalExecutor` on a node of a cluster."""

import os
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Condition, Thread
from time import monotonic

from batchcls import __version__, machine
from batchcls.engine.base import EngineInfo
from batchcls.engine.manifest import MANIFEST, sha256
from batchcls.errors import BatchclsError, EngineError, SlidesError
from batchcls.images.decoders import DecoderName
from batchcls.inference.device_configs import device_configs
from batchcls.inference.local_executor import LocalExecutor
from batchcls.inference.node_folders import FolderSample
from batchcls.inference.options import RunOptions
from batchcls.inference.result_pieces import pickled_pieces
from batchcls.inference.slide_feed import SlideColumns
from batchcls.records import Slide
from batchcls.storage.memory import limit_memory_use

_POLL_S = 1.0
"""Seconds without a result after which an actor replies all the same, and tells the file that it waits for."""
_INLINE_BYTES = 64 << 10
"""Size of a reply. Ray sends values of up to 100 KB along with its own messages, without its object store."""
_MOST_WAITING_BYTES = 8 << 20
"""Size of the results that an actor computes on while nobody takes them."""


@dataclass(frozen=True, slots=True)
class ActorTask:
    """What an actor opens, and how."""

    engine: Path
    """The engine folder, as an absolute path."""
    manifest_sha256: str
    """SHA-256 of the engine folder's engine.json, which in turn has that of the network's file."""
    options: RunOptions
    device: str
    """``cpu`` or ``cuda``."""
    threads: int
    """CPU threads that decode, and as many that infer."""
    actors: int
    """Number of actors on the node, which share its memory."""
    folder: str
    """Working folder of the run, below which relative paths lie."""
    samples: Sequence[FolderSample]
    """The folders of slides as the run sees them."""
    interval_s: float
    """Least seconds between two replies with results, so that many actors do not keep the run busy."""
    version: str = __version__


@dataclass(frozen=True, slots=True)
class OpenedActor:
    """Description of an actor that is ready."""

    info: EngineInfo
    notes: Sequence[str]
    why: str
    """Reason for a backend that the user did not choose; empty if there is none."""
    decoder: DecoderName

    def difference(self, other: "OpenedActor") -> str | None:
        """How ``other`` computes, and this actor does otherwise, in words; None if both are the same."""
        if self.info == other.info:
            return None
        return f"{other.info.backend} {other.info.precision}, and others with {self.info.backend} {self.info.precision}"


@dataclass(frozen=True, slots=True)
class ActorReply:
    """What an actor has to say since its last reply."""

    results: Sequence[bytes]
    """Pickled results, as `unpickled` of `batchcls.inference.result_pieces` takes them."""
    undrawn: int
    """Number of slides that the actor's decoder has not asked for yet."""
    waiting: tuple[str, float] | None
    """The value of `Executor.waiting`."""
    peak_memory_bytes: int
    """Most resident memory of the actor so far; with that of its reading process once the actor has ended."""
    ended: bool = False
    """Whether all results have been sent after `SlideActor.finish`."""


class SlideActor:
    """Classifies the slides that it is sent; of its methods one is called at a time.

    Errors are returned, not raised: Ray would wrap them in its own.
    """

    def __init__(self) -> None:
        self._executor: LocalExecutor | None = None
        self._slides: deque[Slide] = deque()
        self._finishing = False
        self._results: deque[bytes] = deque()
        self._results_bytes = 0
        self._error: Exception | None = None
        self._ended = False
        self._replied = 0.0
        self._interval_s = 0.0
        self._changed = Condition()

    def open(self, task: ActorTask) -> OpenedActor | Exception:
        """Check that this node sees what the run sees, and open the engine."""
        try:
            return self._open(task)
        except BatchclsError as error:
            return error
        except Exception:  # noqa: BLE001  # a bug: its traceback is shown by the run
            return RuntimeError(traceback.format_exc())

    def exchange(self, slides: SlideColumns | None) -> ActorReply | Exception:
        """Take ``slides``, and reply once there are results, or room for more slides, or after a while."""
        if slides:
            with self._changed:
                self._slides.extend(slides.slides())
                self._changed.notify_all()
        room = slides.count // 2 if slides else -1

        def has_room() -> bool:
            return len(self._slides) <= room

        with self._changed:
            self._changed.wait_for(lambda: self._results or self._error or self._ended or has_room(), _POLL_S)
            wait_s = self._replied + self._interval_s - monotonic()
            if self._results and wait_s > 0:
                enough = _INLINE_BYTES // 2
                self._changed.wait_for(
                    lambda: self._results_bytes > enough or self._error or self._ended or has_room(), wait_s
                )
            return self._error or self._reply()

    def finish(self) -> None:
        """Let the last replies be sent; no more slides will come."""
        with self._changed:
            self._finishing = True
            self._changed.notify_all()

    def _open(self, task: ActorTask) -> OpenedActor:
        limit_memory_use()
        _check_node(task)
        device = "cpu" if task.device == "cpu" else "cuda:0"  # Ray shows an actor its own GPU alone
        options = replace(task.options, device=device, cluster=None, processes=None, threads=task.threads)
        (config,), why = device_configs(task.engine, options)
        if config.cores is not None:
            os.sched_setaffinity(0, config.cores)
        executor = LocalExecutor(replace(config, processes=task.actors, cores=None))
        self._executor, self._interval_s = executor, task.interval_s
        Thread(target=self._classify, args=(executor,), name="classifying", daemon=True).start()
        return OpenedActor(replace(executor.info, device=task.device), executor.notes, why, config.decoder)

    def _classify(self, executor: LocalExecutor) -> None:
        try:
            with closing(executor), closing(executor.execute(self._incoming())) as results:
                for result in results:
                    for piece in pickled_pieces(result, _INLINE_BYTES // 2):
                        self._put(piece)
        except BatchclsError as error:
            self._error = error
        except Exception:  # noqa: BLE001  # as above
            self._error = RuntimeError(traceback.format_exc())
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _incoming(self) -> Iterator[Slide]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._slides or self._finishing)
                if not self._slides:
                    return
                slide = self._slides.popleft()
                self._changed.notify_all()
            yield slide

    def _put(self, piece: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._results_bytes < _MOST_WAITING_BYTES)
            self._results.append(piece)
            self._results_bytes += len(piece)
            self._changed.notify_all()

    def _reply(self) -> ActorReply:
        pieces: list[bytes] = []
        size_bytes = 0
        while self._results and (not pieces or size_bytes + len(self._results[0]) <= _INLINE_BYTES):
            pieces.append(self._results.popleft())
            size_bytes += len(pieces[-1])
        self._results_bytes -= size_bytes
        self._changed.notify_all()
        self._replied = monotonic()
        executor = self._executor
        memory_bytes = machine.peak_memory_bytes() + (executor.peak_memory_bytes if executor else 0)
        waiting = executor.waiting() if executor else None
        return ActorReply(pieces, len(self._slides), waiting, memory_bytes, self._ended and not self._results)


def _check_node(task: ActorTask) -> None:
    """Refuse a node that has another version, another engine or other folders than the run.

    Raises:
        EngineError: If batchcls or the engine is another one.
        SlidesError: If a folder of slides is missing, or holds other files.
    """
    if task.version != __version__:
        raise EngineError(
            f"batchcls {__version__} is installed there, and {task.version} where the run was started; install one "
            f"version: pip install batchcls=={task.version}"
        )
    manifest = task.engine / MANIFEST
    if not manifest.is_file() or sha256(manifest) != task.manifest_sha256:
        found = "is another engine" if manifest.is_file() else "does not exist"
        raise EngineError(
            f"the engine folder {str(task.engine)!r} {found} there; copy the folder of this machine to that path on "
            "every node, or name one that all nodes share"
        )
    for sample in task.samples:
        if difference := sample.difference(task.options.read_timeout_s):
            raise SlidesError(
                f"{difference} there, as where the run was started; every node has to see the slides under one path: "
                "mount the folder on every node, or name the URL of a bucket"
            )
    if os.path.isdir(task.folder):
        os.chdir(task.folder)
