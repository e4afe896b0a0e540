"""Train a network on labeled images, and write a checkpoint from which alone `batchcls build` makes an engine."""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
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
from batchcls.storage.resumable_output import ResumableOutput
from batchcls.training.checkpoints import FINISHED_MARK, LAST_CHECKPOINT, read_best_epoch
from batchcls.training.dataset import SplitDataset
from batchcls.training.held_out import held_out_metrics
from batchcls.training.history import HISTORY_SCHEMA, HistoryRecorder, draw_history, read_history
from batchcls.training.novelty import learned_novelty
from batchcls.training.options import TrainOptions
from batchcls.training.output_files import (
    CURVES_ENDING,
    ENDINGS_BESIDE_HISTORY,
    HISTORY_ENDING,
    METRICS_ENDING,
    SPLIT_ENDING,
    check_output,
    completed_metrics,
    files_beside_rows,
    output_path,
)
from batchcls.training.setup import (
    InitialWeights,
    choose_arithmetic,
    default_learning_rate,
    fresh_network,
    load_initial_weights,
    ordered_labels,
    starting_recipe,
)
from batchcls.training.trainer import TrainingRun, interruptible, seed_everything, train_epochs


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The checkpoint of a finished training, and its metrics."""

    checkpoint: Path
    metrics: dict[str, Any]
    """Metrics, as written to the JSON file beside the checkpoint."""


def train_network(data: Path, out: Path, options: TrainOptions, console: Console) -> TrainResult:
    """Train a network and write its checkpoint, with its history, curves, metrics and split beside it.

    Until all files are complete, a folder beside ``out`` holds the last epoch, from which another call with the same
    arguments continues.

    Args:
        data: A folder of class folders, or a table; see `LabeledImages.read`.
        out: Path of the checkpoint, a .safetensors file.
        options: Network, splits, device and course of the training.
        console: Console that progress is printed to.

    Raises:
        LabelsError: If the images cannot be split by the options.
        RecipeError: If the architecture is not known, or the recipe does not fit it or the images.
        CheckpointError: If the initial weights cannot be read or fetched, or do not fit.
        TrainingError: If the loss is no longer a finite number, or an image can no longer be read.
        OutputError: If ``out`` may not, or cannot, be written.
    """
    check_output(out, data, options.overwrite)
    recipe = starting_recipe(options.recipe, options.recipe_values, options.initial_weights)
    (device,) = machine.resolve_devices(options.device, alternative="train on --device cpu")
    config = replace(options.config, precision=choose_arithmetic(options.config.precision, device))
    images = SplitDataset.read(data, options.split, console)
    recipe = recipe.with_values({"labels": ordered_labels(recipe.labels, images.labels)})
    seed_everything(config.seed)
    network = fresh_network(recipe)
    config = replace(config, learning_rate=config.learning_rate or default_learning_rate(network))
    initial = load_initial_weights(network, recipe, options.initial_weights)
    options = replace(options, config=config)
    identity = _identity(images, recipe, options)
    if not options.overwrite and (metrics := completed_metrics(out, identity)) is not None:
        console.print(f"{out} is whole already: every epoch is done", markup=False, highlight=False)
        return TrainResult(out, metrics)
    output = ResumableOutput(output_path(out, HISTORY_ENDING), HISTORY_SCHEMA, identity, others=files_beside_rows(out))
    with closing(output):
        begun = (output.folder / LAST_CHECKPOINT).exists()
        beginning = f"going on with {output.folder}" if begun else _initial_weights_line(initial, recipe, images)
        console.print(beginning, markup=False, highlight=False)
        training = _PreparedTraining(images, recipe, options, output, device, console)
        try:
            return _train(training, network, out)
        except BaseException:  # other options, which need a fresh folder, may mend whatever ended the training
            if not (output.folder / LAST_CHECKPOINT).exists():
                output.discard()  # nothing is lost
            raise


@dataclass(frozen=True, slots=True)
class _PreparedTraining:
    """A training whose options and images have all been checked."""

    images: SplitDataset
    recipe: Recipe
    options: TrainOptions
    output: ResumableOutput
    device: str
    console: Console


def _identity(images: SplitDataset, recipe: Recipe, options: TrainOptions) -> dict[str, Any]:
    """Images and options, as JSON values, that must be equal for one training to continue another."""
    return {
        "images": images.digest,
        "parting": options.split.as_recorded(),
        "recipe": asdict(recipe),
        "weights": options.initial_weights,
        "course": asdict(options.config),
    }


def _initial_weights_line(initial: InitialWeights, recipe: Recipe, images: SplitDataset) -> str:
    """The line to print on the initial weights, with a warning if they may have seen held-out images."""
    if not initial.source:
        return f"{recipe.architecture} from scratch"
    head = "" if initial.last_layer else ", but for the last layer"
    counts = f"{initial.loaded:,} of {initial.tensors:,} tensors"
    line = f"{recipe.architecture} from {initial.source}{head}: {counts}"
    if initial.learned_from not in ("", images.digest):
        line += (
            f"; {initial.source} learned from other images, or from these in other splits: it may know some that "
            "validate or test here, and their accuracy would be too good"
        )
    return line


def _train(training: _PreparedTraining, network: nn.Module, out: Path) -> TrainResult:
    images, recipe, output = training.images, training.recipe, training.output
    split = "test" if images.splits["test"].slides else "val"
    train, held_out = images.splits["train"], images.splits[split]
    with interruptible(output.folder, training.console) as interrupt:
        _train_remaining_epochs(training, network, interrupt)
        history = read_history(output)
        weights, epoch = read_best_epoch(output.folder)
        network.load_state_dict(weights)
        training.console.print(f"classifying the {split} images, as they are and in other colors", highlight=False)
        figures = held_out_metrics(network, train, held_out, recipe.preprocess, training.device, interrupt)
        training.console.print("learning what the images look like, for novelty", highlight=False)
        novelty, notes = learned_novelty(network, images.splits, recipe, training.device, interrupt)
        for note in notes:
            training.console.print(note, markup=False, highlight=False, soft_wrap=True)
    metrics = {
        "parts": {name: len(examples.slides) for name, examples in images.splits.items()},
        "epochs": len(history),
        "kept_epoch": epoch + 1,
        "training_s": round(sum(history["elapsed_s"].to_pylist()), 1),
        "device": training.device,
        "classes_without_images": [
            label for label, row in zip(recipe.labels, figures["confusion"], strict=True) if not any(row)
        ],
        split: figures,
    }
    metadata = {**_metadata(training, metrics), **({"novelty": novelty} if novelty else {})}
    _write(training, out, weights, metadata, history)
    return TrainResult(out, metrics)


def _train_remaining_epochs(training: _PreparedTraining, network: nn.Module, interrupt: Interrupt) -> None:
    images, config, output = training.images, training.options.config, training.output
    if (output.folder / FINISHED_MARK).exists():
        return
    # A continued training must not repeat the order and augmentations of its first epochs.
    seed_everything((config.seed + output.table().num_rows) % 2**32)
    run = TrainingRun(
        network=network,
        train=images.splits["train"],
        val=images.splits["val"],
        preprocess=training.recipe.preprocess,
        config=config,
        folder=output.folder,
        device=training.device,
        on_epoch=HistoryRecorder(output, config.epochs, training.console).record,
        interrupt=interrupt,
        console=training.console,
    )
    with output.output_errors():
        train_epochs(run)
        output.own.mark(FINISHED_MARK)


def _metadata(training: _PreparedTraining, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a checkpoint: the recipe of its engine, and images, options and metrics of the training."""
    recipe, options = training.recipe, training.options
    return {
        "recipe": {
            **asdict(recipe.preprocess),
            **{key: getattr(recipe, key) for key in ("architecture", "labels", "precision", "temperature")},
        },
        "training": {
            "images": training.images.digest,
            "weights": options.initial_weights or "from scratch",
            "parting": options.split.as_recorded(),
            "course": asdict(options.config),
            "metrics": metrics,
            "versions": machine.versions(),
            "started": training.output.started,
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def _write(
    training: _PreparedTraining,
    out: Path,
    weights: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    history: pa.Table,
) -> None:
    """Write every file whole; last the history takes its place and the folder of the unfinished training is removed."""
    output, recipe = training.output, training.recipe
    with output.whole() as stream:
        recorded = json.dumps({**metadata, "novelty": None, "identity": output.identity})
        pq.write_table(history.replace_schema_metadata({METADATA_KEY: recorded}), stream)
    with output.output_errors():
        with output.own.writing(CURVES_ENDING) as stream:
            draw_history(history, metadata["training"]["metrics"]["kept_epoch"] - 1, stream)
        with output.own.writing(SPLIT_ENDING) as stream:
            training.images.write_split(stream, out.parent)
        output.own.write(METRICS_ENDING, f"{json.dumps(metadata['training'], indent=2)}\n".encode())
        tensors = {name: value.contiguous() for name, value in weights.items()}
        output.own.write(out.name, save(tensors, {METADATA_KEY.decode(): json.dumps(metadata)}))
        # A checkpoint that cannot be read back is not worth keeping.
        transform_input = recipe.preprocess.transform_input
        load_network(output.folder / out.name, recipe.architecture, transform_input=transform_input)
        for ending in ENDINGS_BESIDE_HISTORY:
            output.own.move_out(ending, output_path(out, ending))
        output.own.move_out(out.name, out)
    output.finish()
