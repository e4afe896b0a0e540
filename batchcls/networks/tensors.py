"""The weights in a trained file, which is read without running any code from it."""

import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from batchcls.errors import CheckpointError
from batchcls.networks.unpickling_stand_ins import STAND_INS
from batchcls.storage.regular_file import IrregularError, check_regular, readable_name

_AUXILIARY = re.compile(r"(^|\.)(aux1|aux2|AuxLogits)\.")
"""Names of the tensors of auxiliary heads, which only training uses."""
_USUAL_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights", "module")
"""Usual keys of the trained weights in a file, the most common first."""
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?|avg|shadow)([._]|$)|^(ema|swa)|_(ema|swa)$")
"""Keys, or beginnings of tensor names, of running means of the weights."""
_TRAINING = re.compile(r"optim|sched|scaler|callback|loop|criterion|loss|hook|rng", re.IGNORECASE)
"""Keys of mappings that hold tensors of the training, such as the optimizer's, and no network."""
_DEEPEST = 4
"""Largest depth of nested mappings in which weights are looked for."""
_LARGEST_EXPANSION = 4
"""Largest ratio of the bytes of all tensors to those of the file.

Tensors may share their storage, as tied weights do, but a much larger ratio is an attempt to exhaust the memory.
"""
_MOST_NAMED = 4
"""Largest number of keys that an error names."""

_UNREADABLE = (
    UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
)
"""Errors that PyTorch's restricted unpickler raises for damaged or foreign files."""


@dataclass(frozen=True, slots=True)
class TrainedTensors:
    """The weights chosen from a trained file, with the file's other contents."""

    tensors: Mapping[str, Tensor]
    """Chosen weights by name, on the CPU, without auxiliary heads."""
    weights_key: str
    """Keys, joined by dots, under which the file holds the weights; empty: the weights are at the top of the file."""
    other_weights_keys: tuple[str, ...]
    """Keys of other weights in the file that could be chosen instead."""
    contents: Mapping[Any, Any]
    """Everything in a file of PyTorch's, with stand-ins for its objects; for safetensors, the file's metadata."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by name; see `read_trained_tensors`."""
    return dict(read_trained_tensors(path).tensors)


def read_trained_tensors(path: Path, weights: str = "") -> TrainedTensors:
    """The weights in a checkpoint, with its other contents.

    Args:
        path: File saved by PyTorch, or a .safetensors file.
        weights: Selection among several sets of weights: a key, keys joined by dots, or the beginning of the tensors'
            names. Empty: the set under the most usual key, which is no running mean.

    Raises:
        CheckpointError: If the file is damaged, cannot be read without running code from it, or does not hold exactly
            one set of weights that fits ``weights``.
    """
    try:
        check_regular(path)
    except (OSError, IrregularError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from error
    values = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    sets = _sets_of_weights(path, values)
    if weights and not _matching(sets, weights):
        sets |= _beginning_with(sets, weights)
    name = _choose(path, sets, weights)
    tensors = {key: tensor for key, tensor in sets[name].items() if not _AUXILIARY.search(key)}
    if unusable := next((key for key, tensor in tensors.items() if not _is_plain(tensor)), None):
        raise CheckpointError(
            f"{str(path)!r} holds {unusable!r} as a quantized, sparse, complex or empty tensor; export the network "
            "instead: torch.onnx.export(...), then batchcls build model.onnx"
        )
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in sets[name].values())
    if claimed > _LARGEST_EXPANSION * path.stat().st_size:
        raise CheckpointError(f"{str(path)!r} has {path.stat().st_size:,} bytes but claims {claimed:,} of weights")
    contents = _metadata(path) if path.suffix == ".safetensors" else values
    return TrainedTensors(tensors, name, tuple(other for other in sets if other != name), contents)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_complex() or tensor.is_meta)


def _sets_of_weights(path: Path, values: Mapping[Any, Any]) -> dict[str, dict[str, Tensor]]:
    """The sets of weights in a file by their keys, joined by dots; sets much smaller than the largest are left out."""
    candidates = {".".join(keys): tensors for keys, tensors in _mappings_of_tensors(values, ())}
    most = max(map(len, candidates.values()), default=0)
    sets = {name: tensors for name, tensors in candidates.items() if 2 * len(tensors) > most}
    if not sets:
        held = ", ".join(map(repr, list(values)[:_MOST_NAMED])) or "nothing"
        raise CheckpointError(
            f"{str(path)!r} holds no weights where they are looked for (it holds {held}); {_save_hint(path)}"
        )
    return {key: tensors for name, mixed in sets.items() for key, tensors in _without_means(name, mixed).items()}


def _mappings_of_tensors(
    values: Mapping[Any, Any], keys: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """The keys and the tensors of ``values`` and of each mapping below that holds tensors, the optimizer's excepted."""
    tensors = {name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield keys, tensors
    if len(keys) == _DEEPEST:
        return
    for name, value in values.items():
        if isinstance(name, str) and isinstance(value, Mapping) and not _TRAINING.search(name):
            yield from _mappings_of_tensors(value, (*keys, name))


def _without_means(name: str, tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A set of weights, divided in two if it also contains a running mean of the weights, such as ``ema.*``."""
    averaged = {key: tensor for key, tensor in tensors.items() if _AVERAGED.search(key.partition(".")[0])}
    plain = {key: tensor for key, tensor in tensors.items() if key not in averaged}
    if not averaged or 2 * len(averaged) <= len(plain) or 2 * len(plain) <= len(averaged):
        return {name: tensors}
    first = next(iter(averaged)).partition(".")[0]
    return {name: plain, ".".join(filter(None, (name, first))): averaged}


def _choose(path: Path, sets: Mapping[str, Mapping[str, Tensor]], weights: str) -> str:
    if weights:
        if len(fitting := _matching(sets, weights)) != 1:
            raise CheckpointError(f"{str(path)!r} holds no weights under {weights!r}; --state-dict takes {_listed(sets)}")
        return fitting[0]
    plain = [name for name in sets if not _AVERAGED.search(name)] or list(sets)
    usual = sorted(plain, key=lambda name: (_usualness(name), name.count(".")))
    if len(plain) > 1 and _usualness(usual[0]) == _usualness(usual[1]):
        raise CheckpointError(f"{str(path)!r} holds several sets of weights; choose one: --state-dict {_listed(plain)}")
    return usual[0]


def _matching(sets: Iterable[str], weights: str) -> list[str]:
    """The name that equals ``weights``; if there is none, the names that contain the keys of ``weights`` in a row."""
    keys = weights.strip(".")
    return [name for name in sets if name == keys] or [name for name in sets if f".{keys}." in f".{name}."]


def _beginning_with(sets: Mapping[str, dict[str, Tensor]], weights: str) -> dict[str, dict[str, Tensor]]:
    """The tensors whose names begin with ``weights``, as a set of that name; empty unless all are in one set."""
    start = weights.strip(".") + "."
    named = [{key: tensor for key, tensor in tensors.items() if key.startswith(start)} for tensors in sets.values()]
    subsets = [tensors for tensors in named if tensors]
    return {start.strip("."): subsets[0]} if len(subsets) == 1 else {}


def _usualness(name: str) -> int:
    """Sort key of a set's name: its first key's place among the usual ones; the top of a file comes first."""
    first = name.partition(".")[0]
    return -1 if not name else _USUAL_KEYS.index(first) if first in _USUAL_KEYS else len(_USUAL_KEYS)


def _listed(sets: Iterable[str]) -> str:
    return " or ".join(sorted(name for name in sets if name)) or "none: there is one set alone"


def _metadata(path: Path) -> Mapping[Any, Any]:
    with readable_name(path) as name, safe_open(name, "pt") as file:
        return dict(file.metadata() or {})


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        with readable_name(path) as name:
            return load_file(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read as safetensors: {error}") from error


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inflated = sum(entry.file_size for entry in archive.infolist())
            if inflated > _LARGEST_EXPANSION * path.stat().st_size:
                raise CheckpointError(f"{str(path)!r} would inflate to {inflated:,} bytes; PyTorch never compresses")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files that PyTorch warns about are either read correctly or refused
            with torch.serialization.safe_globals(list(STAND_INS)):
                values = torch.load(path, map_location="cpu", weights_only=True)
    except (*_UNREADABLE, zipfile.BadZipFile) as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        if forbidden:
            reason = f"holds a pickled {forbidden[1]}, and batchcls never runs code from a file"
        elif "TorchScript" in str(error):
            reason = "is a TorchScript archive, which is code"
        else:
            first = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
            reason = f"is damaged, or no checkpoint ({first})"
        raise CheckpointError(f"{str(path)!r} {reason}; {_save_hint(path)}") from error
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{str(path)!r} holds a {type(values).__name__}; {_save_hint(path)}")
    return values


def _save_hint(path: Path) -> str:
    return f"in training, run: torch.save(model.state_dict(), {path.name!r})"
