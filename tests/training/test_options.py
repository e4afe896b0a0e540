"""What trainings record on disk keeps its names, so that another version goes on with them."""

from dataclasses import asdict
from pathlib import Path

from batchcls.training.checkpoints import BestEpoch
from batchcls.training.options import SplitOptions, TrainingConfig


def test_a_training_begun_by_an_earlier_version_has_the_same_options() -> None:
    assert SplitOptions().as_recorded() == {
        "way": "random",
        "shares": {"val": 0.1, "test": 0.2},
        "group_by": "",
        "seed": 0,
        "split_folders": "",
    }
    assert asdict(TrainingConfig()) == {
        "epochs": 40,
        "batch_size": 32,
        "learning_rate": 0.0,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "patience": 15,
        "balance": "none",
        "flips": True,
        "turns": True,
        "stain": 1.0,
        "precision": "auto",
        "seed": 0,
    }


def test_the_best_epoch_of_an_unfinished_training_is_known_by_an_earlier_versions_key(tmp_path: Path) -> None:
    assert BestEpoch(tmp_path, "val_rank").state_key.startswith("BestEpoch{'monitor': 'val_rank', 'mode': 'max'")
