"""What stands on disk of a training that goes on: its last epoch, and its best."""

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
from batchcls.storage.own_folder import OwnFolder

LAST, BEST, DONE = "last.ckpt", "best.ckpt", "trained"
"""The third stands there once no epoch is to come."""


class WholeFiles(TorchCheckpointIO):
    """Writes a file whole or not at all: Lightning's own goes by way of /tmp, which may be another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with whole_file(Path(path)) as stream:
            torch.save(checkpoint, stream)

    def remove_checkpoint(self, path: Any) -> None:
        with OwnFolder(Path(path).parent) as folder:
            folder.remove(Path(path).name)


class BestEpoch(ModelCheckpoint):
    """Keeps the epoch whose ``monitor`` is largest, and knows it again when the folder was moved in between."""

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(folder, Path(BEST).stem, monitor=monitor, mode="max", enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        path = os.path.join(str(self.dirpath), BEST)
        here = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
        super().load_state_dict({**state_dict, **here, "best_k_models": {path: state_dict["best_model_score"]}})


def best_epoch(folder: Path) -> tuple[dict[str, Tensor], int]:
    """The weights of the network in its best epoch, on the CPU, and which that was, from 0.

    Raises:
        TrainingError: If it cannot be read.
    """
    try:
        kept = torch.load(folder / BEST, map_location="cpu", weights_only=True)
        return {name.removeprefix("network."): value for name, value in kept["state_dict"].items()}, int(kept["epoch"])
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise TrainingError(
            f"{str(folder / BEST)!r} cannot be read: {error}; start over: rm -r {shlex.quote(str(folder))}"
        ) from error
