"""The training: labelled images become a checkpoint that `batchcls build` needs nothing else for."""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from safetensors.torch import save
from torch import Tensor, nn

from batchcls import machine
from batchcls.interrupts import Interrupt
from batchcls.networks.checkpoint import load_network
from batchcls.networks.recipe import Recipe
from batchcls.records import METADATA_KEY
from batchcls.storage.resumable import ResumableOutput
from batchcls.training.checkpoints import DONE, LAST, best_epoch
from batchcls.training.curves import draw_curves
from batchcls.training.dataset import SplitDataset, SplitOptions
from batchcls.training.held_out import held_out_metrics
from batchcls.training.history import EPOCHS, Teller, history_of
from batchcls.training.module import TrainingConfig
from batchcls.training.output_files import ENDINGS, beside, check_out, done_before, others_of
from batchcls.training.setup import (
    arithmetic,
    fresh_network,
    load_initial_weights,
    ordered_labels,
    starting_recipe,
    suited_rate,
)
from batchcls.training.trainer import interruptions, seed_everything, train_epochs


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What is trained, and on which images."""

    weights: str = ""
    """A trained file to begin with; ``imagenet``: torchvision's; empty: from scratch."""
    recipe: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """Of the recipe; they win over the file. Without an architecture in either, it is GoogLeNet."""
    parting: SplitOptions = field(default_factory=SplitOptions)
    device: str = "auto"
    overwrite: bool = False
    course: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it."""

    checkpoint: Path
    metrics: dict[str, Any]
    """As in the file beside the checkpoint."""


def train_network(data: Path, out: Path, options: TrainOptions, console: Console) -> Trained:
    """Train a network and write it to ``out``, with its history, curves, metrics and split beside it.

    Until it is whole, a folder beside ``out`` holds the last epoch, and another call with the same arguments goes on
    from there.

    Args:
        data: A folder of class folders, or a table; see `LabeledImages.read`.
        out: A .safetensors file.

    Raises:
        LabelsError: If the images cannot be parted as asked.
        RecipeError: If the architecture or its recipe is not one that is known.
        CheckpointError: If the weights to begin with do not fit.
        TrainingError: If it goes nowhere.
        OutputError: If ``out`` may not, or can not, be written.
    """
    check_out(out, data, options.overwrite)
    recipe = starting_recipe(options.recipe, options.values, options.weights)
    (device,) = machine.chosen_devices(options.device, instead="train on --device cpu")
    course = replace(options.course, precision=arithmetic(options.course.precision, device))
    images = SplitDataset.read(data, options.parting, console)
    recipe = recipe.with_values({"labels": ordered_labels(recipe.labels, images.labels)})
    seed_everything(options.course.seed)
    network = fresh_network(recipe)
    course = replace(course, learning_rate=course.learning_rate or suited_rate(network))
    begun = load_initial_weights(network, recipe, options.weights, images.digest)
    identity = {
        "images": images.digest,
        "parting": asdict(options.parting),
        "recipe": asdict(recipe),
        "weights": options.weights,
        "course": asdict(course),
    }
    if not options.overwrite and (metrics := done_before(out, identity)) is not None:
        console.print(f"{out} is whole already: every epoch is done", markup=False, highlight=False)
        return Trained(out, metrics)
    kept = ResumableOutput(beside(out, "history.parquet"), EPOCHS, identity, others=others_of(out))
    with closing(kept):
        going_on = (kept.folder / LAST).exists()
        console.print(f"going on with {kept.folder}" if going_on else begun, markup=False, highlight=False)
        training = _Training(images, recipe, replace(options, course=course), kept, device, console)
        try:
            return _trained(training, network, out)
        except BaseException:  # whatever ended it, what mends that may well be another option
            if not (kept.folder / LAST).exists():
                kept.discard()  # nothing is lost
            raise


@dataclass(frozen=True, slots=True)
class _Training:
    """What one is made of, once everything has been checked."""

    images: SplitDataset
    recipe: Recipe
    options: TrainOptions
    kept: ResumableOutput
    device: str
    console: Console


def _trained(training: _Training, network: nn.Module, out: Path) -> Trained:
    images, recipe, kept = training.images, training.recipe, training.kept
    part = "test" if images.parts["test"].files else "val"
    known, unseen = images.parts["train"], images.parts[part]
    with interruptions(kept.folder, training.console) as stop:
        _fit(training, network, stop)
        history = history_of(kept)
        weights, epoch = best_epoch(kept.folder)
        network.load_state_dict(weights)
        training.console.print(f"answering the {part} images, as they are and in other colours", highlight=False)
        found = held_out_metrics(network, known, unseen, recipe.preprocess, training.device, stop)
    metrics = {
        "parts": {name: len(examples.files) for name, examples in images.parts.items()},
        "epochs": len(history),
        "kept_epoch": epoch + 1,
        "training_s": round(sum(history["elapsed_s"].to_pylist()), 1),
        "device": training.device,
        "classes_without_images": [
            label for label, row in zip(recipe.labels, found["confusion"], strict=True) if not any(row)
        ],
        part: found,
    }
    _write(training, out, weights, _about(training, metrics), history)
    return Trained(out, metrics)


def _fit(training: _Training, network: nn.Module, stop: Interrupt) -> None:
    """All epochs, unless they are done already."""
    images, options, folder = training.images, training.options, training.kept.folder
    if (folder / DONE).exists():
        return
    # Going on, another order and other augmentations than those of the first epochs.
    seed_everything((options.course.seed + training.kept.table().num_rows) % 2**32)
    with training.kept.refusals():
        train_epochs(
            network,
            (images.parts["train"], images.parts["val"]),
            training.recipe.preprocess,
            options.course,
            folder,
            stop,
            device=training.device,
            console=training.console,
            told=Teller(training.kept, options.course.epochs, training.console),
        )
        training.kept.own.mark(DONE)


def _about(training: _Training, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of itself: the recipe of its engine, and how it came to be."""
    recipe, options = training.recipe, training.options
    return {
        "recipe": {
            **asdict(recipe.preprocess),
            **{key: getattr(recipe, key) for key in ("architecture", "labels", "precision", "temperature")},
        },
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


def _write(
    training: _Training, out: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any], history: pa.Table
) -> None:
    """Everything whole; the history last, with which the folder of what is not done yet goes."""
    kept, recipe = training.kept, training.recipe
    metadata = json.dumps(about)
    with kept.whole() as stream:
        recorded = json.dumps({**about, "identity": kept.identity})
        pq.write_table(history.replace_schema_metadata({METADATA_KEY: recorded}), stream)
    with kept.refusals():
        with kept.own.writing("curves.png") as stream:
            draw_curves(history, about["training"]["metrics"]["kept_epoch"] - 1, stream)
        with kept.own.writing("split.csv") as stream:
            training.images.write_split(stream, out.parent)
        kept.own.write("metrics.json", f"{json.dumps(about['training'], indent=2)}\n".encode())
        tensors = {name: value.contiguous() for name, value in weights.items()}
        kept.own.write(out.name, save(tensors, {METADATA_KEY.decode(): metadata}))
        # What cannot be read back is not worth keeping.
        transform_input = recipe.preprocess.transform_input
        load_network(kept.folder / out.name, recipe.architecture, transform_input=transform_input)
        for ending in ENDINGS[:-1]:
            kept.own.move_out(ending, beside(out, ending))
        kept.own.move_out(out.name, out)
    kept.finish()
