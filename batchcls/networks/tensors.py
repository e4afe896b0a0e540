"""The tensors of a trained file; no code from the file is ever run."""

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
from batchcls.networks.stand_ins import STAND_INS
from batchcls.storage.regular_file import IrregularError, check_regular, readable_name

_AUXILIARY = re.compile(r"(^|\.)(aux1|aux2|AuxLogits)\.")
"""Heads that only training uses."""
_USUAL = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights", "module")
"""Keys of the trained weights, the likeliest first, where a file holds others as well."""
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?|avg|shadow)([._]|$)|^(ema|swa)|_(ema|swa)$")
"""Names of running means of the weights, beside the weights themselves."""
_TRAINING = re.compile(r"optim|sched|scaler|callback|loop|criterion|loss|hook|rng", re.IGNORECASE)
"""Names of what holds tensors, and no network."""
_DEEPEST = 4
_LARGEST_EXPANSION = 4
"""Tensors may share their storage, as tied weights do; far more than the file holds is an attack on the memory."""
_SHOWN = 4

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
"""What PyTorch's restricted unpickler raises when its input is not what it should be."""


@dataclass(frozen=True, slots=True)
class TrainedTensors:
    """The tensors of a trained file, and what stands beside them."""

    tensors: Mapping[str, Tensor]
    """By name, without their container; auxiliary heads left out."""
    weights: str
    """Where in the file they stand; empty: at the top, and alone."""
    others: tuple[str, ...]
    """Where other weights stand that could be taken instead."""
    about: Mapping[Any, Any]
    """The whole file as it was read: labels or names of architectures may be in it."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by name; see `read_trained`."""
    return dict(read_trained(path).tensors)


def read_trained(path: Path, weights: str = "") -> TrainedTensors:
    """The weights in a checkpoint, and what stands beside them.

    Args:
        weights: Where they stand, if there are several; a key, keys joined by dots, or what their names begin with.
            Empty: those under the usual key, and not a running mean of them.

    Raises:
        CheckpointError: If the file is damaged, holds something else, several or other weights than asked for, or would
            have to run code to be read.
    """
    try:
        check_regular(path)
    except (OSError, IrregularError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from error
    values = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    sets = _sets(path, values)
    if weights and not _named(sets, weights):
        sets |= _below(sets, weights)
    name = _chosen(path, sets, weights)
    tensors = {key: tensor for key, tensor in sets[name].items() if not _AUXILIARY.search(key)}
    if odd := next((key for key, tensor in tensors.items() if not _is_plain(tensor)), None):
        raise CheckpointError(
            f"{str(path)!r} holds {odd!r} as a quantised, sparse, complex or empty tensor; export the network instead: "
            "torch.onnx.export(...), then batchcls build model.onnx"
        )
    held = sum(tensor.numel() * tensor.element_size() for tensor in sets[name].values())
    if held > _LARGEST_EXPANSION * path.stat().st_size:
        raise CheckpointError(f"{str(path)!r} has {path.stat().st_size:,} bytes but claims {held:,} of weights")
    about = _metadata(path) if path.suffix == ".safetensors" else values
    return TrainedTensors(tensors, name, tuple(other for other in sets if other != name), about)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_complex() or tensor.is_meta)


def _sets(path: Path, values: Mapping[Any, Any]) -> dict[str, dict[str, Tensor]]:
    """Every set of weights in a file, by where it stands; small ones beside a network's are not among them."""
    found = {".".join(keys): tensors for keys, tensors in _mappings(values, ())}
    most = max(map(len, found.values()), default=0)
    sets = {name: tensors for name, tensors in found.items() if 2 * len(tensors) > most}
    if not sets:
        held = ", ".join(map(repr, list(values)[:_SHOWN])) or "nothing"
        raise CheckpointError(
            f"{str(path)!r} holds no weights where they are looked for (it holds {held}); {_save_hint(path)}"
        )
    return {part: tensors for name, whole in sets.items() for part, tensors in _parted(name, whole).items()}


def _mappings(values: Mapping[Any, Any], keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """What of ``values`` holds tensors by name, and where; nothing of the optimizer's."""
    tensors = {name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield keys, tensors
    if len(keys) == _DEEPEST:
        return
    for name, value in values.items():
        if isinstance(name, str) and isinstance(value, Mapping) and not _TRAINING.search(name):
            yield from _mappings(value, (*keys, name))


def _parted(name: str, tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A set of weights, and apart from it a running mean of them whose names only begin otherwise."""
    averaged = {key: tensor for key, tensor in tensors.items() if _AVERAGED.search(key.partition(".")[0])}
    plain = {key: tensor for key, tensor in tensors.items() if key not in averaged}
    if not averaged or 2 * len(averaged) <= len(plain) or 2 * len(plain) <= len(averaged):
        return {name: tensors}
    first = next(iter(averaged)).partition(".")[0]
    return {name: plain, ".".join(filter(None, (name, first))): averaged}


def _chosen(path: Path, sets: Mapping[str, Mapping[str, Tensor]], weights: str) -> str:
    if weights:
        if len(fitting := _named(sets, weights)) != 1:
            raise CheckpointError(f"{str(path)!r} holds no weights under {weights!r}; --weights takes {_listed(sets)}")
        return fitting[0]
    plain = [name for name in sets if not _AVERAGED.search(name)] or list(sets)
    usual = sorted(plain, key=lambda name: (_usualness(name), name.count(".")))
    if len(plain) > 1 and _usualness(usual[0]) == _usualness(usual[1]):
        raise CheckpointError(f"{str(path)!r} holds several sets of weights; choose one: --weights {_listed(plain)}")
    return usual[0]


def _named(sets: Iterable[str], weights: str) -> list[str]:
    """The sets that ``weights`` names, by all of their keys or by some that follow one another."""
    wanted = weights.strip(".")
    return [name for name in sets if name == wanted] or [name for name in sets if f".{wanted}." in f".{name}."]


def _below(sets: Mapping[str, dict[str, Tensor]], weights: str) -> dict[str, dict[str, Tensor]]:
    """The tensors whose names begin with ``weights``, if they are all of one set."""
    start = weights.strip(".") + "."
    below = [{key: tensor for key, tensor in tensors.items() if key.startswith(start)} for tensors in sets.values()]
    parts = [tensors for tensors in below if tensors]
    return {start.strip("."): parts[0]} if len(parts) == 1 else {}


def _usualness(name: str) -> int:
    """The place of its first key among the usual ones; the top of a file comes first."""
    first = name.partition(".")[0]
    return -1 if not name else _USUAL.index(first) if first in _USUAL else len(_USUAL)


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
            warnings.simplefilter("ignore")  # what it warns of it either reads well or refuses
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
