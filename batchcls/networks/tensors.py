"""The weights in a trained file, which is read without running any code from it."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batchcls.errors import CheckpointError
from batchcls.networks.averaged_weights import is_averaged, named_means, size, with_statistics, without_means
from batchcls.networks.file_contents import LARGEST_EXPANSION, read_contents, read_metadata
from batchcls.networks.onnx_advice import export_advice
from batchcls.networks.saving_advice import training_advice

_AUXILIARY = re.compile(r"(^|\.)(aux1|aux2|AuxLogits)\.")
"""Names of the tensors of auxiliary heads, which only training uses."""
_USUAL_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights", "module")
"""Usual keys of the trained weights in a file, the most common first."""
_TRAINING = re.compile(r"optim|sched|scaler|loop|criterion|loss|hook|rng", re.IGNORECASE)
"""Keys of mappings that hold tensors of the training, such as the optimizer's, and no network."""
_DEEPEST = 4
"""Largest depth of nested mappings in which weights are looked for."""
_MOST_NAMED = 4
"""Largest number of keys that an error names."""


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
    values = read_contents(path)
    sets = _sets_of_weights(path, values)
    if weights and not _matching(sets, weights):
        sets |= _beginning_with(sets, weights)
    name = _choose(path, sets, weights)
    tensors = {key: tensor for key, tensor in sets[name].items() if not _AUXILIARY.search(key)}
    if unusable := next((key for key, tensor in tensors.items() if not _is_plain(tensor)), None):
        raise CheckpointError(
            f"{str(path)!r} holds {unusable!r} as a quantized, sparse, complex or empty tensor; {export_advice()}"
        )
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in sets[name].values())
    if claimed > LARGEST_EXPANSION * path.stat().st_size:
        raise CheckpointError(f"{str(path)!r} has {path.stat().st_size:,} bytes but claims {claimed:,} of weights")
    contents = read_metadata(path) if path.suffix == ".safetensors" else values
    return TrainedTensors(tensors, name, tuple(other for other in sets if other != name), contents)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_complex() or tensor.is_meta)


def _sets_of_weights(path: Path, values: Mapping[Any, Any]) -> dict[str, Mapping[str, Tensor]]:
    """The sets of weights in a file by their keys, joined by dots; sets much smaller than the largest are left out."""
    candidates = {".".join(keys): tensors for keys, tensors in _mappings_of_tensors(values, ())}
    most = max(map(size, candidates.values()), default=0)
    large = {key: tensors for key, tensors in candidates.items() if most and 2 * size(tensors) > most}
    if not large:
        held = ", ".join(map(repr, list(values)[:_MOST_NAMED])) or "nothing"
        raise CheckpointError(
            f"{str(path)!r} holds no weights where they are looked for (it holds {held}); {training_advice(path)}"
        )
    sets = {key: tensors for name, mixed in large.items() for key, tensors in without_means(name, mixed).items()}
    means = {".".join(keys): named_means(tensors, sets) for keys, tensors in _lists_of_means(values, ())}
    return with_statistics(sets | {key: tensors for key, tensors in means.items() if tensors})


def _mappings_of_tensors(
    values: Mapping[Any, Any], keys: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """The keys and the tensors of ``values`` and of each mapping below that holds tensors, the optimizer's excepted."""
    tensors = {name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield keys, tensors
    for name, value in _mappings_below(values, keys):
        yield from _mappings_of_tensors(value, (*keys, name))


def _lists_of_means(
    values: Mapping[Any, Any], keys: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Sequence[Tensor]]]:
    """The keys and the tensors of each list of tensors without names whose key is one of running means."""
    for name, value in values.items():
        is_mean = isinstance(name, str) and is_averaged(name) and isinstance(value, list | tuple) and len(value) > 0
        if is_mean and all(isinstance(tensor, Tensor) for tensor in value):
            yield (*keys, name), value
    for name, value in _mappings_below(values, keys):
        yield from _lists_of_means(value, (*keys, name))


def _mappings_below(values: Mapping[Any, Any], keys: tuple[str, ...]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The mappings directly inside ``values`` that may hold weights, by their keys; none if they are too deep."""
    for name, value in values.items() if len(keys) < _DEEPEST else ():
        if isinstance(name, str) and isinstance(value, Mapping) and not _TRAINING.search(name):
            yield name, value


def _choose(path: Path, sets: Mapping[str, Mapping[str, Tensor]], weights: str) -> str:
    if weights:
        if len(fitting := _matching(sets, weights)) != 1:
            raise CheckpointError(
                f"{str(path)!r} holds no weights under {weights!r}; --state-dict takes {_listed(sets)}"
            )
        return fitting[0]
    plain = [name for name in sets if not is_averaged(name)] or list(sets)
    usual = sorted(plain, key=lambda name: (_usualness(name), name.count(".")))
    if len(plain) > 1 and _usualness(usual[0]) == _usualness(usual[1]):
        raise CheckpointError(f"{str(path)!r} holds several sets of weights; choose one: --state-dict {_listed(plain)}")
    return usual[0]


def _matching(sets: Iterable[str], weights: str) -> list[str]:
    """The name that equals ``weights``; if there is none, the names that contain the keys of ``weights`` in a row."""
    keys = weights.strip(".")
    return [name for name in sets if name == keys] or [name for name in sets if f".{keys}." in f".{name}."]


def _beginning_with(sets: Mapping[str, Mapping[str, Tensor]], weights: str) -> dict[str, Mapping[str, Tensor]]:
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
