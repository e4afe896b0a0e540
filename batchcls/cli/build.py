"""``batchcls build``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchcls.errors import EngineError

if TYPE_CHECKING:
    from batchcls.manifest import Manifest


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The engine folder.")
@click.option("--recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A TOML file.")
@click.option("--architecture", help="Default: the one that the weights fit.")
@click.option("--labels", metavar="FILE|A,B,...", help="In the order of the network's outputs.")
@click.option("--precision", type=click.Choice(["fp16", "fp32"]), help="Default: fp16; an ONNX file keeps its own.")
@click.option(
    "--verify",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of images: measure how far the engine agrees with the training framework.",
)
def build(
    checkpoint: Path,
    out: Path,
    recipe: Path | None,
    architecture: str | None,
    labels: str | None,
    precision: str | None,
    verify: Path | None,
) -> None:
    """Build an engine folder from a trained CHECKPOINT.

    CHECKPOINT is a PyTorch or safetensors state_dict, or an ONNX classifier. Nothing in it is ever run as code.
    """
    if checkpoint.is_dir():
        raise EngineError(
            f"{str(checkpoint)!r} is a folder; name a trained file (this version builds no plans for GPUs)"
        )
    from rich.console import Console

    from batchcls.build import build as build_engine  # after parsing: --help stays light
    from batchcls.recipe import labels_of

    values = {"architecture": architecture, "labels": labels and labels_of(labels), "precision": precision}
    given = {key: value for key, value in values.items() if value is not None}
    console = Console(stderr=True, soft_wrap=True)
    manifest = build_engine(checkpoint, out, recipe=recipe, values=given, images=verify, console=console)
    click.echo(f"{manifest.architecture} {manifest.precision} with {len(manifest.labels)} classes -> {out}")
    click.echo(agreement(manifest))


def agreement(manifest: "Manifest") -> str:
    """One line on how an engine was verified."""
    found = manifest.verification
    if found is None:
        return "never verified on images; build it with --verify FOLDER"
    differing = f", differing: {', '.join(found.disagreements[:10])}" if found.disagreements else ""
    unreadable = f", {found.unreadable:,} unreadable" if found.unreadable else ""
    return (
        f"verified on {found.images:,} images{unreadable}: top-1 agreement {found.top1_agreement:.4%}, "
        f"probabilities differ by {found.largest_difference:.4f} at most, {found.mean_difference:.6f} on average"
        f"{differing}"
    )
