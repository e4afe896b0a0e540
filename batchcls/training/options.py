"""The options of a training, and their defaults."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from batchcls.errors import LabelsError

SplitStrategy = Literal["random", "blocks"]
"""``random``: at random, by a seed. ``blocks``: in each class the first files validate, the last ones test."""
Balance = Literal["none", "weights", "sampling"]
"""How a rare class is made to count more: not at all, by its weight in the loss, or by how often it is drawn."""
Schedule = Literal["cosine", "plateau"]
"""How the learning rate falls: along a cosine over all epochs, or whenever validation stops getting better."""
Arithmetic = Literal["auto", "bf16", "fp32"]
"""What the training computes in: bfloat16 mixed with float32, float32 alone, or the fastest that the device has."""


@dataclass(frozen=True, slots=True)
class SplitFractions:
    """Fractions of the images, 0 to 1, that do not train.

    Raises:
        LabelsError: If they leave too few images to train on, or none to validate with.
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
    """How images are split into training, validation and test where their folders or table do not say it."""

    strategy: SplitStrategy = "random"
    fractions: SplitFractions = field(default_factory=SplitFractions)
    group_by: str = ""
    """Column or pattern of the groups that must not be torn apart; see `LabeledImages.read`."""
    seed: int = 0
    """Seed of the random strategy."""
    split_folders: str = ""
    """Folders that hold a split each; see `LabeledImages.read`."""

    def as_recorded(self) -> dict[str, Any]:
        """These options under the keys that checkpoints and unfinished trainings on disk have for them."""
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
    """Highest learning rate of Adam; 0: the one that suits the network, see `setup.default_learning_rate`."""
    weight_decay: float = 1e-4
    """L2 penalty of Adam."""
    schedule: Schedule = "cosine"
    patience: int = 15
    """Number of epochs without a better macro F1 of the validation images, after which the training ends."""
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
    """Seed of initial weights, order of the images, and augmentations."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """All options of one training but its images and its output."""

    initial_weights: str = ""
    """Path of a trained file to begin with; ``imagenet``: torchvision's weights; empty: random weights."""
    recipe: Path | None = None
    """TOML file of a recipe."""
    recipe_values: Mapping[str, Any] = field(default_factory=dict)
    """Values by the keys of a recipe, which win over the file's. Without an architecture in either: GoogLeNet."""
    split: SplitOptions = field(default_factory=SplitOptions)
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    overwrite: bool = False
    """Whether an existing output may be replaced."""
    config: TrainingConfig = field(default_factory=TrainingConfig)
