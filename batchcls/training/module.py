"""A network with what Lightning needs to train it: losses, figures, optimizer."""

from dataclasses import dataclass
from typing import Any, Literal

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from batchcls.errors import TrainingError

Balance = Literal["none", "weights", "sampling"]
Schedule = Literal["cosine", "plateau"]
Arithmetic = Literal["auto", "bf16", "fp32"]

_AUXILIARY_WEIGHT = 0.3
"""Of each auxiliary head's loss. Source: Szegedy et al., Going deeper with convolutions, 2014."""
_LOSS_IN_RANK = 1e-3


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a network is trained; none of it changes what the engine has to do."""

    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 0.0
    """Of Adam, at its highest; 0: the one that suits the network, see `start.suited_rate`."""
    weight_decay: float = 1e-4
    schedule: Schedule = "cosine"
    patience: int = 15
    """Epochs without a better macro F1 of the validation images, after which it ends."""
    balance: Balance = "none"
    flips: bool = True
    turns: bool = True
    stain: float = 1.0
    """Flips, turns and stain: see `augmented_transform`."""
    precision: Arithmetic = "auto"
    """``auto`` is settled before anything learns, see `start.arithmetic`."""
    seed: int = 0


class ClassifierModule(lightning.LightningModule):
    """Logs the figures of each epoch; ``val_rank`` is higher, the better the epoch.

    Args:
        network: Answers (N, classes) logits, or a tuple that begins with them and ends with its auxiliary heads'.
        class_weights: (classes,) of the loss; None: all alike.
    """

    def __init__(self, network: nn.Module, course: TrainingConfig, class_weights: Tensor | None, classes: int) -> None:
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
        # Fused, a step of AlexNet's takes a tenth of the time.
        optimizer = torch.optim.Adam(
            self.parameters(), course.learning_rate, weight_decay=course.weight_decay, fused=True
        )
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
