"""Read a `.keras` or `.h5` file: its configuration, checked, and a checked copy of its weights."""

import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from batchcls.building.keras.configuration import UnsafeConfigurationError, checked_configuration
from batchcls.building.keras.weights import (
    UNREADABLE,
    UnsafeWeightsError,
    check_weights,
    model_configuration,
    opened,
)
from batchcls.errors import CheckpointError, temporary_files
from batchcls.storage.regular_file import IrregularError, open_regular

_WEIGHTS = "model.weights.h5"
"""Name of the weights in a `.keras` archive, and the ending by which Keras knows their layout."""
_LARGEST_CONFIGURATION = 1 << 25
_LARGEST_EXPANSION = 4
_DAMAGED = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, RuntimeError, EOFError, ValueError)
"""Exceptions that zipfile raises for damaged, encrypted and foreign archives."""
_SAVE = "save the whole network: model.save('model.keras')"


@dataclass(frozen=True, slots=True)
class KerasFile:
    """A Keras file's contents, checked."""

    configuration: dict[str, Any]
    """The network's configuration, which names nothing beyond the allow-list."""
    weights: Path
    """Copy of the weights, HDF5 in the layout that its name's ending tells Keras; it goes with the context."""
    precisions: tuple[str, ...]
    """Types other than float32 that the file says its layers compute in."""


@contextmanager
def opened_keras_file(path: Path) -> Iterator[KerasFile]:
    """A context with the checked contents of the Keras file at ``path``; its copy of the weights goes with it.

    Raises:
        CheckpointError: If the file is damaged, or holds anything that could run code or lead to other files.
        OutputError: If the copy of the weights cannot be written.
    """
    with temporary_files(), TemporaryDirectory() as scratch:
        try:
            stream, status = open_regular(path)
        except (OSError, IrregularError) as error:
            raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from error
        with stream:
            is_archive = zipfile.is_zipfile(stream)
            stream.seek(0)
            copy = Path(scratch) / (_WEIGHTS if is_archive else "model.h5")
            text = _unpack(path, stream, status.st_size, copy) if is_archive else _copy(path, stream, copy)
        values = _parsed(path, text)
        try:
            configuration = checked_configuration(values)
        except UnsafeConfigurationError as error:
            raise CheckpointError(f"{str(path)!r} cannot be built: {error}") from error
        yield KerasFile(configuration, copy, _precisions(text))


def _unpack(path: Path, stream: Any, size_bytes: int, copy: Path) -> str:
    """Write the weights of a `.keras` archive to ``copy``, checked, and return the text of its configuration."""
    try:
        with zipfile.ZipFile(stream) as archive:
            names = archive.namelist()
            if "config.json" not in names or _WEIGHTS not in names:
                raise CheckpointError(f"{str(path)!r} holds no config.json and {_WEIGHTS}; {_SAVE}")
            for name, largest in (("config.json", _LARGEST_CONFIGURATION), (_WEIGHTS, _LARGEST_EXPANSION * size_bytes)):
                if names.count(name) > 1 or archive.getinfo(name).file_size > largest:
                    raise CheckpointError(
                        f"{str(path)!r} has {size_bytes:,} bytes and would inflate to "
                        f"{archive.getinfo(name).file_size:,}, or holds {name!r} twice; {_SAVE}"
                    )
            text = archive.read("config.json").decode("utf-8")
            with archive.open(_WEIGHTS) as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target)
    except _DAMAGED as error:
        raise CheckpointError(f"{str(path)!r} is damaged, or no file of Keras: {error}") from error
    _check_copy(path, copy)
    return text


def _copy(path: Path, stream: Any, copy: Path) -> str:
    """Copy an HDF5 file to ``copy``, check the copy, and return the text of its configuration."""
    with copy.open("wb") as target:
        shutil.copyfileobj(stream, target)
    text = _check_copy(path, copy)
    if text is None:
        raise CheckpointError(f"{str(path)!r} holds weights alone, without the network that they are of; {_SAVE}")
    return text


def _check_copy(path: Path, copy: Path) -> str | None:
    """Check the HDF5 file ``copy``, and return the configuration in its attributes, if there is one."""
    try:
        with closing(opened(copy)) as file:
            check_weights(file, copy.stat().st_size)
            return model_configuration(file)
    except UnsafeWeightsError as error:
        raise CheckpointError(f"{str(path)!r} cannot be built: {error}; {_SAVE}") from error
    except UNREADABLE as error:
        raise CheckpointError(f"{str(path)!r} is damaged, or no file of Keras: {error}") from error


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the configuration in {str(path)!r} is no JSON: {error}") from error


def _precisions(text: str) -> tuple[str, ...]:
    """Types of less than float32 that a configuration names."""
    return tuple(name for name in ("mixed_float16", "mixed_bfloat16") if f'"{name}"' in text)
