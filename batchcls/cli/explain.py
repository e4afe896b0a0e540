"""``batchcls explain``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchcls.cli.environment import extra
from batchcls.cli.labelled_folders import SPLIT_FOLDERS
from batchcls.cli.out_path import OutPath
from batchcls.cli.run import library_noise_hidden
from batchcls.cli.terminal import echo

if TYPE_CHECKING:
    from batchcls.explanation.explain import Explained


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("slides", type=click.Path(exists=True, path_type=Path), nargs=-1)
@click.option("--out", type=OutPath(file_okay=False, path_type=Path), required=True, help="The folder of overlays.")
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The trained file that the engine MODEL was built from.  [default: one of its name, in MODEL or beside it]",
)
@click.option("--recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A TOML file.")
@click.option("--architecture", help="Default: the one that the weights fit.")
@click.option("--labels", metavar="FILE|A,B,...", help="In the order of the network's outputs.")
@click.option("--weights", metavar="KEY", help="Which of a checkpoint that holds several, such as ema.")
@click.option("--class", "label", metavar="LABEL", help="What to look for.  [default: each image's predicted label]")
@click.option(
    "--from",
    "predictions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `batchcls run` wrote, to choose images from, instead of SLIDES.",
)
@click.option("--wrong", type=click.IntRange(1), metavar="N", help="Of --from: the N most confident wrong ones.")
@click.option("--uncertain", type=click.IntRange(1), metavar="N", help="Of --from: the N least confident ones.")
@click.option(
    "--truth",
    type=click.Path(exists=True, path_type=Path),
    help="A folder with a folder of images for each class; or a CSV or Parquet file with the columns path and label.",
)
@SPLIT_FOLDERS
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="The most of SLIDES; of more, so many are taken evenly.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier explanation in --out; other files there stay.")
def explain(
    model: Path,
    slides: tuple[Path, ...],
    out: Path,
    checkpoint: Path | None,
    recipe: Path | None,
    architecture: str | None,
    labels: str | None,
    weights: str | None,
    overwrite: bool,
    **asked: Any,
) -> None:
    """Show where in images a network sees what it says, by Grad-CAM.

    MODEL is a trained file, as for build, or an engine folder, whose trained file must be at hand. SLIDES are folders
    and files; or choose images by what was predicted, with --from.
    """
    given: dict[str, Any] = {"architecture": architecture, "labels": labels, "weights": weights}
    given = {key: value for key, value in given.items() if value is not None}
    _check_model(model, checkpoint, [*(["recipe"] if recipe else []), *given])
    _check_images(slides, asked)
    from batchcls.networks.recipe import labels_of  # after parsing: --help stays light

    with extra("explain", "an explanation"):
        from batchcls.explanation.explain import explain_images
        from batchcls.explanation.model import trained_file_of_engine
        from batchcls.explanation.selection import ImageSelection
        from batchcls.networks.trained import trained_file

    if "labels" in given:
        given["labels"] = labels_of(given["labels"])
    with library_noise_hidden() as console:
        loaded = trained_file_of_engine(model, checkpoint) if model.is_dir() else trained_file(model, recipe, given)
        for note in loaded.notes:
            console.print(note, markup=False, highlight=False)
        explained = explain_images(loaded, out, ImageSelection(slides, **asked), overwrite=overwrite, console=console)
    echo(*summary(explained, out))


def _check_model(model: Path, checkpoint: Path | None, given: list[str]) -> None:
    if model.is_dir() and given:
        names = ", ".join(f"--{key}" for key in given)
        raise click.UsageError(f"{str(model)!r} is an engine folder, so {names} says nothing; leave it out")
    if checkpoint and not model.is_dir():
        raise click.UsageError(f"{str(model)!r} is a trained file itself; leave out --checkpoint")


def _check_images(slides: tuple[Path, ...], asked: dict[str, Any]) -> None:
    ways = [f"--{key}" for key in ("wrong", "uncertain") if asked[key]]
    if asked["split_folders"] and not asked["truth"]:
        raise click.UsageError("--split-folders is of the folder of --truth; leave it out")
    if asked["predictions"] is None:
        if not slides:
            raise click.UsageError("name images: SLIDES, or --from FILE with --wrong N or --uncertain N")
        if ways or asked["truth"]:
            raise click.UsageError(f"{(ways or ['--truth'])[0]} needs predictions: --from FILE")
        return
    if slides:
        raise click.UsageError("--from names the images, and so does SLIDES; leave one out")
    if len(ways) != 1:
        raise click.UsageError("choose images from the predictions: --wrong N or --uncertain N, one of them")
    if asked["wrong"] and not asked["truth"]:
        raise click.UsageError("--wrong needs to know what is right: --truth FOLDER, or --truth labels.csv")


def summary(explained: "Explained", out: Path) -> list[str]:
    """What was done, in a line or two."""
    flat = f", in {explained.flat:,} of which nothing stands out" if explained.flat else ""
    lines = [f"{explained.images:,} explained{flat}, {explained.unreadable:,} unreadable -> {out}"]
    if explained.left_out:
        lines.append(f"{explained.left_out:,} images were left out; --limit N takes more")
    return lines
