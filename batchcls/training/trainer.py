"""A network learns from labelled images, by Lightning."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

import lightning
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from rich.console import Console
from torch import Tensor, nn

from batchcls.errors import InterruptedRunError
from batchcls.interrupts import Interrupt
from batchcls.networks.transforms import Transform, input_transform
from batchcls.records import Preprocess
from batchcls.training.checkpoints import LAST, BestEpoch, WholeFiles
from batchcls.training.loading import Examples, augmented_transform, batches, shuffled_batches
from batchcls.training.module import ClassifierModule, TrainingConfig

_AVERAGED_EPOCHS = 2
"""The weights that are judged and kept are a running mean over about so many."""
_GRACE_S = 10.0
"""For a step on a large network; whatever is newer than the last epoch is lost anyway."""


def seed_everything(seed: int) -> None:
    """Of all that is random: initial weights, order, augmentation."""
    _hush()
    lightning.seed_everything(seed, workers=True, verbose=False)


def train_epochs(
    network: nn.Module,
    parts: tuple[Examples, Examples],
    preprocess: Preprocess,
    course: TrainingConfig,
    folder: Path,
    stop: Interrupt,
    *,
    device: str,
    console: Console,
    told: Callable[[dict[str, float]], None],
) -> None:
    """Train ``network``, or go on with what stands in ``folder``, until its last and best epoch stand there.

    Args:
        parts: What it learns from, and what it is judged by after each epoch.
        device: ``cpu`` or ``cuda:N``.
        told: Takes epoch, loss and accuracy of each epoch, as soon as it is over.

    Raises:
        TrainingError: If the loss stops being a number, or an image cannot be read any more.
        SystemExit: After ``stop`` was asked for.
    """
    train, val = parts
    learner = ClassifierModule(network, course, train.weights if course.balance == "weights" else None, train.classes)
    augmented = augmented_transform(preprocess, flips=course.flips, turns=course.turns, stain=course.stain)
    last = folder / LAST
    callbacks = [
        *_callbacks(course, folder, -(-len(train.files) // course.batch_size)),
        _Telling(told),
        _Stopping(stop),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers, loggers and folders
        _trainer(course, folder, callbacks, device, console).fit(
            learner,
            shuffled_batches(train, augmented, course.batch_size, balanced=course.balance == "sampling"),
            batches(val, input_transform(preprocess)),
            ckpt_path=last if last.exists() else None,
            weights_only=True,  # a checkpoint is a pickle, and might not be ours
        )


def probabilities(
    network: nn.Module, examples: Examples, transform: Transform, device: str, stop: Interrupt
) -> npt.NDArray[np.float32]:
    """(N, classes), of the network in eval mode and full precision."""
    network = network.eval().to(device).to(memory_format=torch.channels_last)
    answers = []
    with torch.inference_mode():
        for images, _ in stop.between(batches(examples, transform)):
            images = images.to(device, memory_format=torch.channels_last)
            answers.append(network(images).float().softmax(1).cpu().numpy())
    return np.concatenate(answers)


def _trainer(
    course: TrainingConfig, folder: Path, callbacks: list[Callback], device: str, console: Console
) -> lightning.Trainer:
    if console.is_terminal:
        callbacks = [*callbacks, _Bar()]
    return lightning.Trainer(
        accelerator="gpu" if device.startswith("cuda") else "cpu",
        devices=[int(device.partition(":")[2] or 0)] if device.startswith("cuda") else 1,
        precision="bf16-mixed" if course.precision == "bf16" else "32-true",
        max_epochs=course.epochs,
        callbacks=callbacks,
        plugins=[WholeFiles()],
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=console.is_terminal,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


def _callbacks(course: TrainingConfig, folder: Path, steps: int) -> list[Callback]:
    """What is kept of epochs of so many ``steps``, and when the last one was."""
    return [
        WeightAveraging(multi_avg_fn=_running_mean(_AVERAGED_EPOCHS * steps)),
        BestEpoch(folder, "val_rank"),
        # After the best, of which it holds the state.
        ModelCheckpoint(folder, Path(LAST).stem, enable_version_counter=False),
        EarlyStopping("val_rank", mode="max", patience=course.patience),
    ]


class _Bar(RichProgressBar):
    """Of the epoch that goes on, counted from 1 as everywhere else."""

    def __init__(self) -> None:
        # It draws on rich's one global console, and a line that is printed there stands above it.
        super().__init__(leave=False, console_kwargs={"stderr": True, "soft_wrap": True})

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1} of {self.trainer.max_epochs}"


class _Telling(Callback):
    """Says how each epoch went."""

    def __init__(self, told: Callable[[dict[str, float]], None]) -> None:
        self._told = told
        self._rate = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, learner: lightning.LightningModule) -> None:
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: lightning.Trainer, learner: lightning.LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name != "val_rank"}
        self._told({"epoch": float(trainer.current_epoch), "learning_rate": self._rate, **values})


class _Stopping(Callback):
    """Ends the training between two batches: an interrupt that is raised anywhere may be lost in some destructor."""

    def __init__(self, stop: Interrupt) -> None:
        self._stop = stop

    def on_train_batch_end(self, trainer: lightning.Trainer, *of_the_batch: Any) -> None:
        self._stop.look()

    def on_validation_batch_end(self, trainer: lightning.Trainer, *of_the_batch: Any) -> None:
        self._stop.look()


@contextmanager
def interruptions(folder: Path, console: Console) -> Iterator[Interrupt]:
    """Has SIGINT, SIGTERM and SIGHUP noted, for Lightning would end the whole program, and says how to go on.

    Args:
        folder: Where finished epochs are.
        console: Where the last word goes.

    Raises:
        InterruptedRunError: Where something was raised inside after such a signal.
    """
    stop = Interrupt(cast(TextIO, console.file), _GRACE_S)
    try:
        with stop.listening():
            yield stop
    except (SystemExit, Exception) as end:  # the latter where those who load images were told to end as well
        if stop.signal is None:
            raise
        there = (folder / LAST).exists()
        kept = f"finished epochs are in {folder}; to go on" if there else "no epoch was over; to begin again"
        raise InterruptedRunError(
            f"stopped by {stop.signal.name}; {kept}, run the same command again",
            stop.signal,
        ) from end


def _running_mean(steps: int) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]:
    """How weights are averaged over about so many steps, and over fewer while there are few: the first mean nothing."""

    def average(means: Sequence[Tensor], weights: Sequence[Tensor], before: Tensor) -> None:
        share = 1 / min(steps, 1 + int(before) / 4)
        for mean, weight in zip(means, weights, strict=True):
            if mean.is_floating_point():
                mean.lerp_(weight, share)  # in place: AlexNet's weights are 230 MB, and so would be what is in between
            else:
                mean.copy_(weight)  # batch normalisation counts its batches

    return average


def _hush() -> None:
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
