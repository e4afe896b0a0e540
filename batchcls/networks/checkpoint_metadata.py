"""The metadata that `batchcls train` writes into a checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open

from batchcls.errors import CheckpointError
from batchcls.records import METADATA_KEY
from batchcls.storage.regular_file import IrregularError, readable_name


@dataclass(frozen=True, slots=True)
class CheckpointMetadata:
    """Recipe, novelty and images in a checkpoint of `batchcls train`; all are empty for any other file."""

    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Values by the keys of a recipe."""
    novelty: Mapping[str, Any] | None = None
    """Statistics of how the images of the training look; None if there are none."""
    images: str = ""
    """SHA-256 over the pixels, labels and splits of all training, validation and test images; empty if not recorded."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The metadata of a .safetensors file; empty for a file with another ending.

        Raises:
            CheckpointError: If the file cannot be read, or its metadata is not what `batchcls train` writes.
        """
        if path.suffix != ".safetensors":
            return cls()
        try:
            with readable_name(path) as name, safe_open(name, "pt") as file:
                text = (file.metadata() or {}).get(METADATA_KEY.decode())
            if not text:
                return cls()
            values = json.loads(text)
            recipe, images = values["recipe"], values.get("training", {}).get("images", "")
            novelty = values.get("novelty")
            if not isinstance(recipe, dict) or not isinstance(images, str) or not isinstance(novelty, dict | None):
                raise TypeError("its recipe or novelty is no object, or its images no text")
        except (SafetensorError, OSError, IrregularError) as error:
            raise CheckpointError(f"{str(path)!r} cannot be read as safetensors: {error}") from error
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"the metadata of {str(path)!r} is not that of batchcls train: {error}") from error
        return cls(recipe, novelty, images)
