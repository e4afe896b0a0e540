"""The training: labelled images become a checkpoint that `batchcls build` needs nothing else for."""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from batchcls import machine
from batchcls.checkpoint import load_network, pretrained_tensors, starting_tensors
from batchcls.curves import draw_curves
from batchcls.dataset import Dataset, Parting
from batchcls.errors import OutputError, RecipeError, TrainingError
from batchcls.networks import ARCHITECTURES, TRANSFORMING, trainable_network
from batchcls.partial import Partial
from batchcls.recipe import Recipe
from batchcls.records import METADATA_KEY
from batchcls.trainer import LAST, Course, fit
from batchcls.trial import trial

IMAGENET = "imagenet"
_HISTORY = pa.schema(
    [
        (name, pa.float64())
        for name in (
            *("epoch", "learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_f1"),
            "elapsed_s",
        )
    ]
)


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What is trained, and on which images."""

    architecture: str = "googlenet"
    weights: str = ""
    """A trained file to begin with; ``imagenet``: torchvision's; empty: from scratch."""
    recipe: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """Of the recipe; they win over the file."""
    parting: Parting = field(default_factory=Parting)
    device: str = "auto"
    overwrite: bool = False
    course: Course = field(default_factory=Course)


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it."""

    checkpoint: Path
    metrics: dict[str, Any]
    """As in the file beside the checkpoint."""


def train(data: Path, out: Path, options: TrainOptions, console: Console) -> Trained:
    """Train a network and write it to ``out``, with its history, curves, metrics and split beside it.

    Until it is whole, a folder beside ``out`` holds the last epoch, and another call with the same arguments goes on
    from there.

    Args:
        data: A folder of class folders, or a table; see `Labelled.read`.
        out: A .safetensors file.

    Raises:
        LabelsError: If the images cannot be parted as asked.
        RecipeError: If the architecture or its recipe is not one that is known.
        CheckpointError: If the weights to begin with do not fit.
        TrainingError: If it goes nowhere.
        OutputError: If ``out`` may not, or can not, be written.
    """
    if out.suffix != ".safetensors":
        raise OutputError(f"--out {str(out)!r} must end in .safetensors, the one format that can say what it is of")
    if out.exists() and not options.overwrite:
        raise OutputError(f"{str(out)!r} exists; choose another --out, or replace it with --overwrite")
    recipe = _recipe(options)
    (device,) = machine.chosen_devices(options.device, instead="train on --device cpu")
    images = Dataset.read(data, options.parting, console)
    recipe = recipe.with_values({"labels": images.labels})
    precision = _precision(options.course, device)
    identity = {
        "images": images.digest,
        "recipe": asdict(recipe),
        "weights": options.weights,
        "course": asdict(options.course),
        "precision": precision,
    }
    kept = Partial(_beside(out, "history.parquet"), _HISTORY, identity)
    with closing(kept):
        with kept.refusals():
            images.write_split(_beside(out, "split.csv"))
        return _trained(_Training(images, recipe, options, kept, device, precision, console), out)


@dataclass(frozen=True, slots=True)
class _Training:
    """What one is made of, once everything has been checked."""

    images: Dataset
    recipe: Recipe
    options: TrainOptions
    kept: Partial
    device: str
    precision: str
    console: Console


def _trained(training: _Training, out: Path) -> Trained:
    images, recipe, options, kept = training.images, training.recipe, training.options, training.kept
    transform_input = recipe.preprocess.transform_input
    network = trainable_network(recipe.architecture, len(recipe.labels), transform_input=transform_input)
    if (kept.folder / LAST).exists():
        training.console.print(f"going on with {kept.folder}", highlight=False)
    else:
        training.console.print(_begin(network, recipe, options), highlight=False)
    fitted = fit(
        network,
        (images.parts["train"], images.parts["val"]),
        recipe.preprocess,
        options.course,
        kept.folder,
        classes=len(recipe.labels),
        device=training.device,
        precision=training.precision,
        console=training.console,
        told=_Teller(kept, options.course.epochs, training.console),
    )
    history = _history(kept)
    network.load_state_dict(fitted.weights)
    part = "test" if images.parts["test"].files else "val"
    training.console.print(f"answering the {part} images, as they are and in other colours", highlight=False)
    found = trial(network, images.parts["train"], images.parts[part], recipe.preprocess, training.device)
    metrics = {
        "parts": {name: len(examples.files) for name, examples in images.parts.items()},
        "epochs": len(history),
        "kept_epoch": fitted.epoch + 1,
        "training_s": round(sum(history["elapsed_s"].to_pylist()), 1),
        "precision": fitted.precision,
        "device": training.device,
        part: found,
    }
    _write(out, fitted.weights, _about(training, metrics), history, kept)
    return Trained(out, metrics)


def _about(training: _Training, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of itself: the recipe of its engine, and how it came to be."""
    recipe, options = training.recipe, training.options
    return {
        "recipe": {**asdict(recipe.preprocess), "architecture": recipe.architecture, "labels": recipe.labels},
        "training": {
            "images": training.images.digest,
            "weights": options.weights or "from scratch",
            "parting": asdict(options.parting),
            "course": asdict(options.course),
            "metrics": metrics,
            "versions": machine.versions(),
            "started": training.kept.started,
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def _recipe(options: TrainOptions) -> Recipe:
    if options.architecture not in ARCHITECTURES:
        raise RecipeError(f"architecture {options.architecture!r} is not known; known are {', '.join(ARCHITECTURES)}")
    # torchvision's own weights of these two expect it, see `Preprocess.transform_input`.
    found = {"transform_input": options.weights == IMAGENET and options.architecture in TRANSFORMING}
    return Recipe.compose(options.recipe, {**options.values, "architecture": options.architecture}, found)


def _precision(course: Course, device: str) -> str:
    """bfloat16 where the hardware has it: emulated, it is slower than float32."""
    if course.precision != "auto":
        return course.precision
    if device != "cpu":
        return "bf16"
    return "bf16" if {"avx512_bf16", "amx_bf16"} & set(machine.cpu_features()) else "fp32"


def _begin(network: nn.Module, recipe: Recipe, options: TrainOptions) -> str:
    """Put the weights to begin with into ``network``, and say which."""
    if not options.weights:
        return f"{recipe.architecture} from scratch"
    if options.weights == IMAGENET:
        tensors, classes = pretrained_tensors(recipe.architecture), 0
    else:
        tensors, classes = starting_tensors(Path(options.weights), recipe.architecture)
    own = network.state_dict()
    taken = {name: value for name, value in tensors.items() if name in own and own[name].shape == value.shape}
    network.load_state_dict(taken, strict=False)
    head = "" if classes == len(recipe.labels) else ", but for the last layer"
    return f"{recipe.architecture} from {options.weights}{head}: {len(taken):,} of {len(own):,} tensors"


class _Teller:
    """Keeps each epoch, and says how it went."""

    def __init__(self, kept: Partial, epochs: int, console: Console) -> None:
        self._kept, self._epochs, self._console = kept, epochs, console
        self._since = perf_counter()

    def __call__(self, values: dict[str, float]) -> None:
        now = perf_counter()
        row = {**values, "elapsed_s": now - self._since}
        self._since = now
        self._kept.append([pa.RecordBatch.from_pylist([row], _HISTORY)])
        self._console.print(
            f"epoch {row['epoch'] + 1:.0f} of {self._epochs}: loss {row['train_loss']:.4f}, validation loss "
            f"{row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}, macro F1 {row['val_f1']:.4f}, "
            f"{row['elapsed_s']:.0f} s",
            highlight=False,
        )


def _history(kept: Partial) -> pa.Table:
    """An epoch a row; one that a kill undid stands there once, as it was done again."""
    rows = {row["epoch"]: row for row in kept.table().to_pylist()}
    if not rows:
        raise TrainingError("no epoch was trained; --epochs must be at least 1")
    return pa.Table.from_pylist([rows[epoch] for epoch in sorted(rows)], _HISTORY)


def _write(
    out: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any], history: pa.Table, kept: Partial
) -> None:
    """Everything whole, the checkpoint last: where it stands, the rest does."""
    with kept.refusals():
        pq.write_table(history.replace_schema_metadata({METADATA_KEY: json.dumps(about)}), kept.whole)
        draw_curves(history, kept.folder / "curves.png")
        (kept.folder / "metrics.json").write_text(json.dumps(about["training"], indent=2) + "\n", encoding="utf-8")
        checkpoint = kept.folder / "model.safetensors"
        tensors = {name: value.contiguous() for name, value in weights.items()}
        save_file(tensors, checkpoint, {METADATA_KEY.decode(): json.dumps(about)})
        load_network(checkpoint, about["recipe"]["architecture"])  # what cannot be read back is not worth keeping
        (kept.folder / "curves.png").replace(_beside(out, "curves.png"))
        (kept.folder / "metrics.json").replace(_beside(out, "metrics.json"))
        checkpoint.replace(out)
    kept.finish()


def _beside(out: Path, ending: str) -> Path:
    return out.with_name(f"{out.stem}.{ending}")
