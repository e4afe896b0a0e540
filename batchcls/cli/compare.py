"""The command ``batchcls compare``."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from batchcls.cli.libraries import extra
from batchcls.cli.options import LABELS_OF_PREDICTIONS, SPLIT_FOLDERS, TRUTH, OutPath, PredictionsPlace
from batchcls.cli.printing import echo


@click.command()
@click.argument("a", type=PredictionsPlace())
@click.argument("b", type=PredictionsPlace())
@TRUTH()
@SPLIT_FOLDERS
@click.option("--out", type=OutPath(dir_okay=False, path_type=Path), help="JSON file to write the results to.")
@click.option(
    "--changed",
    type=OutPath(dir_okay=False, path_type=Path),
    help="CSV file to write every row to whose label changed.",
)
@click.option(
    "--rows",
    type=click.IntRange(0, 1000),
    default=10,
    show_default=True,
    help="Largest number of rows to print whose label changed.",
)
@LABELS_OF_PREDICTIONS
@click.option("--overwrite", is_flag=True, help="Replace existing files when the new ones are whole.")
def compare(a: Path | str, b: Path | str, labels: str | None, overwrite: bool, **options: Any) -> None:
    """Compare two predictions files, of other images or of another engine.

    A and B are files that `batchcls run` wrote, or their URLs in an object store. Their images are compared as sets:
    whether those of B are brighter, of another color, blurred or compressed harder than those of A, and whether other
    shares have each label. Images that are in both are compared one by one: which labels changed, and with --truth
    which file is right more often.
    """
    from batchcls.networks.recipe import labels_from_argument  # after parsing: --help stays light
    from batchcls.storage.local_copies import local_copy

    with extra("report", "a comparison"):
        from batchcls.evaluation.compare import CompareOptions, compare_runs
        from batchcls.evaluation.comparison_files import check_comparison_files, write_comparison_files
        from batchcls.evaluation.comparison_rendering import comparison_summary

    out, changed, rows = (options.pop(name) for name in ("out", "changed", "rows"))
    options["labels"] = labels_from_argument(labels) if labels else ()
    check_comparison_files(out, changed, [a, b], overwrite=overwrite)
    with ExitStack() as stack:
        file_a, file_b = (stack.enter_context(local_copy(place)) for place in (a, b))
        comparison = compare_runs(CompareOptions(file_a, file_b, **options, names=(str(a), str(b))))
    echo(*comparison_summary(comparison, rows))
    write_comparison_files(comparison, out, changed)
