"""A listing that goes on in the background: another process answers, and a thread of this one asks it."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic

from batchcls.errors import DecoderError
from batchcls.storage.file_client import FileLane, FileProcess
from batchcls.storage.transient_errors import NO_ANSWER


class Listing:
    """Runs a function that lists a source's slides, in a thread of its own.

    Args:
        list_all: Lists all slides by requests through `lane`.
        end: Called in the thread once nothing more is listed, whatever the reason.
        timeout_s: How long an answer may take.
        open_process: Starts the process that answers.
    """

    def __init__(
        self,
        list_all: Callable[[], None],
        end: Callable[[], None],
        timeout_s: float,
        open_process: Callable[[], FileProcess] = FileProcess,
    ) -> None:
        self.complete = False
        """Whether nothing more is listed."""
        self.closed = False
        """Whether nobody wants the slides any more."""
        self._list_all, self._end = list_all, end
        self._timeout_s, self._open_process = timeout_s, open_process
        self._waiting: tuple[str, float] | None = None
        self._listed: Future[None] | None = None

    def start(self) -> None:
        """Begin to list, if that has not been done yet."""
        if self._listed is None:
            self._process = self._open_process()
            self.lane: FileLane = self._process.lane(self._timeout_s)
            pool = ThreadPoolExecutor(1, thread_name_prefix="listing")
            self._listed = pool.submit(self._run)
            pool.shutdown(wait=False)

    def check(self) -> None:
        """Wait for the end; raises the exception that ended the listing early, if there was one."""
        if self._listed:
            self._listed.result()

    def wait_for(self, place: str | None) -> None:
        """Note the place whose answer is waited for from now on; None: none is."""
        self._waiting = None if place is None else (place, monotonic())

    def waiting(self) -> tuple[str, float] | None:
        """The place that is waited for, and the seconds since then; None if there is none; from any thread."""
        waiting = self._waiting
        return waiting and (waiting[0], monotonic() - waiting[1])

    def reason(self, error: OSError) -> str:
        """The reason of an error in words; after a timeout, a new lane replaces the old one."""
        if not isinstance(error, TimeoutError) or error.errno is not None:
            return error.strerror or str(error)
        self.lane.close()
        self.lane = self._process.lane(self._timeout_s)
        return f"{NO_ANSWER} {self._timeout_s:g} s"

    def close(self) -> None:
        """Stop listing; calling it twice is harmless."""
        self.closed = True
        if self._listed:
            self.lane.close()
            self._process.close()

    def _run(self) -> None:
        try:
            self._list_all()
        except DecoderError:
            if not self.closed:
                raise
        finally:
            self.complete = True
            self._end()
            self.lane.close()
            self._process.close()
