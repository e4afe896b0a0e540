"""The command ``batchcls explain``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchcls.cli.libraries import extra, library_noise_hidden
from batchcls.cli.options import SPLIT_FOLDERS, TRUTH, OutPath
from batchcls.cli.printing import echo, next_line

if TYPE_CHECKING:
    from batchcls.explanation.explain import ExplanationSummary

_TRAINED_FILE_OPTIONS = ("recipe", "architecture", "labels", "state_dict")
"""Options that add what a trained file leaves open; an engine folder leaves nothing open."""


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("slides", type=click.Path(exists=True, path_type=Path), nargs=-1)
@click.option(
    "--out",
    type=OutPath(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write the overlays, a contact sheet and a table into.",
)
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trained file that the engine MODEL was built from.  [default: the file of that name in MODEL or beside it]",
)
@click.option(
    "--recipe",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file with the labels, image size and normalization of the trained file MODEL, as for build.",
)
@click.option(
    "--architecture",
    metavar="NAME",
    help="Network of the trained file MODEL, such as resnet18.  [default: the one that the weights fit]",
)
@click.option(
    "--labels",
    metavar="FILE|A,B,...",
    help="Labels in the order of the network's outputs, or a file that lists the labels.  [default: those that the "
    "recipe or the trained file names]",
)
@click.option(
    "--state-dict", metavar="KEY", help="Key of the weights to use in a trained file that holds several, such as ema."
)
@click.option(
    "--class",
    "label",
    metavar="LABEL",
    help="Class whose evidence to show in every image.  [default: the predicted class of each image]",
)
@click.option(
    "--from",
    "predictions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Predictions file of `batchcls run` to choose images from, with --wrong or --uncertain, instead of SLIDES.",
)
@click.option(
    "--wrong",
    type=click.IntRange(1),
    metavar="N",
    help="Explain the N most confident misclassified images of --from; needs --truth.",
)
@click.option(
    "--uncertain",
    type=click.IntRange(1),
    metavar="N",
    help="Explain the N images of --from with the lowest probability.",
)
@TRUTH()
@SPLIT_FOLDERS
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Largest number of images of SLIDES to explain; if there are more, they are taken at even distances.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier explanation in --out; other files there stay.")
def explain(
    model: Path, slides: tuple[Path, ...], out: Path, checkpoint: Path | None, overwrite: bool, **options: Any
) -> None:
    """Show where in an image the evidence for a class lies.

    MODEL is a trained file, as for build, or an engine folder, whose trained file must be at hand. SLIDES are folders
    and image files; or choose images by what was predicted, with --from. Each image is written beside a copy with a
    Grad-CAM heat map over it.
    """
    trained_file_options = {name: options.pop(name) for name in _TRAINED_FILE_OPTIONS}
    trained_file_options = {name: value for name, value in trained_file_options.items() if value is not None}
    _check_model(model, checkpoint, trained_file_options)
    _check_images(slides, options)
    from batchcls.networks.recipe import labels_from_argument  # after parsing: --help stays light

    with extra("explain", "an explanation"):
        from batchcls.explanation.explain import explain_images
        from batchcls.explanation.model import trained_file_of_engine
        from batchcls.explanation.selection import ImageSelection
        from batchcls.networks.trained_file import load_trained_file

    recipe = trained_file_options.pop("recipe", None)
    if "labels" in trained_file_options:
        trained_file_options["labels"] = labels_from_argument(trained_file_options["labels"])
    with library_noise_hidden() as console:
        if model.is_dir():
            trained = trained_file_of_engine(model, checkpoint)
        else:
            trained = load_trained_file(model, recipe, trained_file_options)
        for note in trained.notes:
            console.print(note, markup=False, highlight=False)
        selection = ImageSelection(slides, **options)
        summary = explain_images(trained, out, selection, overwrite=overwrite, console=console)
    echo(*explanation_summary(summary, out), _next_line(model, slides, selection.predictions))


def _next_line(model: Path, slides: tuple[Path, ...], predictions: Path | None) -> str:
    if predictions:
        return next_line("batchcls", "report", predictions, "--out", predictions.with_suffix(".html"))
    if model.is_dir():
        return next_line("batchcls", "run", *slides, "--engine", model, "--out", "preds.parquet")
    return next_line("batchcls", "build", model, "--out", Path("engines") / model.stem)


def _check_model(model: Path, checkpoint: Path | None, trained_file_options: Mapping[str, Any]) -> None:
    if model.is_dir() and trained_file_options:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in trained_file_options)
        raise click.UsageError(f"{str(model)!r} is an engine folder, so {names} has no effect; leave it out")
    if checkpoint and not model.is_dir():
        raise click.UsageError(f"{str(model)!r} is a trained file itself; leave out --checkpoint")


def _check_images(slides: tuple[Path, ...], options: Mapping[str, Any]) -> None:
    choices = [f"--{name}" for name in ("wrong", "uncertain") if options[name]]
    if options["split_folders"] and not options["truth"]:
        raise click.UsageError("--split-folders needs the folder whose splits it names: --truth FOLDER")
    if options["predictions"] is None:
        if not slides:
            raise click.UsageError("name images: SLIDES, or --from FILE with --wrong N or --uncertain N")
        if choices or options["truth"]:
            raise click.UsageError(f"{(choices or ['--truth'])[0]} needs predictions: --from FILE")
        return
    if slides:
        raise click.UsageError("--from names the images, and so does SLIDES; leave one out")
    if len(choices) != 1:
        raise click.UsageError("choose images from the predictions: --wrong N or --uncertain N, one of them")
    if options["wrong"] and not options["truth"]:
        raise click.UsageError("--wrong needs true labels: --truth FOLDER, or --truth labels.csv")


def explanation_summary(summary: "ExplanationSummary", out: Path) -> list[str]:
    """How many images were explained, in a line or two for the terminal."""
    flat = f", in {summary.flat:,} of which nothing stands out" if summary.flat else ""
    lines = [f"{summary.images:,} explained{flat}, {summary.unreadable:,} unreadable -> {out}"]
    if summary.left_out:
        lines.append(f"{summary.left_out:,} images were left out; --limit N takes more")
    return lines
