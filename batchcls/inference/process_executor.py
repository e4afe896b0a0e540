"""Classify slides in several processes, one a device, each of which requests more slides when it has none left."""

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
from batchcls.engine.base import EngineInfo
from batchcls.errors import BatchclsError, EngineError
from batchcls.inference.executor import DeviceConfig
from batchcls.inference.local_executor import LocalExecutor
from batchcls.memory import limit_memory_use, resident_bytes
from batchcls.prefetch import poll
from batchcls.records import BatchResult, Postponed, Slide

_SLIDES_PER_REQUEST = 64
"""Slides sent at a time: few enough that all devices end at about the same time."""
_EXIT_TIMEOUT_S = 30.0
"""Seconds that a process may take to end by itself."""
_POLL_S = 1.0
"""Seconds without a result after which a process reports the file that it waits for."""


@dataclass(frozen=True, slots=True)
class _Worker:
    device: str
    process: BaseProcess
    requests: Connection
    """Connection from which the parent reads None, a request for slides, and to which it sends a list of slides; an
    empty list ends the process."""
    results: Connection
    """Connection from which the parent reads the `EngineInfo`; then each `BatchResult`, or the value of
    `Executor.waiting` while there is no result; last the peak memory in bytes, or an exception."""


class ProcessExecutor:
    """An `Executor` of one process a device.

    Args:
        configs: The configuration of each process.

    Raises:
        EngineError: If a device cannot be used, or devices would compute in different ways.
    """

    def __init__(self, configs: Sequence[DeviceConfig]) -> None:
        self.peak_memory_bytes = 0
        self._waiting: dict[str, tuple[str, float] | None] = {}
        """Latest value of each worker's `Executor.waiting`, by device."""
        self._workers: list[_Worker] = []
        try:
            for config in configs:
                memory_bytes = (config.memory_bytes - resident_bytes()) // len(configs)
                self._workers.append(_start_worker(replace(config, memory_bytes=memory_bytes)))
            self.info = _common_info([self._receive(worker) for worker in self._workers])
        except BaseException:
            self.close()
            raise

    def execute(self, slides: Iterable[Slide]) -> Generator[BatchResult]:
        remaining = iter(slides)
        requesting = {worker.requests for worker in self._workers}
        working = {worker.results: worker for worker in self._workers}
        while working:
            for ready in wait([*requesting, *working]):
                assert isinstance(ready, Connection)  # noqa: S101  # for mypy: nothing else was waited for
                if ready in requesting:
                    if not _send_slides(ready, remaining):
                        requesting.remove(ready)
                    continue
                message = self._receive(working[ready])
                if not isinstance(message, int):
                    self._waiting[working[ready].device] = None if isinstance(message, BatchResult) else message
                if isinstance(message, BatchResult):
                    yield replace(message, postponed=[self._for_whole_run(file) for file in message.postponed])
                elif isinstance(message, int):
                    self.peak_memory_bytes += message
                    del working[ready]

    def _for_whole_run(self, file: Postponed) -> Postponed:
        """The postponed file with the budget that the whole run needs for it, rather than one process."""
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
            worker.process.join(_EXIT_TIMEOUT_S)
            worker.process.kill()
            worker.process.join()
        self._workers = []

    def _receive(self, worker: _Worker) -> Any:
        """The next message of a worker; raises the worker's exceptions."""
        try:
            message = worker.results.recv()
        except (EOFError, OSError):
            worker.process.join(_EXIT_TIMEOUT_S)
            raise EngineError(
                f"the process for {worker.device} ended with {worker.process.exitcode}; every finished part is kept: "
                "run the same command again, and if it comes back, with a smaller --batch-size"
            ) from None
        if isinstance(message, BaseException):
            raise message
        return message


def _start_worker(config: DeviceConfig) -> _Worker:
    spawn = multiprocessing.get_context("spawn")  # a fork would share CUDA's state
    requests, worker_requests = spawn.Pipe()
    results, worker_results = spawn.Pipe(duplex=False)
    process = spawn.Process(
        target=_run_worker, args=(config, worker_requests, worker_results), name=config.device, daemon=True
    )
    # A terminal interrupts all processes, and the parent decides: SIGINT is blocked until the worker ignores it.
    resource_tracker.ensure_running()  # it unblocks signals when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    worker_requests.close()
    worker_results.close()
    return _Worker(config.device, process, requests, results)


def _send_slides(requests: Connection, remaining: Iterator[Slide]) -> bool:
    """Answer a worker's request; False if there were no slides left, or the worker has ended."""
    try:
        requests.recv()
    except (EOFError, OSError):  # the worker has ended, and its results say how
        return False
    slides = list(islice(remaining, _SLIDES_PER_REQUEST))
    with suppress(OSError):
        requests.send(slides)
    return bool(slides)


def _common_info(infos: Sequence[EngineInfo]) -> EngineInfo:
    """The info that several engines share, with all their devices.

    Raises:
        EngineError: If the engines would compute in different ways, so that rows depended on the device.
    """
    first = infos[0]
    for info in infos[1:]:
        if replace(info, device="") != replace(first, device=""):
            raise EngineError(
                f"{first.device} would compute with {first.backend} {first.precision}, {info.device} with "
                f"{info.backend} {info.precision}; choose one of them with --device, or name a --backend"
            )
    return replace(first, device=",".join(info.device for info in infos))


def _run_worker(config: DeviceConfig, requests: Connection, results: Connection) -> None:
    """Run a worker: the program of each process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_memory_use()
    with suppress(BrokenPipeError):
        try:
            with closing(LocalExecutor(config)) as executor:
                results.send(executor.info)
                with (
                    closing(executor.execute(_requested_slides(requests))) as batches,
                    closing(poll(batches, _POLL_S)) as polled,
                ):
                    for result in polled:
                        results.send(executor.waiting() if result is None else result)
            results.send(machine.peak_memory_bytes() + executor.peak_memory_bytes)
        except (EOFError, ConnectionError):  # the parent has ended
            return
        except BatchclsError as error:
            results.send(error)
        except Exception:  # noqa: BLE001  # a bug: its traceback is shown by the parent
            results.send(RuntimeError(f"in the process for {config.device}:\n{traceback.format_exc()}"))


def _requested_slides(requests: Connection) -> Iterator[Slide]:
    while True:
        requests.send(None)
        slides = requests.recv()
        if not slides:
            return
        yield from slides
