"""The command ``batchcls train``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchcls.cli.libraries import extra
from batchcls.cli.options import SPLIT_FOLDERS, FiniteRange, OutPath, check_device
from batchcls.cli.printing import echo, next_line

if TYPE_CHECKING:
    from batchcls.training.options import TrainOptions
    from batchcls.training.train import TrainResult


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    type=OutPath(dir_okay=False, path_type=Path),
    required=True,
    help="Checkpoint to write, a .safetensors file; its history, curves, metrics and split are written beside it.",
)
@click.option(
    "--architecture",
    metavar="NAME",
    help="Network to train: torchvision's name, such as resnet18, or timm/NAME; cnn is a small one. Of an unknown NAME "
    "the nearest are listed.  [default: the recipe's, or googlenet]",
)
@click.option(
    "--weights",
    "initial_weights",
    default="",
    metavar="FILE|imagenet",
    callback=lambda context, option, weights: _check_weights(weights),
    help="Weights to begin with: a trained file of the same architecture, or imagenet for those of torchvision or "
    "timm, which are downloaded once.  [default: random weights]",
)
@click.option(
    "--recipe",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file with the architecture, image size and normalization, as for build.",
)
@click.option(
    "--split",
    "strategy",
    type=click.Choice(["random", "blocks"]),
    default="random",
    show_default=True,
    help="How images are split where DATA does not say it. blocks: in each class, by the numbers in the file names, "
    "the first images validate and the last ones test.",
)
@SPLIT_FOLDERS
@click.option(
    "--val",
    type=float,
    default=0.1,
    show_default=True,
    help="Validation fraction: images that decide which epoch is kept.",
)
@click.option(
    "--test",
    type=float,
    default=0.2,
    show_default=True,
    help="Test fraction: images that only the finished network is measured with. 0: no test.",
)
@click.option(
    "--group-by",
    default="",
    metavar="COLUMN|PATTERN",
    help="Column of the table DATA, or regular expression on paths, that tells which images belong together, such as "
    "those of one patient: they stay in one split.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1, 10_000),
    default=40,
    show_default=True,
    help="Largest number of passes over the training images.",
)
@click.option(
    "--patience",
    type=click.IntRange(1),
    default=15,
    show_default=True,
    help="Epochs without a better macro F1 of the validation images, after which training ends.",
)
@click.option(
    "--batch-size", type=click.IntRange(2, 4096), default=32, show_default=True, help="Images per optimizer step."
)
@click.option(
    "--learning-rate",
    type=FiniteRange(0, min_open=True),
    help="Highest learning rate of the Adam optimizer.  [default: 0.001; 0.0001 for networks without batch "
    "normalization]",
)
@click.option(
    "--weight-decay",
    type=FiniteRange(0),
    default=1e-4,
    show_default=True,
    help="L2 penalty of the Adam optimizer.",
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "plateau"]),
    default="cosine",
    show_default=True,
    help="How the learning rate falls: along a cosine over all epochs, or whenever the macro F1 of the validation "
    "images stops rising.",
)
@click.option(
    "--balance",
    type=click.Choice(["none", "weights", "sampling"]),
    default="none",
    show_default=True,
    help="Let images of rare classes weigh more in the loss (weights), or be drawn more often (sampling).",
)
@click.option("--flips/--no-flips", default=True, show_default=True, help="Mirror training images at random.")
@click.option(
    "--turns/--no-turns", default=True, show_default=True, help="Turn training images by right angles at random."
)
@click.option(
    "--stain",
    type=FiniteRange(0, 5),
    default=1.0,
    show_default=True,
    help="Strength of random changes of brightness, contrast, saturation and hue of training images. 0: none.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "bf16", "fp32"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the training: bfloat16 mixed with float32, or float32 alone; auto: bf16 where the device has "
    "it.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of the random split, the initial weights, and the order and augmentations of images.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    callback=lambda context, option, device: check_device(device),
    help="Device to train on; auto: the first GPU, or else the CPU.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing checkpoint, once the new one is whole.")
def train(data: Path, out: Path, **options: Any) -> None:
    """Train a network on labeled images; build makes an engine from its checkpoint.

    DATA is a folder with a folder of images for each class, or a CSV or Parquet file with the columns path and label,
    and optionally group and split. Stop the training whenever you like: the same command goes on after the last
    epoch.
    """
    from batchcls.cli.progress_console import common_console  # after parsing: --help stays light

    with extra("train", "training"):
        from batchcls.training.train import train_network

    result = train_network(data, out, _train_options(options), common_console())
    for warning in training_warnings(result):
        echo(f"warning: {warning}", err=True)
    echo(*training_summary(result))


def _train_options(values: dict[str, Any]) -> "TrainOptions":
    """The training's options from ``values`` by parameter name, from which some are removed."""
    from batchcls.training.options import SplitFractions, SplitOptions, TrainingConfig, TrainOptions

    fractions = SplitFractions(values.pop("val"), values.pop("test"))
    names = ("strategy", "group_by", "split_folders")
    split = SplitOptions(fractions=fractions, seed=values["seed"], **{name: values.pop(name) for name in names})
    general = {name: values.pop(name) for name in ("initial_weights", "recipe", "device", "overwrite")}
    architecture = values.pop("architecture")
    recipe_values = {"architecture": architecture} if architecture else {}
    config = TrainingConfig(**{name: value for name, value in values.items() if value is not None})
    return TrainOptions(recipe_values=recipe_values, split=split, config=config, **general)


def _check_weights(weights: str) -> str:
    if weights not in ("", "imagenet") and not os.path.isfile(weights):
        raise click.BadParameter(f"there is no file {weights!r}; name one, or imagenet")
    return weights


def training_warnings(result: "TrainResult") -> list[str]:
    """At most one warning, that colors alone tell the classes better than the network does."""
    figures = result.metrics["test" if "test" in result.metrics else "val"]
    baseline, accuracy = figures["colour_histogram_nearest_neighbour"], figures["in_other_colours"]["accuracy"]["none"]
    if accuracy >= baseline:
        return []
    return [
        f"the network is right on {accuracy:.2%} of the held-out images, and the nearest neighbor in color alone on "
        f"{baseline:.2%}: it has learned less than the colors tell; train for more --epochs, begin with --weights "
        "imagenet, or see whether the labels are right"
    ]


def training_summary(result: "TrainResult") -> list[str]:
    """Lines on a finished training: its checkpoint, images and accuracy, and the command to run next."""
    metrics, checkpoint = result.metrics, result.checkpoint
    split = "test" if "test" in metrics else "val"
    figures = metrics[split]
    low, high = figures["accuracy_95"]
    accuracy_by_change = {
        name: value for name, value in figures["in_other_colours"]["accuracy"].items() if name != "none"
    }
    worst = min(accuracy_by_change, key=lambda name: accuracy_by_change[name])
    counts = ", ".join(f"{name} {count:,}" for name, count in metrics["parts"].items())
    absent = ", ".join(metrics["classes_without_images"])
    return [
        f"{checkpoint}, after epoch {metrics['kept_epoch']} of {metrics['epochs']}",
        f"images    {counts}",
        f"accuracy  {figures['accuracy']:.4f} ({low:.4f} to {high:.4f}) on {split}; macro F1 {figures['macro_f1']:.4f}",
        *([f"          of the classes with images: none is of {absent}"] if absent else []),
        f"baseline  {figures['colour_histogram_nearest_neighbour']:.4f} by the nearest neighbor in color alone",
        f"stain     {accuracy_by_change[worst]:.4f} where it hurts most, {worst}",
        next_line("batchcls", "build", checkpoint, "--out", f"engines/{checkpoint.stem}"),
    ]
