"""Classify slides in several processes, on one device or several."""

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

from batchcls.engine.base import EngineInfo
from batchcls.errors import EngineError
from batchcls.inference.executor import DeviceConfig
from batchcls.inference.slide_feed import SlideFeed
from batchcls.inference.worker import PackedResult, Worker, start_worker
from batchcls.records import BatchResult, Postponed, Slide
from batchcls.storage.memory import resident_bytes

_EXIT_TIMEOUT_S = 30.0
"""Seconds that a process may take to end by itself."""


class ProcessExecutor:
    """An `Executor` of several processes, each of which has a device to itself or shares it with others.

    Args:
        configs: The configuration of each process.
        why: Reason for the devices or the backend, if the user did not choose them.

    Raises:
        EngineError: If a device cannot be used, or devices would compute in different ways.
    """

    def __init__(self, configs: Sequence[DeviceConfig], why: str = "") -> None:
        self.decoder, self.why = configs[0].decoder, why
        self.peak_memory_bytes = 0
        self._waiting: dict[str, tuple[str, float] | None] = {}
        """Latest value of each worker's `Executor.waiting`, by the worker's name."""
        self._workers: list[Worker] = []
        self._feed: SlideFeed | None = None
        try:
            for name, config in zip(_names(configs), configs, strict=True):
                share = replace(config, processes=len(configs), parent_bytes=resident_bytes())
                self._workers.append(start_worker(name, share))
            opened = [self._receive(worker) for worker in self._workers]
            self.info = _common_info([info for info, _ in opened])
            self.notes = tuple(dict.fromkeys(note for _, notes in opened for note in notes))
        except BaseException:
            self.close()
            raise

    def execute(self, slides: Iterable[Slide]) -> Generator[BatchResult]:
        feed = self._feed = SlideFeed(slides, [worker.requests for worker in self._workers])
        try:
            yield from self._results()
            feed.check()
        finally:
            feed.close()

    def _results(self) -> Generator[BatchResult]:
        """The results of all workers, until each has sent its last."""
        working = {worker.results: worker for worker in self._workers}
        while working:
            for ready in wait(list(working)):
                assert isinstance(ready, Connection)  # noqa: S101  # for mypy: nothing else was waited for
                message = self._receive(working[ready])
                if isinstance(message, PackedResult):
                    self._waiting[working[ready].name] = None
                    yield self._for_whole_run(message.unpacked())
                elif isinstance(message, int):
                    self.peak_memory_bytes += message
                    self._waiting[working.pop(ready).name] = None
                else:
                    self._waiting[working[ready].name] = message

    def _for_whole_run(self, result: BatchResult) -> BatchResult:
        """``result``, with the budgets that the whole run needs for postponed files, rather than one process."""
        if not result.postponed:
            return result
        parent_bytes, processes = resident_bytes(), len(self._workers)
        postponed = [Postponed(file.slide, processes * file.needed_bytes + parent_bytes) for file in result.postponed]
        return replace(result, postponed=postponed)

    def waiting(self) -> tuple[str, float] | None:
        return max(filter(None, list(self._waiting.values())), key=lambda wait: wait[1], default=None)

    def stop(self) -> None:
        for worker in self._workers:
            worker.process.kill()

    def close(self) -> None:
        if self._feed:
            self._feed.close()
        for worker in self._workers:
            worker.requests.close()
            worker.results.close()
        for worker in self._workers:
            worker.process.join(_EXIT_TIMEOUT_S)
            worker.process.kill()
            worker.process.join()
        self._workers = []
        self._feed = None

    def _receive(self, worker: Worker) -> Any:
        """The next message of a worker; raises the worker's exceptions."""
        try:
            message = worker.results.recv()
        except (EOFError, OSError):
            worker.process.join(_EXIT_TIMEOUT_S)
            raise EngineError(
                f"the process for {worker.name} ended with {worker.process.exitcode}; every finished part is kept: "
                "run the same command again, and if it comes back, with a smaller --batch-size or fewer --processes"
            ) from None
        if isinstance(message, BaseException):
            raise message
        return message


def _names(configs: Sequence[DeviceConfig]) -> list[str]:
    """The name of each process: its device, with a number if several processes share the device."""
    totals, numbers = Counter(config.device for config in configs), Counter[str]()
    names = []
    for config in configs:
        numbers[config.device] += 1
        place = f" ({numbers[config.device]} of {totals[config.device]})" if totals[config.device] > 1 else ""
        names.append(config.device + place)
    return names


def _common_info(infos: Sequence[EngineInfo]) -> EngineInfo:
    """The info that several engines share, with all their devices, each once.

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
    return replace(first, device=",".join(dict.fromkeys(info.device for info in infos)))
