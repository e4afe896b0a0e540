"""Classify slides on the nodes of a Ray cluster: names travel there, and rows come back."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import monotonic

import numpy as np

from batchcls.errors import SlidesError
from batchcls.images.sources import slide_exists
from batchcls.images.sources.places import Place
from batchcls.inference.drawn_slides import DrawnSlides
from batchcls.inference.node_folders import folder_samples
from batchcls.inference.options import RunOptions
from batchcls.inference.ray_actor import ActorReply
from batchcls.inference.ray_cluster import RayCluster
from batchcls.inference.ray_crew import RayCrew
from batchcls.inference.ray_seat import Seat
from batchcls.inference.result_pieces import unpickled
from batchcls.inference.slide_feed import SlideColumns
from batchcls.inference.slide_ledger import SlideLedger
from batchcls.records import BatchResult, Failure, Postponed, Predictions, Slide

_POLL_S = 0.25
"""Seconds without a reply after which the run looks whether it is stopped, and at its nodes."""
_MOST_DRAWN = 512
"""Slides that are drawn ahead for each actor."""
_MOST_CHARACTERS = 48 << 10
"""Characters of paths sent at a time: Ray sends values of up to 100 KB along with its own messages."""
_FINISH_S = 10.0
"""Seconds that actors may take to end."""


class RayExecutor:
    """An `Executor` on the nodes of a Ray cluster, with an actor for each GPU, or for the cores of a node.

    Nothing is put into Ray's object store: portions of slides and replies are small enough to travel along with Ray's
    own messages.

    Args:
        engine: The engine folder, which every node must have under the same path.
        options: Options of the run; threads, processes and memory are those of each node.
        places: Places of the slides, as the user names them.
        roots: Every `Slide.root` of the run.

    Raises:
        EngineError: If there is no cluster, the engine cannot be opened on a node, or nodes would compute in different
            ways.
        SlidesError: If a node does not see the slides.
    """

    def __init__(self, engine: Path, options: RunOptions, places: Sequence[Place], roots: Sequence[str]) -> None:
        self._timeout_s = options.read_timeout_s
        self._stopped = Event()
        samples = folder_samples(places, roots, options.read_timeout_s)
        self._cluster = RayCluster(options.cluster or "ray")
        try:
            self._crew = RayCrew(self._cluster, engine, options, samples)
        except BaseException:
            self._cluster.close()
            raise
        opened = self._crew.opened
        self.info, self.why, self.decoder = opened.info, opened.why, opened.decoder

    @property
    def notes(self) -> Sequence[str]:
        return tuple(self._crew.notes)

    @property
    def peak_memory_bytes(self) -> int:
        return self._crew.peak_memory_bytes

    def execute(self, slides: Iterable[Slide]) -> Generator[BatchResult]:
        drawn = DrawnSlides(slides, _MOST_DRAWN)
        ledger = SlideLedger(drawn)
        try:
            while not ledger.complete and not self._stopped.is_set():
                self._crew.look_after()
                self._hand_out(drawn, ledger)
                yield from self._results(ledger)
                if not any(seat.call for seat in self._crew.seats):
                    self._wait(drawn)
            drawn.check()
            self._finish()
        finally:
            drawn.close()

    def waiting(self) -> tuple[str, float] | None:
        return self._crew.waiting()

    def stop(self) -> None:
        self._stopped.set()
        self._crew.close()

    def close(self) -> None:
        self._stopped.set()
        self._crew.close()
        self._cluster.close()

    def _hand_out(self, drawn: DrawnSlides, ledger: SlideLedger) -> None:
        """Call every actor that is not called already, with slides if there are any for it."""
        working = self._crew.working
        drawn.most = _MOST_DRAWN * max(1, len(working))
        for seat in working:
            if seat.call is not None:
                continue
            # The last slides are for all, so that all end at about the same time.
            share = -(-ledger.waiting // len(working))
            count = min(seat.portion - seat.undrawn, share)
            portion = ledger.take(seat.name, count, _MOST_CHARACTERS) if count > 0 else []
            if portion:
                seat.send(SlideColumns.of(portion))
            elif ledger.held(seat.name):
                seat.send(None)

    def _results(self, ledger: SlideLedger) -> Iterator[BatchResult]:
        for seat, reply in self._crew.replies(_POLL_S):
            if not isinstance(reply, ActorReply):
                if failures := ledger.lose(seat.name):
                    yield self._failed(failures)
                continue
            files = 0
            for piece in reply.results:
                result = ledger.settle(seat.name, unpickled(piece))
                files += result.files
                self._check_missing(seat, result.failures)
                yield self._for_whole_node(seat, result)
            seat.take(reply, files)

    def _wait(self, drawn: DrawnSlides) -> None:
        """Wait for slides, or for time to pass until an actor is there."""
        if self._crew.working and not len(drawn):
            drawn.wait(_POLL_S)
        else:
            self._stopped.wait(_POLL_S / 10)

    def _finish(self) -> None:
        """Let the actors end, and take down their memory."""
        end = monotonic() + _FINISH_S
        finishing = [seat for seat in self._crew.working if seat.call is None and not self._stopped.is_set()]
        for seat in finishing:
            seat.finish()
        while finishing and monotonic() < end:
            for seat, reply in self._crew.replies(_POLL_S):
                if isinstance(reply, ActorReply):
                    seat.take(reply, 0)
                if seat in finishing and (reply is None or reply.ended):
                    finishing.remove(seat)
                elif seat in finishing:
                    seat.send(None)

    def _check_missing(self, seat: Seat, failures: Sequence[Failure]) -> None:
        """Refuse to go on with a node that does not see slides which are there."""
        for failure in failures:
            if failure.kind == "missing" and slide_exists(failure.slide, self._timeout_s):
                raise SlidesError(
                    f"{seat.name} finds no file {failure.slide.file!r}, which exists where the run was started; mount "
                    "its folder on every node, then run the same command again"
                )

    def _for_whole_node(self, seat: Seat, result: BatchResult) -> BatchResult:
        """``result``, with the memory that a node needs for postponed files, rather than one of its actors."""
        if not result.postponed:
            return result
        postponed = [Postponed(file.slide, seat.share.actors * file.needed_bytes) for file in result.postponed]
        return replace(result, postponed=postponed)

    def _failed(self, failures: Sequence[Failure]) -> BatchResult:
        classes = len(self.info.labels)
        nothing = Predictions(np.empty(0, np.int32), np.empty((0, classes), np.float32), np.empty(0, np.bool_))
        return BatchResult([], [], nothing, failures)
