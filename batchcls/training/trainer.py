"""The epochs of a training, run by Lightning."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from batchcls.networks.preprocess import Preprocess
from batchcls.networks.transforms import Transform, input_transform
from batchcls.training.augmentations import augmented_transform
from batchcls.training.checkpoints import LAST_CHECKPOINT, BestEpoch, WholeFileIO
from batchcls.training.loading import Examples, ordered_batches, shuffled_batches
from batchcls.training.module import ClassifierModule
from batchcls.training.options import TrainingConfig

_AVERAGED_EPOCHS = 2
"""Approximate number of latest epochs over which weights are averaged before they are validated and stored."""
_GRACE_S = 10.0
"""Time after a signal for the current step to end; steps since the last epoch are lost in any case."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Everything that `train_epochs` needs."""

    network: nn.Module
    """Network that takes (N, 3, H, W) float32 and answers logits, see `ClassifierModule`; its weights are changed."""
    train: Examples
    """Images that the network learns from."""
    val: Examples
    """Images that the network is validated with after each epoch."""
    preprocess: Preprocess
    config: TrainingConfig
    """Options with a learning rate above 0, and a precision other than ``auto``."""
    folder: Path
    """Folder of the checkpoints `LAST_CHECKPOINT` and `BEST_CHECKPOINT`."""
    device: str
    """``cpu`` or ``cuda:N``."""
    on_epoch: Callable[[dict[str, float]], None]
    """Function that receives the metrics of each epoch at its end, as `history.HistoryRecorder.record` does."""
    interrupt: Interrupt
    console: Console


def seed_everything(seed: int) -> None:
    """Seed all random choices of a training: initial weights, order of the images, augmentations."""
    _silence_lightning()
    lightning.seed_everything(seed, workers=True, verbose=False)


def train_epochs(training: TrainingRun) -> None:
    """Train a network until all epochs are over, starting after the last epoch whose checkpoint is in its folder.

    Afterwards the folder holds the checkpoints of the last and the best epoch.

    Raises:
        TrainingError: If the loss is no longer a finite number, or an image can no longer be read.
        SystemExit: If ``training.interrupt`` received a signal.
    """
    config, train = training.config, training.train
    module = ClassifierModule(
        training.network, config, train.class_weights if config.balance == "weights" else None, train.classes
    )
    augmented = augmented_transform(training.preprocess, flips=config.flips, turns=config.turns, stain=config.stain)
    last = training.folder / LAST_CHECKPOINT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers, loggers and folders
        _trainer(training).fit(
            module,
            shuffled_batches(train, augmented, config.batch_size, balanced=config.balance == "sampling"),
            ordered_batches(training.val, input_transform(training.preprocess)),
            ckpt_path=last if last.exists() else None,
            weights_only=True,  # a checkpoint is a pickle, which could run code if another user wrote it
        )


def probabilities(
    network: nn.Module, examples: Examples, transform: Transform, device: str, interrupt: Interrupt
) -> npt.NDArray[np.float32]:
    """(images, classes) float32 probabilities that a network answers in eval mode, computed in float32, on the host.

    Args:
        network: Takes (N, 3, H, W) float32; is moved to ``device`` and stays there.
        transform: From a Pillow image to the network's input, (3, H, W) float32.
        device: ``cpu`` or ``cuda:N``.
    """
    network = network.eval().to(device).to(memory_format=torch.channels_last)
    answers = []
    with torch.inference_mode():
        for images, _ in interrupt.checked(ordered_batches(examples, transform)):
            images = images.to(device, memory_format=torch.channels_last)
            answers.append(network(images).float().softmax(1).cpu().numpy())
    return np.concatenate(answers)


def _trainer(training: TrainingRun) -> lightning.Trainer:
    config, device = training.config, training.device
    return lightning.Trainer(
        accelerator="gpu" if device.startswith("cuda") else "cpu",
        devices=[int(device.partition(":")[2] or 0)] if device.startswith("cuda") else 1,
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        max_epochs=config.epochs,
        callbacks=_callbacks(training),
        plugins=[WholeFileIO()],
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=training.console.is_terminal,
        num_sanity_val_steps=0,
        default_root_dir=training.folder,
    )


def _callbacks(training: TrainingRun) -> list[Callback]:
    config, folder = training.config, training.folder
    steps_per_epoch = -(-len(training.train.slides) // config.batch_size)
    callbacks: list[Callback] = [
        WeightAveraging(multi_avg_fn=_running_mean(_AVERAGED_EPOCHS * steps_per_epoch)),
        BestEpoch(folder, "val_rank"),
        # After BestEpoch, whose state this checkpoint stores.
        ModelCheckpoint(folder, Path(LAST_CHECKPOINT).stem, enable_version_counter=False),
        EarlyStopping("val_rank", mode="max", patience=config.patience),
        _EpochReporter(training.on_epoch),
        _InterruptCheck(training.interrupt),
    ]
    return [*callbacks, _EpochProgressBar()] if training.console.is_terminal else callbacks


class _EpochProgressBar(RichProgressBar):
    """Progress bar of the current epoch, with epochs numbered from 1 as in all printed lines."""

    def __init__(self) -> None:
        # The bar draws on rich's one global console, so that a line printed there stands above it.
        super().__init__(leave=False, console_kwargs={"stderr": True, "soft_wrap": True})

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1} of {self.trainer.max_epochs}"


class _EpochReporter(Callback):
    """Calls a function with the metrics of each epoch."""

    def __init__(self, on_epoch: Callable[[dict[str, float]], None]) -> None:
        self._on_epoch = on_epoch
        self._learning_rate = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items() if name != "val_rank"}
        self._on_epoch({"epoch": float(trainer.current_epoch), "learning_rate": self._learning_rate, **figures})


class _InterruptCheck(Callback):
    """Ends the training between two batches after a signal; an exception in a signal handler could get lost."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt

    def on_train_batch_end(self, trainer: lightning.Trainer, *of_the_batch: Any) -> None:
        self._interrupt.check()

    def on_validation_batch_end(self, trainer: lightning.Trainer, *of_the_batch: Any) -> None:
        self._interrupt.check()


@contextmanager
def interruptible(folder: Path, console: Console) -> Iterator[Interrupt]:
    """A context in which SIGINT, SIGTERM and SIGHUP end the training with an error that says how to continue.

    Without this context, Lightning would end the whole program at these signals.

    Args:
        folder: Folder of the checkpoints.
        console: Console that a last line is printed to if the training does not end in time.

    Yields:
        The interrupt that records the first signal.

    Raises:
        InterruptedRunError: In place of any exception raised inside the context after such a signal.
    """
    interrupt = Interrupt(cast(TextIO, console.file), _GRACE_S)
    interrupt.answer = "stopping after this batch; finished epochs are kept"
    try:
        with interrupt.listening():
            yield interrupt
    except (SystemExit, Exception) as end:  # Exception: processes that load images may have received the signal too
        if interrupt.signal is None:
            raise
        any_epoch = (folder / LAST_CHECKPOINT).exists()
        remains = f"finished epochs are in {folder}; to go on" if any_epoch else "no epoch was over; to begin again"
        raise InterruptedRunError(
            f"stopped by {interrupt.signal.name}; {remains}, run the same command again",
            interrupt.signal,
        ) from end


def _running_mean(steps: int) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]:
    """A function that updates running means of weights over about the last ``steps`` steps, in place.

    Early in a training the mean is over fewer steps, so that the random first weights soon drop out.
    """

    def update(means: Sequence[Tensor], weights: Sequence[Tensor], steps_before: Tensor) -> None:
        fraction = 1 / min(steps, 1 + int(steps_before) / 4)
        for mean, weight in zip(means, weights, strict=True):
            if mean.is_floating_point():
                mean.lerp_(weight, fraction)  # in place, for a copy of AlexNet's weights would take 230 MB
            else:
                mean.copy_(weight)  # an integer: the number of batches that a batch normalization has seen

    return update


def _silence_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
