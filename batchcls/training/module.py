"""A classifier as a Lightning module: its loss, metrics and optimizer."""

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from batchcls.errors import TrainingError
from batchcls.training.options import TrainingConfig

_AUXILIARY_WEIGHT = 0.3
"""Weight of each auxiliary head's loss. Source: Szegedy et al., Going deeper with convolutions, 2014."""
_LOSS_IN_RANK = 1e-3
"""Weight of the validation loss beside macro F1 when epochs are ranked."""


class ClassifierModule(lightning.LightningModule):
    """Trains a classifier and logs each epoch's metrics; the epoch with the highest ``val_rank`` is the best.

    Args:
        network: Takes (N, 3, H, W) float32 and answers (N, classes) logits; in training it may answer a tuple of these
            and the logits of each auxiliary head.
        config: Options of the training, with a learning rate.
        class_weights: (classes,) float32 weights in the loss; None: all classes weigh the same.
        classes: Number of classes.
    """

    def __init__(self, network: nn.Module, config: TrainingConfig, class_weights: Tensor | None, classes: int) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # weights are stored as ``network.*``
        self._config = config
        self._class_weights = class_weights
        # Training and validation each have their own accuracy: a shared one would count the other's images.
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
        # With few images, many epochs have almost the same F1; among these the smallest loss decides.
        loss = self.trainer.callback_metrics["val_loss"]
        self._check_finite("validation loss", loss)
        self.log("val_rank", self.val_f1.compute() - _LOSS_IN_RANK * loss.clamp(max=1))

    def configure_optimizers(self) -> Any:
        config = self._config
        # Fused, a step of AlexNet's takes a tenth of the time.
        optimizer = torch.optim.Adam(
            self.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        if config.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.3, max(1, config.patience // 3))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_f1"}}
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs, config.learning_rate / 100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine}}

    def _check_finite(self, name: str, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the {name} became {loss.item()} in epoch {self.current_epoch + 1}; "
                f"try a smaller --learning-rate than {self._config.learning_rate:g}, or --precision fp32"
            )

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = None if self._class_weights is None else self._class_weights.to(logits.device)
        return functional.cross_entropy(logits.float(), targets, weights)
