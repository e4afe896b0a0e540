"""``batchcls train``."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchcls.cli.environment import extra
from batchcls.cli.finite import FiniteRange
from batchcls.cli.labelled_folders import SPLIT_FOLDERS
from batchcls.cli.options import known_device
from batchcls.cli.out_path import OutPath
from batchcls.cli.terminal import echo

if TYPE_CHECKING:
    from batchcls.training.train import Trained


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=OutPath(dir_okay=False, path_type=Path), required=True, help="A .safetensors file.")
@click.option("--architecture", help="One that build knows; cnn: a small one.  [default: the recipe's, or googlenet]")
@click.option(
    "--weights",
    default="",
    metavar="FILE|imagenet",
    callback=lambda context, option, weights: _known_weights(weights),
    help="To begin with.  [default: from scratch]",
)
@click.option(
    "--recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A TOML file, as for build."
)
@click.option(
    "--split",
    "way",
    type=click.Choice(["random", "blocks"]),
    default="random",
    show_default=True,
    help="Where DATA does not part them. blocks: by file number in each class.",
)
@SPLIT_FOLDERS
@click.option("--val", type=float, default=0.1, show_default=True, help="Share that validates.")
@click.option("--test", type=float, default=0.2, show_default=True, help="Share that is kept for the end; may be 0.")
@click.option("--group-by", default="", metavar="COLUMN|PATTERN", help="What stays together, such as a patient.")
@click.option("--epochs", type=click.IntRange(1, 10_000), default=40, show_default=True, help="At most.")
@click.option("--patience", type=click.IntRange(1), default=15, show_default=True, help="Epochs without a better one.")
@click.option("--batch-size", type=click.IntRange(2, 4096), default=32, show_default=True, help="Images a step.")
@click.option(
    "--learning-rate",
    type=FiniteRange(0, min_open=True),
    help="Adam's.  [default: 0.001; 0.0001 for networks without batch normalisation]",
)
@click.option("--weight-decay", type=FiniteRange(0), default=1e-4, show_default=True, help="Adam's.")
@click.option("--schedule", type=click.Choice(["cosine", "plateau"]), default="cosine", show_default=True)
@click.option(
    "--balance",
    type=click.Choice(["none", "weights", "sampling"]),
    default="none",
    show_default=True,
    help="Rare classes count more in the loss, or are drawn more often.",
)
@click.option("--flips/--no-flips", default=True, show_default=True, help="Mirror images at random.")
@click.option("--turns/--no-turns", default=True, show_default=True, help="Turn images by right angles at random.")
@click.option("--stain", type=FiniteRange(0, 5), default=1.0, show_default=True, help="Strength of colour jitter.")
@click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the split and of the training."
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    callback=lambda context, option, device: known_device(device),
    help="Where to train.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing checkpoint, once the new one is whole.")
def train(data: Path, out: Path, **options: Any) -> None:
    """Train a network on labelled images, for build.

    DATA is a folder with a folder of images for each class, or a CSV or Parquet file with the columns path and label,
    and group and split if they are known. Stop it whenever you like: the same command goes on after the last epoch.
    """
    from batchcls.cli.console import common_console  # after parsing: --help stays light

    with extra("train", "training"):
        from batchcls.training.dataset import SplitOptions
        from batchcls.training.module import TrainingConfig
        from batchcls.training.splits import SplitFractions
        from batchcls.training.train import TrainOptions, train_network

    parting = SplitOptions(
        options.pop("way"),
        SplitFractions(options.pop("val"), options.pop("test")),
        options.pop("group_by"),
        options["seed"],
        options.pop("split_folders"),
    )
    whole = {name: options.pop(name) for name in ("weights", "recipe", "device", "overwrite")}
    architecture = options.pop("architecture")
    values = {"architecture": architecture} if architecture else {}
    course = TrainingConfig(**{name: value for name, value in options.items() if value is not None})
    chosen = TrainOptions(values=values, parting=parting, course=course, **whole)
    trained = train_network(data, out, chosen, common_console())
    echo(*summary(trained))


def _known_weights(weights: str) -> str:
    if weights not in ("", "imagenet") and not os.path.isfile(weights):
        raise click.BadParameter(f"there is no file {weights!r}; name one, or imagenet")
    return weights


def summary(trained: "Trained") -> list[str]:
    """What came of a training, in a few lines."""
    metrics = trained.metrics
    part = "test" if "test" in metrics else "val"
    found = metrics[part]
    low, high = found["accuracy_95"]
    stained = {name: value for name, value in found["in_other_colours"]["accuracy"].items() if name != "none"}
    worst = min(stained, key=lambda name: stained[name])
    parts = ", ".join(f"{name} {count:,}" for name, count in metrics["parts"].items())
    absent = ", ".join(metrics["classes_without_images"])
    build = ["batchcls", "build", str(trained.checkpoint), "--out", f"engines/{trained.checkpoint.stem}"]
    return [
        f"{trained.checkpoint}, after epoch {metrics['kept_epoch']} of {metrics['epochs']}",
        f"images    {parts}",
        f"accuracy  {found['accuracy']:.4f} ({low:.4f} to {high:.4f}) on {part}; macro F1 {found['macro_f1']:.4f}",
        *([f"          of the classes with images: none is of {absent}"] if absent else []),
        f"baseline  {found['colour_histogram_nearest_neighbour']:.4f} by the nearest neighbour in colour alone",
        f"stain     {stained[worst]:.4f} where it hurts most, {worst}",
        f"next      {shlex.join(build)}",
    ]
