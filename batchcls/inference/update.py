"""The update of a whole predictions file, as part of a run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchcls.images.decoders.digests import SlideDigests
from batchcls.images.sources.base import Source
from batchcls.images.sources.states import SlideStates
from batchcls.inference.options import RunOptions
from batchcls.inference.stats import RunStats
from batchcls.predictions.comparison import UpdateOptions
from batchcls.predictions.existing_output import ExistingOutput
from batchcls.predictions.open_update import open_update
from batchcls.predictions.update import UpdatedRows
from batchcls.predictions.writer import PredictionsWriter, open_writer
from batchcls.records import Slide


@dataclass(frozen=True, slots=True)
class RunUpdate:
    """The rows of a whole file that a run brings up to date, and the look-ups of their files."""

    rows: UpdatedRows
    states: SlideStates
    digests: SlideDigests

    def missing(self, source: Source) -> Iterator[Slide]:
        """The slides to classify: new and changed ones."""
        return self.rows.missing(source)

    def waiting(self) -> tuple[str, float] | None:
        """A file whose state is waited for, and the seconds since then; None if there is none; from any thread."""
        return self.states.waiting() or self.digests.waiting()

    def keep_rows(self, source: Source, stats: RunStats) -> bool:
        """Bring the rows that are kept to the new file's parts, once every slide of ``source`` is done.

        Returns:
            Whether the new file differs from the whole one.
        """
        differs = self.rows.keep_rows(source.unlisted)
        counts = stats.updated = self.rows.counts
        if self.rows.options.prune and (kept := counts.gone - counts.pruned):
            reason = "not every folder could be listed" if source.unlisted else "below their folder no image was found"
            stats.warnings.append(f"{kept:,} rows of files that were not listed are kept, because {reason}")
        if counts.unanswered:
            stats.warnings.append(
                f"{counts.unanswered:,} rows are kept although the disk did not say whether their files have changed; "
                "the same command asks again"
            )
        if counts.without_digest:
            stats.warnings.append(
                f"{counts.without_digest:,} rows had no digest to compare with: their files were classified again"
            )
        return differs

    def close(self) -> None:
        """End the look-ups; calling it twice is harmless."""
        self.states.close()
        self.digests.close()


def open_output(
    out: Path | str, roots: Sequence[str], labels: Sequence[str], identity: Mapping[str, Any], options: RunOptions
) -> tuple[PredictionsWriter | ExistingOutput, RunUpdate | None]:
    """The writer of a run's rows, and the update of a whole file if the run is one; or the file that needs no run.

    Raises:
        OutputError: If ``out`` may not be written, see `open_writer` and `open_update`.
    """
    properties: Mapping[str, Any] = {
        "roots": roots,
        "labels": labels,
        "identity": identity,
        "limits": {"max_pixels": options.max_pixels},
    }
    if not options.update:
        return open_writer(out, **properties, overwrite=options.overwrite), None
    states = SlideStates(options.read_timeout_s)
    digests = SlideDigests(options.max_pixels, options.read_timeout_s)
    update_options = UpdateOptions(states, options.prune, digests if options.by_content else None)
    writer, rows = open_update(out, update_options, **properties)
    return writer, RunUpdate(rows, states, digests) if rows else None
