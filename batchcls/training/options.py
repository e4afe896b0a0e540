"""The options of a training, and their defaults."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from batchcls.errors import LabelsError

SplitStrategy = Literal["random", "blocks"]
"""Way to assign splits: by a seed, or in blocks, with each class's first files for validation and its last for test."""
Balance = Literal["none", "weights", "sampling"]
"""Compensation for rare classes: none, larger weights in the loss, or drawing their images more often."""
Schedule = Literal["cosine", "plateau"]
"""Decay of the learning rate: along a cosine over all epochs, or whenever validation stops improving."""
Arithmetic = Literal["auto", "bf16", "fp32"]
"""Number type of the training: bfloat16 mixed with float32, float32 alone, or the fastest one of the device."""


@dataclass(frozen=True, slots=True)
class SplitFractions:
    """Fractions of the images, 0 to 1, that are held out for validation and test.

    Raises:
        LabelsError: If the fractions leave less than a tenth of the images for training, or none for validation.
    """

    val: float = 0.1
    """Validation fraction."""
    test: float = 0.2
    """Test fraction; with 0 there is no test split."""

    def __post_init__(self) -> None:
        if not (0 < self.val < 1 and 0 <= self.test < 1 and self.val + self.test <= 0.9):
            raise LabelsError(
                f"--val {self.val} and --test {self.test} leave too little; together 0.9 at most, --val > 0"
            )


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How images are split into training, validation and test, unless folders or a table name the splits."""

    strategy: SplitStrategy = "random"
    fractions: SplitFractions = field(default_factory=SplitFractions)
    group_by: str = ""
    """Column or pattern that names each image's group, which stays in one split; see `LabeledImages.read`."""
    seed: int = 0
    """Seed of the random strategy."""
    split_folders: str = ""
    """Folders that hold a split each; see `LabeledImages.read`."""

    def as_recorded(self) -> dict[str, Any]:
        """These options as JSON values, under the keys used in checkpoints and unfinished trainings on disk."""
        return {
            "way": self.strategy,
            "shares": asdict(self.fractions),
            "group_by": self.group_by,
            "seed": self.seed,
            "split_folders": self.split_folders,
        }


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a network learns: optimizer, epochs and augmentations, none of which an engine has to know.

    Checkpoints and unfinished trainings on disk record it under the names of these fields.
    """

    epochs: int = 40
    """Largest number of epochs."""
    batch_size: int = 32
    """Images per optimizer step."""
    learning_rate: float = 0.0
    """Highest learning rate of Adam; 0: the network's default, see `setup.default_learning_rate`."""
    weight_decay: float = 1e-4
    """L2 penalty of Adam."""
    schedule: Schedule = "cosine"
    patience: int = 15
    """Number of epochs without improvement on the validation images after which the training ends."""
    balance: Balance = "none"
    flips: bool = True
    """Whether images are mirrored at random."""
    turns: bool = True
    """Whether images are turned by right angles at random."""
    stain: float = 1.0
    """Strength of random changes of brightness, contrast, saturation and hue; 0: no change."""
    precision: Arithmetic = "auto"
    """Arithmetic of the training; `setup.choose_arithmetic` replaces ``auto`` before the first step."""
    seed: int = 0
    """Seed of the initial weights, the order of the images, and the augmentations."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """All options of a training except its images and its output."""

    initial_weights: str = ""
    """Path of a trained file to start from; ``imagenet``: torchvision's weights; empty: random weights."""
    recipe: Path | None = None
    """TOML file of a recipe."""
    recipe_values: Mapping[str, Any] = field(default_factory=dict)
    """Values by recipe key that override the recipe file; the default architecture is GoogLeNet."""
    split: SplitOptions = field(default_factory=SplitOptions)
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    overwrite: bool = False
    """Whether an existing output may be replaced."""
    config: TrainingConfig = field(default_factory=TrainingConfig)
