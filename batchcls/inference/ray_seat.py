"""A place for an actor on a node of a Ray cluster; whoever is lost there is followed by another one."""

from contextlib import suppress
from time import monotonic
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from batchcls.inference.ray_actor import ActorReply, ActorTask, OpenedActor, SlideActor
from batchcls.inference.ray_cluster import ActorShare
from batchcls.inference.slide_feed import SlideColumns

_LEAST_PORTION, _MOST_PORTION = 64, 2048
"""Slides that an actor has before its decoder has asked for them."""
_PORTION_S = 1.0
"""Seconds of work in a portion."""
_SMOOTHING = 0.3
_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 30.0
"""Seconds from the loss of an actor to the start of the next one; doubled while each is lost without a result."""


class Seat:
    """An actor on a node, of whose calls one is under way at most.

    Args:
        name: Node, and which of its actors it is.
        share: What the actor takes of the node.
        task: What the actor opens.
    """

    def __init__(self, name: str, share: ActorShare, task: ActorTask) -> None:
        self.name = name
        self.share = share
        self.call: Any = None
        """Reference of the call under way; None if there is none."""
        self.opened: OpenedActor | None = None
        """Description of the actor; None until it has opened its engine."""
        self.failures = 0
        """Number of actors in a row that were lost before they had a result."""
        self.loss = ""
        """Reason for which the latest actor was lost, in Ray's words; empty if none was."""
        self.undrawn = 0
        """Slides that the actor's decoder has not asked for yet."""
        self.waiting: tuple[str, float] | None = None
        self.peak_memory_bytes = 0
        self.called = 0.0
        """When the call under way was made."""
        self._task = task
        self._actor: Any = None
        self._retry_at = 0.0
        self._rate_per_s = 0.0
        self._replied = 0.0

    @property
    def empty(self) -> bool:
        """Whether it is time to ask for an actor."""
        return self._actor is None and monotonic() >= self._retry_at

    @property
    def portion(self) -> int:
        """Number of slides that the actor should have ahead."""
        return max(_LEAST_PORTION, min(_MOST_PORTION, int(_PORTION_S * self._rate_per_s)))

    def start(self) -> None:
        """Ask for an actor."""
        self._actor = (
            ray.remote(SlideActor)
            .options(
                num_cpus=self.share.cpus,
                num_gpus=self.share.gpus,
                max_restarts=0,  # a restarted one would know nothing; a new one is asked for
                max_task_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(self.share.node.node_id, soft=False),
            )
            .remote()
        )
        self.called = self._replied = monotonic()
        self.call = self._actor.open.remote(self._task)

    def send(self, slides: SlideColumns | None) -> None:
        """Call for an exchange."""
        self.called = monotonic()
        self.call = self._actor.exchange.remote(slides)

    def finish(self) -> None:
        """Tell the actor that no more slides will come, and ask for its last reply."""
        self._actor.finish.remote()
        self.send(None)

    def take(self, reply: ActorReply, files: int) -> None:
        """Note what a reply with so many files says of the actor."""
        now = monotonic()
        rate = files / max(now - self._replied, 1e-3)
        self._rate_per_s += _SMOOTHING * (rate - self._rate_per_s)
        self._replied = now
        self.waiting, self.undrawn = reply.waiting, reply.undrawn
        self.peak_memory_bytes = max(self.peak_memory_bytes, reply.peak_memory_bytes)
        if files:
            self.failures = 0

    def lose(self, reason: str) -> None:
        """Give the actor up; the next one may follow after a while."""
        self.end()
        self._actor, self.call, self.loss = None, None, reason
        self._retry_at = monotonic() + min(_LAST_RETRY_S, _FIRST_RETRY_S * 2**self.failures)
        self.failures += 1
        self.opened, self.waiting, self.undrawn, self._rate_per_s = None, None, 0, 0.0

    def end(self) -> None:
        """End the actor, without waiting for it; from any thread; calling it twice is harmless."""
        if self._actor is not None:
            with suppress(RayError, ConnectionError, RuntimeError):
                ray.kill(self._actor, no_restart=True)
