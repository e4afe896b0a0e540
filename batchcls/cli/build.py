"""The command ``batchcls build``."""

from pathlib import Path
from typing import Any

import click

from batchcls.cli.build_steps import build_folder, build_plan, build_plans_elsewhere, store_promise, teach_novelty
from batchcls.cli.options import OutPath, check_device
from batchcls.cli.printing import echo, next_line


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=OutPath(path_type=Path), help="Engine folder to create; required for a trained file.")
@click.option(
    "--recipe",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file of settings, such as preprocessing, labels and precision.",
)
@click.option(
    "--architecture",
    metavar="NAME",
    help="Network architecture: torchvision's name, such as googlenet, or timm/NAME.  [default: the one that the "
    "weights fit, if only one does]",
)
@click.option(
    "--labels",
    metavar="FILE|FOLDER|A,B,...",
    help="Class names, in the order of the network's outputs, or a folder that has a folder for each class.  [default: "
    "the names in the trained file]",
)
@click.option("--state-dict", metavar="KEY", help="Key of the weights in a checkpoint that holds several, such as ema.")
@click.option(
    "--precision",
    type=click.Choice(["fp16", "bf16", "fp32", "int8"]),
    help="Number format of weights and arithmetic.  [default: fp16; of an ONNX or Keras file, its own]",
)
@click.option(
    "--temperature",
    type=float,
    help="Calibration temperature, as batchcls evaluate measures it: logits are divided by it.  [default: 1]",
)
@click.option(
    "--calibrate",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of typical images on which int8 measures its value ranges; required for int8.",
)
@click.option(
    "--verify",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of images on which to compare the engine with the training framework; if they are in class folders, "
    "the accuracy is measured as well.",
)
@click.option(
    "--conformal",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="METRICS",
    help="Put the conformal thresholds of this metrics.json, which batchcls evaluate wrote of this engine's "
    "predictions, into the engine folder SOURCE: its runs then write sets of labels.",
)
@click.option(
    "--novelty-from",
    "novelty_images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of images of the kind that the network was trained for, from which the engine learns to tell how "
    "strange others look; SOURCE may be an engine folder then.",
)
@click.option("--overwrite", is_flag=True, default=None, help="Replace the engine in --out; other files there stay.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    callback=lambda context, option, device: check_device(device),
    help="GPU to make a TensorRT plan for; auto: the first GPU, if there is one; cpu: no plan.",
)
@click.option(
    "--target",
    metavar="smNN,...",
    help="Compute capabilities of GPUs elsewhere to make plans for, with TensorRT for RTX.",
)
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), default=64, show_default=True, help="Images in a batch of the plan."
)
@click.option(
    "--optimization-level",
    type=click.IntRange(0, 5),
    help="TensorRT's effort on the plan; higher levels take longer.  [default: TensorRT's own, 3]",
)
@click.option(
    "--workspace",
    type=click.IntRange(1),
    metavar="MIB",
    help="GPU memory that the plan may use as scratch space.  [default: all of it]",
)
def build(
    source: Path, out: Path | None, device: str, target: str | None, conformal: Path | None, **options: Any
) -> None:
    """Build an engine folder from a trained file, or a plan for a GPU in an engine folder.

    SOURCE is a PyTorch or safetensors state_dict, an ONNX or a Keras classifier, or a folder of Hugging Face: nothing
    in it is ever run as code. Or it is an engine folder, which is given a TensorRT plan, statistics of novelty,
    or the thresholds of an evaluation; that needs no PyTorch.
    """
    from batchcls.building.tensorrt_plan import PlanOptions, targets_without_gpu
    from batchcls.cli.progress_console import new_console  # after parsing: --help stays light

    console = new_console()
    workspace = options.pop("workspace")
    plan_options = PlanOptions(
        options.pop("batch_size"), options.pop("optimization_level"), workspace and workspace << 20
    )
    novelty_images: Path | None = options.pop("novelty_images")
    trained_file_options = {key: value for key, value in options.items() if value is not None}
    is_addition = out is None and (novelty_images or conformal) is not None
    _check_usage(source, out, device, target, trained_file_options)
    if source.is_dir() and out is None and device == "cpu" and target is None and not is_addition:
        raise click.UsageError(f"{str(source)!r} needs no plan for --device cpu; run it as it is")
    if conformal is not None and (out is not None or not source.is_dir()):
        raise click.UsageError("--conformal is for an engine that its metrics are of: build, run and evaluate it first")
    if target is not None:
        targets_without_gpu(_capabilities(target))  # refuses unknown targets before minutes are spent on the build
    if out is not None:
        build_folder(source, out, novelty_images, trained_file_options, console)
    elif novelty_images is not None:
        teach_novelty(source, novelty_images, console)
    if conformal is not None:
        store_promise(source, conformal)
    folder = out or source
    if target is not None:
        build_plans_elsewhere(folder, _capabilities(target), plan_options, console)
    elif device not in ("auto", "cpu") or not is_addition:
        build_plan(folder, device, plan_options, console, required=out is None or device != "auto")
    echo(next_line("batchcls", "run", "slides/", "--engine", folder, "--out", "preds.parquet"))


def _check_usage(
    source: Path, out: Path | None, device: str, target: str | None, trained_file_options: dict[str, Any]
) -> None:
    """Refuse options that contradict one another, and an ``out`` other than for a trained file."""
    from batchcls.engine.manifest import MANIFEST

    is_network = (source / "config.json").is_file()  # a folder of Hugging Face, say
    is_engine = source.is_dir() and ((source / MANIFEST).is_file() or (out is None and not is_network))
    if is_engine and (trained_file_options or out):
        names = ", ".join(f"--{key}".replace("_", "-") for key in [*trained_file_options, *(["out"] if out else [])])
        raise click.UsageError(f"{str(source)!r} is a folder, so {names} has no effect; name a trained file")
    if not is_engine and out is None:
        raise click.UsageError("name the engine folder to make: --out DIR")
    if target is not None and device != "auto":
        raise click.UsageError(
            f"--target is for cards that are not here, --device {device} for one that is; leave one out"
        )


def _capabilities(target: str) -> list[str]:
    """The compute capabilities that ``--target`` lists."""
    return [name.strip() for name in target.split(",")]
