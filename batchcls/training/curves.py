"""How a training went, drawn."""

from typing import BinaryIO

import pyarrow as pa
from matplotlib.figure import Figure

_TRAIN, _VAL = "#0072b2", "#d55e00"
"""Of Okabe and Ito's palette, which the colour-blind can tell apart."""


def draw_curves(history: pa.Table, kept_epoch: int, stream: BinaryIO) -> None:
    """Write loss and accuracy by epoch as PNG.

    Args:
        history: By epoch, the columns ``epoch``, ``train_loss``, ``val_loss``, ``train_accuracy``, ``val_accuracy``
            and ``val_f1``.
        kept_epoch: From 0.
    """
    values = {name: history[name].to_numpy() for name in history.column_names}
    epochs = values["epoch"] + 1
    figure = Figure(figsize=(10, 3.8), dpi=120, layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, values[f"train_{name}"], color=_TRAIN, label="training")
        axes.plot(epochs, values[f"val_{name}"], color=_VAL, label="validation")
        if name == "accuracy":
            axes.plot(epochs, values["val_f1"], color=_VAL, linestyle=":", label="validation, macro F1")
        axes.axvline(kept_epoch + 1, color="grey", linewidth=0.8, label=f"kept: epoch {kept_epoch + 1}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.grid(alpha=0.25)
        axes.legend()
    figure.savefig(stream, format="png")
