"""The command ``batchcls find-duplicates``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchcls.cli.libraries import library_noise_hidden
from batchcls.cli.options import LABELS_OF_PREDICTIONS, FiniteRange, OutPath
from batchcls.cli.printing import echo

if TYPE_CHECKING:
    from batchcls.evaluation.duplicates import DuplicateSummary

_PLACE = click.Path(exists=True, path_type=Path)


@click.command("find-duplicates")
@click.argument("images", type=_PLACE)
@click.argument("others", type=_PLACE, required=False)
@click.option(
    "--out",
    type=OutPath(dir_okay=False, path_type=Path),
    required=True,
    help="CSV or Parquet file to write, with a row for each copy.",
)
@click.option(
    "--distance",
    type=FiniteRange(0, 0.5),
    default=0.1,
    show_default=True,
    help="Largest distance of a copy. 0: only images that look exactly alike. 0.1: recompressed, resized, turned and "
    "mirrored copies. 0.3: also second photographs of the same place.",
)
@LABELS_OF_PREDICTIONS
@click.option("--overwrite", is_flag=True, help="Replace an existing file when the new one is whole.")
@click.option("--quiet", is_flag=True, help="Show errors only.")
def find_duplicates(
    images: Path, others: Path | None, out: Path, labels: str | None, quiet: bool, **options: Any
) -> None:
    """Find images that are copies of one another: exact, recompressed, resized, turned or mirrored.

    IMAGES is a folder of images, or the file that `batchcls run` wrote. With OTHERS, only copies across the two are
    found, such as test images that are among those of the training. Each row of --out names a copy, and the image that
    it is a copy of; the images themselves are read again, and none is changed. If some cannot be read any more, a file
    of `batchcls run --embeddings` still tells their exact copies.
    """
    from batchcls.evaluation.duplicates import DuplicateOptions, find_duplicates  # after parsing: --help stays light
    from batchcls.networks.recipe import labels_from_argument

    places = [images] if others is None else [images, others]
    options["labels"] = labels_from_argument(labels) if labels else ()
    with library_noise_hidden() as console:
        console.quiet = quiet
        summary = find_duplicates(places, out, DuplicateOptions(**options), console)
    if not quiet:
        echo(*duplicate_lines(summary, out))


def duplicate_lines(summary: "DuplicateSummary", out: Path) -> list[str]:
    """The result of a search for copies, as lines for the terminal."""
    copies = sum(summary.kinds.values())
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(summary.kinds.items()))
    found = f"{copies:,} {'copy' if copies == 1 else 'copies'}"
    groups = f"{summary.groups:,} {'group' if summary.groups == 1 else 'groups'}"
    lines = [f"{summary.images:,} images, {summary.unreadable:,} unreadable: {found} in {groups} -> {out}"]
    if kinds:
        lines.append(f"copies    {kinds}")
    if summary.blank:
        lines.append(
            f"note: {summary.blank:,} images are blank, and look like any other; their bytes alone are compared"
        )
    return [*lines, *(f"note: {note}" for note in summary.notes)]
