"""What each epoch of a training came to."""

from time import perf_counter

import pyarrow as pa
from rich.console import Console

from batchcls.errors import TrainingError
from batchcls.storage.resumable import ResumableOutput

_LOGGED = ("learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_f1")
EPOCHS = pa.schema([(name, pa.float64()) for name in ("epoch", *_LOGGED, "elapsed_s")])
"""A row each; the first is epoch 0."""


class Teller:
    """Keeps each epoch, and says how it went."""

    def __init__(self, kept: ResumableOutput, epochs: int, console: Console) -> None:
        self._kept, self._epochs, self._console = kept, epochs, console
        self._since = perf_counter()

    def __call__(self, values: dict[str, float]) -> None:
        now = perf_counter()
        row = {**values, "elapsed_s": now - self._since}
        self._since = now
        self._kept.append([pa.RecordBatch.from_pylist([row], EPOCHS)])
        self._console.print(
            f"epoch {row['epoch'] + 1:.0f} of {self._epochs}: loss {row['train_loss']:.4f}, validation loss "
            f"{row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}, macro F1 {row['val_f1']:.4f}, "
            f"{row['elapsed_s']:.0f} s",
            highlight=False,
        )


def history_of(kept: ResumableOutput) -> pa.Table:
    """An epoch a row; one that a kill undid stands there once, as it was done again.

    Raises:
        TrainingError: If there is none.
    """
    rows = {row["epoch"]: row for row in kept.table().to_pylist()}
    if not rows:
        raise TrainingError("no epoch was trained; --epochs must be at least 1")
    return pa.Table.from_pylist([rows[epoch] for epoch in sorted(rows)], EPOCHS)
