"""The checkpoints of an unfinished training: its last epoch, and its best."""

import os
import shlex
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from batchcls.errors import TrainingError
from batchcls.storage.atomic import whole_file
from batchcls.storage.owned_folder import OwnedFolder

LAST_CHECKPOINT, BEST_CHECKPOINT = "last.ckpt", "best.ckpt"
"""Names of the two checkpoints in the folder of an unfinished training."""
FINISHED_MARK = "trained"
"""Name of the empty file that marks the folder of a training whose last epoch is over."""


class WholeFileIO(TorchCheckpointIO):
    """Writes Lightning's checkpoints whole or not at all.

    Lightning's own class does so by way of /tmp, which may be another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with whole_file(Path(path)) as stream:
            torch.save(checkpoint, stream)

    def remove_checkpoint(self, path: Any) -> None:
        with OwnedFolder(Path(path).parent) as folder:
            folder.remove(Path(path).name)


class BestEpoch(ModelCheckpoint):
    """Keeps the checkpoint of the epoch with the largest ``monitor``, even if the folder has moved between two runs.

    Lightning stores the state of a callback under the name of its class: if this class were renamed, unfinished
    trainings would forget their best epoch.

    Args:
        folder: Folder of the checkpoints.
        monitor: Name of a metric that `ClassifierModule` logs.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(folder, Path(BEST_CHECKPOINT).stem, monitor=monitor, mode="max", enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        path = os.path.join(str(self.dirpath), BEST_CHECKPOINT)
        moved = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
        super().load_state_dict({**state_dict, **moved, "best_k_models": {path: state_dict["best_model_score"]}})


def read_best_epoch(folder: Path) -> tuple[dict[str, Tensor], int]:
    """The weights of the network's best epoch, by name and on the CPU, and the number of that epoch, from 0.

    Raises:
        TrainingError: If the checkpoint cannot be read.
    """
    try:
        checkpoint = torch.load(folder / BEST_CHECKPOINT, map_location="cpu", weights_only=True)
        weights = {name.removeprefix("network."): value for name, value in checkpoint["state_dict"].items()}
        return weights, int(checkpoint["epoch"])
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise TrainingError(
            f"{str(folder / BEST_CHECKPOINT)!r} cannot be read: {error}; start over: rm -r {shlex.quote(str(folder))}"
        ) from error
