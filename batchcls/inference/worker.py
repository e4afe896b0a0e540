"""The processes of a `batchcls.inference.process_executor.ProcessExecutor`, and what they send."""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from batchcls import machine
from batchcls.errors import BatchclsError
from batchcls.inference.devices import VISIBLE_DEVICES
from batchcls.inference.executor import DeviceConfig
from batchcls.inference.local_executor import LocalExecutor
from batchcls.inference.slide_feed import SlideColumns
from batchcls.prefetch import poll, prefetch
from batchcls.records import BatchResult, Slide
from batchcls.storage.memory import limit_memory_use

_REQUESTS_AHEAD = 2
"""Requests for slides that a process has sent before its own slides are gone."""
_RESULTS_AHEAD = 8
"""Batches that a process computes on while the parent takes no results."""
_POLL_S = 1.0
"""Seconds without a result after which a process reports the file that it waits for."""


@dataclass(frozen=True, slots=True)
class PackedResult:
    """A `BatchResult` on its way between processes."""

    slides: SlideColumns
    result: BatchResult
    """The result, without its slides."""

    @classmethod
    def of(cls, result: BatchResult) -> "PackedResult":
        """``result``, packed."""
        return cls(SlideColumns.of(result.slides), replace(result, slides=()))

    def unpacked(self) -> BatchResult:
        """The result with its slides."""
        return replace(self.result, slides=self.slides.slides())


@dataclass(frozen=True, slots=True)
class Worker:
    """A process, as its parent sees it."""

    name: str
    """The device, and which of its processes it is if there are several."""
    process: BaseProcess
    requests: Connection
    """Connection from which the parent reads None, a request for slides, and to which it sends `SlideColumns`; columns
    without slides end the process."""
    results: Connection
    """Connection from which the parent reads the `EngineInfo` and the notes; then each `PackedResult`, or the value of
    `Executor.waiting` while there is no result; last the peak memory in bytes, or an exception."""


def start_worker(name: str, config: DeviceConfig) -> Worker:
    """A new process for ``config``, which keeps to its cores from the beginning."""
    spawn = multiprocessing.get_context("spawn")  # a fork would share CUDA's state
    requests, worker_requests = spawn.Pipe()
    results, worker_results = spawn.Pipe(duplex=False)
    process = spawn.Process(
        target=_run_worker, args=(name, config, worker_requests, worker_results), name=name, daemon=True
    )
    # A terminal interrupts all processes, and the parent decides: SIGINT is blocked until the worker ignores it.
    resource_tracker.ensure_running()  # it unblocks signals when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _kept_to(config.cores):
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    worker_requests.close()
    worker_results.close()
    return Worker(name, process, requests, results)


@contextmanager
def _kept_to(cores: frozenset[int] | None) -> Iterator[None]:
    """A context in which this thread keeps to ``cores``; a process that it starts inherits them for all its threads."""
    before = os.sched_getaffinity(0)
    if cores is not None:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        if cores is not None:
            os.sched_setaffinity(0, before)


def _run_worker(name: str, config: DeviceConfig, requests: Connection, results: Connection) -> None:
    """Run a worker: the program of each process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_memory_use()
    if config.visible is not None:
        os.environ[VISIBLE_DEVICES] = config.visible  # before CUDA starts
    with suppress(BrokenPipeError):
        try:
            with closing(LocalExecutor(config)) as executor:
                results.send((executor.info, executor.notes))
                _classify(executor, requests, results)
            results.send(machine.peak_memory_bytes() + executor.peak_memory_bytes)
        except (EOFError, ConnectionError):  # the parent has ended
            return
        except BatchclsError as error:
            if name != config.opened_device:
                error.args = (f"the process for {name}: {error}", *error.args[1:])
            results.send(error)
        except Exception:  # noqa: BLE001  # a bug: its traceback is shown by the parent
            results.send(RuntimeError(f"in the process for {name}:\n{traceback.format_exc()}"))


def _classify(executor: LocalExecutor, requests: Connection, results: Connection) -> None:
    """Classify the slides that the parent sends, and send the results."""
    with (
        closing(executor.execute(_requested_slides(requests))) as batches,
        closing(prefetch(batches, _RESULTS_AHEAD)) as ahead,
        closing(poll(ahead, _POLL_S)) as polled,
    ):
        try:
            for result in polled:
                results.send(executor.waiting() if result is None else PackedResult.of(result))
        except BaseException:
            executor.stop()  # so that closing it waits for no file
            raise


def _requested_slides(requests: Connection) -> Iterator[Slide]:
    try:
        for _ in range(_REQUESTS_AHEAD):
            requests.send(None)
        while slides := requests.recv().slides():
            requests.send(None)
            yield from slides
    except OSError as error:
        raise EOFError from error  # the parent has ended
