"""Connect to a Ray cluster, and share out its nodes among actors."""

import logging
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic

import ray
from ray.exceptions import RayError

from batchcls.errors import EngineError
from batchcls.inference.options import CLUSTER_ADDRESS, RunOptions
from batchcls.interrupts import reinstall_handlers

_CONNECT_S, _ANSWER_S = 10.0, 45.0
"""Seconds that a named cluster may take to accept a connection, and to answer on it."""
_START_S = 120.0
"""Seconds that Ray may take to find a cluster on this machine, or to start one."""
_CLOSE_S = 10.0
"""Seconds that closing the connection may take."""
_NODES_S = 5.0
"""Seconds between two looks at the nodes."""
_SILENCE_S = 40.0
"""Seconds without an answer of the head after which a run ends; after 60 Ray would end the process."""
_IDENTIFIER = re.compile(r"\s+\w+: \S*$")
_MOST_CHARACTERS = 400
_FRACTION = 10_000
"""Ray counts resources in ten-thousandths."""


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A machine of the cluster that is alive."""

    node_id: str
    name: str
    """Host name and address, for messages."""
    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class ActorShare:
    """The share of a node that one actor takes."""

    node: ClusterNode
    device: str
    """``cpu`` or ``cuda``."""
    cpus: float
    gpus: float
    actors: int
    """Number of actors on the node."""

    @property
    def threads(self) -> int:
        """Threads of the actor."""
        return max(1, int(self.cpus))


class RayCluster:
    """A connection to a Ray cluster, open until `close`.

    A thread of its own holds it: Ray replaces signal handlers of the main thread, and the processes that it starts end
    with the thread that has started them. If the program is connected already, its connection is used, and kept.

    Ray also puts a handler of abseil before Python's for SIGTERM, which aborts the process 3 s later, however far its
    orderly end has come (https://github.com/ray-project/ray/pull/64830), and leaves none at all when it disconnects.
    The handlers are put back after both.

    Args:
        address: ``ray`` for the cluster that RAY_ADDRESS names or that runs on this machine, or else one that is
            started for the run; ``HOST:PORT`` of a head; ``ray://HOST:PORT`` for Ray Client.

    Raises:
        EngineError: If there is no such cluster, or it runs other versions of Ray or Python.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._connected: Future[None] = Future()
        self._closing = Event()
        self._owned = not ray.is_initialized()
        if self._owned and address != "ray":
            _check_reachable(address)
        alarm_s, _ = signal.getitimer(signal.ITIMER_REAL)
        self._thread: Thread | None = Thread(target=self._hold, name="ray", daemon=True)
        self._thread.start()
        try:
            self._connected.result(_START_S if address == "ray" else _ANSWER_S)
        except TimeoutError:
            self._thread = None  # it may wait for minutes
            raise EngineError(f"{_asked(address)}, {_NO_HEAD}") from None
        except (RayError, OSError, RuntimeError, ValueError) as error:
            raise EngineError(f"{_asked(address)}: {one_line(error)}") from error
        finally:
            reinstall_handlers()
            if not alarm_s:
                signal.alarm(0)  # abseil's, if a signal came while connecting

    def nodes(self) -> list[ClusterNode]:
        """The nodes that were alive some seconds ago, without waiting for the cluster.

        Raises:
            EngineError: If the cluster has not answered for long.
        """
        silence_s = monotonic() - self._heard
        if silence_s > _SILENCE_S:
            raise EngineError(
                f"the head of the Ray cluster has not answered for {silence_s:.0f} s; every finished part is kept: run "
                "the same command again once `ray status` shows the nodes"
            )
        return self._nodes

    def close(self) -> None:
        """End the connection, and a cluster that was started for it; calling it twice is harmless."""
        self._closing.set()
        if self._thread:
            self._thread.join(_CLOSE_S)
            self._thread = None
            reinstall_handlers()

    def _hold(self) -> None:
        """Connect, look at the nodes from time to time, and disconnect at the end; runs in a thread of its own.

        After the end no other thread may call Ray, which would connect again by itself.
        """
        try:
            if self._owned:
                ray.init(
                    None if self._address == "ray" else self._address,
                    include_dashboard=False if self._address == "ray" else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            self._look()
        except BaseException as error:  # noqa: BLE001  # raised where the cluster is opened
            self._connected.set_exception(error)
            return
        self._connected.set_result(None)
        while not self._closing.wait(_NODES_S):
            with suppress(RayError, ConnectionError):
                self._look()
        if self._owned:
            ray.shutdown()

    def _look(self) -> None:
        self._nodes = [
            ClusterNode(
                node["NodeID"],
                f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})",
                node["Resources"].get("CPU", 0.0),
                node["Resources"].get("GPU", 0.0),
            )
            for node in ray.nodes()
            if node["Alive"]
        ]
        self._heard = monotonic()


_NO_HEAD = "and no Ray head answers there; see whether `ray status` does, and name another address"


def cluster_device(device: str, nodes: Sequence[ClusterNode]) -> tuple[str, str]:
    """The kind of device that a run uses on all nodes, and the reason for one that the user did not choose.

    Raises:
        EngineError: If no node has such a device.
    """
    has_gpu = any(node.gpus >= 1 for node in nodes)
    if device == "auto":
        return ("cuda", "") if has_gpu else ("cpu", "no node of the cluster has a GPU")
    if device == "cpu":
        return "cpu", ""
    if device.startswith("cuda:"):
        raise EngineError(f"device {device!r} was asked for; on a cluster, use cuda for all GPUs, or cpu")
    if not has_gpu:
        raise EngineError(
            f"device {device!r} was asked for, and no node of the cluster has a GPU that Ray knows of; see what "
            "`ray status` says, or choose --device cpu"
        )
    return "cuda", ""


def actor_shares(node: ClusterNode, device: str, options: RunOptions) -> list[ActorShare]:
    """The actors of a node: one for each GPU, or one for all its cores; several with ``options.processes``."""
    processes = options.processes or 1
    actors = processes * (int(node.gpus) if device == "cuda" else 1)
    cpus = min(node.cpus, options.threads) if options.threads else node.cpus
    if not actors or (device == "cpu" and not cpus):
        return []
    each = cpus / actors
    share = ActorShare(
        node,
        device,
        float(int(each)) if each >= 1 else int(each * _FRACTION) / _FRACTION,
        int(_FRACTION / processes) / _FRACTION if device == "cuda" else 0.0,
        actors,
    )
    return [share] * actors


@contextmanager
def ray_errors() -> Iterator[None]:
    """Turn errors of Ray and of its connection into an `EngineError`."""
    try:
        yield
    except (RayError, ConnectionError) as error:
        raise EngineError(
            f"the Ray cluster does not answer: {one_line(error)}; every finished part is kept: run the same command "
            "again"
        ) from error


def one_line(error: BaseException) -> str:
    """An error's message in one line, without Ray's identifiers; of a traceback the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not _IDENTIFIER.match(line)]
    if any(line.startswith("Traceback") for line in lines):
        return lines[-1][:_MOST_CHARACTERS]
    return " ".join(lines)[:_MOST_CHARACTERS] or type(error).__name__


def _check_reachable(address: str) -> None:
    """Raise an `EngineError` if nothing listens at ``address``, for which Ray would wait for minutes."""
    match = CLUSTER_ADDRESS.fullmatch(address)
    try:
        if match is not None:
            socket.create_connection((match[1], int(match[2])), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise EngineError(f"{_asked(address)}, {_NO_HEAD} ({one_line(error)})") from error


def _asked(address: str) -> str:
    return f"a Ray cluster was asked for at {address!r}" if address != "ray" else "a Ray cluster was asked for"
