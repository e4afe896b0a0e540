"""The lock of an unfinished output in an object store: one object, which its holder writes anew every few seconds."""

import json
import logging
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event, Lock, Thread
from typing import Any

from batchcls.errors import OutputError
from batchcls.storage.guarded_object import GuardedObject, UnguardedStoreError
from batchcls.storage.object_url import ObjectUrl
from batchcls.storage.processes import has_ended, process_name

STALE_AFTER_S = 60.0
"""Age of the last heartbeat, by the store's clock, from which a lock counts as a dead run's."""
_HEARTBEATS = 4
"""Heartbeats in that time: as many may fail, but for one, before another run takes over."""
_LARGEST_BYTES = 1 << 16
_log = logging.getLogger("batchcls")


class ObjectLock:
    """A lock that this process holds from construction until `release` or `remove`, or until it is lost.

    It is lost if this process stands still, or does not reach the store, for longer than ``stale_after_s``, and another
    run comes. Then `confirm` raises an error. Nothing that happens between `confirm` and another request is excluded;
    what the request changes has to be guarded by itself.

    Attributes:
        token: Text that no other holder has, of 16 hexadecimal digits.

    Args:
        url: The lock.
        output: URL of the output, for messages.
        stale_after_s: Age of the last heartbeat from which a lock counts as a dead run's.

    Raises:
        OutputError: If another run holds the lock, or the store cannot guard one.
        OSError: If the store fails.
    """

    def __init__(self, url: ObjectUrl, output: str, stale_after_s: float = STALE_AFTER_S) -> None:
        self.token = secrets.token_hex(8)
        self._output, self._stale_after_s = output, stale_after_s
        self._object = GuardedObject(url)
        self._heartbeats = 0
        self._since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        self._is_lost = False
        self._mutex, self._ended = Lock(), Event()
        self._acquire()
        self._thread = Thread(target=self._keep, name="lock heartbeat", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Refuse to go on once the lock is known to be lost; the store is not asked.

        Raises:
            OutputError: If it is lost.
        """
        if self._is_lost:
            raise self.loss()

    def confirm(self) -> None:
        """Renew the lock.

        Raises:
            OutputError: If it is lost.
            OSError: If the store fails, which says nothing about the lock.
        """
        with self._mutex:
            self._renew()
        self.check()

    def loss(self) -> OutputError:
        """The error of a run that must not go on."""
        self._is_lost = True
        return OutputError(
            f"another run has taken over {self._output!r}, for this one gave no sign of life for "
            f"{self._stale_after_s:g} s; it goes on with the finished parts"
        )

    def release(self) -> None:
        """Let the next run have the lock at once, unless another has it already.

        Raises:
            OSError: If the store fails; the lock then becomes stale.
        """
        self.abandon()
        with self._mutex:
            if not self._is_lost:
                self._object.write(self._content(is_held=False))

    def remove(self) -> None:
        """Remove the lock, which `confirm` has just renewed, so that nobody takes it in between.

        Should this process stand still here for as long as makes a lock stale, it removes another's lock; that run
        notices and ends with its parts kept.

        Raises:
            OSError: If the store fails; the lock then becomes stale.
        """
        self.abandon()
        with self._mutex:
            if not self._is_lost:
                self._object.remove()

    def abandon(self) -> None:
        """Give no more signs of life, without a word to a store that does not answer."""
        self._ended.set()

    def _acquire(self) -> None:
        content = self._object.read(_LARGEST_BYTES)
        if content is not None:
            self._check_free(_parsed(content))
        if not self._object.write(self._content()):
            raise OutputError(f"another run has just begun to write {self._output!r}; wait for it, or stop it")
        first = self._object.version
        self.confirm()
        if not self._object.refuses("create") or not self._object.refuses(first):
            self._object.remove()
            raise UnguardedStoreError(self._object.url.bucket)

    def _check_free(self, holder: Mapping[str, Any]) -> None:
        """Refuse a lock whose holder may be alive.

        Raises:
            OutputError: If another run holds it.
        """
        if not holder.get("held", True) or has_ended(str(holder.get("process", ""))):
            return
        if (age := self._age()) < self._stale_after_s:
            raise OutputError(
                f"another run is writing {self._output!r}: process {holder.get('pid')} on {holder.get('host')}, since "
                f"{holder.get('since')}, last heard of {age:.0f} s ago; wait for it, or stop it: after "
                f"{self._stale_after_s:g} s without a sign of life, the same command goes on where it was"
            )

    def _age(self) -> float:
        """Seconds since the last heartbeat by the store's clock, which is asked by an object that is written now."""
        clock = ObjectUrl(self._object.url.bucket, f"{self._object.url.key}-clock-{self.token}")
        clock.write(b"")
        try:
            now, then = clock.status(), self._object.url.status()
        finally:
            clock.remove()
        if now is None or then is None:
            return 0.0
        seconds: float = (now["last_modified"] - then["last_modified"]).total_seconds()
        return max(0.0, seconds)

    def _renew(self) -> None:
        if not self._is_lost:
            self._is_lost = not self._object.write(self._content())

    def _content(self, *, is_held: bool = True) -> bytes:
        self._heartbeats += 1
        holder = {
            "token": self.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": process_name(),
            "since": f"{self._since.partition('+')[0]} UTC",
            "heartbeat": self._heartbeats,
            "held": is_held,
        }
        return json.dumps(holder, indent=1).encode()

    def _keep(self) -> None:
        while not self._ended.wait(self._stale_after_s / _HEARTBEATS):
            try:
                with self._mutex:
                    if not self._ended.is_set():
                        self._renew()
                self.check()
            except OutputError:
                return
            except OSError as error:
                _log.debug("a heartbeat failed: %s", error)


def _parsed(content: bytes) -> Mapping[str, Any]:
    """The values of a lock; none of something else, which then counts as a lock that is held."""
    with suppress(ValueError, RecursionError):
        values = json.loads(content)
        if isinstance(values, dict):
            return values
    return {}
