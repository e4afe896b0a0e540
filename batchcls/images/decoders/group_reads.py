"""Reading of slides by groups, in as many groups at a time as the file system's answers take."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from select import POLLIN, poll
from time import monotonic

from batchcls.errors import DecoderError
from batchcls.images.decoders.encoded import Encoded, HeldMemory, ReadOptions
from batchcls.images.decoders.read_budget import ReadBudget
from batchcls.images.sources.base import GROUP_FILES, GroupReader, SlideReaders
from batchcls.records import Slide

_MOST_READERS = 64
"""Largest number of groups that are read at a time; fewer, if so many files may not be read ahead."""
_FIRST_FILES = 16
_LEAST_FILES = 8
"""Number of files in the first group, and in groups of files that take long."""
_GROUP_S = 0.04
"""Time that a group should take. With 5 ms a file, as across a network, groups of 8 are read faster than those of 4,
whose threads get in one another's way, or of 16, of which too few may be read ahead."""
_BUSY, _WAITING = 0.9, 0.5
"""Cores that all readers take together, above which fewer, and below which more groups are read at a time."""
_STALLED_S = 1.0
"""Time that one file may take before the others of its group are read elsewhere."""


@dataclass(slots=True)
class _Group:
    """A group that is being read."""

    reader: GroupReader
    slides: Sequence[Slide]
    position: int = -1
    """Latest position of the reader that has been noticed."""
    since: float = field(default_factory=monotonic)
    """Monotonic time at which that position was noticed."""
    stalled: bool = False
    """Whether the slide at ``position`` takes long, so that the others are read elsewhere."""

    def waited_s(self) -> float:
        """Seconds that the group has been waiting for one slide; 0 once all are read."""
        position = self.reader.position()
        if position is None:
            return 0.0
        if position != self.position and not self.stalled:
            self.position, self.since = position, monotonic()
        return monotonic() - self.since


class GroupReads:
    """Reads groups of slides; to be used by one thread, but for the methods that say otherwise.

    Each reader has memory for one group, which counts in the budget until the reader is closed. It reads its next group
    after all slides of the last one have been released.

    Args:
        readers: Makes readers.
        options: Limits of reading.
        budget: Memory for the bytes.
    """

    def __init__(self, readers: SlideReaders, options: ReadOptions, budget: ReadBudget) -> None:
        self._readers = readers
        self._options = options
        self._budget = budget
        self._idle: deque[GroupReader] = deque()
        """Readers without a group; any thread appends to them."""
        self._reading: dict[int, _Group] = {}
        """Groups that are being read, by the descriptor of their reader."""
        self._open: dict[int, GroupReader] = {}
        """All readers, by their descriptors."""
        self._width = 1
        """Number of groups to read at a time."""
        self.group_files = _FIRST_FILES
        """Number of slides of the next group."""
        self._poll = poll()

    @property
    def busy(self) -> bool:
        """Whether a group is being read that does not wait for one slide."""
        return self._busy_groups() > 0

    def has_room(self) -> bool:
        """Whether one more group may be read now; then `start` has a reader for it."""
        if self._busy_groups() >= self._width or len(self._reading) >= 2 * _MOST_READERS:
            return False
        return bool(self._idle) or self._open_reader()

    def start(self, slides: Sequence[Slide]) -> None:
        """Begin to read a group of at least one slide.

        Raises:
            DecoderError: If no slide can be read any more.
        """
        reader = self._idle.pop()  # its memory is in the caches, if any is
        self._reading[reader.fileno()] = _Group(reader, slides)
        reader.start(slides, self._options.budget_bytes)

    def collect(self, descriptor: int) -> tuple[list[Encoded], list[Slide], list[Slide]]:
        """The slides of a group that is complete: those that are read, are to be read alone, and are to be read again.

        Raises:
            DecoderError: If no slide can be read any more.
        """
        result = self._open[descriptor].result()  # also an idle reader is readable once its process has ended
        group = self._reading.pop(descriptor)
        if group.stalled:  # the others have been read elsewhere, and the memory is not in the budget
            self._close_reader(group.reader)
            return [], [group.slides[group.position]], []
        self._adapt(group)
        memory = HeldMemory(len(result.read), partial(self._idle.append, group.reader))
        if not result.read:
            memory.give_back()
        return [Encoded(*item, memory) for item in result.read], result.alone, result.again

    def stalled(self) -> tuple[list[Slide], list[Slide]]:
        """Slides to be read elsewhere, because one of their group takes long, and slides without an answer in time."""
        again: list[Slide] = []
        without_answer: list[Slide] = []
        for descriptor, group in list(self._reading.items()):
            waited_s = group.waited_s()
            has_begun = group.position >= 0  # else the process of the reader is starting
            if has_begun and not group.stalled and waited_s > min(_STALLED_S, self._options.timeout_s / 2):
                again += self._cut(group)
            if waited_s > self._options.timeout_s:
                without_answer += group.slides[group.position : group.position + 1] if has_begun else group.slides
                del self._reading[descriptor]
                self._close_reader(group.reader)
                if not group.stalled:
                    self._budget.give_back(self._readers.group_memory_bytes)
        return again, without_answer

    def widen(self) -> None:
        """Let twice as many groups be read at a time."""
        self._width = min(2 * self._width, _MOST_READERS)

    def waiting(self) -> tuple[str, float] | None:
        """The file that has been waited for longest, and the seconds since then; from any thread."""
        waits = [(group.waited_s(), group) for group in list(self._reading.values())]
        waited_s, group = max(waits, key=lambda wait: wait[0], default=(0.0, None))
        return (group.slides[max(0, group.position)].path, waited_s) if group and waited_s else None

    def close_idle(self) -> None:
        """Give the memory of idle readers back."""
        while self._idle:
            self._close_reader(self._idle.popleft())
            self._budget.give_back(self._readers.group_memory_bytes)

    def close(self) -> None:
        """End every reader; calling it twice is harmless."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()

    def register(self, other: int) -> None:
        """Let `ready` return also when this descriptor is readable."""
        self._poll.register(other, POLLIN)

    def ready(self, timeout_s: float) -> list[int]:
        """Descriptors that are readable, of readers with a complete group or another one; waits for the first."""
        return [descriptor for descriptor, _ in self._poll.poll(timeout_s * 1000)]

    def _busy_groups(self) -> int:
        return sum(not group.stalled for group in self._reading.values())

    def _open_reader(self) -> bool:
        """Add an idle reader; False if there is no memory for it.

        Raises:
            DecoderError: If the system has too little even for a first one, or no slide can be read any more.
        """
        if not self._budget.try_take(self._readers.group_memory_bytes):
            return False
        try:
            reader = self._readers.group_reader(self._options.max_pixels)
        except OSError as error:
            self._budget.give_back(self._readers.group_memory_bytes)
            if self._open:
                return False
            raise DecoderError(
                f"no slide can be read: {error.strerror}; every finished part is kept: free some (ulimit -n, memory), "
                "then run the same command again"
            ) from error
        self._open[reader.fileno()] = reader
        self._poll.register(reader.fileno(), POLLIN)
        self._idle.append(reader)
        return True

    def _cut(self, group: _Group) -> list[Slide]:
        """Leave a group only the slide that takes long, without memory in the budget; returns its other slides."""
        group.reader.cut(group.position)
        group.stalled = True
        self._budget.give_back(self._readers.group_memory_bytes)
        self.widen()
        self.group_files = _LEAST_FILES  # where one file hangs, others may, each of which holds up its group
        return [slide for number, slide in enumerate(group.slides) if number != group.position]

    def _close_reader(self, reader: GroupReader) -> None:
        del self._open[reader.fileno()]
        self._poll.unregister(reader.fileno())
        reader.close()

    def _adapt(self, group: _Group) -> None:
        """Choose the number of groups at a time, and of files in a group, by the times of the last group."""
        cpu_s, wall_s = group.reader.times_s
        busy = cpu_s / max(wall_s, 1e-9) * (1 + self._busy_groups())
        if busy < _WAITING:
            self.widen()
        elif busy > _BUSY:
            self._width = max(1, self._width - 1)
        self.group_files = max(_LEAST_FILES, min(GROUP_FILES, int(len(group.slides) * _GROUP_S / max(wall_s, 1e-9))))
