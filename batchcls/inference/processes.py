"""Several devices share a run: one process each, which asks for more slides whenever it has none left."""

import multiprocessing
import signal
import traceback
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from batchcls import machine
from batchcls.errors import BatchclsError, EngineError
from batchcls.inference.local import DeviceConfig, LocalExecutor
from batchcls.memory import resident_bytes, use_sparingly
from batchcls.prefetch import ticking
from batchcls.records import BatchResult, EngineInfo, Postponed, Slide

_SLIDES_AT_A_TIME = 64
"""Few enough that all devices end at about the same time."""
_PATIENCE_S = 30.0
_TICK_S = 1.0
"""After so long without a row, a process tells what it waits for."""


@dataclass(frozen=True, slots=True)
class _Worker:
    device: str
    process: BaseProcess
    requests: Connection
    """It sends nothing but the wish for slides, and is sent some; none are the end."""
    results: Connection
    """Receives the process's `EngineInfo`, then each `BatchResult`, or the file that is waited for if none comes; last
    its peak memory, or an exception."""


class ProcessExecutor:
    """A `batchcls.inference.local.Scorer` on several devices.

    Raises:
        EngineError: If a device cannot be used, or they would compute in different ways.
    """

    def __init__(self, shares: Sequence[DeviceConfig]) -> None:
        self.peak_memory_bytes = 0
        self._waiting: dict[str, tuple[str, float] | None] = {}
        """By device, the file that it waits for, as it last told."""
        self._workers: list[_Worker] = []
        try:
            for share in shares:
                part = (share.memory_bytes - resident_bytes()) // len(shares)
                self._workers.append(_started(replace(share, memory_bytes=part)))
            infos = [self._received(worker) for worker in self._workers]
            self.info = _one(infos)
        except BaseException:
            self.close()
            raise

    def score(self, slides: Iterable[Slide]) -> Generator[BatchResult]:
        coming = iter(slides)
        asking = {worker.requests for worker in self._workers}
        working = {worker.results: worker for worker in self._workers}
        while working:
            for ready in wait([*asking, *working]):
                assert isinstance(ready, Connection)  # noqa: S101  # for mypy: nothing else was waited for
                if ready in asking:
                    if not _answered(ready, coming):
                        asking.remove(ready)
                    continue
                message = self._received(working[ready])
                if not isinstance(message, int):
                    self._waiting[working[ready].device] = None if isinstance(message, BatchResult) else message
                if isinstance(message, BatchResult):
                    yield replace(message, postponed=[self._of_all(file) for file in message.postponed])
                elif isinstance(message, int):
                    self.peak_memory_bytes += message
                    del working[ready]

    def _of_all(self, file: Postponed) -> Postponed:
        """What the whole run needs for what one of its processes needs."""
        return replace(file, needed_bytes=len(self._workers) * file.needed_bytes + resident_bytes())

    def waiting(self) -> tuple[str, float] | None:
        return max(filter(None, list(self._waiting.values())), key=lambda wait: wait[1], default=None)

    def stop(self) -> None:
        for worker in self._workers:
            worker.process.kill()

    def close(self) -> None:
        for worker in self._workers:
            worker.requests.close()
            worker.results.close()
        for worker in self._workers:
            worker.process.join(_PATIENCE_S)
            worker.process.kill()
            worker.process.join()
        self._workers = []

    def _received(self, worker: _Worker) -> Any:
        """What a worker sends; its errors are raised here."""
        try:
            message = worker.results.recv()
        except (EOFError, OSError):
            worker.process.join(_PATIENCE_S)
            raise EngineError(
                f"the process for {worker.device} ended with {worker.process.exitcode}; every finished part is kept: "
                "run the same command again, and if it comes back, with a smaller --batch-size"
            ) from None
        if isinstance(message, BaseException):
            raise message
        return message


def _started(share: DeviceConfig) -> _Worker:
    spawn = multiprocessing.get_context("spawn")  # a fork would share CUDA's state
    requests, theirs = spawn.Pipe()
    results, their_results = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(share, theirs, their_results), name=share.device, daemon=True)
    # Until it ignores it itself: a terminal interrupts all processes, and the first one decides.
    resource_tracker.ensure_running()  # which would let signals through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    their_results.close()
    return _Worker(share.device, process, requests, results)


def _answered(request: Connection, coming: Iterator[Slide]) -> bool:
    """Whether there were slides for a worker that asked."""
    try:
        request.recv()
    except (EOFError, OSError):  # it has ended: its results say how
        return False
    some = list(islice(coming, _SLIDES_AT_A_TIME))
    with suppress(OSError):
        request.send(some)
    return bool(some)


def _one(infos: Sequence[EngineInfo]) -> EngineInfo:
    """What several engines are together; rows of one file must not differ by where they were computed."""
    first = infos[0]
    for info in infos[1:]:
        if replace(info, device="") != replace(first, device=""):
            raise EngineError(
                f"{first.device} would compute with {first.backend} {first.precision}, {info.device} with "
                f"{info.backend} {info.precision}; choose one of them with --device, or name a --backend"
            )
    return replace(first, device=",".join(info.device for info in infos))


def _work(share: DeviceConfig, requests: Connection, results: Connection) -> None:
    """A worker's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    use_sparingly()
    with suppress(BrokenPipeError):
        try:
            with closing(LocalExecutor(share)) as scorer:
                results.send(scorer.info)
                with (
                    closing(scorer.score(_asked_for(requests))) as scored,
                    closing(ticking(scored, _TICK_S)) as ticks,
                ):
                    for some in ticks:
                        results.send(scorer.waiting() if some is None else some)
            results.send(machine.peak_memory_bytes() + scorer.peak_memory_bytes)
        except (EOFError, ConnectionError):  # nobody is there any more
            return
        except BatchclsError as error:
            results.send(error)
        except Exception:  # noqa: BLE001  # a bug keeps its traceback, in the process that somebody looks at
            results.send(RuntimeError(f"in the process for {share.device}:\n{traceback.format_exc()}"))


def _asked_for(requests: Connection) -> Iterator[Slide]:
    while True:
        requests.send(None)
        some = requests.recv()
        if not some:
            return
        yield from some
