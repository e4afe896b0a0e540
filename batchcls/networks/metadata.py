"""What a checkpoint of `batchcls train` says of itself, in its metadata."""

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
    """All empty of a file that something else wrote."""

    recipe: Mapping[str, Any] = field(default_factory=dict)
    """By the keys of a recipe."""
    images: str = ""
    """SHA-256 of the training images and of their split; empty if not recorded; see `SplitDataset.digest`."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read it from a .safetensors file; any other file has none.

        Raises:
            CheckpointError: If it says something that is not understood.
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
            if not isinstance(recipe, dict) or not isinstance(images, str):
                raise TypeError("its recipe is no object, or its images no text")
        except (SafetensorError, OSError, IrregularError) as error:
            raise CheckpointError(f"{str(path)!r} cannot be read as safetensors: {error}") from error
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"the metadata of {str(path)!r} is not that of batchcls train: {error}") from error
        return cls(recipe, images)
