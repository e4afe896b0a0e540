"""Everything in a trained file, which is read without running any code from it."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from batchcls.errors import CheckpointError
from batchcls.networks.allow_list import STAND_INS, UNREADABLE
from batchcls.networks.foreign_files import foreign_kind, kind_of_folder
from batchcls.networks.saving_advice import saving_advice, training_advice
from batchcls.networks.unpickling_stand_ins import ObjectStandIn
from batchcls.storage.regular_file import IrregularError, check_regular, readable_name

LARGEST_EXPANSION = 4
"""Largest ratio of the bytes of all tensors to those of the file.

Tensors may share their storage, as tied weights do, but a much larger ratio is an attempt to exhaust the memory.
"""


def read_contents(path: Path) -> Mapping[Any, Any]:
    """Everything in a trained file, with stand-ins for its objects; of a safetensors file, its tensors by name.

    Raises:
        CheckpointError: If the file cannot be read without running code from it, is damaged, or is no checkpoint.
    """
    if path.is_dir():
        raise CheckpointError(f"{str(path)!r} {kind_of_folder(path)}")
    try:
        check_regular(path)
        kind = foreign_kind(path)
    except (OSError, IrregularError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from error
    if kind:
        raise CheckpointError(f"{str(path)!r} {kind}")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def read_metadata(path: Path) -> Mapping[Any, Any]:
    """The metadata of a safetensors file, by key."""
    with readable_name(path) as name, safe_open(name, "pt") as file:
        return dict(file.metadata() or {})


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        with readable_name(path) as name:
            return load_file(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read as safetensors: {error}") from error


def _read_torch(path: Path) -> Mapping[Any, Any]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inflated = sum(entry.file_size for entry in archive.infolist())
            if inflated > LARGEST_EXPANSION * path.stat().st_size:
                raise CheckpointError(f"{str(path)!r} would inflate to {inflated:,} bytes; PyTorch never compresses")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files that PyTorch warns about are either read correctly or refused
            with torch.serialization.safe_globals(list(STAND_INS)):
                values = torch.load(path, map_location="cpu", weights_only=True)
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        if forbidden or "persistent_load of storage" in str(error):  # the latter: a module in the old format
            name = forbidden[1] if forbidden else "module"
            raise CheckpointError(
                f"{str(path)!r} holds a pickled {name}, and batchcls never runs code from a file; {saving_advice(path)}"
            ) from error
        first = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise CheckpointError(
            f"{str(path)!r} is damaged, or no checkpoint ({first}); copy or fetch it again, or name the file that the "
            "training saved"
        ) from error
    if not isinstance(values, Mapping):
        kind = "object" if isinstance(values, ObjectStandIn) else type(values).__name__
        raise CheckpointError(f"{str(path)!r} holds one {kind} and no state_dict; {training_advice(path)}")
    return values
