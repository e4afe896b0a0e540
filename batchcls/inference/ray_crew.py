"""All actors of a run on a Ray cluster, asked for at once, and replaced when they are lost."""

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from batchcls.engine.manifest import MANIFEST, sha256
from batchcls.errors import BatchclsError, EngineError
from batchcls.inference.node_folders import FolderSample
from batchcls.inference.options import RunOptions
from batchcls.inference.ray_actor import ActorTask, OpenedActor
from batchcls.inference.ray_cluster import ActorShare, RayCluster, actor_shares, cluster_device, one_line, ray_errors
from batchcls.inference.ray_seat import Seat

_PLACEMENT_S = 30.0
"""Seconds after which a run begins without the actors that have not started."""
_ABSENCE_S = 120.0
"""Seconds without any actor after which a run ends."""
_REPLY_S = 120.0
"""Seconds without a reply after which an actor is given up; it replies every second."""
_STARTS = 3
"""Number of actors on one node that may be lost before the first one has opened its engine."""
_LATE_S = 5.0
"""Seconds without a reply after which an actor is said to be waited for."""
_ACTORS_PER_S = 2000
"""Replies a second that the run can take."""


class RayCrew:
    """The actors of a run; at least one of them is ready once the crew is made.

    Args:
        cluster: The connection, which stays the caller's.
        engine: The engine folder.
        options: Options of the run; threads, processes and memory are those of each node.
        samples: Folders of the slides, which every node must see.

    Raises:
        EngineError: If an actor cannot be opened, or no actor starts.
        SlidesError: If a node does not see the slides.
    """

    def __init__(self, cluster: RayCluster, engine: Path, options: RunOptions, samples: Sequence[FolderSample]) -> None:
        self._cluster = cluster
        self._options = options
        nodes = self._nodes = cluster.nodes()
        self._device, self._why = cluster_device(options.device, nodes)
        shares = [share for node in nodes for share in actor_shares(node, self._device, options)]
        if not shares:
            raise EngineError("no node of the cluster has a core to share; see what `ray status` says")
        self._task = ActorTask(
            engine=Path(os.path.abspath(engine)),
            manifest_sha256=sha256(engine / MANIFEST),
            options=options,
            device=self._device,
            threads=1,
            actors=1,
            folder=os.getcwd(),
            samples=samples,
            interval_s=min(0.5, max(0.1, len(shares) / _ACTORS_PER_S)),
        )
        self.notes: list[str] = []
        """Notes for the user, one line each, on how engines run, and on actors that are missing."""
        self.seats: list[Seat] = []
        self._former: list[Seat] = []
        """Places that are no longer used."""
        self._gone: deque[Seat] = deque()
        """Places that were lost without a reply, which `replies` has yet to tell."""
        self._opened: OpenedActor | None = None
        self._closed = False
        self._begun = False
        """Whether the run goes on without a node that cannot take part."""
        self._worked = monotonic()
        try:
            self._seat(shares)
            self._open()
            self._begun = True
        except BaseException:
            self.close()
            raise

    @property
    def opened(self) -> OpenedActor:
        """Description of the first actor; that of others is the same."""
        if self._opened is None:
            raise RuntimeError("no actor is open")
        return replace(self._opened, why=self._opened.why or self._why)

    @property
    def peak_memory_bytes(self) -> int:
        """Most resident memory of all actors together."""
        return sum(seat.peak_memory_bytes for seat in [*self.seats, *self._former])

    @property
    def working(self) -> list[Seat]:
        """The actors that take slides."""
        return [seat for seat in self.seats if seat.opened]

    def waiting(self) -> tuple[str, float] | None:
        """The file, or else the actor, that has been waited for longest, and the seconds; from any thread."""
        seats = list(self.seats)
        if not seats:
            return "any node of the Ray cluster", monotonic() - self._worked
        files = [seat.waiting for seat in seats if seat.waiting]
        actors = [(seat.name, monotonic() - seat.called) for seat in seats if seat.call is not None]
        late = [wait for wait in actors if wait[1] > _LATE_S]
        return max(files or late, key=lambda wait: wait[1], default=None)

    def look_after(self) -> None:
        """Ask for actors on new nodes and in place of lost ones.

        Raises:
            EngineError: If there has been no actor for long.
        """
        now = monotonic()
        if self.working:
            self._worked = now
        elif now - self._worked > _ABSENCE_S:
            raise EngineError(
                f"no actor of the Ray cluster has worked for {_ABSENCE_S:g} s; every finished part is kept: run the "
                "same command again once `ray status` shows nodes with free cores or GPUs"
            )
        self._look_at_nodes()
        for seat in self.working:
            if seat.call is not None and now - seat.called > _REPLY_S:
                seat.lose(f"no reply in {_REPLY_S:g} s")
                self._gone.append(seat)
        self._start()

    def replies(self, timeout_s: float) -> Iterator[tuple[Seat, Any]]:
        """Each actor that has replied within ``timeout_s``, and its reply; None for an actor that is lost."""
        while self._gone:
            yield self._gone.popleft(), None
        calls = {seat.call: seat for seat in self.seats if seat.call is not None}
        if not calls:
            return
        with ray_errors():
            if ray.wait(list(calls), num_returns=1, timeout=timeout_s)[0]:
                ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
                for call in ready:
                    if (reply := self._reply(calls[call], call)) is not Ellipsis:
                        yield calls[call], reply

    def close(self) -> None:
        """End all actors, without waiting for them; from any thread; calling it twice is harmless."""
        if not self._closed:
            self._closed = True
            for seat in list(self.seats):
                seat.end()

    def _seat(self, shares: Sequence[ActorShare]) -> None:
        """Ask for an actor in each share, at once."""
        numbers: Counter[str] = Counter()
        for share in shares:
            numbers[share.node.node_id] += 1
            place = f", actor {numbers[share.node.node_id]} of {share.actors}" if share.actors > 1 else ""
            task = replace(self._task, threads=share.threads, actors=share.actors)
            self.seats.append(Seat(share.node.name + place, share, task))
        self._start()

    def _start(self) -> None:
        with ray_errors():
            for seat in self.seats:
                if seat.empty and not self._closed:
                    seat.start()

    def _open(self) -> None:
        """Wait until all actors are ready, or some for a while."""
        since = monotonic()
        while not self.seats or not all(seat.opened for seat in self.seats):
            for _ in self.replies(0.5):
                pass
            self.look_after()
            missing = [seat for seat in self.seats if not seat.opened]
            failing = bool(missing) and all(seat.failures >= _STARTS for seat in missing)
            if failing and not self.working:
                raise EngineError(f"no actor could start on {missing[0].name}; {missing[0].loss}")
            if self.working and (failing or monotonic() - since > _PLACEMENT_S):
                self.notes.append(
                    f"{len(missing)} of {len(self.seats)} actors had not started after {monotonic() - since:.0f} s, so "
                    f"the run began without them: {'; '.join(seat.name for seat in missing[:3])}"
                )
                return

    def _reply(self, seat: Seat, call: Any) -> Any:
        """The reply of an actor; None if it is lost; Ellipsis if it is ready for slides now, or left out."""
        try:
            reply = ray.get(call)
        except RayTaskError as error:
            raise RuntimeError(f"on {seat.name}:\n{error}") from error
        except RayError as error:
            seat.lose(one_line(error))
            return None
        seat.call = None
        if isinstance(reply, OpenedActor):
            self._join(seat, reply)
            return Ellipsis
        if not isinstance(reply, BaseException):
            return reply
        if not isinstance(reply, BatchclsError):
            raise RuntimeError(f"on {seat.name}:\n{reply}")
        reply.args = (f"on {seat.name}: {reply}", *reply.args[1:])
        if seat.opened or not self._begun:
            raise reply
        self._leave_out(seat, str(reply))
        return Ellipsis

    def _join(self, seat: Seat, opened: OpenedActor) -> None:
        """Let a new actor take slides, if its rows are those of the others."""
        if self._opened is None:
            self._opened = opened
        if difference := self._opened.difference(opened):
            message = (
                f"{seat.name} would compute with {difference}, so that rows depended on the node; name a --precision "
                "or a --backend that all nodes have"
            )
            if not self._begun:
                raise EngineError(message)
            self._leave_out(seat, message)
            return
        seat.opened = opened
        self.notes += [note for note in opened.notes if note not in self.notes]

    def _leave_out(self, seat: Seat, reason: str) -> None:
        self._drop(seat)
        self.notes.append(f"{reason}; the run went on without it")

    def _drop(self, seat: Seat) -> None:
        seat.end()
        self.seats.remove(seat)
        self._former.append(seat)

    def _look_at_nodes(self) -> None:
        nodes, before = self._cluster.nodes(), self._nodes
        if nodes is before:
            return
        self._nodes = nodes
        alive, known = ({node.node_id for node in some} for some in (nodes, before))
        for seat in [seat for seat in self.seats if seat.share.node.node_id not in alive]:
            self._drop(seat)
            self._gone.append(seat)
        new = [node for node in nodes if node.node_id not in known]
        self._seat([share for node in new for share in actor_shares(node, self._device, self._options)])
