"""Running means of weights, which trainings keep beside the weights: under a key, by a prefix, or without names."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

_AVERAGED = re.compile(r"(^|[._])(ema|swa|averag(?:ed?|ing)|avg|shadow)([._]|$)|^(ema|swa)|_(ema|swa)$")
"""Keys, or beginnings of tensor names, of running means of the weights."""
_STATISTICS = re.compile(r"(^|\.)(running_mean|running_var|num_batches_tracked)$")
"""Names of tensors that are no parameters, and that most means of weights therefore lack."""

Sets = Mapping[str, Mapping[str, Tensor]]
"""Tensors by name, for each set of weights by its key."""


def is_averaged(key: str) -> bool:
    """Whether a key is usual for running means of weights."""
    return bool(_AVERAGED.search(key))


def without_means(key: str, tensors: Mapping[str, Tensor]) -> dict[str, Mapping[str, Tensor]]:
    """A set of weights, divided in two if it also contains a running mean of the weights, such as ``ema.*``."""
    averaged = {name: tensor for name, tensor in tensors.items() if is_averaged(name.partition(".")[0])}
    plain = {name: tensor for name, tensor in tensors.items() if name not in averaged}
    if not averaged or 2 * len(averaged) <= len(plain) or 2 * len(plain) <= len(averaged):
        return {key: tensors}
    first = next(iter(averaged)).partition(".")[0]
    return {key: plain, ".".join(filter(None, (key, first))): averaged}


def size(tensors: Mapping[str, Tensor]) -> int:
    """Number of the parameters of a set of weights, without statistics of batch normalizations."""
    return sum(not _STATISTICS.search(name) for name in tensors)


def with_statistics(sets: Sets) -> dict[str, Mapping[str, Tensor]]:
    """The sets, of which each mean that lacks only statistics takes those of the plain weights."""
    plain = [tensors for key, tensors in sets.items() if not is_averaged(key)]
    completed: dict[str, Mapping[str, Tensor]] = {}
    for key, tensors in sets.items():
        completed[key] = tensors
        for others in plain if is_averaged(key) else ():
            lacking = others.keys() - tensors.keys()
            if tensors.keys() <= others.keys() and all(map(_STATISTICS.search, lacking)):
                completed[key] = {name: tensors.get(name, tensor) for name, tensor in others.items()}
    return completed


def named_means(means: Sequence[Tensor], sets: Sets) -> dict[str, Tensor]:
    """Means of parameters in their order, as ``shadow_params`` are, by the names of the plain weights that they fit.

    Returns:
        Tensors by name; empty if no set of plain weights has parameters of these shapes in this order.
    """
    for key, tensors in sets.items():
        names = [name for name in tensors if not _STATISTICS.search(name)]
        if not is_averaged(key) and [tensors[name].shape for name in names] == [mean.shape for mean in means]:
            return dict(zip(names, means, strict=True))
    return {}
