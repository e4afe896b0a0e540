"""Which slides are others than the rows of a whole predictions file say: by size and time, or by content."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from batchcls.predictions.known_rows import NO_DIGEST, UNKNOWN, KnownRows
from batchcls.records import Failure, Slide
from batchcls.storage.transient_errors import is_transient


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """How a whole predictions file is brought up to date."""

    look_up: Callable[[Sequence[Slide]], Sequence[Slide | Failure]]
    """Returns slides with the size and time of change that their files have now, or the failure of determining them."""
    prune: bool = False
    """Whether the rows of files that are gone are dropped."""
    digests: Callable[[Sequence[Slide]], Mapping[Slide, Slide | Failure]] | None = None
    """Returns slides with the digests of their files' bytes, or the failure of reading them; None where contents are
    not compared."""


@dataclass(slots=True)
class UpdateCounts:
    """Number of rows of an updated file, by what became of them."""

    new: int = 0
    """Rows of files that had none."""
    changed: int = 0
    """Rows of files that were classified again."""
    unchanged: int = 0
    """Rows that were kept, of files that were listed."""
    gone: int = 0
    """Rows of files that were not listed."""
    pruned: int = 0
    """Rows among `gone` that were dropped."""
    unanswered: int = 0
    """Rows among `unchanged` that were kept because the state of their files could not be determined."""
    without_digest: int = 0
    """Rows among `changed` without a digest to compare with."""


class Comparison:
    """Compares slides with their rows.

    Args:
        rows: The rows of the whole file.
        options: How slides are compared.
        counts: Counts of the update, to which those of the comparison are added.
    """

    def __init__(self, rows: KnownRows, options: UpdateOptions, counts: UpdateCounts) -> None:
        self._rows, self._options, self._counts = rows, options, counts
        self.kept = 0
        """Number of slides so far whose rows are kept."""

    def changed(self, compared: Sequence[tuple[Slide, int]]) -> Iterator[Slide]:
        """The slides that are others than their rows say."""
        states = self._options.look_up([slide for slide, _ in compared])
        same_size: list[tuple[Slide, int]] = []
        for (slide, row), state in zip(compared, states, strict=True):
            if isinstance(state, Failure) and is_transient(state.text):
                self._keep_unanswered()
            elif self._rows.repeated[row] or not self._rows.keeps(row, slide.kept):
                yield slide
            elif self._options.digests and isinstance(state, Slide) and self._is_compared_by_content(state, row):
                same_size.append((slide, row))
            elif self._differs(state, row):
                yield slide
            else:
                self.kept += 1
        if self._options.digests and same_size:
            yield from self._of_other_content(same_size, self._options.digests([slide for slide, _ in same_size]))

    def _is_compared_by_content(self, state: Slide, row: int) -> bool:
        has_digest = self._rows.contents[row].tobytes() != NO_DIGEST
        return has_digest and state.size_bytes in (None, int(self._rows.sizes[row]))

    def _of_other_content(
        self, compared: Sequence[tuple[Slide, int]], states: Mapping[Slide, Slide | Failure]
    ) -> Iterator[Slide]:
        """The slides whose bytes are others than their rows say."""
        for slide, row in compared:
            state = states.get(slide)
            now = state.slide if isinstance(state, Failure) else state
            if now and now.digest == self._rows.contents[row].tobytes().hex():
                self.kept += 1
            elif isinstance(state, Failure) and is_transient(state.text):
                self._keep_unanswered()
            else:
                yield slide

    def _keep_unanswered(self) -> None:
        self._counts.unanswered += 1
        self.kept += 1

    def _differs(self, state: Slide | Failure, row: int) -> bool:
        size, time = int(self._rows.sizes[row]), int(self._rows.times[row])
        if isinstance(state, Failure):  # a row without a size says that it could not be opened either
            return size != UNKNOWN or not self._rows.failed[row]
        if state.size_bytes is None or state.size_bytes != size:
            return True
        if self._options.digests and not self._rows.failed[row]:  # else the row would have been compared by content
            self._counts.without_digest += 1
            return True
        return state.modified_ns is not None and state.modified_ns // 1000 != time
