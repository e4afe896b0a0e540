"""The metrics of each epoch of a training: recorded after the epoch, read back, and drawn."""

from time import perf_counter
from typing import BinaryIO

import pyarrow as pa
from matplotlib.figure import Figure
from rich.console import Console

from batchcls.errors import TrainingError
from batchcls.storage.resumable_output import ResumableOutput

_FIGURES = ("learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_f1")
HISTORY_SCHEMA = pa.schema([(name, pa.float64()) for name in ("epoch", *_FIGURES, "elapsed_s")])
"""Columns of a history, which has one row per epoch; the first epoch is 0."""

_TRAIN_COLOR, _VAL_COLOR = "#0072b2", "#d55e00"
"""Blue and vermilion of Okabe and Ito's palette, which color-blind readers can tell apart."""


class HistoryRecorder:
    """Stores and prints the metrics of each epoch.

    Args:
        output: Unfinished output with the columns of `HISTORY_SCHEMA`, to which a row per epoch is appended.
        epochs: Largest number of epochs, for the printed line.
        console: Console that the lines are printed to.
    """

    def __init__(self, output: ResumableOutput, epochs: int, console: Console) -> None:
        self._output, self._epochs, self._console = output, epochs, console
        self._epoch_began = perf_counter()

    def record(self, figures: dict[str, float]) -> None:
        """Store and print an epoch that has just ended.

        Args:
            figures: Metrics by the names of `HISTORY_SCHEMA`, all but ``elapsed_s``.
        """
        now = perf_counter()
        row = {**figures, "elapsed_s": now - self._epoch_began}
        self._epoch_began = now
        self._output.append([pa.RecordBatch.from_pylist([row], HISTORY_SCHEMA)])
        self._console.print(
            f"epoch {row['epoch'] + 1:.0f} of {self._epochs}: loss {row['train_loss']:.4f}, validation loss "
            f"{row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}, macro F1 {row['val_f1']:.4f}, "
            f"{row['elapsed_s']:.0f} s",
            highlight=False,
        )


def read_history(output: ResumableOutput) -> pa.Table:
    """The recorded epochs in order, one row each, with the columns of `HISTORY_SCHEMA`.

    If an epoch was trained again after a kill, its row is that of the last time.

    Raises:
        TrainingError: If no epoch is recorded.
    """
    rows = {row["epoch"]: row for row in output.table().to_pylist()}
    if not rows:
        raise TrainingError("no epoch was trained; --epochs must be at least 1")
    return pa.Table.from_pylist([rows[epoch] for epoch in sorted(rows)], HISTORY_SCHEMA)


def draw_history(history: pa.Table, kept_epoch: int, stream: BinaryIO) -> None:
    """Write the curves of loss and accuracy over the epochs as PNG.

    Args:
        history: One row per epoch, with the columns of `HISTORY_SCHEMA`.
        kept_epoch: Number, from 0, of the epoch whose weights are in the checkpoint.
        stream: Binary stream that the PNG is written to.
    """
    values = {name: history[name].to_numpy() for name in history.column_names}
    epochs = values["epoch"] + 1
    figure = Figure(figsize=(10, 3.8), dpi=120, layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, values[f"train_{name}"], color=_TRAIN_COLOR, label="training")
        axes.plot(epochs, values[f"val_{name}"], color=_VAL_COLOR, label="validation")
        if name == "accuracy":
            axes.plot(epochs, values["val_f1"], color=_VAL_COLOR, linestyle=":", label="validation, macro F1")
        axes.axvline(kept_epoch + 1, color="grey", linewidth=0.8, label=f"kept: epoch {kept_epoch + 1}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.grid(alpha=0.25)
        axes.legend()
    figure.savefig(stream, format="png")
