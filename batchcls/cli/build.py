"""``batchcls build``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchcls.cli.environment import extra
from batchcls.cli.options import known_device
from batchcls.cli.out_path import OutPath
from batchcls.cli.terminal import echo
from batchcls.errors import EngineError

if TYPE_CHECKING:
    from rich.console import Console

    from batchcls.building.tensorrt_plan import PlanOptions
    from batchcls.engine.manifest import Manifest
    from batchcls.engine.sidecar import Sidecar


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=OutPath(path_type=Path), help="The engine folder to make from a trained file.")
@click.option("--recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A TOML file.")
@click.option("--architecture", help="Default: the one that the weights fit.")
@click.option("--labels", metavar="FILE|A,B,...", help="In the order of the network's outputs.")
@click.option("--weights", metavar="KEY", help="Which of a checkpoint that holds several, such as ema.")
@click.option(
    "--precision",
    type=click.Choice(["fp16", "bf16", "fp32", "int8"]),
    help="Default: fp16; an ONNX file keeps its own.",
)
@click.option("--temperature", type=float, help="That evaluate found; logits are divided by it.  [default: 1]")
@click.option(
    "--calibrate",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of typical images, which int8 needs.",
)
@click.option(
    "--verify",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of images: measure how far the engine agrees with the training framework.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    callback=lambda context, option, device: known_device(device),
    help="The GPU to make a plan for; auto: the first, if there is one; cpu: none.",
)
@click.option("--target", metavar="smNN,...", help="Make plans for cards that are not here, with TensorRT for RTX.")
@click.option("--batch-size", type=click.IntRange(1, 4096), default=64, show_default=True, help="Of the plan.")
@click.option("--optimization-level", type=click.IntRange(0, 5), help="Of the plan.  [default: TensorRT's own, 3]")
@click.option("--workspace", type=click.IntRange(1), metavar="MIB", help="Of the plan.  [default: all GPU memory]")
def build(
    source: Path,
    out: Path | None,
    device: str,
    target: str | None,
    batch_size: int,
    optimization_level: int | None,
    workspace: int | None,
    **trained: Any,
) -> None:
    """Build an engine folder from a trained file, or a plan for a GPU in an engine folder.

    SOURCE is a PyTorch or safetensors state_dict, or an ONNX classifier: nothing in it is ever run as code. Or it is
    an engine folder, which is given a TensorRT plan; that needs no PyTorch.
    """
    from batchcls.building.tensorrt_plan import PlanOptions, targets_without_gpu
    from batchcls.cli.console import console as new_console  # after parsing: --help stays light

    console = new_console()
    options = PlanOptions(batch_size, optimization_level, workspace and workspace << 20)
    given = {key: value for key, value in trained.items() if value is not None}
    folder = source if source.is_dir() else out
    _check_usage(source, out, device, target, given)
    assert folder is not None  # noqa: S101  # for mypy: usage is checked
    if target is not None:
        targets_without_gpu(_names(target))  # before minutes are spent on the rest
    if not source.is_dir():
        _build_folder(source, folder, given, console)
    _fit(folder, device, target, options, console, asked=source.is_dir())


def _check_usage(source: Path, out: Path | None, device: str, target: str | None, given: dict[str, Any]) -> None:
    if source.is_dir() and (given or out):
        names = ", ".join(f"--{key}" for key in [*given, *(["out"] if out else [])])
        raise click.UsageError(f"{str(source)!r} is a folder, so {names} says nothing; name a trained file")
    if source.is_dir() and device == "cpu" and target is None:
        raise click.UsageError(f"{str(source)!r} needs no plan for --device cpu; run it as it is")
    if not source.is_dir() and out is None:
        raise click.UsageError("name the engine folder to make: --out DIR")
    if target is not None and device != "auto":
        raise click.UsageError(f"--target is for cards that are not here, --device {device} for one that is; name one")


def _build_folder(source: Path, out: Path, given: dict[str, Any], console: "Console") -> None:
    from batchcls.networks.recipe import labels_of

    with extra("build", "building a trained file"):
        from batchcls.building.build import build_engine

    if "labels" in given:
        given["labels"] = labels_of(given["labels"])
    files = {key: given.pop(key, None) for key in ("recipe", "calibrate", "verify")}
    manifest = build_engine(
        source,
        out,
        recipe=files["recipe"],
        values=given,
        calibrate=files["calibrate"],
        images=files["verify"],
        console=console,
    )
    if warning := unread(manifest):
        echo(warning)
    echo(f"{manifest.architecture} {manifest.precision} with {len(manifest.labels)} classes -> {out}")
    echo(agreement(manifest))


def _fit(
    folder: Path, device: str, target: str | None, options: "PlanOptions", console: "Console", *, asked: bool
) -> None:
    """Make plans: for ``target``, or for ``device``, or for what is here if that was not asked for."""
    from batchcls import machine
    from batchcls.building.plans import build_plan_here, build_plans_for
    from batchcls.engine.backends import tensorrt_api

    if target is not None:
        made = build_plans_for(folder, _names(target), options, console)
    else:
        asked = asked or device != "auto"
        (chosen,) = machine.chosen_devices(
            "cuda" if asked and device == "auto" else device, instead="make plans for cards elsewhere with --target"
        )
        if chosen == "cpu":
            return
        if not asked:
            try:
                tensorrt_api.module_for(machine.gpu(chosen).sm)
            except EngineError as error:
                console.print(f"no plan for the GPU was made: {error}", highlight=False)
                return
        made = [build_plan_here(folder, chosen, options, console)]
    for sidecar in made:
        echo(plan(sidecar))


def _names(target: str) -> list[str]:
    return [name.strip() for name in target.split(",")]


def plan(sidecar: "Sidecar") -> str:
    """One line on a plan."""
    made, found = sidecar.target, sidecar.check
    checked = (
        f"on {found.probes} probes top-1 agreement {found.top1_agreement:.4f}, probabilities differ by "
        f"{found.largest_difference:.4f} at most"
        if found
        else "never run: its GPU is not here"
    )
    return (
        f"plan for {made.gpu or 'any card'} ({made.sm}), {made.module} {made.version}, {sidecar.precision}, "
        f"batches of {sidecar.batch_size}: {checked}"
    )


def unread(manifest: "Manifest") -> str:
    """What is to be known first of a verification that could not read most of its images; empty of any other."""
    found = manifest.verification
    if found is None or found.unreadable <= found.images:
        return ""
    return (
        f"{found.unreadable:,} of {found.images + found.unreadable:,} images below {found.folder!r} could not be read, "
        "so the rest says little of them; see why with batchcls run"
    )


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
