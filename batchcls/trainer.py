"""A network learns from labelled images, by Lightning."""

import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from batchcls.epochs import LAST, BestEpoch, WholeFiles
from batchcls.errors import InterruptedRunError, TrainingError
from batchcls.examples import Examples, augmented_transform, batches, shuffled_batches
from batchcls.records import Preprocess
from batchcls.transforms import Transform, input_transform

Balance = Literal["none", "weights", "sampling"]
Schedule = Literal["cosine", "plateau"]

_AUXILIARY_WEIGHT = 0.3
"""Of each auxiliary head's loss. Source: Szegedy et al., Going deeper with convolutions, 2014."""
_AVERAGED_EPOCHS = 2
"""The weights that are judged and kept are a running mean over about so many."""
_LOSS_IN_RANK = 1e-3


@dataclass(frozen=True, slots=True)
class Course:
    """How a network is trained; none of it changes what the engine has to do."""

    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 1e-3
    """Of Adam, at its highest."""
    weight_decay: float = 1e-4
    schedule: Schedule = "cosine"
    patience: int = 15
    """Epochs without a better macro F1 of the validation images, after which it ends."""
    balance: Balance = "none"
    flips: bool = True
    turns: bool = True
    stain: float = 1.0
    """Flips, turns and stain: see `augmented_transform`."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    seed: int = 0


def seed_everything(seed: int) -> None:
    """Of all that is random: initial weights, order, augmentation."""
    _hush()
    lightning.seed_everything(seed, workers=True, verbose=False)


def fit(
    network: nn.Module,
    parts: tuple[Examples, Examples],
    preprocess: Preprocess,
    course: Course,
    folder: Path,
    *,
    classes: int,
    device: str,
    precision: str,
    console: Console,
    told: Callable[[dict[str, float]], None],
) -> None:
    """Train ``network``, or go on with what stands in ``folder``, until its last and best epoch stand there.

    Args:
        parts: What it learns from, and what it is judged by after each epoch.
        device: ``cpu`` or ``cuda:N``.
        precision: ``bf16`` or ``fp32``.
        told: Takes epoch, loss and accuracy of each epoch, as soon as it is over.

    Raises:
        TrainingError: If the loss stops being a number, or an image cannot be read any more.
        InterruptedRunError: After SIGINT or SIGTERM.
    """
    train, val = parts
    learner = _Learner(network, course, train.weights(classes) if course.balance == "weights" else None, classes)
    trainer = _trainer(course, folder, -(-len(train.files) // course.batch_size), device, precision, console, told)
    augmented = augmented_transform(preprocess, flips=course.flips, turns=course.turns, stain=course.stain)
    last = folder / LAST
    with _interruptions(trainer, folder):
        trainer.fit(
            learner,
            shuffled_batches(train, augmented, course.batch_size, classes if course.balance == "sampling" else 0),
            batches(val, input_transform(preprocess)),
            ckpt_path=last if last.exists() else None,
            weights_only=True,  # a checkpoint is a pickle, and might not be ours
        )


def probabilities(network: nn.Module, examples: Examples, transform: Transform, device: str) -> npt.NDArray[np.float32]:
    """(N, classes), of the network in eval mode and full precision."""
    network = network.eval().to(device).to(memory_format=torch.channels_last)
    answers = []
    with torch.inference_mode():
        for images, _ in batches(examples, transform):
            images = images.to(device, memory_format=torch.channels_last)
            answers.append(network(images).float().softmax(1).cpu().numpy())
    return np.concatenate(answers)


def _trainer(
    course: Course,
    folder: Path,
    steps: int,
    device: str,
    precision: str,
    console: Console,
    told: Callable[[dict[str, float]], None],
) -> lightning.Trainer:
    """Lightning's, of ``steps`` an epoch."""
    callbacks: list[Callback] = [
        WeightAveraging(avg_fn=_running_mean(_AVERAGED_EPOCHS * steps)),
        BestEpoch(folder, "val_rank"),
        # After the best, of which it holds the state.
        ModelCheckpoint(folder, Path(LAST).stem, enable_version_counter=False),
        EarlyStopping("val_rank", mode="max", patience=course.patience),
        _Telling(told),
    ]
    if console.is_terminal:
        callbacks.append(RichProgressBar(leave=False, console_kwargs={"stderr": True}))
    return lightning.Trainer(
        accelerator="gpu" if device.startswith("cuda") else "cpu",
        devices=[int(device.partition(":")[2] or 0)] if device.startswith("cuda") else 1,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        max_epochs=course.epochs,
        callbacks=callbacks,
        plugins=[WholeFiles()],
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=console.is_terminal,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


class _Learner(lightning.LightningModule):
    def __init__(self, network: nn.Module, course: Course, class_weights: Tensor | None, classes: int) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self._course = course
        self._class_weights = class_weights
        # Two metrics each: those of one part must not see the other's images.
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_f1 = MulticlassF1Score(classes, average="macro")

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        images, targets = batch
        outputs = self.network(images.contiguous(memory_format=torch.channels_last))
        main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = main_loss = self._loss(main, targets)
        for logits in auxiliary:
            loss = loss + _AUXILIARY_WEIGHT * self._loss(logits, targets)
        self._check_finite("loss", loss)
        self.train_accuracy(main, targets)
        self.log("train_loss", main_loss, on_step=False, on_epoch=True, batch_size=len(images))
        self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        images, targets = batch
        logits = self.network(images.contiguous(memory_format=torch.channels_last)).float()
        self.val_accuracy(logits, targets)
        self.val_f1(logits, targets)
        self.log("val_loss", self._loss(logits, targets), batch_size=len(images))
        self.log("val_accuracy", self.val_accuracy)
        self.log("val_f1", self.val_f1)

    def on_validation_epoch_end(self) -> None:
        # Few images leave many epochs with almost one F1: of those, the one that is surest of what is right.
        loss = self.trainer.callback_metrics["val_loss"]
        self._check_finite("validation loss", loss)
        self.log("val_rank", self.val_f1.compute() - _LOSS_IN_RANK * loss.clamp(max=1))

    def configure_optimizers(self) -> Any:
        course = self._course
        optimizer = torch.optim.Adam(self.parameters(), course.learning_rate, weight_decay=course.weight_decay)
        if course.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.3, max(1, course.patience // 3))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_f1"}}
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, course.epochs, course.learning_rate / 100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine}}

    def _check_finite(self, what: str, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the {what} became {loss.item()} in epoch {self.current_epoch + 1}; "
                f"try a smaller --learning-rate than {self._course.learning_rate:g}, or --precision fp32"
            )

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = None if self._class_weights is None else self._class_weights.to(logits.device)
        return functional.cross_entropy(logits.float(), targets, weights)


class _Telling(Callback):
    """Says how each epoch went, and ends the training on SIGTERM, which Lightning would put off to the epoch's end."""

    def __init__(self, told: Callable[[dict[str, float]], None]) -> None:
        self._told = told
        self._rate = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, learner: lightning.LightningModule) -> None:
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer: lightning.Trainer, *of_the_batch: Any) -> None:
        if trainer.received_sigterm:
            raise SystemExit

    def on_train_epoch_end(self, trainer: lightning.Trainer, learner: lightning.LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name != "val_rank"}
        self._told({"epoch": float(trainer.current_epoch), "learning_rate": self._rate, **values})


@contextmanager
def _interruptions(trainer: lightning.Trainer, folder: Path) -> Iterator[None]:
    """Lightning ends the whole program on a signal; here the program says how to go on."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's advice on workers, loggers and folders
            yield
    except SystemExit as end:
        number = signal.SIGTERM if trainer.received_sigterm else signal.SIGINT
        raise InterruptedRunError(
            f"stopped by {number.name}; finished epochs are in {folder}; to go on, run the same command again", number
        ) from end


def _running_mean(steps: int) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """How a weight is averaged over about so many steps, and over fewer while there are few: the first mean nothing."""

    def averaged(mean: Tensor, weight: Tensor, before: Tensor | int) -> Tensor:
        share = 1 / min(steps, 1 + int(before) / 4)
        return mean + (weight - mean) * share

    return averaged


def _hush() -> None:
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
